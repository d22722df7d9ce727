//! The nftables back end of Services against the running kernel, with nft as whoever interferes. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[path = "service_nft/support.rs"]
mod support;

use support::{Plan, fresh, nft, node_options, sh};
use weft::service::nft::{Applied, NftServices};

#[test]
fn a_second_start_writes_nothing() {
    let _netns = fresh();
    let plans = support::mixture(40);
    let mut services = NftServices::open().unwrap();
    let mut first = services.start(plans.clone(), node_options()).unwrap();
    first += services.finish().unwrap();
    assert!(first.elements > 200 && first.failed == 0, "{first:?}");
    println!(
        "{}",
        sh(
            "for c in $(nft list chains inet | sed -n 's/.*chain \\([^ ]*\\) {/\\1/p'); do nft list chain inet weft $c 2>&1 || true; done"
        )
    );
    let listed = nft("list ruleset");
    println!("{listed}");
    let _ = Plan::tcp("x", 1);

    let mut successor = NftServices::open().unwrap();
    let mut second = successor.start(plans, node_options()).unwrap();
    second += successor.finish().unwrap();
    assert_eq!(second, Applied::default());
    assert_eq!(nft("list ruleset"), listed);
    let _ = sh;
}
