//! What an agent's end, its restart, and what happened in between do to a running network: nothing but what the cluster says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use weft_tests::lab::{Lab, OwnedLab, Spec, difference, kernel, without_numbers};
use weft_tests::probe::Pinger;
use weft_tests::wait;

/// The promise for every repair (DESIGN.md, decision 13).
const REPAIR: Duration = Duration::from_secs(10);
/// How long pods may take to find each other at first.
const AT_FIRST: Duration = Duration::from_secs(10);

fn up(spec: Spec) -> OwnedLab {
    let lab = OwnedLab::up(spec);
    let matrix = lab.matrix(AT_FIRST).unwrap();
    assert!(matrix.complete(), "{:?}", matrix.broken());
    lab
}

/// Pings from the pod of node 1 to that of node 2, every 5 ms.
fn pinger(lab: &Lab) -> Pinger {
    let [from, to] = ["node1", "node2"].map(|node| lab.node(node).unwrap().pod("pod1").unwrap());
    Pinger::start(&from.netns, to.v4().unwrap())
}

#[test]
fn d34_a_killed_agent_loses_no_packet_and_its_restart_changes_nothing() {
    let mut lab = up(Spec::test(2));
    let node = lab.node("node1").unwrap().netns.clone();
    // Subnet, MAC and number of the device among it.
    let before = kernel(&node).unwrap();
    let pinger = pinger(&lab);
    pinger.let_pass(200).unwrap();
    lab.kill_agent("node1").unwrap();
    lab.kill_agent("node2").unwrap();
    pinger.let_pass(300).unwrap();
    assert_eq!(kernel(&node).unwrap(), before);
    lab.start_agent("node1").unwrap();
    lab.start_agent("node2").unwrap();
    lab.await_ready("node1").unwrap();
    lab.await_ready("node2").unwrap();
    pinger.let_pass(500).unwrap();
    let losses = pinger.finish().unwrap();
    assert!(losses.sent >= 1000 && losses.count() == 0, "{losses:?}");
    assert_eq!(kernel(&node).unwrap(), before);
}

/// Deletes node 3 while the agent of node 1 is away, which then has to find by itself that something is gone.
fn a_node_goes_behind_an_agents_back(spec: Spec, device: &str) -> OwnedLab {
    let mut lab = up(spec);
    let (gone, kept) = (lab.view().nodes[2].clone(), lab.view().nodes[1].clone());
    let node = lab.node("node1").unwrap().netns.clone();
    let vteps = |of: &weft_tests::lab::NodeView| {
        of.vteps.iter().filter(|vtep| vtep.device == device).map(|vtep| vtep.mac.clone()).collect::<Vec<_>>()
    };
    let traces = |of: &weft_tests::lab::NodeView| {
        let firsts = of.subnets.iter().map(|subnet| subnet.split('/').next().unwrap().to_owned());
        let needles: Vec<String> = firsts.chain(vteps(of)).collect();
        let lines = kernel(&node).unwrap();
        lines.into_iter().filter(|line| needles.iter().any(|needle| line.contains(needle))).collect::<Vec<_>>()
    };
    assert_eq!(vteps(&gone).len(), 1, "{device} is there");
    lab.kill_agent("node1").unwrap();
    lab.remove_node("node3").unwrap();
    let (stale, others) = (traces(&gone), traces(&kept));
    let each = gone.subnets.len() * 3;
    assert_eq!((stale.len(), others.len()), (each, each), "{stale:?} {others:?}");
    lab.start_agent("node1").unwrap();
    wait::until_ok(REPAIR, "what is left of node 3 to go", || {
        let left = traces(&gone);
        if left.is_empty() { Ok(()) } else { Err(left.join(" | ")) }
    })
    .unwrap();
    assert_eq!(traces(&kept), others);
    lab.await_ready("node1").unwrap();
    lab
}

#[test]
fn d35_a_node_that_went_while_the_agent_was_down_leaves_nothing() {
    let lab = a_node_goes_behind_an_agents_back(Spec::test(3), "flannel.1");
    assert!(lab.matrix(AT_FIRST).unwrap().complete());
}

#[test]
fn d37_the_devices_of_ipv6_are_looked_after_as_those_of_ipv4() {
    let lab = a_node_goes_behind_an_agents_back(Spec::test(3).dual_stack(), "flannel-v6.1");
    let node = lab.node("node1").unwrap();
    let before = without_numbers(&kernel(&node.netns).unwrap());
    for sabotage in [
        &["ip", "link", "delete", "flannel-v6.1"][..],
        &["ip", "-6", "route", "flush", "dev", "flannel-v6.1"],
        &["ip", "-6", "neigh", "flush", "dev", "flannel-v6.1", "nud", "permanent"],
    ] {
        node.netns.tool(sabotage[0], &sabotage[1..]).unwrap();
        wait::until_ok(REPAIR, &format!("repair after {sabotage:?}"), || {
            let now = without_numbers(&kernel(&node.netns).unwrap());
            if now == before { Ok(()) } else { Err(difference(&before, &now)) }
        })
        .unwrap();
        let matrix = lab.matrix(Duration::from_secs(2)).unwrap();
        assert!(matrix.complete(), "{sabotage:?}: {:?}", matrix.broken());
    }
    assert!(node.agent.unwrap().alive(), "healed by a restart");
}

#[test]
fn d47_a_partition_removes_nothing_and_heals() {
    let mut lab = up(Spec::test(2));
    let node = lab.node("node1").unwrap().netns.clone();
    let before = kernel(&node).unwrap();
    let as_before = || {
        let now = kernel(&node).unwrap();
        if now == before { Ok(()) } else { Err(difference(&before, &now)) }
    };
    lab.cut("node2").unwrap();
    assert!(!lab.matrix(Duration::from_millis(200)).unwrap().complete());
    lab.kill_etcd().unwrap();
    wait::throughout(Duration::from_secs(3), as_before).unwrap();
    lab.start_etcd().unwrap();
    lab.heal(None).unwrap();
    let matrix = lab.matrix(AT_FIRST).unwrap();
    assert!(matrix.complete(), "{:?}", matrix.broken());
    as_before().unwrap();
}

#[test]
fn d49_an_agent_that_is_asked_to_end_does_so_at_once_and_leaves_the_network_as_it_is() {
    let lab = up(Spec::test(2));
    let node = lab.node("node1").unwrap();
    let before = kernel(&node.netns).unwrap();
    let pinger = pinger(&lab);
    pinger.let_pass(50).unwrap();
    let agent = node.agent.unwrap();
    let asked = Instant::now();
    agent.signal(Signal::SIGTERM);
    let ended = wait::until_ok(wait::patience(Duration::from_secs(5)), "the agent's end", || {
        match waitpid(Pid::from_raw(agent.pid), Some(WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::StillAlive => Err("it runs"),
            ended => Ok(ended),
        }
    });
    assert_eq!(ended.unwrap(), WaitStatus::Exited(Pid::from_raw(agent.pid), 0));
    assert!(asked.elapsed() < wait::patience(Duration::from_secs(2)), "{:?}", asked.elapsed());
    pinger.let_pass(200).unwrap();
    assert_eq!(pinger.finish().unwrap().count(), 0);
    assert_eq!(kernel(&node.netns).unwrap(), before);
}
