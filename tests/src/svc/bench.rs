//! Bringing the bench up, and what a test may do to its nodes.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::AtomicU16;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::Place;
use crate::etcd::Etcd;
use crate::http::{self, Answer};
use crate::kube::{ApiStore, Node, SERVICE_CIDR_V4, SERVICE_CIDR_V6};
use crate::lab::{NETWORK_PREFIX, OUTSIDE, OwnedLab, Spec, tail};
use crate::netns::Netns;
use crate::probe::ProbeServer;
use crate::{tool, wait};

/// The ports that every pod of the bench answers at.
const PORTS: [u16; 2] = [8080, 8443];
/// Networks of load balancers' addresses, which the outside reaches by node 1.
const OUTER: [&str; 2] = ["203.0.113.0/24", "2001:db8:113::/64"];
/// How many further addresses the client outside has.
const CLIENTS: u16 = 40;
/// Those of IPv4: `10.250.0.1` and so on.
pub const CLIENTS_V4: &str = "10.250.0.0/24";
/// Those of IPv6: `fd00:250::1` and so on.
pub const CLIENTS_V6: &str = "fd00:250::/64";

/// The mode in which the agents serve Services: `WEFT_TEST_PROXY_MODE`, else ipvs in a guest, whose kernel is there for it,
/// and nftables elsewhere.
#[must_use]
pub fn mode() -> String {
    std::env::var("WEFT_TEST_PROXY_MODE")
        .unwrap_or_else(|_| if wait::in_guest() { "ipvs" } else { "nftables" }.to_owned())
}

/// Two nodes with pods, and a client outside. Node 1 is in zone `a`, node 2 in zone `b`: so their Nodes in etcd say.
#[derive(Debug)]
pub struct Bench {
    /// A pod on node 1 that answers.
    pub l1: Place,
    /// Another one.
    pub l2: Place,
    /// A pod on node 1 that only asks.
    pub pod: Place,
    /// A pod on node 2 that answers.
    pub r1: Place,
    /// Another one.
    pub r2: Place,
    /// A pod on node 2 that only asks.
    pub far: Place,
    /// Node 1, with all its addresses.
    pub node: Place,
    /// Node 2.
    pub other: Place,
    /// The client outside.
    pub ext: Place,
    etcd: Etcd,
    pub(super) next: AtomicU16,
    pub(super) outer: AtomicU16,
    pub(super) quiet: RwLock<()>,
    logs: Vec<PathBuf>,
    // Before the lab: servers end before their namespaces.
    _servers: Vec<ProbeServer>,
    lab: Mutex<OwnedLab>,
}

impl Bench {
    /// Brings a bench up whose agents serve Services in the [`mode`] under test, with these further arguments.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn up(agent_args: &[&str]) -> Self {
        let spec = Spec { pods: 3, ..Spec::test(2) }.dual_stack().services(&mode()).agent_args(agent_args);
        let mut lab = OwnedLab::bare(spec);
        let mut across_bridge = false;
        for zone in ["a", "b"] {
            let name = lab.new_node().unwrap();
            let object = Node::new(&name).zone(zone);
            ApiStore::new(lab.etcd().unwrap(), NETWORK_PREFIX).put(object.json()).unwrap();
            across_bridge |= !tune(&lab.node(&name).unwrap().netns);
        }
        lab.converge().unwrap_or_else(|error| panic!("the bench did not come up: {error:#}"));
        let ext = lab.outside().unwrap();
        lead_outside(&lab, &ext);

        let node = |name: &str| {
            let netns = lab.node(name).unwrap().netns.clone();
            Place { name: name.into(), ips: addresses(&netns), netns, node: name.into(), across_bridge: None }
        };
        let nodes = ["node1", "node2"].map(node);
        let pod = |home: &Place, number: &str, name: &str| {
            let record = lab.node(&home.name).unwrap().pod(number).unwrap().clone();
            let neighbours = if home.name == "node1" { "l" } else { "r" };
            let across_bridge = across_bridge.then(|| (neighbours, Arc::from(home.ips.clone())));
            Place { name: name.into(), netns: record.netns, ips: record.ips, node: home.name.clone(), across_bridge }
        };
        let [node, other] = &nodes;
        let [l1, l2, pod1] = [("pod1", "l1"), ("pod2", "l2"), ("pod3", "pod")].map(|(n, name)| pod(node, n, name));
        let [r1, r2, far] = [("pod1", "r1"), ("pod2", "r2"), ("pod3", "far")].map(|(n, name)| pod(other, n, name));
        let servers = [&l1, &l2, &r1, &r2].map(|p| ProbeServer::start(&p.netns, &p.name, &PORTS).unwrap()).into();
        let clients = (1..=CLIENTS).flat_map(|number| [client(false, number), client(true, number)]);
        let ips = OUTSIDE.into_iter().chain(clients).collect();
        let ext = Place { name: "ext".into(), netns: ext, ips, node: String::new(), across_bridge: None };
        let [node, other] = nodes;
        Self {
            etcd: lab.etcd().unwrap().clone(),
            next: AtomicU16::new(0x100),
            outer: AtomicU16::new(1),
            quiet: RwLock::new(()),
            logs: lab.nodes().iter().map(|node| node.path("agent.log")).collect(),
            _servers: servers,
            lab: Mutex::new(lab),
            l1,
            l2,
            pod: pod1,
            r1,
            r2,
            far,
            node,
            other,
            ext,
        }
    }

    /// The lab, to do something to its nodes: only in a case that is [alone](Bench::alone).
    ///
    /// # Panics
    /// Never: a lab that a panicking test has left is taken as it is.
    pub fn lab(&self) -> MutexGuard<'_, OwnedLab> {
        self.lab.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts node 1's agent and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn start_agent(&self) {
        let mut lab = self.lab();
        lab.start_agent("node1").unwrap();
        lab.await_ready("node1").unwrap();
    }

    /// Kills node 1's agent.
    ///
    /// # Panics
    /// When none runs.
    pub fn kill_agent(&self) {
        self.lab().kill_agent("node1").unwrap();
    }

    /// What node 1's agent answers where kube-proxy has its metrics.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn proxy(&self, path: &str) -> anyhow::Result<Answer> {
        http::get(&self.node.netns, SocketAddr::from((Ipv4Addr::LOCALHOST, 10249)), path)
    }

    /// What somebody answers on HTTP to the client outside.
    ///
    /// # Errors
    /// When nobody does.
    pub fn http_from_outside(&self, server: SocketAddr, path: &str) -> anyhow::Result<Answer> {
        http::get(&self.ext.netns, server, path)
    }

    /// The Kubernetes objects.
    #[must_use]
    pub fn api(&self) -> ApiStore<'_> {
        ApiStore::new(&self.etcd, NETWORK_PREFIX)
    }

    /// The underlay addresses of node 1.
    #[must_use]
    pub fn node_ips(&self) -> [IpAddr; 2] {
        let lab = self.lab();
        let node = lab.node("node1").unwrap();
        [node.v4().into(), node.v6().into()]
    }

    /// The ends of the agents' logs.
    #[must_use]
    pub fn story(&self) -> String {
        self.logs.iter().map(|log| format!("{}:\n{}\n", log.display(), tail(log, 25))).collect()
    }
}

/// The address of that number of the clients outside, from 1 to 40.
#[must_use]
pub fn client(v6: bool, number: u16) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, 0x250, 0, 0, 0, 0, 0, number).into()
    } else {
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(10, 250, high, low).into()
    }
}

/// Prepares a node. Says whether its bridge shows pods' packets to the rules.
fn tune(node: &Netns) -> bool {
    // The kernel sends few refusals a second to one client, and a test asks for many.
    node.sysctl("net/ipv4/icmp_ratelimit", "0").unwrap();
    node.sysctl("net/ipv6/icmp/ratelimit", "0").unwrap();
    let calls = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"];
    calls.iter().all(|name| node.sysctl(&format!("net/bridge/{name}"), "1").is_ok())
}

/// Gives the outside its client addresses and the ways to Services, and nodes the way back.
fn lead_outside(lab: &OwnedLab, ext: &Netns) {
    let first = lab.node("node1").unwrap();
    let mut lines = String::new();
    for number in 1..=CLIENTS {
        writeln!(lines, "addr add {}/32 dev lo\naddr add {}/128 dev lo", client(false, number), client(true, number))
            .unwrap();
    }
    for (v4, v6) in [(SERVICE_CIDR_V4, SERVICE_CIDR_V6), (OUTER[0], OUTER[1])] {
        writeln!(lines, "route add {v4} via {}\nroute add {v6} via {}", first.v4(), first.v6()).unwrap();
    }
    batch(lab, ext, &lines);
    for node in lab.nodes() {
        let back = format!("route add {CLIENTS_V4} via {}\nroute add {CLIENTS_V6} via {}\n", OUTSIDE[0], OUTSIDE[1]);
        batch(lab, &node.netns, &back);
    }
}

fn batch(lab: &OwnedLab, netns: &Netns, lines: &str) {
    let file = lab.folder().join(format!("{}.batch", netns.name()));
    std::fs::write(&file, lines).unwrap();
    netns.command(tool::command("ip").arg("-batch").arg(file)).unwrap();
}

/// All addresses of a machine but those of `lo` and the link's own.
fn addresses(netns: &Netns) -> Vec<IpAddr> {
    let links = netns.objects("ip", &["addr", "show", "scope", "global"]).unwrap();
    let entries = links.iter().flat_map(|link| link["addr_info"].as_array().cloned().unwrap_or_default());
    let mut ips: Vec<IpAddr> = entries.filter_map(|entry| entry["local"].as_str()?.parse().ok()).collect();
    // The first of each family is the one that others know: the underlay's, whatever the order of the links.
    ips.sort_by_key(|ip| !matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 192));
    ips
}
