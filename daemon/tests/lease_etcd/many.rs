//! Many nodes that start at the same moment.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use weft::cluster::SubnetKey;

use crate::etcd::Etcd;
use crate::node::{Node, assert_nothing_ever_overlapped, leases, value};

/// How many.
const MANY: usize = 50;

/// Within this time all have to have a subnet, two seconds of which they leave to nodes that run one.
const BOUND: Duration = Duration::from_secs(30);

/// Starts the nodes and waits until each has a lease. `v4` and `v6` say which addresses they have.
async fn at_once(etcd: &Etcd, count: usize, (v4, v6): (bool, bool), network: &str) -> Vec<Node> {
    let began = Instant::now();
    let start = |n| {
        let value = value(&format!("192.0.2.{n}"));
        value.send_modify(|value| {
            value.public_ips.v4 = value.public_ips.v4.filter(|_| v4);
            value.public_ips.v6 = v6.then(|| format!("2001:db8::{n:x}").parse().unwrap());
        });
        Node::start_with(etcd.store(), &format!("n{n}"), value, None, network)
    };
    let nodes: Vec<Node> = (1..=count).map(start).collect();
    let mut keys = Vec::new();
    for node in &nodes {
        keys.push(node.held().await.key);
    }
    let took = began.elapsed();
    eprintln!("{count} nodes had their subnets after {took:?}");
    assert!(took < BOUND, "{took:?}");
    share_nothing(&keys);
    let stored: BTreeSet<String> = leases(&etcd.client().await).await.into_iter().map(|lease| lease.0).collect();
    assert_eq!(stored, keys.iter().map(ToString::to_string).collect());
    assert_nothing_ever_overlapped(&etcd.client().await).await;
    nodes
}

fn share_nothing(keys: &[SubnetKey]) {
    for (n, key) in keys.iter().enumerate() {
        assert!(keys[n + 1..].iter().all(|other| !other.overlaps(key)), "{key} of {keys:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d53_fifty_nodes_at_once_get_fifty_subnets() {
    let etcd = Etcd::start().await;
    // A few more subnets than nodes: whoever chose the same at first has to look for another.
    let network = r#"{"Network": "10.244.0.0/20", "SubnetLen": 26}"#;
    let nodes = at_once(&etcd, MANY, (true, false), network).await;
    let snapshot = nodes[0].snapshot(|snapshot| snapshot.leases.len() == MANY).await;
    assert!(snapshot.leases.values().all(|lease| lease.node.is_some()));
    assert!(snapshot.rejected.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn d53_fifty_dual_stack_nodes_at_once_share_neither_family() {
    let etcd = Etcd::start().await;
    // Of IPv6 there are as many subnets as nodes, of IPv4 more: keys that differ may want the same IPv6 subnet.
    let network = r#"{"Network": "10.244.0.0/20", "SubnetLen": 27, "EnableIPv6": true, "IPv6Network": "fd00::/56",
        "IPv6SubnetLen": 64, "IPv6SubnetMin": "fd00:0:0:1::", "IPv6SubnetMax": "fd00:0:0:32::"}"#;
    at_once(&etcd, MANY, (true, true), network).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d54_nodes_of_ipv6_alone_get_a_subnet_each_and_keep_it() {
    let etcd = Etcd::start().await;
    let network = r#"{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00::/60", "IPv6SubnetLen": 64}"#;
    let nodes = at_once(&etcd, 2, (false, true), network).await;
    let before = leases(&etcd.client().await).await;
    for (n, (key, said, ..)) in before.iter().enumerate() {
        assert!(
            key.starts_with("0.0.0.0-0&fd00:") && said.starts_with(r#"{"PublicIP":"0.0.0.0","PublicIPv6":"2001:"#),
            "{n}: {before:?}"
        );
    }
    let keys: Vec<SubnetKey> = nodes.iter().map(Node::key).collect();
    for node in nodes {
        node.lease.stop().await;
    }
    // All of them say 0.0.0.0 for IPv4, which is nobody's: whoever comes again finds its own.
    let again = at_once(&etcd, 2, (false, true), network).await;
    assert_eq!(again.iter().map(Node::key).collect::<Vec<_>>(), keys);
    assert_eq!(leases(&etcd.client().await).await, before);
}
