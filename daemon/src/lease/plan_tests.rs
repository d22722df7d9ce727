//! Each rule of the order in which a node takes a lease, on views made by hand.

use super::*;
use crate::cluster::lease_value::BackendData;

const CONFIG: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;

fn key(text: &str) -> SubnetKey {
    text.parse().unwrap()
}

fn value(ip: &str) -> LeaseValue {
    LeaseValue { public_ips: PerFamily { v4: Some(ip.parse().unwrap()), v6: None }, backend: BackendData::default() }
}

/// A store with a configuration; leases and records are added at rising revisions.
struct Store(StoreView);

impl Store {
    fn new(config: &str) -> Self {
        let config = Entry { value: config.into(), create_revision: 2, mod_revision: 2, etcd_lease: 0 };
        Self(StoreView { revision: 10, config: Some(config), ..StoreView::default() })
    }

    fn entry(&mut self, value: String, etcd_lease: i64) -> Entry {
        self.0.revision += 1;
        let revision = self.0.revision;
        Entry { value: value.into_bytes(), create_revision: revision, mod_revision: revision, etcd_lease }
    }

    fn lease(mut self, key: &str, ip: &str, etcd_lease: i64) -> Self {
        let entry = self.entry(value(ip).to_json(), etcd_lease);
        self.0.subnets.insert(key.into(), entry);
        self
    }

    fn record(mut self, node: &str, of: &str, ip: &str, etcd_lease: i64) -> Self {
        let record = NodeRecord { key: key(of), public_ips: value(ip).public_ips };
        let entry = self.entry(record.to_json(), etcd_lease);
        self.0.nodes.insert(node.into(), entry);
        self
    }
}

struct Node {
    wanted: LeaseValue,
    running: Option<&'static str>,
    previous: Option<&'static str>,
    etcd_lease: Option<i64>,
    grace_over: bool,
}

/// n1 at 192.0.2.1, with an etcd lease at hand.
fn n1() -> Node {
    Node { wanted: value("192.0.2.1"), running: None, previous: None, etcd_lease: Some(99), grace_over: true }
}

fn ask(store: &Store, node: &Node) -> Plan {
    let asking = Asking {
        layout: &Layout::default(),
        node: &"n1".parse().unwrap(),
        wanted: &node.wanted,
        running: node.running.map(key),
        previous: node.previous.map(key),
        network: CONFIG.as_bytes(),
        etcd_lease: node.etcd_lease,
        grace_over: node.grace_over,
    };
    plan(&store.0, &asking)
}

fn written(plan: Plan) -> (String, Transaction) {
    match plan {
        Plan::Write(key, transaction) => (key.to_string(), transaction),
        other => panic!("{other:?}"),
    }
}

fn deleted(transaction: &Transaction) -> Vec<&str> {
    let mut keys = Vec::new();
    for write in &transaction.writes {
        if let Write::Delete { key } = write {
            keys.push(key.as_str());
        }
    }
    keys
}

#[test]
fn a_store_without_a_configuration_gets_one() {
    let store = Store(StoreView::default());
    let Plan::Configure(transaction) = ask(&store, &n1()) else { panic!() };
    assert_eq!(transaction.unchanged, [("/coreos.com/network/config".to_owned(), 0)]);
}

#[test]
fn a_bad_configuration_is_named() {
    let Plan::Stuck(reason, false) = ask(&Store::new(r#"{"Network": "x"}"#), &n1()) else { panic!() };
    assert!(reason.contains("/coreos.com/network/config") && reason.contains("Network"), "{reason}");
}

#[test]
fn a_lease_that_says_what_it_should_is_held_without_a_write() {
    let store = Store::new(CONFIG).lease("10.244.7.0-24", "192.0.2.1", 5).record("n1", "10.244.7.0-24", "192.0.2.1", 5);
    let Plan::Hold(holding) = ask(&store, &Node { etcd_lease: None, ..n1() }) else { panic!() };
    assert_eq!((holding.key, holding.etcd_lease), (key("10.244.7.0-24"), 5));
    assert_eq!(holding.usage, Usage { used: 1, total: 255 });
}

#[test]
fn the_record_comes_before_everything_else() {
    let store = Store::new(CONFIG)
        .lease("10.244.3.0-24", "192.0.2.1", 4)
        .lease("10.244.7.0-24", "192.0.2.9", 5)
        .record("n1", "10.244.7.0-24", "192.0.2.9", 5);
    let (leased, transaction) = written(ask(&store, &Node { previous: Some("10.244.5.0-24"), ..n1() }));
    assert_eq!(leased, "10.244.7.0-24");
    // The address changed: the same etcd lease, no condition on other nodes' leases.
    assert_eq!(transaction.no_lease_since, None);
    assert!(transaction.writes.iter().all(|write| matches!(write, Write::Put { etcd_lease: 5, .. })));
}

#[test]
fn d55_a_lease_under_my_address_is_adopted_onto_an_etcd_lease_of_mine() {
    let store = Store::new(CONFIG).lease("10.244.3.0-24", "192.0.2.1", 4).lease("10.244.4.0-24", "192.0.2.2", 6);
    assert_eq!(ask(&store, &Node { etcd_lease: None, ..n1() }), Plan::Grant);
    let (leased, transaction) = written(ask(&store, &n1()));
    assert_eq!(leased, "10.244.3.0-24");
    assert!(transaction.writes.iter().all(|write| matches!(write, Write::Put { etcd_lease: 99, .. })));
    // The adoption fails if anyone, such as another node with the same address, has touched it.
    assert!(transaction.unchanged.contains(&("/coreos.com/network/subnets/10.244.3.0-24".to_owned(), 11)));
}

#[test]
fn d55_an_address_does_not_adopt_a_lease_that_another_node_has_recorded() {
    let store = Store::new(CONFIG).lease("10.244.3.0-24", "192.0.2.1", 4).record("n2", "10.244.3.0-24", "192.0.2.1", 4);
    let (leased, _) = written(ask(&store, &n1()));
    assert_ne!(leased, "10.244.3.0-24");
}

#[test]
fn d55_the_subnet_of_an_earlier_life_is_taken_again_unless_it_is_taken() {
    let node = Node { previous: Some("10.244.5.0-24"), grace_over: false, ..n1() };
    assert_eq!(written(ask(&Store::new(CONFIG), &node)).0, "10.244.5.0-24");
    let taken = Store::new(CONFIG).lease("10.244.4.0-23", "192.0.2.2", 4);
    assert_ne!(written(ask(&taken, &node)).0, "10.244.5.0-24");
    let misfit = Node { previous: Some("10.9.5.0-24"), ..n1() };
    assert_ne!(written(ask(&Store::new(CONFIG), &misfit)).0, "10.9.5.0-24");
}

#[test]
fn a_node_that_ran_nothing_leaves_an_empty_store_to_the_others_for_a_while() {
    let waiting = Node { grace_over: false, ..n1() };
    assert_eq!(ask(&Store::new(CONFIG), &waiting), Plan::Grace);
    written(ask(&Store::new(CONFIG), &n1()));
    written(ask(&Store::new(CONFIG).lease("10.244.4.0-24", "192.0.2.2", 4), &waiting));
}

#[test]
fn a_claim_fails_if_any_lease_was_made_since_the_store_was_read() {
    let store = Store::new(CONFIG).lease("10.244.4.0-24", "192.0.2.2", 4);
    let (leased, transaction) = written(ask(&store, &n1()));
    assert_eq!(transaction.no_lease_since, Some(11));
    let conditions: Vec<(&str, i64)> = transaction.unchanged.iter().map(|(key, at)| (key.as_str(), *at)).collect();
    let own = format!("/coreos.com/network/subnets/{leased}");
    assert_eq!(
        conditions,
        [("/coreos.com/network/config", 2), ("/coreos.com/network/weft/nodes/n1", 0), (own.as_str(), 0)]
    );
}

#[test]
fn d57_a_lease_that_another_has_taken_is_not_written_to() {
    // Mine had expired together with its record; n2 then took it. Or flannel wrote over it, and my record still stands.
    let expired =
        Store::new(CONFIG).lease("10.244.7.0-24", "192.0.2.2", 8).record("n2", "10.244.7.0-24", "192.0.2.2", 8);
    let overwritten =
        Store::new(CONFIG).lease("10.244.7.0-24", "192.0.2.2", 8).record("n1", "10.244.7.0-24", "192.0.2.1", 5);
    for store in [expired, overwritten] {
        let (leased, transaction) = written(ask(&store, &Node { running: Some("10.244.7.0-24"), ..n1() }));
        assert_ne!(leased, "10.244.7.0-24");
        assert!(deleted(&transaction).is_empty());
    }
}

#[test]
fn a_lease_deleted_by_hand_is_claimed_again_by_its_node_and_left_alone_by_others() {
    let deleted = Store::new(CONFIG).record("n1", "10.244.7.0-24", "192.0.2.1", 5);
    assert_eq!(written(ask(&deleted, &Node { running: Some("10.244.7.0-24"), ..n1() })).0, "10.244.7.0-24");
    let of_another = Store::new(CONFIG).record("n2", "10.244.7.0-24", "192.0.2.2", 5);
    assert_ne!(written(ask(&of_another, &Node { previous: Some("10.244.7.0-24"), ..n1() })).0, "10.244.7.0-24");
}

#[test]
fn a_lease_that_does_not_fit_is_replaced_at_start_and_kept_while_it_runs() {
    let store = Store::new(CONFIG).lease("10.9.7.0-24", "192.0.2.1", 5).record("n1", "10.9.7.0-24", "192.0.2.1", 5);
    let (_, transaction) = written(ask(&store, &n1()));
    assert_eq!(deleted(&transaction), ["/coreos.com/network/subnets/10.9.7.0-24"]);
    let Plan::Hold(holding) = ask(&store, &Node { running: Some("10.9.7.0-24"), ..n1() }) else { panic!() };
    assert!(holding.notice.unwrap().contains("does not fit"));
}

#[test]
fn d36_a_reservation_stays_one() {
    let store = Store::new(CONFIG).lease("10.244.3.0-24", "192.0.2.1", 0);
    let (leased, transaction) = written(ask(&store, &Node { etcd_lease: None, ..n1() }));
    assert_eq!(leased, "10.244.3.0-24");
    assert!(transaction.writes.iter().all(|write| matches!(write, Write::Put { etcd_lease: 0, .. })));
    // One that does not fit is the operator's to remove, and its addresses are not given out.
    let misfit = Store::new(r#"{"Network": "10.244.0.0/22"}"#).lease("10.244.0.0-22", "192.0.2.1", 0);
    assert!(matches!(ask(&misfit, &n1()), Plan::Stuck(reason, false) if reason.starts_with("out of subnets")));
}

#[test]
fn nothing_to_say_leaves_the_back_end_data_that_is_there() {
    let data = r#"{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#;
    let mut store =
        Store::new(CONFIG).lease("10.244.7.0-24", "192.0.2.1", 5).record("n1", "10.244.7.0-24", "192.0.2.1", 5);
    store.0.subnets.get_mut("10.244.7.0-24").unwrap().value = data.into();
    let Plan::Hold(holding) = ask(&store, &n1()) else { panic!() };
    assert_eq!(holding.published.to_json(), data);
    let moved = Node { wanted: value("192.0.2.8"), ..n1() };
    let (_, transaction) = written(ask(&store, &moved));
    let Write::Put { value, .. } = &transaction.writes[0] else { panic!() };
    assert_eq!(String::from_utf8_lossy(value), data.replace("192.0.2.1", "192.0.2.8"));
}

#[test]
fn d50_a_new_address_keeps_the_data_of_a_back_end_that_is_not_known_here() {
    let data = r#"{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"xyz","BackendData":{"Port":51820,"PublicKey":"x"}}"#;
    let mut store =
        Store::new(CONFIG).lease("10.244.7.0-24", "192.0.2.1", 5).record("n1", "10.244.7.0-24", "192.0.2.1", 5);
    store.0.subnets.get_mut("10.244.7.0-24").unwrap().value = data.into();
    let (_, transaction) = written(ask(&store, &Node { wanted: value("192.0.2.8"), ..n1() }));
    let Write::Put { value, .. } = &transaction.writes[0] else { panic!() };
    assert_eq!(String::from_utf8_lossy(value), data.replace("192.0.2.1", "192.0.2.8"));
}

#[test]
fn d61_out_of_subnets_counts_and_warns_before() {
    let mut store = Store::new(r#"{"Network": "10.244.0.0/22", "SubnetLen": 25}"#);
    let lens = ["10.244.0.128-25", "10.244.1.0-25", "10.244.1.128-25", "10.244.2.0-25", "10.244.2.128-25"];
    for (n, text) in lens.iter().enumerate() {
        store = store.lease(text, &format!("192.0.2.{}", n + 10), 4);
    }
    store = store.lease("10.244.3.0-25", "192.0.2.1", 5).record("n1", "10.244.3.0-25", "192.0.2.1", 5);
    let Plan::Hold(holding) = ask(&store, &n1()) else { panic!() };
    assert_eq!(holding.notice.as_deref(), Some("6 of 7 subnets are taken"));
    let full = Store::new(r#"{"Network": "10.244.0.0/22"}"#).lease("10.244.0.0-22", "192.0.2.7", 4);
    let Plan::Stuck(reason, lost) = ask(&full, &Node { running: Some("10.244.1.0-24"), ..n1() }) else { panic!() };
    assert!(reason.contains("out of subnets: 3 of 3") && lost, "{reason}");
}

#[test]
fn d54_ipv6_only_nodes_are_told_apart_by_their_ipv6_addresses() {
    let config = r#"{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00::/48"}"#;
    let mut store = Store::new(config);
    let theirs = r#"{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::2"}"#;
    let entry = store.entry(theirs.into(), 4);
    store.0.subnets.insert("0.0.0.0-0&fd00:0:0:7::-64".into(), entry);
    let public_ips = PerFamily { v4: Some("192.0.2.1".parse().unwrap()), v6: Some("2001:db8::1".parse().unwrap()) };
    let wanted = LeaseValue { public_ips, backend: BackendData::default() };
    let (leased, transaction) = written(ask(&store, &Node { wanted, ..n1() }));
    assert_ne!(leased, "0.0.0.0-0&fd00:0:0:7::-64");
    let Write::Put { value, .. } = &transaction.writes[0] else { panic!() };
    assert_eq!(String::from_utf8_lossy(value), r#"{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::1"}"#);
}

#[test]
fn a_family_without_a_public_address_is_named() {
    let config = r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00::/48"}"#;
    let Plan::Stuck(reason, false) = ask(&Store::new(config), &n1()) else { panic!() };
    assert!(reason.contains("no public IPv6 address"), "{reason}");
}
