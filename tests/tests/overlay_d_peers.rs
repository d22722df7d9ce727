//! What other nodes say changes, or is not to be believed, and what an administrator has put beside it stays.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use serde_json::json;
use weft_tests::lab::{Lab, NETWORK_PREFIX, OwnedLab, Spec, kernel};
use weft_tests::netns::Netns;
use weft_tests::wait;

/// The promise for every repair (DESIGN.md, decision 13).
const REPAIR: Duration = Duration::from_secs(10);
/// How long a change at the source may take to reach the kernel.
const SOON: Duration = Duration::from_secs(2);

/// The lines of a node's kernel that have this in them.
fn lines(node: &Netns, needle: &str) -> Vec<String> {
    kernel(node).unwrap().into_iter().filter(|line| line.contains(needle)).collect()
}

fn await_lines(node: &Netns, needle: &str, count: usize, limit: Duration) -> Vec<String> {
    wait::until_ok(limit, &format!("{count} objects with {needle}"), || {
        let found = lines(node, needle);
        if found.len() == count { Ok(found) } else { Err(found.join(" | ")) }
    })
    .unwrap()
}

#[test]
fn d43_foreign_routes_inside_the_network_are_left_alone_by_repairs_and_by_cleanup() {
    let mut lab = OwnedLab::up(Spec { pods: 0, ..Spec::test(2) });
    let node = lab.node("node1").unwrap().netns.clone();
    let peer = lab.node("node2").unwrap().subnets()[0].clone();
    // Half of a peer's subnet, one of nobody's, one of a peer that is still to come, and one on our own device.
    let half = peer.replace(".0/24", ".128/25");
    let foreign = [
        format!("{half} via 192.168.100.1 dev eth0 proto static"),
        "10.244.250.0/24 via 192.168.100.1 dev eth0 proto static".to_owned(),
        "10.244.201.0/24 via 192.168.100.1 dev eth0 proto static".to_owned(),
    ];
    let on_our_device = "10.244.252.0/24 dev flannel.1 proto static scope link".to_owned();
    for route in foreign.iter().chain([&on_our_device]) {
        node.tool("ip", &[&["route", "add"], &route.split(' ').collect::<Vec<_>>()[..]].concat()).unwrap();
    }
    let there = || {
        let routes = node.tool("ip", &["route", "show"]).unwrap();
        foreign.iter().filter(|route| routes.lines().any(|line| line.trim() == route.as_str())).count()
    };
    let on_device = || node.tool("ip", &["route", "show", "dev", "flannel.1", "proto", "static"]).unwrap();
    assert_eq!(there(), 3);

    // A repair, and a pass after that.
    node.tool("ip", &["route", "delete", &peer]).unwrap();
    await_lines(&node, &format!("{peer} via"), 1, REPAIR);
    assert_eq!((there(), on_device().lines().count()), (3, 1));

    // A peer of just that subnet comes: what cannot be put there is said, and when it goes the foreign route stays.
    let value = json!({"PublicIP": "192.168.100.201", "PublicIPv6": null, "BackendType": "vxlan",
        "BackendData": {"VNI": 1, "VtepMAC": "0a:00:00:00:00:c9"}});
    let key = format!("{NETWORK_PREFIX}/subnets/10.244.201.0-24");
    lab.etcd().unwrap().put(&key, &value.to_string()).unwrap();
    wait::until_ok(REPAIR, "the refusal", || {
        let said = lab.readyz("node1").unwrap().body;
        if said.contains("10.244.201.0/24") && said.contains("exist") { Ok(()) } else { Err(said) }
    })
    .unwrap();
    assert_eq!((there(), lines(&node, "0a:00:00:00:00:c9").len()), (3, 2), "the peer's neighbour and forwarding entry");
    lab.etcd().unwrap().delete(&key).unwrap();
    await_lines(&node, "0a:00:00:00:00:c9", 0, SOON);
    assert_eq!(there(), 3);

    lab.stop_agent("node1").unwrap();
    assert_eq!(lab.weft("node1", "cleanup", &[]).unwrap().exit, Some(0));
    assert_eq!(there(), 3);
}

#[test]
fn d45_a_peer_that_changes_in_one_family_changes_in_that_family_alone() {
    let lab = OwnedLab::up(Spec { pods: 0, ..Spec::test(1).dual_stack() });
    let node = &lab.node("node1").unwrap().netns;
    let put = |v4: u8, v6: u8| {
        let mac = |last: u8| json!({"VNI": 1, "VtepMAC": format!("0a:00:00:00:c9:{last:02x}")});
        let value = json!({"PublicIP": "192.168.100.201", "PublicIPv6": "fd00:100::201", "BackendType": "vxlan",
            "BackendData": mac(v4), "BackendV6Data": mac(v6)});
        let key = format!("{NETWORK_PREFIX}/subnets/10.244.201.0-24&fd00:244:0:201::-64");
        lab.etcd().unwrap().put(&key, &value.to_string()).unwrap();
    };
    // A neighbour and a forwarding entry for each.
    let has = |last: u8| await_lines(node, &format!("0a:00:00:00:c9:{last:02x}"), 2, SOON);
    let gone = |last: u8| await_lines(node, &format!("0a:00:00:00:c9:{last:02x}"), 0, SOON);
    put(0x41, 0x61);
    let (v4, v6) = (has(0x41), has(0x61));
    put(0x41, 0x62);
    has(0x62);
    gone(0x61);
    assert_eq!(has(0x41), v4);
    put(0x41, 0x61);
    assert_eq!(has(0x61), v6);
    put(0x42, 0x61);
    has(0x42);
    gone(0x41);
    gone(0x62);
    assert_eq!(has(0x61), v6);
}

#[test]
fn d50_a_lease_over_the_nodes_or_beside_the_network_is_ignored() {
    let lab = OwnedLab::up(Spec { pods: 0, ..Spec::test(2) });
    let value = r#"{"PublicIP":"192.168.100.79","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:47"}}"#;
    let node = lab.node("node1").unwrap().netns.clone();
    await_lines(&node, &format!("{} via", lab.node("node2").unwrap().subnets()[0]), 1, SOON);
    let before = kernel(&node).unwrap();
    for key in ["192.168.100.12-30", "10.99.0.0-24", "0.0.0.0-1"] {
        put(&lab, key, value);
    }
    // A lease that is right comes after them: once it is there, they have been seen.
    put(&lab, "10.244.77.0-24", &value.replace("192.168.100.79", "192.168.100.80").replace(":47", ":48"));
    wait::until(REPAIR, "the good lease's route", || !lines(&node, "10.244.77.0/24").is_empty()).unwrap();
    let news: Vec<String> = kernel(&node).unwrap().into_iter().filter(|line| !before.contains(line)).collect();
    assert!(news.iter().all(|line| line.contains("10.244.77.0") || line.contains(":48")), "{news:?}");
}

fn put(lab: &Lab, key: &str, value: &str) {
    lab.etcd().unwrap().put(&format!("{NETWORK_PREFIX}/subnets/{key}"), value).unwrap();
}
