//! What the node is like: how it starts, what it lacks, and what others have set up on it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use weft_tests::kube::{ApiStore, Endpoint, Port, SERVICE_CIDR_V4, SERVICE_CIDR_V6, Service, slices_of};
use weft_tests::lab::{NETWORK_PREFIX, OwnedLab, Spec};
use weft_tests::netns::Netns;
use weft_tests::probe::{self, Outcome, ProbeServer, Question};
use weft_tests::svc::{Bench, mode, patience, vips};
use weft_tests::{process, skip, tool, wait};

use super::monitor::has_nft;
use super::{is_ipvs, usual, web};

/// A table of somebody else's, as a distribution's firewall has it, for as long as this lives.
struct Firewall(Netns);

impl Firewall {
    /// What passes the hook is dropped but for `exceptions`, what belongs to a connection, and what a node of an
    /// overlay has to take in.
    fn put(node: &Netns, hook: &str, exceptions: &str) -> Self {
        let own = "meta l4proto { icmp, ipv6-icmp } accept; iif lo accept; udp dport 8472 accept;";
        let rules = format!("ct state established,related accept; {own} {exceptions}");
        let chain = format!("chain c {{ type filter hook {hook} priority filter; policy drop; {rules} }}");
        node.tool("nft", &[&format!("table inet distribution {{ {chain}; }}")]).unwrap();
        Self(node.clone())
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        let gone = self.0.tool("nft", &["delete", "table", "inet", "distribution"]);
        if let Err(error) = gone {
            eprintln!("left behind: {error:#}");
        }
    }
}

/// A Service with a node port and endpoints on both nodes, and the node ports.
fn on_both(bench: &Bench, case: &weft_tests::svc::Case<'_>) -> (Service, Vec<SocketAddr>) {
    let port = case.node_port();
    let service = case.service("web", &[Port::tcp(80, 8080).on_nodes(port)]);
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    (service, super::at(bench.node_ips(), port))
}

#[test]
fn t106_a_node_that_takes_nothing_in_serves_node_ports_and_its_own_clients() {
    if !has_nft() {
        skip!("there is no nft to play the firewall");
    }
    let bench = usual();
    let case = bench.alone("t106i");
    let (service, node_ports) = on_both(&bench, &case);
    let _firewall = Firewall::put(&bench.node.netns, "input", "");
    // What is translated before routing is never taken in, but forwarded.
    node_ports.into_iter().for_each(|door| drop(bench.ext.to(door).is_served_by(&["l1", "r1"])));
    for vip in vips(&service) {
        bench.node.to(vip).is_served_by(&["l1", "r1"]);
        if is_ipvs() {
            // IPVS sees packets of others behind INPUT.
            bench.pod.to(vip).is_dropped();
        } else {
            bench.pod.to(vip).is_served_by(&["l1", "r1"]);
        }
    }
    drop(_firewall);
    let services = format!("ip daddr {SERVICE_CIDR_V4} accept; ip6 daddr {SERVICE_CIDR_V6} accept;");
    let _firewall = Firewall::put(&bench.node.netns, "input", &services);
    vips(&service).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1", "r1"])));
}

#[test]
fn t106_a_node_that_forwards_nothing_has_to_let_pods_through() {
    if !has_nft() {
        skip!("there is no nft to play the firewall");
    }
    let bench = usual();
    let case = bench.alone("t106f");
    let (service, node_ports) = on_both(&bench, &case);
    case.serve(&service, &[bench.r1.ready()]);
    case.settle();
    let firewall = Firewall::put(&bench.node.netns, "forward", "");
    for vip in vips(&service) {
        bench.node.to(vip).is_served_by(&["r1"]);
        if is_ipvs() {
            // IPVS takes packets in and sends them out again; only the answers are forwarded.
            bench.pod.to(vip).is_served_by(&["r1"]);
        } else {
            bench.pod.to(vip).is_dropped();
        }
    }
    node_ports.iter().for_each(|door| bench.ext.to(*door).is_dropped());
    drop(firewall);
    let pods = bench.lab().node("node1").unwrap().clone();
    let networks =
        ["ip saddr 10.244.0.0/16", "ip daddr 10.244.0.0/16", "ip6 saddr fd00:244::/48", "ip6 daddr fd00:244::/48"];
    let exceptions: String = networks.iter().map(|network| format!("{network} accept; ")).collect();
    let _firewall = Firewall::put(&pods.netns, "forward", &exceptions);
    vips(&service).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["r1"])));
    node_ports.into_iter().for_each(|door| drop(bench.ext.to(door).is_served_by(&["r1"])));
}

/// Services and slices are one list of one revision, which counts once all of it has been read.
#[test]
fn t022_until_everything_has_been_read_the_kernel_stays_as_it_is() {
    let bench = usual();
    let case = bench.alone("t022");
    let ports = [Port::tcp(80, 8080).on_nodes(case.node_port())];
    let (stays, goes) = (case.service("stays", &ports), case.service("goes", &web()));
    case.apply(&stays, &[bench.l1.ready(), bench.r1.ready()]);
    case.apply(&goes, &[bench.l1.ready()]);
    let ask = || {
        vips(&stays).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1", "r1"])));
        vips(&goes).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1"])));
    };
    bench.kill_agent();
    case.delete(goes.json());
    bench.lab().kill_etcd().unwrap();
    bench.lab().start_agent("node1").unwrap();
    let waits = || match bench.lab().readyz("node1") {
        Ok(answer) if answer.status == 503 && !answer.body.contains("[+] services") => Ok(()),
        answer => Err(format!("{answer:?}")),
    };
    wait::until_ok(patience(Duration::from_secs(20)), "the agent to say that it waits", waits).unwrap();
    wait::throughout(Duration::from_secs(3), || {
        ask();
        waits()
    })
    .unwrap();
    bench.lab().start_etcd().unwrap();
    bench.lab().await_ready("node1").unwrap();
    // Whoever watched has to come back, too.
    case.settle();
    vips(&stays).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1", "r1"])));
    vips(&goes).into_iter().for_each(|vip| assert_eq!(bench.pod.to(vip).times(2).go().served(), 0));
}

/// A lab of one node without agent, whose Services have addresses of both families.
fn one_node() -> OwnedLab {
    let mut lab = OwnedLab::bare(Spec::test(1).services(&mode()));
    let name = lab.new_node().unwrap();
    let networks = format!("{SERVICE_CIDR_V4},{SERVICE_CIDR_V6}");
    lab.set_agent_args(&name, &["--service-cidr", &networks]).unwrap();
    lab
}

fn ask(from: &Netns, target: SocketAddr) -> Outcome {
    let question = Question { limit: patience(Duration::from_millis(100)), ..Question::new(target) };
    probe::ask(from, &question, 8, 2).unwrap()
}

#[test]
fn t026_a_node_without_ipv6_serves_ipv4_and_finds_nothing_wrong() {
    let mut lab = one_node();
    let node = lab.node("node1").unwrap().netns.clone();
    for which in ["all", "default"] {
        node.sysctl(&format!("net/ipv6/conf/{which}/disable_ipv6"), "1").unwrap();
    }
    let ips: [IpAddr; 2] = ["10.96.0.26", "fd00:10:96::26"].map(|ip| ip.parse().unwrap());
    let service = Service::new("t026", "web", &ips).port(&Port::tcp(80, 8080).on_nodes(30026));
    let etcd = lab.etcd().unwrap().clone();
    let api = ApiStore::new(&etcd, NETWORK_PREFIX);
    lab.converge().unwrap();
    let pod = lab.node("node1").unwrap().pod("pod1").unwrap().clone();
    let _server = ProbeServer::start(&pod.netns, "pod", &[8080]).unwrap();
    let endpoints = [pod.v4().unwrap(), "fd00:244::26".parse().unwrap()].map(|ip| Endpoint::ready(ip, "node1"));
    slices_of(&service, &endpoints).iter().for_each(|slice| api.put(slice).unwrap());
    api.put(service.json()).unwrap();
    let doors = [SocketAddr::new(ips[0], 80), SocketAddr::new(lab.node("node1").unwrap().v4().into(), 30026)];
    wait::until_ok(patience(Duration::from_secs(20)), "the Service to be served", || {
        // The node's own way to a node port of its own is as good as another's.
        let outcomes = doors.map(|door| ask(&node, door));
        if outcomes.iter().all(|outcome| outcome.served() == 8) { Ok(()) } else { Err(format!("{outcomes:?}")) }
    })
    .unwrap();
    wait::until(patience(Duration::from_secs(5)), "a pod to be led to itself", || {
        ask(&pod.netns, doors[0]).served() == 8
    })
    .unwrap();
    let ready = lab.readyz("node1").unwrap();
    assert_eq!(ready.status, 200, "{}", ready.body);
    assert!(ready.body.contains("[+] services"), "{}", ready.body);
    let log = lab.log("node1").unwrap();
    assert!(!log.contains("ERROR") && !log.contains("IPv6"), "{log}");
    if has_nft() {
        let rules = node.tool("nft", &["list", "chain", "inet", "weft", "svc-services"]).unwrap();
        assert!(rules.contains("ip daddr") && !rules.contains("ip6 daddr"), "{rules}");
    }
}

/// How many Services come with the one that is to be first.
const MANY: u16 = 2000;

#[test]
fn t103_the_api_servers_service_is_there_before_those_of_everybody() {
    if !has_nft() {
        skip!("there is no nft to watch with");
    }
    let mut lab = one_node();
    let node = lab.node("node1").unwrap().clone();
    let first = Service::new("default", "kubernetes", &["10.96.0.1".parse().unwrap()]).port(&Port::tcp(443, 6443));
    let others = (0..MANY).map(|number| {
        let [high, low] = (0x100 + number).to_be_bytes();
        // Names that sort in front of it.
        Service::new("a", &format!("s{number}"), &[[10, 96, high, low].into()]).port(&Port::tcp(443, 6443))
    });
    let endpoints = [Endpoint::ready(node.v4().into(), "node1")];
    let etcd = lab.etcd().unwrap().clone();
    let api = ApiStore::new(&etcd, NETWORK_PREFIX);
    let objects = others.chain([first.clone()]).flat_map(|service| {
        let slices = slices_of(&service, &endpoints);
        slices.into_iter().chain([service.json().clone()])
    });
    let pair = |object: Value| (api.key(&object).unwrap(), object.to_string());
    etcd.put_all(objects.map(pair)).unwrap();
    let _server = ProbeServer::start(&node.netns, "api", &[6443]).unwrap();

    let log = lab.folder().join("nft-monitor");
    let monitor = process::spawn(&node.netns, tool::command("nft").arg("monitor"), &log).unwrap();
    let written = || std::fs::read_to_string(&log).unwrap();
    wait::until(Duration::from_secs(5), "the monitor to listen", || {
        let _ = node.netns.tool("nft", &["add", "table", "inet", "heard"]);
        let _ = node.netns.tool("nft", &["delete", "table", "inet", "heard"]);
        written().contains("heard")
    })
    .unwrap();
    lab.start_agent("node1").unwrap();
    let vip = SocketAddr::new(first.cluster_ips()[0], 443);
    wait::until(patience(Duration::from_secs(90)), "the API server to answer", || ask(&node.netns, vip).served() == 8)
        .unwrap();
    lab.await_ready("node1").unwrap();
    let last = SocketAddr::new([10, 96, 8, 0].into(), 443);
    wait::until(patience(Duration::from_secs(5)), "the last one to answer", || ask(&node.netns, last).served() == 8)
        .unwrap();
    monitor.kill();

    // In ipvs mode a door opens when the virtual server behind it is there.
    let set = if is_ipvs() { "svc-virtual4" } else { "svc-frontends4" };
    let head = format!("add element inet weft {set} ");
    let events = written();
    let added = |generation: &str| -> Vec<String> {
        let lines = generation.lines().filter(|line| line.starts_with(&head));
        lines.flat_map(|line| line.split(['{', ',']).skip(1).map(|element| element.trim().to_owned())).collect()
    };
    let opening = events.split("# new generation").map(added).find(|added| !added.is_empty()).unwrap();
    assert!(opening.iter().all(|element| element.starts_with("10.96.0.1 . ")), "came with others: {opening:?}");
}
