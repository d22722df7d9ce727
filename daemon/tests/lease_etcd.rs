//! Leases and the source against a real etcd. Cases of group E are named by their number.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "these tests take less of it than others do")]
mod etcd;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use etcd::{Etcd, LIMIT, Wire};
use etcd_client::{Client, GetOptions, PutOptions, Txn, TxnOp};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft::cluster::etcd::source;
use weft::cluster::lease_value::LeaseValue;
use weft::cluster::{BackendData, Layout, NetConf, PerFamily, Snapshot, SourceHandle, SubnetKey};
use weft::lease::{Held, LeaseHandle, LeaseRequest, LeaseState, acquire_once, release, spawn};
use weft::overlay::backend::VxlanData;

const PREFIX: &str = "/coreos.com/network";
const WIDE: &str = r#"{"Network": "10.244.0.0/16"}"#;
/// Room for three nodes.
const NARROW: &str = r#"{"Network": "10.244.0.0/28", "SubnetLen": 30}"#;

/// What a node says about itself, and the means to say something else.
fn value(ip: &str) -> watch::Sender<LeaseValue> {
    let public_ips = PerFamily { v4: Some(ip.parse().unwrap()), v6: None };
    watch::Sender::new(LeaseValue { public_ips, backend: BackendData::default() })
}

fn request(name: &str, value: &watch::Sender<LeaseValue>, network: &str) -> LeaseRequest {
    LeaseRequest {
        layout: Layout::default(),
        node: name.parse().unwrap(),
        network: NetConf::parse(network.as_bytes()).unwrap().0,
        previous: None,
        renew_margin: Duration::from_secs(3600),
        value: value.subscribe(),
        snapshots: None,
    }
}

/// A node as the agent runs it: a source and a lease over one client.
struct Node {
    lease: LeaseHandle,
    source: SourceHandle,
    value: watch::Sender<LeaseValue>,
    _stop: tokio_util::sync::DropGuard,
}

impl Node {
    fn start(client: Client, name: &str, ip: &str, previous: Option<SubnetKey>) -> Self {
        Self::start_with(client, name, value(ip), previous, WIDE)
    }

    fn start_with(
        client: Client,
        name: &str,
        value: watch::Sender<LeaseValue>,
        previous: Option<SubnetKey>,
        network: &str,
    ) -> Self {
        let stop = CancellationToken::new();
        let source = source::spawn(client.clone(), Layout::default(), source::RELIST_INTERVAL, stop.clone());
        let request = LeaseRequest { previous, snapshots: Some(source.snapshots()), ..request(name, &value, network) };
        Self { lease: spawn(client, request), source, value, _stop: stop.drop_guard() }
    }

    async fn held(&self) -> Held {
        self.held_with(|_| true).await
    }

    async fn held_with(&self, wanted: impl Fn(&Held) -> bool) -> Held {
        let is = |state: &LeaseState| matches!(state, LeaseState::Held(held) if wanted(held));
        match self.state(is).await {
            LeaseState::Held(held) => held,
            _ => unreachable!(),
        }
    }

    async fn state(&self, wanted: impl Fn(&LeaseState) -> bool) -> LeaseState {
        let mut states = self.lease.state();
        let state = timeout(LIMIT, states.wait_for(wanted)).await;
        state.unwrap_or_else(|_| panic!("still {:?}", *self.lease.state().borrow())).unwrap().clone()
    }

    async fn snapshot(&self, wanted: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut snapshots = self.source.snapshots();
        let found = timeout(LIMIT, snapshots.wait_for(|snapshot| snapshot.as_deref().is_some_and(&wanted))).await;
        found.unwrap_or_else(|_| panic!("still {:?}", *self.source.snapshots().borrow())).unwrap().clone().unwrap()
    }
}

/// Keys under `subnets/`, with value, last revision and etcd lease.
async fn leases(client: &Client) -> Vec<(String, String, i64, i64)> {
    let prefix = format!("{PREFIX}/subnets/");
    let answer = client.clone().get(prefix.as_str(), Some(GetOptions::new().with_prefix())).await.unwrap();
    let lease = |kv: &etcd_client::KeyValue| {
        let key = kv.key_str().unwrap().strip_prefix(&prefix).unwrap().to_owned();
        (key, kv.value_str().unwrap().to_owned(), kv.mod_revision(), kv.lease())
    };
    answer.kvs().iter().map(lease).collect()
}

async fn put(client: &Client, key: &str, value: &str) {
    client.clone().put(format!("{PREFIX}/{key}"), value, None).await.unwrap();
}

/// Writes a lease as flannel does.
async fn put_as_flannel(client: &Client, key: &str, ip: &str) -> i64 {
    let granted = client.clone().lease_grant(86_400, None).await.unwrap().id();
    let options = PutOptions::new().with_lease(granted);
    client.clone().put(format!("{PREFIX}/subnets/{key}"), flannel(ip), Some(options)).await.unwrap();
    granted
}

fn flannel(ip: &str) -> String {
    format!(
        r#"{{"PublicIP":"{ip}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_nodes_at_once_get_thirty_subnets() {
    let etcd = Etcd::start().await;
    let mut nodes = Vec::new();
    for n in 1..=30 {
        nodes.push(Node::start(etcd.client().await, &format!("n{n}"), &format!("192.0.2.{n}"), None));
    }
    let mut keys = BTreeSet::new();
    for node in &nodes {
        keys.insert(node.held().await.key.to_string());
    }
    assert_eq!(keys.len(), 30);
    let stored: BTreeSet<String> = leases(&etcd.client().await).await.into_iter().map(|lease| lease.0).collect();
    assert_eq!(stored, keys);
    let snapshot = nodes[0].snapshot(|snapshot| snapshot.leases.len() == 30).await;
    assert!(snapshot.leases.values().all(|lease| lease.node.is_some()));
    assert!(snapshot.rejected.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn e53_dual_stack_nodes_share_neither_family() {
    const DUAL: &str = r#"{"Network": "10.244.0.0/24", "SubnetLen": 28, "EnableIPv6": true, "IPv6Network": "fd00::/56", "IPv6SubnetLen": 60}"#;
    let etcd = Etcd::start().await;
    let mut nodes = Vec::new();
    for n in 1..=15 {
        let value = value(&format!("192.0.2.{n}"));
        value.send_modify(|value| value.public_ips.v6 = Some(format!("2001:db8::{n}").parse().unwrap()));
        nodes.push(Node::start_with(etcd.client().await, &format!("n{n}"), value, None, DUAL));
    }
    let mut keys: Vec<SubnetKey> = Vec::new();
    for node in &nodes {
        let key = node.held().await.key;
        assert!(keys.iter().all(|other| !other.overlaps(&key)), "{key} of {keys:?}");
        keys.push(key);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e61_out_of_subnets_is_said_and_ends_when_one_is_given_back() {
    let etcd = Etcd::start().await;
    let mut nodes = Vec::new();
    for n in 1..=3 {
        let node =
            Node::start_with(etcd.client().await, &format!("n{n}"), value(&format!("192.0.2.{n}")), None, NARROW);
        node.held().await;
        nodes.push(node);
    }
    let late = Node::start_with(etcd.client().await, "late", value("192.0.2.9"), None, NARROW);
    late.state(|state| matches!(state, LeaseState::Acquiring { reason } if reason.contains("out of subnets: 3 of 3")))
        .await;
    let first = nodes.remove(0);
    let given_back = first.held().await.key;
    first.lease.stop().await;
    let released = release(&etcd.client().await, &Layout::default(), &"n1".parse().unwrap(), LIMIT).await.unwrap();
    assert_eq!(released, Some(given_back));
    assert_eq!(late.held().await.key, given_back);
    // Giving back what is not there is no error.
    assert_eq!(release(&etcd.client().await, &Layout::default(), &"n1".parse().unwrap(), LIMIT).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_deleted_by_hand_is_claimed_again() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let node = Node::start(etcd.client().await, "n1", "192.0.2.1", None);
    let key = node.held().await.key;
    let before = leases(&client).await;
    client.delete(format!("{PREFIX}/subnets/{key}"), None).await.unwrap();
    node.snapshot(|snapshot| snapshot.leases.get(&key).is_some_and(|lease| lease.mod_revision > before[0].2)).await;
    assert_eq!(node.held().await.key, key);
    assert_eq!(leases(&client).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_lease_that_is_revoked_is_replaced() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let node = Node::start(etcd.client().await, "n1", "192.0.2.1", None);
    let key = node.held().await.key;
    let before = leases(&client).await;
    client.lease_revoke(before[0].3).await.unwrap();
    node.snapshot(|snapshot| snapshot.leases.get(&key).is_some_and(|lease| lease.mod_revision > before[0].2)).await;
    let after = leases(&client).await;
    assert_eq!((after.len(), &after[0].0), (1, &key.to_string()));
    assert_ne!(after[0].3, before[0].3);
}

#[tokio::test(flavor = "multi_thread")]
async fn e57_a_subnet_that_another_took_meanwhile_is_left_to_it() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let wire = Wire::to(&etcd).await;
    let node = Node::start(wire.client().await, "n1", "192.0.2.1", None);
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
async fn e55_a_node_that_starts_again_writes_nothing() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    let data = VxlanData { vni: Some(1), vtep_mac: "c6:d2:32:6f:8f:44".parse().unwrap() };
    let node = Node::start(etcd.client().await, "n1", "192.0.2.1", None);
    let key = node.held().await.key;
    let backend: BackendData = PerFamily { v4: Some(data), v6: None }.into();
    node.value.send_modify(|value| value.backend = backend.clone());
    node.held_with(|held| held.published.backend == backend).await;
    let before = leases(&client).await;
    assert_eq!(before[0].1, flannel("192.0.2.1"));
    node.lease.stop().await;

    // It knows nothing yet of the device it is going to make, and must not make its peers forget the one it had.
    let again = Node::start(etcd.client().await, "n1", "192.0.2.1", None);
    let held = again.held().await;
    assert_eq!((held.key, held.published.backend), (key, backend));
    assert_eq!(leases(&client).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn e55_a_lease_of_flannel_is_adopted_by_its_address_and_no_other() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    put(&client, "config", WIDE).await;
    let flannels = put_as_flannel(&client, "10.244.7.0-24", "192.0.2.1").await;
    put_as_flannel(&client, "10.244.8.0-24", "192.0.2.2").await;
    let node = Node::start(etcd.client().await, "n1", "192.0.2.1", None);
    let held = node.held().await;
    assert_eq!(held.key.to_string(), "10.244.7.0-24");
    assert_eq!(held.published.to_json(), flannel("192.0.2.1"));
    let stored = leases(&client).await;
    assert_eq!(stored.len(), 2);
    assert_ne!(stored[0].3, flannels);
    // A clone of the machine: the same address, another name.
    let clone = Node::start(etcd.client().await, "n2", "192.0.2.1", None);
    assert_ne!(clone.held().await.key, held.key);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_store_gives_each_node_its_subnet_back() {
    let mut etcd = Etcd::start().await;
    let mut nodes = Vec::new();
    let mut keys = Vec::new();
    for n in 1..=5 {
        nodes.push(Node::start(etcd.client().await, &format!("n{n}"), &format!("192.0.2.{n}"), None));
    }
    for node in &nodes {
        keys.push(node.held().await.key);
    }
    // One is away during the wipe and comes back with its subnet file; a new one has to leave room for all of them.
    nodes.remove(0).lease.stop().await;
    etcd.wipe().await;
    nodes.push(Node::start(etcd.client().await, "new", "192.0.2.99", None));
    nodes.push(Node::start(etcd.client().await, "n1", "192.0.2.1", Some(keys[0])));
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
async fn e58_everything_that_happened_before_a_compaction_is_applied() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    put(&client, "config", WIDE).await;
    for n in 1..=3 {
        put_as_flannel(&client, &format!("10.244.{n}.0-24"), &format!("192.0.2.{n}")).await;
    }
    let wire = Wire::to(&etcd).await;
    let node = Node::start(wire.client().await, "n9", "192.0.2.9", None);
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
async fn e58a_garbage_removes_no_peer() {
    let etcd = Etcd::start().await;
    let client = etcd.client().await;
    put(&client, "config", WIDE).await;
    put_as_flannel(&client, "10.244.1.0-24", "192.0.2.1").await;
    let node = Node::start(etcd.client().await, "n9", "192.0.2.9", None);
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
async fn d47_e59_an_outage_removes_nobody_and_ends_nothing() {
    let mut etcd = Etcd::start().await;
    let client = etcd.client().await;
    put(&client, "config", WIDE).await;
    put_as_flannel(&client, "10.244.1.0-24", "192.0.2.1").await;
    let node = Node::start(etcd.client().await, "n9", "192.0.2.9", None);
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
    let node = Node::start(etcd.client().await, "n1", "192.0.2.1", None);
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
    let held = acquire_once(etcd.client().await, request("n1", &value, WIDE), LIMIT).await.unwrap();
    let before = leases(&client).await;
    assert_eq!(before[0].1, r#"{"PublicIP":"192.0.2.1","PublicIPv6":null}"#);
    let again = acquire_once(etcd.client().await, request("n1", &value, WIDE), LIMIT).await.unwrap();
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
    let client = etcd::client_of("http://127.0.0.1:1").await;
    let error =
        acquire_once(client, request("n1", &value, WIDE), Duration::from_secs(1)).await.unwrap_err().to_string();
    assert!(error.contains("cannot read the store") && error.contains("Connection refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writes_of_one_transaction_arrive_together() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let node = Node::start(etcd.client().await, "n9", "192.0.2.9", None);
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
