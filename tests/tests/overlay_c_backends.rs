//! Plain routes between nodes that share a link, with `host-gw` and with VXLAN's `DirectRouting`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::lab::{NETWORK_PREFIX, Node, OwnedLab, Spec};
use weft_tests::{skip, tool, wait};

/// How long a repair may take (DESIGN.md, decision 13), and a change that no event tells of.
const REPAIR: Duration = Duration::from_secs(10);

/// The route of a node to a subnet, once it leads as wanted.
fn await_route(node: &Node, subnet: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait::until_ok(REPAIR, &format!("the route of {} to {subnet}", node.name), || {
        let routes = node.netns.objects("ip", &["route", "show", subnet]).map_err(|error| error.to_string())?;
        match routes.as_slice() {
            [route] if wanted(route) => Ok(route.clone()),
            _ => Err(format!("{routes:?}")),
        }
    })
    .unwrap()
}

fn is_direct(peer: &Node) -> impl Fn(&Value) -> bool {
    let gateway = peer.v4().to_string();
    move |route| route["gateway"] == gateway.as_str() && route["dev"] == "eth0"
}

fn is_tunnelled(route: &Value) -> bool {
    route["dev"] == "flannel.1"
}

/// Neighbours and forwarding entries on the overlay's device.
fn entries(node: &Node) -> (Vec<Value>, Vec<Value>) {
    let objects = |program: &str, words: &[&str]| node.netns.objects(program, words).unwrap();
    let mut forwarding = objects("bridge", &["fdb", "show", "dev", "flannel.1"]);
    forwarding.retain(|entry| !entry["mac"].as_str().unwrap_or("33:33").starts_with("33:33"));
    (objects("ip", &["-4", "neigh", "show", "dev", "flannel.1"]), forwarding)
}

#[test]
fn d33_host_gw_needs_no_device_and_a_deleted_route_comes_back() {
    let lab = OwnedLab::up(Spec::test(2).network(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#));
    let matrix = lab.matrix(REPAIR).unwrap();
    assert!(matrix.complete(), "{:?}", matrix.broken());
    let (one, two) = (lab.node("node1").unwrap(), lab.node("node2").unwrap());
    let subnet = two.subnets()[0].clone();
    let route = await_route(one, &subnet, is_direct(two));
    assert_eq!(route["protocol"], "119");
    let vxlan = one.netns.objects("ip", &["link", "show", "type", "vxlan"]).unwrap();
    assert!(vxlan.is_empty(), "{vxlan:?}");
    let pod = one.pod("pod1").unwrap();
    let link = pod.netns.objects("ip", &["link", "show", "eth0"]).unwrap();
    assert_eq!(link[0]["mtu"], 1500, "nothing is added to a packet");

    one.netns.tool("ip", &["route", "del", &subnet]).unwrap();
    await_route(one, &subnet, is_direct(two));
    assert!(lab.matrix(REPAIR).unwrap().complete());
}

#[test]
fn d33_flannels_own_routes_are_taken_over() {
    let network = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#;
    let lab = OwnedLab::up(Spec { pods: 0, ..Spec::test(1).network(network) });
    let node = lab.node("node1").unwrap();
    // As flannel leaves one, of a peer that is about to be known.
    node.netns.tool("ip", &["route", "add", "10.244.201.0/24", "via", "192.168.100.201", "dev", "eth0"]).unwrap();
    let value = json!({"PublicIP": "192.168.100.201", "PublicIPv6": null, "BackendType": "host-gw"});
    let key = format!("{NETWORK_PREFIX}/subnets/10.244.201.0-24");
    lab.etcd().unwrap().put(&key, &value.to_string()).unwrap();
    let route = await_route(node, "10.244.201.0/24", |route| route["protocol"] == "119");
    assert_eq!(route["gateway"], "192.168.100.201");
    lab.etcd().unwrap().delete(&key).unwrap();
    let gone = || node.netns.objects("ip", &["route", "show", "10.244.201.0/24"]).unwrap().is_empty();
    wait::until(REPAIR, "the route of a peer that is gone", gone).unwrap();
}

#[test]
fn d49_cleanup_takes_the_routes_through_peers_away() {
    let network = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#;
    let mut lab = OwnedLab::bare(Spec { pods: 0, ..Spec::test(1).network(network) });
    let name = lab.new_node().unwrap();
    let routes =
        |lab: &OwnedLab| lab.node(&name).unwrap().netns.tool("ip", &["route", "show", "table", "all"]).unwrap();
    let before = routes(&lab);
    let value = json!({"PublicIP": "192.168.100.201", "PublicIPv6": null, "BackendType": "host-gw"});
    lab.etcd().unwrap().put(&format!("{NETWORK_PREFIX}/subnets/10.244.201.0-24"), &value.to_string()).unwrap();
    lab.start_agent(&name).unwrap();
    lab.await_ready(&name).unwrap();
    await_route(lab.node(&name).unwrap(), "10.244.201.0/24", |route| route["gateway"] == "192.168.100.201");
    lab.stop_agent(&name).unwrap();
    let output = lab.weft(&name, "cleanup", &[]).unwrap();
    assert_eq!(output.exit, Some(0), "{output:?}");
    assert_eq!(routes(&lab), before);
}

#[test]
fn wireguard_on_a_kernel_without_it_is_told_with_the_module_to_load() {
    if tool::call("modprobe", &["--dry-run", "wireguard"]).is_ok() || Path::new("/sys/module/wireguard").exists() {
        skip!("this kernel has WireGuard; guest_wireguard_nodes shows what it does");
    }
    let network = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"wireguard"}}"#;
    let mut lab = OwnedLab::bare(Spec { pods: 0, ..Spec::test(1).network(network) });
    let name = lab.new_node().unwrap();
    lab.start_agent(&name).unwrap();
    let told = wait::until_ok(REPAIR, "the agent to say what the kernel lacks", || {
        let answer = lab.readyz(&name).map_err(|error| error.to_string())?;
        if answer.body.contains("WireGuard") { Ok(answer) } else { Err(answer.body) }
    })
    .unwrap();
    assert_eq!(told.status, 503);
    for words in
        ["this kernel has no WireGuard: module wireguard is neither loaded nor can it be", "modprobe wireguard"]
    {
        assert!(told.body.contains(words), "{}", told.body);
    }
    assert!(!lab.node(&name).unwrap().conflist().exists(), "no pod is to come");
}

#[test]
fn d30_d31_direct_routing_follows_the_topology() {
    let network = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}"#;
    let lab = OwnedLab::up(Spec::test(2).network(network));
    let (one, two) = (lab.node("node1").unwrap(), lab.node("node2").unwrap());
    let subnet = two.subnets()[0].clone();
    await_route(one, &subnet, is_direct(two));
    assert_eq!(entries(one), (vec![], vec![]), "on the same link there is no tunnel");
    let matrix = lab.matrix(REPAIR).unwrap();
    assert!(matrix.complete(), "{:?}", matrix.broken());

    // A third one behind a router.
    let value = json!({"PublicIP": "203.0.113.9", "PublicIPv6": null, "BackendType": "vxlan",
        "BackendData": {"VNI": 1, "VtepMAC": "0a:00:00:00:00:c9"}});
    let key = format!("{NETWORK_PREFIX}/subnets/10.244.201.0-24");
    lab.etcd().unwrap().put(&key, &value.to_string()).unwrap();
    await_route(one, "10.244.201.0/24", is_tunnelled);
    let (neighbours, forwarding) = entries(one);
    assert_eq!((neighbours.len(), forwarding.len()), (1, 1), "{neighbours:?} {forwarding:?}");

    // The two are put behind a router from each other, and back.
    lab.underlay_netns().sysctl("net/ipv4/ip_forward", "1").unwrap();
    let detour = |verb: &str| {
        for (here, there) in [(one, two), (two, one)] {
            let to = format!("{}/32", there.v4());
            here.netns.tool("ip", &["route", verb, &to, "via", "192.168.100.1"]).unwrap();
        }
    };
    detour("add");
    await_route(one, &subnet, is_tunnelled);
    await_route(two, &one.subnets()[0], is_tunnelled);
    assert_eq!(entries(one).1.len(), 2);
    let matrix = lab.matrix(REPAIR).unwrap();
    assert!(matrix.complete(), "{:?}", matrix.broken());
    detour("del");
    await_route(one, &subnet, is_direct(two));
    await_route(two, &one.subnets()[0], is_direct(one));
    assert_eq!(entries(one).1.len(), 1);
    assert!(lab.matrix(REPAIR).unwrap().complete());
}
