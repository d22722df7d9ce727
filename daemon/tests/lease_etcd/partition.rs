//! Nodes that are cut off for longer than their leases last, and subnets that are set aside for a node.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use weft::cluster::lease_value::LeaseValue;
use weft::cluster::{Layout, SubnetKey};
use weft::lease::{LeaseState, release, spawn};

use crate::etcd::{Etcd, LIMIT, Wire};
use crate::node::{Node, WIDE, assert_nothing_ever_overlapped, flannel, leases, put, request, value};

/// About the shortest that etcd grants.
const SHORT: Duration = Duration::from_secs(2);

/// Waits until the store has no lease.
async fn none_is_left(etcd: &Etcd) {
    let client = etcd.client().await;
    let deadline = Instant::now() + LIMIT;
    while !leases(&client).await.is_empty() {
        assert!(Instant::now() < deadline, "the lease does not expire");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d57_a_node_that_comes_back_after_its_lease_has_expired_leaves_it_to_who_took_it() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    let wire = Wire::to(&etcd).await;
    let away = Node::start_for(wire.store(), "n1", "192.0.2.1", SHORT);
    let key = away.held().await.key;
    // It lives for longer than its time, so it is being renewed.
    let first = leases(&client).await;
    let end = Instant::now() + SHORT + SHORT / 2;
    while Instant::now() < end {
        assert_eq!(leases(&client).await, first);
        sleep(Duration::from_millis(50)).await;
    }

    wire.cut();
    none_is_left(&etcd).await;
    // Cut off, it cannot know; what it runs stays.
    assert!(matches!(&*away.lease.state().borrow(), LeaseState::Held(held) if held.key == key));
    let taker = Node::start(etcd.store(), "n2", "192.0.2.2", Some(key));
    assert_eq!(taker.held().await.key, key);
    let taken = leases(&client).await;

    let mut states = away.lease.state();
    states.mark_unchanged();
    wire.mend();
    let lost = states.wait_for(|state| !matches!(state, LeaseState::Held(held) if held.key == key));
    let lost = timeout(LIMIT, lost).await.expect("it does not notice").unwrap().clone();
    // It says so, unless it has another subnet already.
    if let LeaseState::Lost { previous, reason } = &lost {
        assert_eq!((*previous, reason.contains("another node")), (key, true), "{reason}");
    }
    let other = away.held_with(|held| held.key != key).await.key;
    let stored = leases(&client).await;
    assert_eq!(stored.iter().find(|lease| lease.0 == key.to_string()), taken.first(), "it was written to");
    // What it announces is the new one alone.
    let announced: Vec<&str> =
        stored.iter().filter(|lease| lease.1.contains("192.0.2.1\"")).map(|lease| lease.0.as_str()).collect();
    assert_eq!(announced, [other.to_string()]);
    assert_eq!(taker.held().await.key, key);
    assert_nothing_ever_overlapped(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d57_a_node_that_comes_back_to_a_free_subnet_takes_it_again() {
    let etcd = Etcd::start().await;
    let wire = Wire::to(&etcd).await;
    let node = Node::start_for(wire.store(), "n1", "192.0.2.1", SHORT);
    let key = node.held().await.key;
    wire.cut();
    none_is_left(&etcd).await;
    wire.mend();
    node.snapshot(|snapshot| snapshot.leases.contains_key(&key)).await;
    let deadline = Instant::now() + LIMIT;
    while leases(&etcd.client().await).await.is_empty() {
        assert!(Instant::now() < deadline, "it is not claimed again");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(node.held().await.key, key);
}

/// A reservation is a key without an etcd lease, written by an operator.
#[tokio::test(flavor = "multi_thread")]
async fn d36_a_reservation_is_its_nodes_and_stays_one() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    put(&client, "config", WIDE).await;
    put(&client, "subnets/10.244.7.0-24", r#"{"PublicIP":"192.0.2.1"}"#).await;
    put(&client, "subnets/10.244.9.0-24", r#"{"PublicIP":"192.0.2.9"}"#).await;
    let reserved: SubnetKey = "10.244.7.0-24".parse().unwrap();
    let of = |leases: &[(String, String, i64, i64)]| {
        let lease = leases.iter().find(|lease| lease.0 == reserved.to_string()).expect("it is there").clone();
        (lease.1, lease.3)
    };
    for round in 0..2 {
        let node = Node::start_for(etcd.store(), "n1", "192.0.2.1", SHORT);
        assert_eq!(node.held().await.key, reserved, "round {round}");
        let backend = LeaseValue::parse(flannel("192.0.2.1").as_bytes()).unwrap().backend;
        node.value.send_modify(|value| value.backend = backend.clone());
        node.held_with(|held| held.published.backend == backend).await;
        assert_eq!(of(&leases(&client).await), (flannel("192.0.2.1"), 0), "it hangs on no etcd lease");
        node.lease.stop().await;
    }
    // Nobody else gets it, and to give it back is the operator's.
    let other = Node::start(etcd.store(), "n2", "192.0.2.2", Some(reserved));
    let key = other.held().await.key;
    assert!(!key.overlaps(&reserved) && key.to_string() != "10.244.9.0-24", "{key}");
    let released = release(&etcd.store(), &Layout::default(), &"n1".parse().unwrap(), LIMIT).await.unwrap();
    assert_eq!(released, None);
    assert_eq!(of(&leases(&client).await).1, 0);
}

/// A store that stands still keeps nobody who wants to stop.
#[tokio::test(flavor = "multi_thread")]
async fn d49_keeping_a_lease_ends_at_once_while_the_store_stands_still() {
    let etcd = Etcd::start().await;
    etcd.freeze();
    let value = value("192.0.2.1");
    let lease = spawn(etcd.store(), request("n1", &value, WIDE));
    // The first read is under way.
    sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    lease.stop().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    etcd.thaw();
}
