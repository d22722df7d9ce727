//! flannel on some nodes and weft on the others are one network, and a node changes over with its pods running, and back.
//!
//! ```text
//!   node1, node2: weft          node3: flanneld on the same etcd, pods by flannel, bridge, host-local and portmap
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::net::SocketAddr;
use std::time::Duration;

use weft_tests::lab::{Lab, OwnedLab, PodRecord, Spec, flannel_obstacle};
use weft_tests::probe::{self, Answer, Dialogue, Pinger, ProbeServer, Question};
use weft_tests::{skip, wait};

/// How long pods may take to find each other.
const LIMIT: Duration = Duration::from_secs(20);
/// The port of the servers in pods.
const PORT: u16 = 8080;

fn reaches(lab: &Lab, what: &str) {
    let matrix = lab.matrix(LIMIT).unwrap();
    assert!(matrix.complete(), "{what}: {:?}", matrix.broken());
}

fn pod(lab: &Lab, node: &str, name: &str) -> PodRecord {
    lab.node(node).unwrap().pod(name).unwrap().clone()
}

/// What must not change when a node gets another agent: its subnet, its device's MAC and number, its bridge's number.
fn identity(lab: &Lab) -> (Vec<String>, Vec<String>) {
    let netns = &lab.node("node3").unwrap().netns;
    let link = |name| netns.objects("ip", &["link", "show", "dev", name]).unwrap().remove(0);
    let (device, bridge) = (link("flannel.1"), link("cni0"));
    let numbers = [&device["address"], &device["ifindex"], &bridge["ifindex"]].map(ToString::to_string);
    (lab.node("node3").unwrap().subnets(), numbers.to_vec())
}

/// Has a node change hands while traffic flows; connections to its pod stay, and not a second of packets is lost.
fn keeps_its_pods(lab: &mut OwnedLab, what: &str, change: impl FnOnce(&mut Lab) -> anyhow::Result<()>) {
    let (near, far) = (pod(lab, "node1", "pod1"), pod(lab, "node3", "pod1"));
    let before = identity(lab);
    let target = SocketAddr::new(far.v4().unwrap(), PORT);
    let kept = Dialogue::open_in(&near.netns, &Question::new(target)).unwrap().unwrap();
    let pinger = Pinger::start(&near.netns, target.ip());
    pinger.let_pass(50).unwrap();
    change(lab).unwrap_or_else(|error| panic!("{what}: {error:#}"));
    pinger.let_pass(200).unwrap();
    let losses = pinger.finish().unwrap();
    eprintln!("{what}: {} of {} echoes lost", losses.count(), losses.sent);
    assert!(losses.count() < 200, "{what}: more than a second: {losses:?}");
    assert!(matches!(kept.ask(), Answer::Served { by, .. } if by == far.name), "{what}: the connection is lost");
    assert_eq!(identity(lab), before, "{what}");
    reaches(lab, what);
}

#[test]
fn d87_flannel_and_weft_are_one_network_and_a_node_changes_over_and_back_with_its_pods() {
    if let Some(reason) = flannel_obstacle() {
        skip!("{reason}");
    }
    let mut lab = OwnedLab::up(Spec::test(3).flannel(1).agent_args(&["--proxy-mode", "none"]));
    assert_eq!(lab.nodes().iter().map(|node| node.flannel).collect::<Vec<_>>(), [false, false, true]);
    reaches(&lab, "flannel beside weft");
    let (ours, theirs) = (pod(&lab, "node1", "pod1"), pod(&lab, "node3", "pod1"));
    let _server = ProbeServer::start(&theirs.netns, &theirs.name, &[PORT]).unwrap();
    for (from, to) in [(&ours, &theirs), (&theirs, &ours)] {
        let seen = probe::tcp_transfer(&from.netns, &to.netns, to.v4().unwrap(), 1_000_000).unwrap();
        assert_eq!(seen.client, from.v4().unwrap(), "pods see each other's own address");
    }

    keeps_its_pods(&mut lab, "from flannel to weft", |lab| lab.change_over("node3"));
    assert!(lab.readyz("node3").unwrap().body.contains("[+] peers: 2 reached"));
    // The next pod is weft's, and gets nobody's address.
    let next = lab.add_pod("node3", "pod2").unwrap();
    assert_ne!(next.v4().unwrap(), theirs.v4().unwrap());
    reaches(&lab, "with a pod of weft's beside one of flannel's");

    keeps_its_pods(&mut lab, "from weft to flannel", |lab| lab.change_back("node3"));
    let last = lab.add_pod("node3", "pod3").unwrap();
    assert!(![&theirs, &next].map(|pod| pod.v4().unwrap()).contains(&last.v4().unwrap()));
    reaches(&lab, "with a pod of flannel's beside one of weft's");

    // flannel's chain takes back what either has given out.
    let node = lab.node("node3").unwrap();
    let reserved = |pod: &PodRecord| node.path("networks/cbr0").join(pod.v4().unwrap().to_string()).exists();
    for pod in [&theirs, &next, &last] {
        assert!(reserved(pod), "{}", pod.name);
        node.runtime().del(&pod.attachment).unwrap();
        wait::until(LIMIT, "its interface to go", || {
            pod.netns.objects("ip", &["link"]).unwrap().iter().all(|link| link["ifname"] != "eth0")
        })
        .unwrap();
        assert!(!reserved(pod), "{}", pod.name);
    }
}
