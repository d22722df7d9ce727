//! `weft init`, `weft join` and `weft reset` in clusters of IPv6 alone, on machines that have no IPv4, and of both families: what
//! `e2e_init` sees of IPv4.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use serde_json::Value;
use weft_tests::lab::underlay::Families;
use weft_tests::node::bare::{Bare, LENIENT, PROGRAMS, ROOMY, RUNTIME, join_line};
use weft_tests::node::cluster::items;
use weft_tests::node::machines::Machines;
use weft_tests::node::{peers, served};
use weft_tests::skip;

/// A cluster of some families.
struct Case {
    families: Families,
    /// Ranges of pods and of Services.
    ranges: [&'static str; 2],
    /// How pods' addresses begin.
    pods: &'static [&'static str],
}

/// The addresses of a Node, as others know it.
fn known_as(node: &Value) -> Vec<&str> {
    let all = node["status"]["addresses"].as_array().unwrap();
    all.iter().filter(|it| it["type"] == "InternalIP").map(|it| it["address"].as_str().unwrap()).collect()
}

/// Each Node has the addresses of its machine, the cluster's first family first.
fn nodes_have_their_addresses(nodes: [&Bare; 2]) {
    let list = nodes[0].get(&["nodes"]).unwrap();
    for node in nodes {
        let name = node.machine.name();
        let object = items(&list).find(|it| it["metadata"]["name"] == name).unwrap();
        let expected: Vec<String> = node.machine.ips().iter().map(ToString::to_string).collect();
        assert_eq!(known_as(object), expected, "{name}");
    }
}

fn comes_and_goes(case: &Case) {
    if let Err(reason) = peers::check(&PROGRAMS).and_then(|()| peers::check(&RUNTIME)) {
        skip!("{reason}");
    }
    let machines = Machines::boot(2, case.families, ROOMY).unwrap();
    let (first, second) = machines.pair();
    let before = [first.snapshot().unwrap(), second.snapshot().unwrap()];

    let [pods, services] = case.ranges;
    let ranges = [format!("--pod-network-cidr={pods}"), format!("--service-cidr={services}")];
    let ranges = ranges.each_ref().map(String::as_str);
    let init = first.init(&ranges).unwrap();
    assert_eq!(init.exit, Some(0), "{}", init.stderr);
    assert!(init.stdout.contains("node n1 is Ready\n[init] CoreDNS serves"), "{}", init.stdout);
    first.init_again(&ranges).unwrap();

    let line = join_line(&init.stdout).unwrap();
    let join = second.follow(&line, &[LENIENT]).unwrap();
    assert_eq!(join.exit, Some(0), "{}", join.stderr);
    assert!(join.stdout.contains("node n2 is Ready"), "{}", join.stdout);
    let again = second.follow(&line, &[LENIENT]).unwrap();
    assert_eq!(again.exit, Some(0), "{}", again.stderr);

    nodes_have_their_addresses([first, second]);
    served::helpers(&[first, second], &[first]).unwrap();
    served::check(&[first, second], case.pods).unwrap();
    second.reset_to(&before[1]).unwrap();
    first.reset_to(&before[0]).unwrap();
}

#[test]
fn a_cluster_of_ipv6_alone_on_machines_without_ipv4() {
    comes_and_goes(&Case {
        families: Families::V6,
        ranges: ["fd00:10:244::/56", "fd00:10:96::/112"],
        pods: &["fd00:10:244:"],
    });
}

#[test]
fn a_cluster_of_both_families() {
    comes_and_goes(&Case {
        families: Families::Both,
        ranges: ["10.244.0.0/16,fd00:10:244::/56", "10.96.0.0/16,fd00:10:96::/112"],
        pods: &["10.244.", "fd00:10:244:"],
    });
}
