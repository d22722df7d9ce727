//! Which interface and which address the overlay is built on.
//!
//! ```text
//!   node1 eth0 192.168.100.11, fd00:100::11 ──┬── underlay .1
//!         eth1 192.168.101.11, fd00:101::11 ──┘
//! ```
//!
//! Not here: 21 (an annotation of the Node), in `daemon/tests/kube_source.rs`; 22 (two nodes with one public address).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use serde_json::Value;
use weft_tests::lab::{NETWORK_PREFIX, Node, OwnedLab, Spec};

const ETH1: [&str; 2] = ["192.168.101.11", "fd00:101::11"];

/// A lab with a node that has a second interface, and no agent yet.
fn two_interfaces(spec: Spec) -> OwnedLab {
    let mut lab = OwnedLab::bare(Spec { pods: 0, ..spec });
    let name = lab.new_node().unwrap();
    let node = lab.node(&name).unwrap();
    let underlay = lab.underlay_netns();
    let add = ["link", "add", "second", "type", "veth", "peer", "name", "eth1", "netns", node.netns.name()];
    underlay.tool("ip", &add).unwrap();
    underlay.tool("ip", &["link", "set", "second", "master", "br0", "up"]).unwrap();
    node.netns.tool("ip", &["link", "set", "eth1", "mtu", "1400", "up"]).unwrap();
    node.netns.tool("ip", &["addr", "add", &format!("{}/24", ETH1[0]), "dev", "eth1"]).unwrap();
    node.netns.tool("ip", &["addr", "add", &format!("{}/64", ETH1[1]), "dev", "eth1", "nodad"]).unwrap();
    lab
}

/// The interface under a VXLAN device of a node, and the addresses that its lease publishes.
fn chosen(lab: &OwnedLab) -> (String, Value) {
    let node = lab.node("node1").unwrap();
    let links = node.netns.objects("ip", &["-d", "link", "show", "type", "vxlan"]).unwrap();
    let under = links[0]["linkinfo"]["info_data"]["link"].as_str().unwrap().to_owned();
    let leases = lab.etcd().unwrap().get(&format!("{NETWORK_PREFIX}/subnets/")).unwrap();
    assert_eq!(leases.len(), 1, "{leases:?}");
    (under, serde_json::from_str(&leases[0].1).unwrap())
}

fn start(mut lab: OwnedLab) -> OwnedLab {
    lab.start_agent("node1").unwrap();
    lab.await_ready("node1").unwrap();
    lab
}

/// That a node with these arguments builds on eth1.
fn takes_eth1(args: &[&str]) {
    let lab = start(two_interfaces(Spec::test(1).agent_args(args)));
    let (under, lease) = chosen(&lab);
    assert_eq!((under.as_str(), &lease["PublicIP"]), ("eth1", &Value::from(ETH1[0])), "{args:?}");
    assert_eq!(lab.node("node1").unwrap().subnet_file()["FLANNEL_MTU"], "1350", "of eth1's MTU");
}

#[test]
fn d14_the_interface_that_is_named_is_used_and_its_addresses_are_published() {
    takes_eth1(&["--iface", "eth1"]);
    let lab = start(two_interfaces(Spec::test(1).dual_stack().agent_args(&["--iface", ETH1[0]])));
    let (under, lease) = chosen(&lab);
    assert_eq!((under.as_str(), &lease["PublicIP"]), ("eth1", &Value::from(ETH1[0])));
    assert_eq!(lease["PublicIPv6"], ETH1[1]);
}

#[test]
fn d15_of_several_the_first_that_is_there() {
    takes_eth1(&["--iface", "nope", "--iface", "eth1", "--iface", "eth0"]);
}

#[test]
fn d16_regular_expressions_count_where_no_name_does() {
    takes_eth1(&["--iface", "nope", "--iface-regex", r"^192\.168\.101\.\d{1,3}$"]);
    takes_eth1(&["--iface-regex", "^wlan", "--iface-regex", "^eth[1-9]$"]);
}

#[test]
fn d17_the_interface_by_which_an_address_is_reached() {
    takes_eth1(&["--iface-can-reach", "192.168.101.2"]);
}

/// Everything that a command said.
fn said(lab: &OwnedLab, args: &[&str]) -> (Option<i32>, String) {
    let output = lab.weft("node1", "agent", args).unwrap();
    (output.exit, format!("{}{}", output.stdout, output.stderr))
}

#[test]
fn d18_where_nothing_matches_the_start_ends_and_names_the_candidates() {
    let lab = two_interfaces(Spec::test(1));
    for args in [&["--iface", "nope"][..], &["--iface", "192.0.2.99"], &["--iface", "nope", "--iface-regex", "^wlan"]] {
        let (exit, said) = said(&lab, args);
        assert_eq!(exit, Some(1), "{args:?}: {said}");
        for word in ["eth0 (192.168.100.11/24", "eth1 (192.168.101.11/24", args[args.len() - 1]] {
            assert!(said.contains(word), "{args:?}: {said}");
        }
    }
    // Without a way to it an address is reached by nobody.
    let node = lab.node("node1").unwrap();
    node.netns.tool("ip", &["route", "del", "default"]).unwrap();
    let (exit, said) = said(&lab, &["--iface-can-reach", "8.8.8.8"]);
    assert!(exit == Some(1) && said.contains("leads to 8.8.8.8") && said.contains("eth1 ("), "{said}");
}

fn add(node: &Node, words: &[&str]) {
    node.netns.tool("ip", &[&["-6", "addr", "add"], words, &["dev", "eth0", "nodad"]].concat()).unwrap();
}

#[test]
fn d19_a_preferred_address_is_published_and_not_a_deprecated_one() {
    let mut lab = OwnedLab::bare(Spec { pods: 0, ..Spec::test(1).dual_stack() });
    let name = lab.new_node().unwrap();
    let node = lab.node(&name).unwrap();
    // On both sides of it in the kernel's list, whichever end that begins at.
    node.netns.tool("ip", &["-6", "addr", "del", "fd00:100::11/64", "dev", "eth0"]).unwrap();
    add(node, &["fd00:100::98/64", "preferred_lft", "0"]);
    add(node, &["fd00:100::11/64"]);
    add(node, &["fd00:100::99/64", "preferred_lft", "0"]);
    let lab = start(lab);
    assert_eq!(chosen(&lab).1["PublicIPv6"], "fd00:100::11");
}
