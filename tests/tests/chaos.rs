//! Agents killed, links cut, etcd stopped and once its data wiped, all at random.
//!
//! Twenty seconds with six nodes; `make chaos` is ten minutes with twenty. `WEFT_CHAOS_SEED` draws other faults, and the seed
//! that is printed the same ones again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use weft_tests::chaos::{Chaos, Outcome, run};

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn d12_no_two_live_leases_ever_overlap_and_all_reach_each_other_in_the_end() {
    let seconds = number("WEFT_CHAOS_SECONDS", 20);
    let nodes = number("WEFT_CHAOS_NODES", 6).try_into().expect("WEFT_CHAOS_NODES is a number of nodes");
    let seed = number("WEFT_CHAOS_SEED", 12);
    eprintln!("chaos: seed {seed}, {nodes} nodes, {seconds} s");
    let Outcome { steps, looks, calm_after, pairs } =
        run(Chaos { seed, nodes, duration: Duration::from_secs(seconds) })
            .unwrap_or_else(|failure| panic!("{failure}"));
    eprintln!(
        "chaos: {} steps; the store was seen {} times, an agent {} times; then {pairs} pairs reached each other after {calm_after:.1?}",
        steps.len(),
        looks.0,
        looks.1
    );
    // Who has seen nothing has seen no overlap either.
    assert!(looks.0 > 10 && looks.1 > 10 * usize::from(nodes), "seed {seed}: nobody looked: {looks:?}");
    assert_eq!(pairs, usize::from(nodes) * usize::from(nodes - 1));
}
