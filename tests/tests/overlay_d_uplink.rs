//! The interface under the overlay goes down, or gets another MTU or address: nodes and pods follow, most of it without a restart.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use serde_json::Value;
use weft_tests::lab::{Lab, NETWORK_PREFIX, Node, OwnedLab, PodRecord, Spec};
use weft_tests::wait;

/// The promise for every repair (DESIGN.md, decision 13).
const REPAIR: Duration = Duration::from_secs(10);

fn reaches(lab: &Lab, what: &str) {
    let matrix = lab.matrix(REPAIR).unwrap();
    assert!(matrix.complete(), "{what}: {:?}", matrix.broken());
}

fn link(netns: &weft_tests::netns::Netns, name: &str) -> Value {
    netns.objects("ip", &["-d", "link", "show", "dev", name]).unwrap().remove(0)
}

#[test]
fn d39_an_uplink_that_was_down_takes_traffic_again_without_a_restart() {
    let lab = OwnedLab::up(Spec::test(2).dual_stack());
    reaches(&lab, "at first");
    let node = lab.node("node1").unwrap();
    let (device, agent) = (link(&node.netns, "flannel.1")["ifindex"].clone(), node.agent.unwrap());
    node.netns.tool("ip", &["link", "set", "eth0", "down"]).unwrap();
    wait::until(REPAIR, "the agent to say that the uplink is not well", || {
        lab.readyz("node1").unwrap().body.lines().any(|line| line.starts_with("[!] uplink"))
    })
    .unwrap();
    assert!(!lab.matrix(Duration::from_millis(200)).unwrap().complete());
    // The kernel takes routes along, and of IPv6 the addresses, too.
    let script = format!(
        "ip link set eth0 up; ip addr replace {}/24 dev eth0; ip addr replace {}/64 dev eth0 nodad
         ip route replace default via 192.168.100.1; ip -6 route replace default via fd00:100::1",
        node.v4(),
        node.v6()
    );
    node.netns.tool("sh", &["-ec", &script]).unwrap();
    reaches(&lab, "with the uplink up again");
    wait::until(REPAIR, "the node to be well", || {
        lab.readyz("node1").unwrap().body.lines().all(|line| line.starts_with("[+]") || line.starts_with("revision"))
    })
    .unwrap();
    assert!(agent.alive());
    assert_eq!(link(&node.netns, "flannel.1")["ifindex"], device);
}

/// Gives the uplink of a node another MTU, and the segment with it.
fn set_mtu(lab: &Lab, node: &Node, mtu: &str) {
    lab.underlay_netns().tool("ip", &["link", "set", &format!("p{}", node.number + 10), "mtu", mtu]).unwrap();
    node.netns.tool("ip", &["link", "set", "eth0", "mtu", mtu]).unwrap();
}

/// Waits until everything of a node's that has an MTU has this one.
fn await_mtu(node: &Node, mtu: u32) {
    wait::until_ok(REPAIR, &format!("{} to go by an MTU of {mtu}", node.name), || {
        let found = ["flannel.1", "cni0"].map(|name| link(&node.netns, name)["mtu"].clone());
        let file = node.subnet_file()["FLANNEL_MTU"].clone();
        let right = found.iter().all(|found| *found == mtu) && file == mtu.to_string();
        if right { Ok(()) } else { Err(format!("{found:?}, subnet file {file}")) }
    })
    .unwrap();
}

fn has_mtu(pod: &PodRecord, mtu: u32) {
    assert_eq!(link(&pod.netns, "eth0")["mtu"], mtu, "{}", pod.name);
}

#[test]
fn d41_a_new_mtu_of_the_uplink_is_that_of_the_overlay_and_of_new_pods() {
    let mut lab = OwnedLab::up(Spec::test(2));
    reaches(&lab, "at first");
    let [one, two] = ["node1", "node2"].map(|name| lab.node(name).unwrap().clone());
    let numbers =
        || [&one, &two].map(|node| ["flannel.1", "cni0"].map(|name| link(&node.netns, name)["ifindex"].clone()));
    let before = numbers();
    lab.kill_agent("node2").unwrap();
    lab.underlay_netns().tool("ip", &["link", "set", "br0", "mtu", "9000"]).unwrap();
    set_mtu(&lab, &one, "9000");
    set_mtu(&lab, &two, "9000");
    // One with its agent running, the other with a new one.
    await_mtu(&one, 8950);
    lab.start_agent("node2").unwrap();
    lab.await_ready("node2").unwrap();
    await_mtu(&two, 8950);
    for node in ["node1", "node2"] {
        let pod = lab.add_pod(node, "pod2").unwrap();
        has_mtu(&pod, 8950);
    }
    reaches(&lab, "old and new pods with the larger MTU");
    let large = ["node1", "node2"].map(|node| lab.node(node).unwrap().pod("pod2").unwrap().clone());
    let bytes = 1_000_000;
    let seen =
        weft_tests::probe::tcp_transfer(&large[0].netns, &large[1].netns, large[1].v4().unwrap(), bytes).unwrap();
    assert_eq!(seen.bytes, bytes);

    set_mtu(&lab, &one, "1500");
    await_mtu(&one, 1450);
    has_mtu(&lab.add_pod("node1", "pod3").unwrap(), 1450);
    assert_eq!(numbers(), before, "a device was made anew");
}

#[test]
fn a_new_address_of_the_uplink_is_published_and_peers_follow() {
    let lab = OwnedLab::up(Spec::test(2));
    reaches(&lab, "at first");
    let [one, two] = ["node1", "node2"].map(|name| lab.node(name).unwrap());
    let (before, subnet) = (link(&one.netns, "flannel.1"), one.subnets()[0].replace('/', "-"));
    let agent = one.agent.unwrap();
    one.netns
        .tool(
            "sh",
            &[
                "-ec",
                "ip addr flush dev eth0 scope global; ip addr add 192.168.100.61/24 dev eth0
                 ip route replace default via 192.168.100.1",
            ],
        )
        .unwrap();
    let began = std::time::Instant::now();
    let key = format!("{NETWORK_PREFIX}/subnets/{subnet}");
    // A connection from an address that is gone has to be found dead first.
    wait::until_ok(2 * REPAIR, "the lease to say the new address", || {
        let lease = lab.etcd().unwrap().get(&key).unwrap();
        if lease.iter().any(|(_, value)| value.contains(r#""192.168.100.61""#)) {
            Ok(())
        } else {
            Err(format!("{lease:?}"))
        }
    })
    .unwrap();
    eprintln!("published after {:.1?}", began.elapsed());
    wait::until_ok(Duration::from_secs(2), "node 2 to send to the new address", || {
        let entries = two.netns.objects("bridge", &["fdb", "show", "dev", "flannel.1"]).unwrap();
        let to: Vec<&Value> = entries.iter().map(|entry| &entry["dst"]).filter(|dst| dst.is_string()).collect();
        if to == ["192.168.100.61"] { Ok(()) } else { Err(format!("{to:?}")) }
    })
    .unwrap();
    let now = link(&one.netns, "flannel.1");
    assert_eq!(now["linkinfo"]["info_data"]["local"], "192.168.100.61");
    assert_eq!((&now["ifindex"], &now["address"]), (&before["ifindex"], &before["address"]));
    assert!(agent.alive());
    reaches(&lab, "from the new address");
}
