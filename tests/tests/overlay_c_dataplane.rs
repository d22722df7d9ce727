//! The VXLAN dataplane in steady state, as the kernel shows it and as packets feel it.
//!
//! ```text
//!   node1 eth0 192.168.100.11 ──────── underlay ──────── 192.168.100.12 eth0 node2
//!     flannel.1 10.244.A.0/32   <====== VXLAN ======>   flannel.1 10.244.B.0/32
//!     cni0 ── pod1 10.244.A.2                           cni0 ── pod1 10.244.B.2
//! ```
//!
//! 30, 31 and 33 (plain routes) are in `overlay_c_backends`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::lab::{NETWORK_PREFIX, OwnedLab, Spec};
use weft_tests::netns::Netns;
use weft_tests::{probe, process, tool, wait};

/// How long a change at the source may take to reach the kernel.
const SOON: Duration = Duration::from_secs(2);

/// What the kernel of a node has on an overlay device: routes, neighbours, forwarding entries.
#[derive(Debug, Clone, PartialEq)]
struct Entries {
    routes: Vec<Value>,
    neighbours: Vec<Value>,
    forwarding: Vec<Value>,
}

impl Entries {
    fn of(node: &Netns, device: &str, family: &str) -> Self {
        let objects = |program: &str, words: &[&str]| {
            let mut found = node.objects(program, words).unwrap();
            found.sort_by_key(Value::to_string);
            found
        };
        let unicast = |entry: &Value| !entry["mac"].as_str().unwrap_or("33:33").starts_with("33:33");
        let mut forwarding = objects("bridge", &["fdb", "show", "dev", device]);
        forwarding.retain(unicast);
        let mut routes = objects("ip", &[family, "route", "show", "dev", device]);
        // The link-local network of the device itself is the kernel's.
        routes.retain(|route| route["dst"] != "fe80::/64");
        Self { routes, neighbours: objects("ip", &[family, "neigh", "show", "dev", device]), forwarding }
    }

    /// What of it belongs to one peer: by its subnet, the subnet's first address, and its MAC.
    fn about(&self, subnet: &str, mac: &str) -> Self {
        let first = subnet.split('/').next().unwrap();
        let only = |list: &[Value], key: &str, value: &str| list.iter().filter(|v| v[key] == value).cloned().collect();
        Self {
            routes: only(&self.routes, "dst", subnet),
            neighbours: only(&self.neighbours, "dst", first),
            forwarding: only(&self.forwarding, "mac", mac),
        }
    }

    fn counts(&self) -> [usize; 3] {
        [self.routes.len(), self.neighbours.len(), self.forwarding.len()]
    }
}

/// A peer as flannel itself would register it.
fn register(lab: &OwnedLab, number: u8) -> (String, String, String) {
    let (subnet, mac) = (format!("10.244.{number}.0"), format!("0a:00:00:00:00:{number:02x}"));
    let value = json!({"PublicIP": format!("192.168.100.{number}"), "PublicIPv6": null, "BackendType": "vxlan",
        "BackendData": {"VNI": 1, "VtepMAC": mac}});
    let key = format!("{NETWORK_PREFIX}/subnets/{subnet}-24");
    lab.etcd().unwrap().put(&key, &value.to_string()).unwrap();
    (key, format!("{subnet}/24"), mac)
}

fn await_counts(node: &Netns, subnet: &str, mac: &str, wanted: [usize; 3]) -> Entries {
    wait::until_ok(SOON, &format!("{wanted:?} entries about {subnet}"), || {
        let found = Entries::of(node, "flannel.1", "-4").about(subnet, mac);
        if found.counts() == wanted { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .unwrap()
}

#[test]
fn d23_a_new_peer_is_one_neighbour_one_forwarding_entry_and_one_route_within_two_seconds() {
    let lab = OwnedLab::up(Spec { pods: 0, ..Spec::test(1) });
    let node = &lab.node("node1").unwrap().netns;
    let (_, subnet, mac) = register(&lab, 201);
    let found = await_counts(node, &subnet, &mac, [1, 1, 1]);
    let route = &found.routes[0];
    assert_eq!(route["gateway"], "10.244.201.0");
    assert!(route["flags"].as_array().unwrap().contains(&json!("onlink")), "{route}");
    let neighbour = &found.neighbours[0];
    assert_eq!((&neighbour["lladdr"], &neighbour["state"]), (&json!(mac), &json!(["PERMANENT"])));
    let forwarding = &found.forwarding[0];
    assert_eq!(forwarding["dst"], "192.168.100.201");
    assert_eq!(forwarding["state"], "permanent");
    assert!(forwarding["flags"].as_array().unwrap().contains(&json!("self")), "{forwarding}");
}

#[test]
fn d23_real_peers_are_programmed_from_what_they_publish() {
    let lab = OwnedLab::up(Spec { pods: 0, ..Spec::test(3) });
    let view = lab.view();
    for here in &view.nodes {
        for there in view.nodes.iter().filter(|there| there.name != here.name) {
            let found = await_counts(&here.netns, &there.subnets[0], &there.vteps[0].mac, [1, 1, 1]);
            assert_eq!(found.forwarding[0]["dst"], there.vteps[0].ip.as_str());
        }
        assert_eq!(Entries::of(&here.netns, "flannel.1", "-4").counts(), [2, 2, 2], "something for nobody");
    }
}

#[test]
fn d25_a_peer_that_goes_takes_its_entries_along_and_nobody_elses() {
    let lab = OwnedLab::up(Spec { pods: 0, ..Spec::test(2) });
    let node = &lab.node("node1").unwrap().netns;
    let other = &lab.view().nodes[1];
    await_counts(node, &other.subnets[0], &other.vteps[0].mac, [1, 1, 1]);
    let before = Entries::of(node, "flannel.1", "-4");

    // Whatever happens to an entry, even for a moment, is an event.
    let log = lab.folder().join("events");
    let mut monitor = tool::command("ip");
    let monitor = process::spawn(node, monitor.args(["-o", "monitor", "route", "neigh"]), &log).unwrap();
    let events = || std::fs::read_to_string(&log).unwrap();
    let (key, subnet, mac) = register(&lab, 201);
    wait::until(SOON, "the events of a new peer", || events().contains(&subnet)).unwrap();
    await_counts(node, &subnet, &mac, [1, 1, 1]);
    lab.etcd().unwrap().delete(&key).unwrap();
    await_counts(node, &subnet, &mac, [0, 0, 0]);
    wait::until(SOON, "the events of its end", || events().contains("Deleted")).unwrap();
    monitor.kill();
    let first = other.subnets[0].split('/').next().unwrap();
    assert!(!events().contains(first) && !events().contains(&other.vteps[0].mac), "{}", events());
    assert_eq!(Entries::of(node, "flannel.1", "-4"), before);
}

#[test]
fn d26_pods_on_two_nodes_exchange_everything_and_see_each_others_own_address() {
    for spec in [Spec::test(2), Spec::test(2).dual_stack()] {
        let dual = spec.dual_stack;
        let lab = OwnedLab::up(spec);
        let matrix = lab.matrix(Duration::from_secs(10)).unwrap();
        assert!(matrix.complete(), "{:?}", matrix.broken());
        let pods = ["node1", "node2"].map(|node| lab.node(node).unwrap().pod("pod1").unwrap().clone());
        for (from, to) in [(&pods[0], &pods[1]), (&pods[1], &pods[0])] {
            let mut families = vec![(from.v4().unwrap(), to.v4().unwrap())];
            if dual {
                families.push((from.v6().unwrap(), to.v6().unwrap()));
            }
            for (own, target) in families {
                let bytes = 100_000_000;
                let seen = probe::tcp_transfer(&from.netns, &to.netns, target, bytes).unwrap();
                assert_eq!((seen.client, seen.bytes), (own, bytes));
                assert_eq!(probe::udp_echo(&from.netns, &to.netns, target).unwrap(), own);
            }
        }
    }
}

#[test]
fn d27_a_host_reaches_remote_pods_from_its_end_of_the_overlay() {
    let lab = OwnedLab::up(Spec::test(2));
    assert!(lab.matrix(Duration::from_secs(10)).unwrap().complete());
    let (here, there) = (lab.node("node1").unwrap(), lab.node("node2").unwrap());
    let pod = there.pod("pod1").unwrap();
    let own: std::net::IpAddr = here.subnets()[0].split('/').next().unwrap().parse().unwrap();
    let seen = probe::tcp_transfer(&here.netns, &pod.netns, pod.v4().unwrap(), 1000).unwrap();
    assert_eq!(seen.client, own);
    assert_eq!(probe::udp_echo(&here.netns, &pod.netns, pod.v4().unwrap()).unwrap(), own);
    // And a remote host's pod is reached from a pod as well, by the node's underlay address.
    assert!(probe::ping(&pod.netns, here.v4().into(), Duration::from_secs(2)).unwrap().is_some());
}

#[test]
fn d29_port_and_vni_are_those_of_the_network_configuration() {
    let network = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":42,"Port":4789}}"#;
    let lab = OwnedLab::up(Spec::test(2).network(network));
    for node in lab.nodes() {
        let links = node.netns.objects("ip", &["-d", "link", "show", "type", "vxlan"]).unwrap();
        assert_eq!(links.len(), 1);
        let data = &links[0]["linkinfo"]["info_data"];
        assert_eq!(links[0]["ifname"], "flannel.42");
        assert_eq!((&data["id"], &data["port"]), (&json!(42), &json!(4789)));
        assert_eq!(data["local"], node.v4().to_string());
        assert_eq!(data["learning"], false);
        assert_eq!(links[0]["mtu"], 1450);
    }
    assert!(lab.matrix(Duration::from_secs(10)).unwrap().complete());
}
