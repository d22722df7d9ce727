//! flannel on one node and weft on the other: one cluster network; then the flannel node becomes weft's with its pods running.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use weft_tests::node::cluster::{Cluster, LIMIT, obstacle};
use weft_tests::node::flannel;
use weft_tests::node::peers;
use weft_tests::node::workload::{Pod, container, pod_on};
use weft_tests::probe::{Losses, Pinger, Question, ask};
use weft_tests::{skip, wait};

/// Echoes are 5 ms apart: one second of them.
const SECOND: usize = 200;

fn reaches(cluster: &Cluster, from: &Pod, to: &Pod) {
    let inside = cluster.inside(from).unwrap();
    let what = format!("{} on {} to reach {} on {}", from.name, from.node, to.name, to.node);
    wait::until_ok(LIMIT, &what, || {
        let outcome = ask(&inside, &Question::new(to.socket()), 1, 1).unwrap();
        // Pods see each other's own addresses: nobody translates between nodes.
        let seen = outcome.by.get(&to.name).is_some_and(|tally| tally.sources.contains(&from.ip));
        if seen { Ok(()) } else { Err(format!("{outcome:?}")) }
    })
    .unwrap();
}

fn pod(cluster: &Cluster, node: &str, name: &str) -> Pod {
    cluster.apply(&[pod_on(node, name, &container())]).unwrap();
    cluster.pods(name, 1).unwrap().remove(0)
}

/// The longest run of echoes without an answer.
fn longest_gap(losses: &Losses) -> usize {
    let mut longest = 0;
    let (mut run, mut last) = (0, None);
    for &sequence in &losses.lost {
        run = if last.is_some_and(|last| sequence == last + 1) { run + 1 } else { 1 };
        (longest, last) = (longest.max(run), Some(sequence));
    }
    longest
}

#[test]
fn flannel_and_weft_are_one_network_and_a_node_changes_over() {
    if let Some(reason) = obstacle().or_else(|| peers::check(&flannel::PROGRAMS).err()) {
        skip!("{reason}");
    }
    let cluster = Cluster::start(2).unwrap();
    cluster.install_weft("manifests/overlays/migrate-from-flannel").unwrap();
    cluster.kubectl(&["label", "node", "n1", "weft/agent=true"]).unwrap();
    let flanneld = flannel::start(&cluster, "n2").unwrap();
    cluster.await_ready().unwrap_or_else(|error| panic!("{error}; {}", flanneld.log()));
    cluster.await_rollout(1).unwrap();

    let (ours, theirs) = (pod(&cluster, "n1", "ours"), pod(&cluster, "n2", "theirs"));
    reaches(&cluster, &ours, &theirs);
    reaches(&cluster, &theirs, &ours);

    let inside = cluster.inside(&ours).unwrap();
    let pinger = Pinger::start(&inside, theirs.ip);
    pinger.let_pass(100).unwrap();
    drop(inside);
    flanneld.kill();
    cluster.kubectl(&["label", "node", "n2", "weft/agent=true"]).unwrap();
    cluster.await_rollout(2).unwrap();
    pinger.let_pass(100).unwrap();
    let losses = pinger.finish().unwrap();
    let gap = longest_gap(&losses);
    eprintln!("of {} echoes {} were lost, at most {gap} on end", losses.sent, losses.count());
    assert!(gap <= SECOND, "{losses:?}");
    // `weft migrate node` has been there, in its pod: flannel's conflist would be taken before ours.
    cluster.await_rollout_of("weft-migrate", 2).unwrap();
    let conflist = cluster.node("n2").machine.inside(flannel::CONFLIST).unwrap();
    let saved = conflist.with_extension("conflist.weft-saved");
    assert!(!conflist.exists() && saved.exists(), "{}", saved.display());

    assert_eq!(cluster.pods("theirs", 1).unwrap(), std::slice::from_ref(&theirs), "the pod was replaced");
    let next = pod(&cluster, "n2", "next");
    for (from, to) in [(&ours, &theirs), (&theirs, &ours), (&ours, &next), (&next, &ours), (&next, &theirs)] {
        reaches(&cluster, from, to);
    }
    // What flannel's chain has given out is given back by weft's plugin.
    cluster.kubectl(&["delete", "pod", "theirs", "next"]).unwrap();
    cluster.await_no_leak("n2").unwrap();
}
