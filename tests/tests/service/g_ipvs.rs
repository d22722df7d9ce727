//! What only ipvs mode has: virtual servers as the kernel lists them, those of others, and the switch of modes. Run in a guest.

use std::time::Duration;

use weft_tests::kube::{Port, Service};
use weft_tests::netns::Netns;
use weft_tests::probe::{Answer, Dialogue, Transport};
use weft_tests::svc::{Bench, mode, patience, vips};
use weft_tests::{skip, tool, wait};

use super::{is_ipvs, usual, web};

/// The promise for every repair, and a look.
const REPAIR: Duration = Duration::from_secs(12);

/// A real server, as `ipvsadm` shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RealServer {
    address: String,
    forward: String,
    weight: String,
}

/// The scheduler and the real servers of a Service's IPv4 virtual server, if there is one. Asked for by its address: the
/// kernel's lists pass over some while there are others in other namespaces.
fn listed(node: &Netns, service: &Service) -> Option<(String, Vec<RealServer>)> {
    let vip = vips(service).into_iter().find(std::net::SocketAddr::is_ipv4).unwrap().to_string();
    let text = match node.tool("ipvsadm", &["-Ln", "-t", &vip]) {
        Ok(text) => text,
        Err(error) if format!("{error:#}").contains("No such service") => return None,
        Err(error) => panic!("{error:#}"),
    };
    let head = format!("TCP  {vip} ");
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&head));
    let scheduler = lines.next()?.split_whitespace().nth(2)?.to_owned();
    let servers = lines.take_while(|line| line.trim_start().starts_with("->"));
    let server = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        RealServer { address: words[1].into(), forward: words[2].into(), weight: words[3].into() }
    };
    let mut servers: Vec<RealServer> = servers.map(server).collect();
    servers.sort();
    Some((scheduler, servers))
}

/// Whether there is IPVS, and its judge.
fn has_ipvsadm() -> bool {
    is_ipvs() && tool::call("ipvsadm", &["--version"]).is_ok()
}

fn weights(bench: &Bench, service: &Service) -> Vec<String> {
    let servers = listed(&bench.node.netns, service).map(|(_, servers)| servers).unwrap_or_default();
    servers.into_iter().map(|server| server.weight).collect()
}

#[test]
fn t001_a_cluster_ip_is_a_virtual_server_and_nobodys_address() {
    if !has_ipvsadm() {
        skip!("of ipvs mode, and needs ipvsadm");
    }
    let bench = usual();
    let case = bench.case("t001g");
    let service = case.service("web", &web());
    case.apply(&service, &[bench.l1.ready()]);
    let (scheduler, servers) = listed(&bench.node.netns, &service).unwrap();
    let address = format!("{}:8080", bench.l1.ips[0]);
    let expected = RealServer { address, forward: "Masq".into(), weight: "1".into() };
    assert_eq!((scheduler.as_str(), servers), ("rr", vec![expected]));
    let shown = bench.node.netns.tool("ip", &["addr", "show"]).unwrap();
    assert!(!shown.contains("10.96."), "{shown}");
    // Neighbours that ask for it get no answer, although a local route leads it here.
    let vip = vips(&service)[0];
    let route = format!("{}/32", vip.ip());
    bench.ext.netns.tool("ip", &["route", "add", &route, "dev", "eth0"]).unwrap();
    let outcome = bench.ext.to(vip).times(1).within(patience(Duration::from_secs(5))).go();
    bench.ext.netns.tool("ip", &["route", "delete", &route, "dev", "eth0"]).unwrap();
    assert_eq!(outcome.served(), 0, "the node says that it is {vip}");
    case.delete(service.json());
    case.settle();
    // Until the last connection is forgotten, which takes ten seconds after a reset.
    let gone = || listed(&bench.node.netns, &service).is_none();
    wait::until(Duration::from_secs(40), "the virtual server to go", gone).unwrap();
}

#[test]
fn t023_virtual_servers_of_others_are_not_touched() {
    if !has_ipvsadm() {
        skip!("of ipvs mode, and needs ipvsadm");
    }
    let bench = usual();
    let case = bench.alone("t023");
    let node = &bench.node.netns;
    let foreign = ["192.0.2.9:6443", "10.103.97.1:6443"];
    for vip in foreign {
        node.tool("ipvsadm", &["-A", "-t", vip, "-s", "wrr"]).unwrap();
        node.tool("ipvsadm", &["-a", "-t", vip, "-r", "192.0.2.10:6443", "-m", "-w", "7"]).unwrap();
    }
    let service = case.service("web", &web());
    case.apply(&service, &[bench.l1.ready()]);
    bench.kill_agent();
    bench.start_agent();
    case.delete(service.json());
    case.settle();
    let shown = node.tool("ipvsadm", &["-Ln"]).unwrap();
    for vip in foreign {
        assert!(shown.contains(&format!("{vip} wrr")), "{shown}");
        node.tool("ipvsadm", &["-D", "-t", vip]).unwrap();
    }
    assert_eq!(shown.matches("192.0.2.10:6443").count(), 2, "{shown}");
}

#[test]
fn t093_a_real_server_that_goes_is_drained_then_removed() {
    if !has_ipvsadm() {
        skip!("of ipvs mode, and needs ipvsadm");
    }
    let bench = usual();
    let case = bench.case("t093g");
    let service = case.service("web", &web());
    case.apply(&service, &[bench.l1.ready()]);
    let open = bench.pod.to(vips(&service)[0]).open();
    assert!(matches!(open.ask(), Answer::Served { .. }));
    case.apply(&service, &[bench.r1.ready()]);
    let mut found = weights(&bench, &service);
    found.sort();
    assert_eq!(found, ["0", "1"]);
    drop(open);
    // A connection that was reset is kept for ten seconds, then the drain looks again.
    wait::until_ok(Duration::from_secs(40), "the drained real server to be removed", || {
        let found = weights(&bench, &service);
        if found == ["1"] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .unwrap();
}

#[test]
fn t099_a_virtual_server_that_somebody_deletes_is_back() {
    if !has_ipvsadm() {
        skip!("of ipvs mode, and needs ipvsadm");
    }
    let bench = usual();
    let case = bench.alone("t099g");
    let service = case.service("web", &web());
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    let before = listed(&bench.node.netns, &service);
    bench.node.netns.tool("ipvsadm", &["-C"]).unwrap();
    wait::until_ok(patience(REPAIR), "the virtual server to be back", || {
        let found = listed(&bench.node.netns, &service);
        if found == before { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .unwrap();
    vips(&service).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1", "r1"])));
}

/// Restarts node 1's agent in another mode.
fn switch(bench: &Bench, mode: &str) {
    bench.lab().stop_agent("node1").unwrap();
    bench.lab().set_agent_args("node1", &["--proxy-mode", mode]).unwrap();
    bench.start_agent();
    assert_eq!(bench.proxy("/proxyMode").unwrap().body.trim(), mode);
}

/// Has the agent back in the mode under test, also when a test fails.
struct Restored<'a>(&'a Bench);

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        switch(self.0, &mode());
    }
}

#[cfg(any(feature = "whole", not(feature = "guest")))]
#[test]
fn a_switch_of_modes_keeps_connections_and_leaves_no_trace_of_the_other() {
    if !has_ipvsadm() {
        skip!("of ipvs mode, and needs ipvsadm");
    }
    let bench = usual();
    let case = bench.alone("switch");
    let service = case.service("web", &[Port::tcp(80, 8080).named("tcp"), Port::udp(80, 8080).named("udp")]);
    case.apply(&service, &[bench.l1.ready()]);
    let _restored = Restored(&bench);
    let served = |flows: &[Dialogue]| {
        for flow in flows {
            let answer = flow.ask();
            assert!(matches!(answer, Answer::Served { .. }), "{answer:?}");
        }
    };
    let open = || -> Vec<Dialogue> { vips(&service).into_iter().map(|vip| bench.pod.to(vip).open()).collect() };
    let works = || {
        for vip in vips(&service) {
            bench.pod.to(vip).is_served_by(&["l1"]).keeps_its_source();
            bench.pod.to(vip).over(Transport::Udp).is_served_by(&["l1"]).keeps_its_source();
        }
    };
    let by_ipvs = open();
    served(&by_ipvs);
    switch(&bench, "nftables");
    case.settle();
    served(&by_ipvs);
    works();
    let by_nftables = open();
    drop(by_ipvs);
    // Connections of other cases drain, too, for two minutes at most.
    wait::until_ok(Duration::from_secs(180), "the last trace of ipvs to go", || {
        let route = bench.node.netns.tool("ip", &["route", "show", "table", "local", "root", "10.96.0.0/12"]).unwrap();
        match (listed(&bench.node.netns, &service), route.is_empty()) {
            (None, true) => Ok(()),
            found => Err(format!("{found:?} {route}")),
        }
    })
    .unwrap();
    served(&by_nftables);
    works();
    switch(&bench, "ipvs");
    case.settle();
    served(&by_nftables);
    works();
    assert!(listed(&bench.node.netns, &service).is_some());
}
