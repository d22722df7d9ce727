//! Nodes that boot while etcd is away, as after a loss of power in the whole house: they go by what their disks have.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use weft_tests::lab::{Lab, OwnedLab, Spec};
use weft_tests::wait;

/// How long pods may take to find each other.
const AT_FIRST: Duration = Duration::from_secs(10);
/// How long what is known may take to be on the disk, and etcd to be noticed.
const SOON: Duration = Duration::from_secs(30);

const NODES: [&str; 2] = ["node1", "node2"];

fn subnets(lab: &Lab) -> [Vec<String>; 2] {
    NODES.map(|name| lab.node(name).unwrap().subnets())
}

fn assert_all_reach_each_other(lab: &Lab) {
    let matrix = lab.matrix(AT_FIRST).unwrap();
    assert!(matrix.complete(), "{:?}", matrix.broken());
}

fn says(lab: &Lab, name: &str, words: &str) {
    let said = || match lab.readyz(name) {
        Ok(answer) if answer.body.contains(words) => Ok(()),
        Ok(answer) => Err(answer.body),
        Err(error) => Err(format!("{error:#}")),
    };
    wait::until_ok(SOON, &format!("{name} to say {words}"), said).unwrap();
}

#[test]
fn d47_pods_of_nodes_that_boot_without_etcd_reach_each_other() {
    // Services are not kept on the disk: a node that serves them waits for them.
    let mut lab = OwnedLab::up(Spec::test(2).dual_stack().agent_args(&["--proxy-mode", "none"]));
    assert_all_reach_each_other(&lab);
    let before = subnets(&lab);
    for (name, other) in [(NODES[0], &before[1]), (NODES[1], &before[0])] {
        let file = lab.node(name).unwrap().path("lib/last-known.json");
        let key = other[0].replace('/', "-");
        let is_known = || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(&key));
        wait::until(SOON, &format!("{name} to have the other's lease on its disk"), is_known).unwrap();
    }

    lab.kill_etcd().unwrap();
    for name in NODES {
        lab.reboot(name).unwrap();
        assert_eq!(lab.node(name).unwrap().subnets(), Vec::<String>::new());
    }
    for name in NODES {
        lab.start_agent(name).unwrap();
    }
    for name in NODES {
        lab.await_ready(name).unwrap();
        says(&lab, name, "going by what was last known");
        lab.add_pod(name, "pod1").unwrap();
    }
    assert_eq!(subnets(&lab), before);
    assert_all_reach_each_other(&lab);

    // Its return changes nothing but that it is there.
    lab.start_etcd().unwrap();
    for name in NODES {
        says(&lab, name, "[+] store: connected");
    }
    assert_all_reach_each_other(&lab);
    assert_eq!(subnets(&lab), before);
}
