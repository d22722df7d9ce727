//! The life of a lease: taken, kept, lost, given back, taken again.

use std::collections::BTreeSet;
use std::time::Duration;

use etcd_client::{Txn, TxnOp};
use tokio::time::timeout;
use weft::cluster::{BackendData, Layout, PerFamily, Snapshot};
use weft::lease::{LeaseState, acquire_once, release};
use weft::overlay::backend::VxlanData;

use crate::etcd::{Etcd, LIMIT, Wire, store_at};
use crate::node::{NARROW, Node, PREFIX, WIDE, flannel, leases, put, put_as_flannel, request, value};

#[tokio::test(flavor = "multi_thread")]
async fn d61_out_of_subnets_is_said_and_ends_when_one_is_given_back() {
    let etcd = Etcd::start().await;
    let mut nodes = Vec::new();
    for n in 1..=3 {
        let node = Node::start_with(etcd.store(), &format!("n{n}"), value(&format!("192.0.2.{n}")), None, NARROW);
        node.held().await;
        nodes.push(node);
    }
    let late = Node::start_with(etcd.store(), "late", value("192.0.2.9"), None, NARROW);
    late.state(|state| matches!(state, LeaseState::Acquiring { reason } if reason.contains("out of subnets: 3 of 3")))
        .await;
    let first = nodes.remove(0);
    let given_back = first.held().await.key;
    first.lease.stop().await;
    let released = release(&etcd.store(), &Layout::default(), &"n1".parse().unwrap(), LIMIT).await.unwrap();
    assert_eq!(released, Some(given_back));
    assert_eq!(late.held().await.key, given_back);
    // Giving back what is not there is no error.
    assert_eq!(release(&etcd.store(), &Layout::default(), &"n1".parse().unwrap(), LIMIT).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_deleted_by_hand_is_claimed_again() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let node = Node::start(etcd.store(), "n1", "192.0.2.1", None);
    let key = node.held().await.key;
    let before = leases(&client).await;
    client.delete(format!("{PREFIX}/subnets/{key}"), None).await.unwrap();
    node.snapshot(|snapshot| snapshot.leases.get(&key).is_some_and(|lease| lease.create_revision > before[0].2)).await;
    assert_eq!(node.held().await.key, key);
    assert_eq!(leases(&client).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_record_of_its_lease_comes_back() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let node = Node::start(etcd.store(), "n1", "192.0.2.1", None);
    let key = node.held().await.key;
    let has_record = |snapshot: &Snapshot| snapshot.leases.get(&key).is_some_and(|lease| lease.node.is_some());
    node.snapshot(has_record).await;
    client.delete(format!("{PREFIX}/weft/nodes/n1"), None).await.unwrap();
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let record = client.get(format!("{PREFIX}/weft/nodes/n1"), None).await.unwrap();
        if record.kvs().first().is_some_and(|kv| kv.value_str().unwrap().contains(&key.to_string())) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the record has not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.snapshot(has_record).await;
    assert_eq!(node.held().await.key, key);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_lease_that_is_revoked_is_replaced() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let node = Node::start(etcd.store(), "n1", "192.0.2.1", None);
    let key = node.held().await.key;
    let before = leases(&client).await;
    client.lease_revoke(before[0].3).await.unwrap();
    node.snapshot(|snapshot| snapshot.leases.get(&key).is_some_and(|lease| lease.create_revision > before[0].2)).await;
    let after = leases(&client).await;
    assert_eq!((after.len(), &after[0].0), (1, &key.to_string()));
    assert_ne!(after[0].3, before[0].3);
}

#[tokio::test(flavor = "multi_thread")]
async fn d57_a_subnet_that_another_took_meanwhile_is_left_to_it() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let wire = Wire::to(&etcd).await;
    let node = Node::start(wire.store(), "n1", "192.0.2.1", None);
    let key = node.held().await.key;
    wire.cut();
    let mine = leases(&client).await[0].3;
    client.lease_revoke(mine).await.unwrap();
    put_as_flannel(&client, &key.to_string(), "192.0.2.77").await;
    let mut states = node.lease.state();
    wire.mend();
    let lost =
        timeout(LIMIT, states.wait_for(|state| !matches!(state, LeaseState::Held(held) if held.key == key))).await;
    drop(lost.unwrap().unwrap());
    let held = node.held_with(|held| held.key != key).await;
    let stored = leases(&client).await;
    assert_eq!(stored.len(), 2, "{stored:?}");
    assert!(stored.iter().any(|lease| lease.0 == key.to_string() && lease.1 == flannel("192.0.2.77")), "{stored:?}");
    assert!(
        stored.iter().any(|lease| lease.0 == held.key.to_string() && lease.1.contains("192.0.2.1\"")),
        "{stored:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn d55_a_node_that_starts_again_writes_nothing() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    let data = VxlanData { vni: Some(1), vtep_mac: "c6:d2:32:6f:8f:44".parse().unwrap() };
    let node = Node::start(etcd.store(), "n1", "192.0.2.1", None);
    let key = node.held().await.key;
    let backend: BackendData = PerFamily { v4: Some(data), v6: None }.into();
    node.value.send_modify(|value| value.backend = backend.clone());
    node.held_with(|held| held.published.backend == backend).await;
    let before = leases(&client).await;
    assert_eq!(before[0].1, flannel("192.0.2.1"));
    node.lease.stop().await;

    // It knows nothing yet of the device it is going to make, and must not make its peers forget the one it had.
    let again = Node::start(etcd.store(), "n1", "192.0.2.1", None);
    let held = again.held().await;
    assert_eq!((held.key, held.published.backend), (key, backend));
    assert_eq!(leases(&client).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn d55_a_lease_of_flannel_is_adopted_by_its_address_and_no_other() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    put(&client, "config", WIDE).await;
    let flannels = put_as_flannel(&client, "10.244.7.0-24", "192.0.2.1").await;
    put_as_flannel(&client, "10.244.8.0-24", "192.0.2.2").await;
    let node = Node::start(etcd.store(), "n1", "192.0.2.1", None);
    let held = node.held().await;
    assert_eq!(held.key.to_string(), "10.244.7.0-24");
    assert_eq!(held.published.to_json(), flannel("192.0.2.1"));
    let stored = leases(&client).await;
    assert_eq!(stored.len(), 2);
    assert_ne!(stored[0].3, flannels);
    // A clone of the machine: the same address, another name.
    let clone = Node::start(etcd.store(), "n2", "192.0.2.1", None);
    assert_ne!(clone.held().await.key, held.key);
}

#[tokio::test(flavor = "multi_thread")]
async fn d55_a_wiped_store_gives_each_node_its_subnet_back() {
    let mut etcd = Etcd::start().await;
    let mut nodes = Vec::new();
    let mut keys = Vec::new();
    for n in 1..=5 {
        nodes.push(Node::start(etcd.store(), &format!("n{n}"), &format!("192.0.2.{n}"), None));
    }
    for node in &nodes {
        keys.push(node.held().await.key);
    }
    // One is away during the wipe and comes back with its subnet file; a new one has to leave room for all of them.
    nodes.remove(0).lease.stop().await;
    etcd.wipe().await;
    nodes.push(Node::start(etcd.store(), "new", "192.0.2.99", None));
    nodes.push(Node::start(etcd.store(), "n1", "192.0.2.1", Some(keys[0])));
    for node in &nodes {
        node.snapshot(|snapshot| snapshot.leases.len() == 6).await;
    }
    let stored: BTreeSet<String> = leases(&etcd.client().await).await.into_iter().map(|lease| lease.0).collect();
    assert!(keys.iter().all(|key| stored.contains(&key.to_string())), "{keys:?} {stored:?}");
    for (node, key) in nodes.iter().zip(&keys[1..]) {
        assert_eq!(node.held().await.key, *key);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d58_everything_that_happened_before_a_compaction_is_applied() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    put(&client, "config", WIDE).await;
    for n in 1..=3 {
        put_as_flannel(&client, &format!("10.244.{n}.0-24"), &format!("192.0.2.{n}")).await;
    }
    let wire = Wire::to(&etcd).await;
    let node = Node::start(wire.store(), "n9", "192.0.2.9", None);
    let own = node.held().await.key;
    node.snapshot(|snapshot| snapshot.leases.len() == 4).await;
    wire.cut();
    client.delete(format!("{PREFIX}/subnets/10.244.1.0-24"), None).await.unwrap();
    put_as_flannel(&client, "10.244.2.0-24", "192.0.2.22").await;
    put_as_flannel(&client, "10.244.4.0-24", "192.0.2.4").await;
    let revision = client.get("x", None).await.unwrap().header().unwrap().revision();
    client.compact(revision, None).await.unwrap();
    // While it is cut off, it forgets nobody.
    let known = node.source.snapshots().borrow().clone().unwrap();
    assert_eq!(known.leases.len(), 4);
    wire.mend();
    let snapshot = node.snapshot(|snapshot| snapshot.revision >= revision).await;
    let keys: BTreeSet<String> = snapshot.leases.keys().map(ToString::to_string).collect();
    let expected = ["10.244.2.0-24", "10.244.3.0-24", "10.244.4.0-24", &own.to_string()].map(str::to_owned);
    assert_eq!(keys, BTreeSet::from(expected));
    let moved = &snapshot.leases[&"10.244.2.0-24".parse().unwrap()];
    assert_eq!(moved.public_ips.v4, Some("192.0.2.22".parse().unwrap()));
    assert_eq!(node.held().await.key, own);
}

#[tokio::test(flavor = "multi_thread")]
async fn d58a_garbage_removes_no_peer() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    put(&client, "config", WIDE).await;
    put_as_flannel(&client, "10.244.1.0-24", "192.0.2.1").await;
    let node = Node::start(etcd.store(), "n9", "192.0.2.9", None);
    node.held().await;
    put(&client, "subnets/garbage", "x").await;
    put(&client, "subnets/10.244.9.0-24", "notjson").await;
    put(&client, "subnets/10.244.1.0-25", &flannel("192.0.2.3")).await;
    let mut raw = client.clone();
    raw.put([format!("{PREFIX}/subnets/").as_bytes(), &[0xff, 0xfe]].concat(), [0xff], None).await.unwrap();
    let snapshot = node.snapshot(|snapshot| snapshot.rejected.len() == 4).await;
    assert_eq!(snapshot.leases.len(), 2);
    assert!(snapshot.leases.contains_key(&"10.244.1.0-24".parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn d47_d59_an_outage_removes_nobody_and_ends_nothing() {
    let mut etcd = Etcd::start().await;
    let client = etcd.client().await;
    put(&client, "config", WIDE).await;
    put_as_flannel(&client, "10.244.1.0-24", "192.0.2.1").await;
    let node = Node::start(etcd.store(), "n9", "192.0.2.9", None);
    let key = node.held().await.key;
    let before = node.snapshot(|snapshot| snapshot.leases.len() == 2).await;
    etcd.stop();
    let mut status = node.source.status();
    timeout(LIMIT, status.wait_for(|status| !status.watching && status.error.is_some())).await.unwrap().unwrap();
    assert_eq!(node.source.snapshots().borrow().as_ref(), Some(&before));
    assert!(matches!(&*node.lease.state().borrow(), LeaseState::Held(held) if held.key == key));
    etcd.resume().await;
    put_as_flannel(&client, "10.244.2.0-24", "192.0.2.2").await;
    node.snapshot(|snapshot| snapshot.leases.len() == 3).await;
    timeout(LIMIT, status.wait_for(|status| status.watching && status.error.is_none())).await.unwrap().unwrap();
    assert!(status.borrow().last_list.unwrap().elapsed() < LIMIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_is_reported_and_a_good_one_is_taken_up() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    put(&client, "config", r#"{"Network": "10.244.0.0/16", "SubnetLen": 31}"#).await;
    let node = Node::start(etcd.store(), "n1", "192.0.2.1", None);
    node.state(|state| matches!(state, LeaseState::Acquiring { reason } if reason.contains("SubnetLen is 31"))).await;
    put(&client, "config", r#"{"Network": "10.9.0.0/16"}"#).await;
    let held = node.held().await;
    assert!(held.key.to_string().starts_with("10.9."), "{}", held.key);
    // Changed under a running node it is reported, and the node's pods keep their addresses.
    put(&client, "config", WIDE).await;
    let kept = node.held_with(|held| held.notice.is_some()).await;
    assert_eq!(kept.key, held.key);
}

#[tokio::test(flavor = "multi_thread")]
async fn once_is_enough_for_weft_lease() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    let value = value("192.0.2.1");
    let held = acquire_once(etcd.store(), request("n1", &value, WIDE), LIMIT).await.unwrap();
    let before = leases(&client).await;
    assert_eq!(before[0].1, r#"{"PublicIP":"192.0.2.1","PublicIPv6":null}"#);
    let again = acquire_once(etcd.store(), request("n1", &value, WIDE), LIMIT).await.unwrap();
    assert_eq!(again.key, held.key);
    assert_eq!(leases(&client).await, before);
    // All keys of a node hang on one etcd lease: the record goes when the lease goes.
    let both = client
        .clone()
        .lease_time_to_live(before[0].3, Some(etcd_client::LeaseTimeToLiveOptions::new().with_keys()))
        .await;
    assert_eq!(both.unwrap().keys().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_named() {
    let value = value("192.0.2.1");
    let store = store_at("http://127.0.0.1:1");
    let error = acquire_once(store, request("n1", &value, WIDE), Duration::from_secs(1)).await.unwrap_err().to_string();
    assert!(error.contains("cannot read the store") && error.contains("Connection refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writes_of_one_transaction_arrive_together() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let node = Node::start(etcd.store(), "n9", "192.0.2.9", None);
    node.held().await;
    let record = r#"{"subnet":"10.244.3.0-24","publicIP":"192.0.2.3","publicIPv6":null}"#;
    let writes = vec![
        TxnOp::put(format!("{PREFIX}/subnets/10.244.3.0-24"), flannel("192.0.2.3"), None),
        TxnOp::put(format!("{PREFIX}/weft/nodes/n3"), record, None),
    ];
    let revision = client.txn(Txn::new().and_then(writes)).await.unwrap().header().unwrap().revision();
    let snapshot = node.snapshot(|snapshot| snapshot.revision >= revision).await;
    let lease = &snapshot.leases[&"10.244.3.0-24".parse().unwrap()];
    assert_eq!(lease.node.as_ref().unwrap().as_str(), "n3");
}
