//! SIGTERM: the agent ends at once, whatever its store does, and leaves its data plane.

use std::time::Duration;

use weft_tests::tool;

use crate::etcd::Etcd;
use crate::world::{World, address, in_a_namespace, kernel, put_peer};

/// What the contract allows.
const AT_ONCE: Duration = Duration::from_secs(2);

async fn ends_at_once(world: &mut World, when: &str) {
    let before = kernel();
    let (status, took) = world.terminate().await;
    eprintln!("{when}: ended after {took:?}");
    assert_eq!(status.code(), Some(0), "{when}: {}", world.log());
    assert!(took < AT_ONCE, "{when}: {took:?}\n{}", world.log());
    assert_eq!(kernel(), before, "{when}: the data plane stays");
}

#[test]
fn d49_the_agent_ends_at_once_whatever_etcd_does() {
    in_a_namespace(async || {
        let mut etcd = Etcd::start().await;
        put_peer(&etcd.client().await, 1).await;
        let mut world = World::start(&etcd.options.endpoints[0], &[]);
        world.ready().await;
        world.reaches(&[("10.244.1.0/24", &address(1))]).await;
        ends_at_once(&mut world, "etcd answers").await;

        world.start_agent();
        world.ready().await;
        etcd.stop();
        world.says("/readyz", "[!] store").await;
        ends_at_once(&mut world, "etcd is away").await;

        world.start_agent();
        world.says("/readyz", "[!] store").await;
        ends_at_once(&mut world, "etcd was away from the start").await;

        etcd.resume().await;
        world.start_agent();
        world.ready().await;
        etcd.freeze();
        // The lease is to say something else now: a request that nobody answers is under way.
        for change in ["address flush dev up0", "address add 198.18.0.9/15 dev up0", "route add default dev up0"] {
            tool::call("ip", &change.split(' ').collect::<Vec<_>>()).unwrap();
        }
        world.says("/status", "198.18.0.9").await;
        ends_at_once(&mut world, "etcd stands still").await;

        // Nothing but requests that nobody answers.
        world.start_agent();
        world.says("/readyz", "revision 1").await;
        ends_at_once(&mut world, "etcd stands still from the start").await;
        etcd.thaw();
    });
}

#[test]
fn d49_the_agent_ends_at_once_while_it_waits_for_a_login() {
    in_a_namespace(async || {
        let mut etcd = Etcd::start().await;
        etcd.ask_for_users(&[("weft", "secret", true)]).await;
        etcd.freeze();
        let login = ["--etcd-username", "weft", "--etcd-password", "secret"];
        let mut world = World::start(&etcd.options.endpoints[0], &login);
        world.says("/readyz", "revision 1").await;
        ends_at_once(&mut world, "etcd does not take the user").await;
        etcd.thaw();
    });
}
