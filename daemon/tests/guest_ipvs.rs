//! Services in ipvs mode on a kernel that has ip_vs: what packets meet, and what the kernel holds. Runs in guests only:
//! `tests/guest.sh -p weft --features guest --test guest_ipvs`.
#![expect(clippy::disallowed_methods, reason = "ip, nft and ipvsadm play the other party")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[path = "ipvs/node.rs"]
mod node;
#[path = "ipvs/world.rs"]
#[allow(dead_code, reason = "the tests of the ground need more of it")]
mod world;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use node::{Node, options, port, served_world};
use weft::cluster::family::Family;
use weft::cluster::services::Protocol;
use weft::service::ipvs::Reason;
use weft::service::model::PortPlan;
use weft_netlink::ipvs::{RealServer, Scheduler, Socket, Target, VirtualServer};
use weft_netlink::protocol;
use world::{PATIENCE, Server, World, cluster_ip, datagram, gateway, node_ip, pod};

const LIMIT: Duration = Duration::from_secs(120);

fn vip(number: u8, family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(cluster_ip(number, family), port)
}

fn tcp(number: u8, family: Family, pods: &[u8]) -> PortPlan {
    port(&format!("tcp{number}"), Protocol::Tcp, vip(number, family, 80), pods)
}

fn udp(number: u8, family: Family, pods: &[u8]) -> PortPlan {
    port(&format!("udp{number}"), Protocol::Udp, vip(number, family, 80), pods)
}

fn target(port: &PortPlan) -> Target {
    let weft::service::model::FrontendKey::Address { address, protocol, port } = port.frontends[0].key else {
        panic!("not an address")
    };
    Target::Address { address, port, protocol: protocol.number() }
}

/// The real servers of a port with their weights, sorted; `None` if there is no virtual server.
fn reals(port: &PortPlan) -> Option<Vec<(String, u32)>> {
    let mut socket = Socket::open().unwrap();
    socket.virtual_server(&target(port)).unwrap()?;
    let infos = socket.real_servers(&target(port)).unwrap();
    let mut reals: Vec<_> =
        infos.iter().map(|info| (info.server.socket_address().to_string(), info.server.weight)).collect();
    reals.sort();
    Some(reals)
}

fn expected(pods: &[(u8, u32)]) -> Option<Vec<(String, u32)>> {
    Some(pods.iter().map(|(n, weight)| (SocketAddr::new(pod(*n, Family::V4), 8080).to_string(), *weight)).collect())
}

fn names(answers: &[String]) -> BTreeSet<&str> {
    answers.iter().map(String::as_str).collect()
}

/// Polls until it is so.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn t01_t02_pods_reach_both_backends_with_their_own_address() {
    let (world, _servers) = served_world();
    let _node = world.netns("node").guard().unwrap();
    let ports: Vec<_> =
        Family::ALL.into_iter().flat_map(|family| [tcp(1, family, &[1, 2]), udp(1, family, &[1, 2])]).collect();
    let (_node, applied) = Node::start(&ports);
    assert!(applied.problems.is_empty(), "{:?}", applied.problems);
    for family in Family::ALL {
        let answers = world.ask_often("three", vip(1, family, 80), 10);
        assert_eq!(answers.iter().filter(|name| *name == "one").count(), 5, "round robin: {answers:?}");
        assert_eq!(names(&answers).len(), 2);
        assert_eq!(world.ask("three", vip(1, family, 80)).unwrap().1, pod(3, family));
        let datagrams: Vec<_> = (0..6)
            .map(|_| {
                let socket = world.udp("three", vip(1, family, 80));
                datagram(&socket).or_else(|_| datagram(&socket)).unwrap()
            })
            .collect();
        assert_eq!(datagrams.iter().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>().len(), 2);
        assert!(datagrams.iter().all(|(_, seen)| *seen == pod(3, family)), "{datagrams:?}");
    }
}

#[test]
fn t87_a_pod_reaches_itself_through_its_service() {
    let (world, _servers) = served_world();
    let _node = world.netns("node").guard().unwrap();
    let ports = Family::ALL.map(|family| tcp(1, family, &[1]));
    let (_node, _) = Node::start(&ports);
    for family in Family::ALL {
        let (name, seen) = world.ask("one", vip(1, family, 80)).unwrap();
        assert_eq!(name, "one");
        assert_ne!(seen, pod(1, family), "answers to itself would not come by here");
        assert_eq!(world.ask("two", vip(1, family, 80)).unwrap(), ("one".into(), pod(2, family)), "others as ever");
    }
}

#[test]
fn t109_the_host_is_seen_by_its_own_address_and_strangers_are_masqueraded() {
    let (world, _servers) = served_world();
    let _node = world.netns("node").guard().unwrap();
    let ports = Family::ALL.map(|family| tcp(1, family, &[1]));
    let (_node, _) = Node::start(&ports);
    for family in Family::ALL {
        let (name, seen) = world.ask("node", vip(1, family, 80)).unwrap();
        assert_eq!(name, "one");
        // It is no pod, so that it is masqueraded: as the node's address towards that pod.
        assert_eq!(seen, gateway(1, family));
        let (name, seen) = world.ask("lan", vip(1, family, 80)).unwrap();
        assert_eq!((name.as_str(), seen), ("one", gateway(1, family)), "and not the neighbour's own");
    }
}

#[test]
fn t06_t07_t107_what_is_not_a_service_is_refused_or_dropped_and_never_the_hosts() {
    let (world, _servers) = served_world();
    let _node = world.netns("node").guard().unwrap();
    let _sshd = Server::start(&world, "node", 22);
    let ports = Family::ALL.map(|family| tcp(1, family, &[1]));
    let nobody = Family::ALL.map(|family| tcp(2, family, &[]));
    let (_node, _) = Node::start(&[&ports[..], &nobody[..]].concat());
    for family in Family::ALL {
        for client in ["one", "lan", "node"] {
            let refused = |target| world.ask(client, target).unwrap_err().kind();
            assert_eq!(refused(vip(1, family, 22)), ErrorKind::ConnectionRefused, "{client}, {family}");
            assert_eq!(refused(vip(2, family, 80)), ErrorKind::ConnectionRefused, "{client}, {family}");
            let error = world.ask(client, vip(199, family, 22)).unwrap_err();
            // A drop on the way out is told to a local client.
            let silent = matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::PermissionDenied);
            assert!(silent, "{client}, {family}: {error}");
        }
        assert!(world.ask("lan", SocketAddr::new(node_ip(family), 22)).is_ok(), "the host itself is open");
    }
}

#[test]
fn a_restart_writes_nothing_and_cuts_nothing() {
    let (world, _servers) = served_world();
    let _node = world.netns("node").guard().unwrap();
    let mut ports: Vec<_> = Family::ALL.into_iter().flat_map(|f| [tcp(1, f, &[1, 2]), udp(1, f, &[1, 2])]).collect();
    ports.push(port("sctp", Protocol::Sctp, vip(7, Family::V4, 80), &[1]));
    ports[0].affinity = Some(Duration::from_secs(10_800));
    ports[1].scheduler = Some(Arc::from("mh"));
    let (node, applied) = Node::start(&ports);
    assert!(applied.problems.is_empty(), "{:?}", applied.problems);
    let mut conversation = world.open("three", vip(1, Family::V4, 80)).unwrap();
    let (mut node, applied) = node.restart(&ports);
    assert_eq!((applied.messages, applied.problems.len()), (0, 0));
    conversation.echo().unwrap();
    let applied = node.audit();
    assert_eq!((applied.messages, applied.repaired), (0, 0));
}

#[test]
fn t93_t94_a_backend_that_leaves_keeps_its_connections_also_over_a_restart_and_gets_no_new_ones() {
    let (world, _servers) = served_world();
    let _node = world.netns("node").guard().unwrap();
    let family = Family::V4;
    let (mut node, _) = Node::start(&[tcp(1, family, &[1, 2])]);
    let mut held = std::iter::repeat_with(|| world.open("three", vip(1, family, 80)).unwrap())
        .find(|conversation| conversation.name == "one")
        .unwrap();
    let after = tcp(1, family, &[2]);
    node.set(std::slice::from_ref(&after));
    assert_eq!(names(&world.ask_often("three", vip(1, family, 80), 6)), BTreeSet::from(["two"]));
    node.tick(Duration::from_secs(5));
    let (mut node, applied) = node.restart(std::slice::from_ref(&after));
    assert_eq!((applied.messages, reals(&after)), (0, expected(&[(1, 0), (2, 1)])));
    held.echo().unwrap();
    assert_eq!(names(&world.ask_often("three", vip(1, family, 80), 6)), BTreeSet::from(["two"]));
    held.reset();
    // IPVS remembers a reset connection for 10 seconds, and they are counted every 5.
    until("the backend to be gone", || {
        node.tick(Duration::ZERO);
        reals(&after) == expected(&[(2, 1)])
    });
}

#[test]
fn t95_a_connection_that_never_ends_is_cut_after_the_limit() {
    let (world, _servers) = served_world();
    let _node = world.netns("node").guard().unwrap();
    let family = Family::V4;
    let (mut node, _) = Node::start(&[tcp(1, family, &[1])]);
    let mut held = world.open("three", vip(1, family, 80)).unwrap();
    let after = tcp(1, family, &[2]);
    node.set(std::slice::from_ref(&after));
    node.tick(LIMIT - Duration::from_secs(10));
    assert_eq!(reals(&after), expected(&[(1, 0), (2, 1)]));
    held.echo().unwrap();
    node.tick(Duration::from_secs(20));
    assert_eq!(reals(&after), expected(&[(2, 1)]));
    // The client learns it at once, and does not wait for an answer until it gives up.
    let begin = Instant::now();
    until("the connection to break", || held.echo().is_err());
    assert!(begin.elapsed() < PATIENCE);
}

#[test]
fn a_service_that_goes_refuses_at_once_and_lets_its_connections_end() {
    let (world, _servers) = served_world();
    let _node = world.netns("node").guard().unwrap();
    let family = Family::V4;
    let port = tcp(1, family, &[1]);
    let (mut node, _) = Node::start(&[port.clone(), tcp(2, family, &[2])]);
    let mut held = world.open("three", vip(1, family, 80)).unwrap();
    node.remove(std::slice::from_ref(&port));
    assert!(world.ask("three", vip(1, family, 80)).is_err());
    held.echo().unwrap();
    assert_eq!(reals(&port), expected(&[(1, 0)]));
    node.tick(LIMIT + Duration::from_secs(1));
    assert_eq!(reals(&port), None);
    node.set(std::slice::from_ref(&port));
    assert_eq!(world.ask("three", vip(1, family, 80)).unwrap().0, "one");
}

#[test]
fn t82_t85_clients_stay_with_their_backend_until_it_drains() {
    let (world, _servers) = served_world();
    let _node = world.netns("node").guard().unwrap();
    let family = Family::V4;
    let mut sticky = tcp(1, family, &[1, 2]);
    sticky.affinity = Some(Duration::from_secs(10_800));
    let (mut node, _) = Node::start(std::slice::from_ref(&sticky));
    let answers = world.ask_often("three", vip(1, family, 80), 10);
    assert_eq!(names(&answers).len(), 1, "{answers:?}");
    let (gone, left) = if answers[0] == "one" { (1, 2) } else { (2, 1) };
    sticky.cluster.retain(|backend| backend.address != pod(gone, family));
    node.set(std::slice::from_ref(&sticky));
    let other = if left == 1 { "one" } else { "two" };
    assert_eq!(names(&world.ask_often("three", vip(1, family, 80), 4)), BTreeSet::from([other]));
}

#[test]
fn t89_t90_datagrams_of_a_client_move_to_another_backend() {
    let (world, _servers) = served_world();
    let _node = world.netns("node").guard().unwrap();
    for family in Family::ALL {
        let (mut node, _) = Node::start(&[udp(1, family, &[])]);
        let client = world.udp("three", vip(1, family, 80));
        assert!(datagram(&client).is_err());
        for (pods, name) in [(&[1][..], "one"), (&[2][..], "two")] {
            node.set(&[udp(1, family, pods)]);
            until("the flow to move", || datagram(&client).is_ok_and(|(answers, _)| answers == name));
        }
        node.ipvs.remove_all().unwrap();
    }
}

#[test]
fn p38_every_scheduler_of_the_kernel_serves_and_an_unknown_one_is_said() {
    let (world, _servers) = served_world();
    let _node = world.netns("node").guard().unwrap();
    let family = Family::V4;
    let names = ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "fastest"];
    let ports: Vec<_> = (1u8..)
        .zip(names)
        .map(|(number, name)| PortPlan { scheduler: Some(Arc::from(name)), ..tcp(number, family, &[1, 2]) })
        .collect();
    let (_node, applied) = Node::start(&ports);
    let said: Vec<String> = applied.problems.iter().map(ToString::to_string).collect();
    assert!(said.len() == 1 && said[0].contains("\"fastest\"") && said[0].ends_with("rr is used"), "{said:?}");
    for (port, name) in ports.iter().zip(names) {
        let server = Socket::open().unwrap().virtual_server(&target(port)).unwrap().unwrap().server;
        assert_eq!(server.scheduler.name(), if name == "fastest" { "rr" } else { name });
    }
    for (number, name) in (1u8..).zip(names) {
        world.ask("three", vip(number, family, 80)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

fn add_foreign(address: SocketAddr) -> Target {
    let target = Target::Address { address: address.ip(), port: address.port(), protocol: protocol::TCP };
    let mut batch = weft_netlink::ipvs::Batch::default();
    batch.add_virtual(&VirtualServer::new(target, Scheduler::WEIGHTED_LEAST_CONNECTIONS));
    batch.add_real(&target, &RealServer::new(pod(3, Family::V4), 8080, 7));
    let verdicts = Socket::open().unwrap().run(batch).unwrap();
    assert!(verdicts.iter().all(Result::is_ok), "{verdicts:?}");
    target
}

#[test]
fn t23_t99_what_is_ours_is_mended_and_what_is_not_is_left_alone() {
    let (world, _servers) = served_world();
    let _node = world.netns("node").guard().unwrap();
    let family = Family::V4;
    let foreign = add_foreign("192.0.2.1:6443".parse().unwrap());
    let ports = [tcp(1, family, &[1]), tcp(2, family, &[1, 2])];
    let (mut node, _) = Node::start(&ports);
    let ours_no = add_foreign(vip(3, family, 80));
    let applied = node.set(&[tcp(3, family, &[1])]);
    assert_eq!(applied.problems.iter().map(|p| &p.reason).collect::<Vec<_>>(), [&Reason::Conflict(ours_no)]);
    assert_eq!(world.ask("two", vip(3, family, 80)).unwrap().0, "three", "nor is it cut off");

    let mut batch = weft_netlink::ipvs::Batch::default();
    batch.delete_virtual(&target(&ports[0]));
    batch.delete_real(&target(&ports[1]), SocketAddr::new(pod(1, family), 8080));
    batch.set_real(&target(&ports[1]), &RealServer::new(pod(2, family), 8080, 0));
    Socket::open().unwrap().run(batch).unwrap();
    assert_eq!(node.audit().repaired, 2);
    assert_eq!(reals(&ports[0]), expected(&[(1, 1)]));
    assert_eq!(reals(&ports[1]), expected(&[(1, 1), (2, 1)]));

    node.ipvs.remove_all().unwrap();
    let left = Socket::open().unwrap().virtual_servers().unwrap();
    let left: BTreeSet<_> = left.into_iter().map(|info| info.server.target).collect();
    assert_eq!(left, BTreeSet::from([foreign, ours_no]));
}

#[test]
fn what_kube_proxy_has_left_is_taken_over_without_a_cut() {
    let (world, _servers) = served_world();
    let _node = world.netns("node").guard().unwrap();
    let family = Family::V4;
    let stale = add_foreign(vip(9, family, 80));
    let kept = add_foreign(vip(1, family, 80));
    world.ip("node", "link add kube-ipvs0 type dummy");
    let port = tcp(1, family, &[1]);
    let (mut node, applied) = Node::start(std::slice::from_ref(&port));
    let reasons: Vec<_> = applied.problems.iter().map(|problem| &problem.reason).collect();
    assert_eq!(reasons, [&Reason::KubeProxy(2), &Reason::Conflict(kept)]);
    let mut held = world.open("two", vip(1, family, 80)).unwrap();
    assert_eq!(held.name, "three");
    world.ip("node", "link delete kube-ipvs0");
    node.audit();
    assert_eq!(world.ask("two", vip(1, family, 80)).unwrap().0, "one");
    held.echo().unwrap();
    node.tick(LIMIT + Duration::from_secs(1));
    assert_eq!(Socket::open().unwrap().virtual_server(&stale).unwrap(), None);
    assert_eq!(reals(&port), expected(&[(1, 1)]));
}

#[test]
fn a_switch_to_nftables_takes_new_connections_at_once_and_lets_the_others_end() {
    let (world, _servers) = served_world();
    let _node = world.netns("node").guard().unwrap();
    let ports = Family::ALL.map(|family| tcp(1, family, &[1, 2]));
    let (mut node, _) = Node::start(&ports);
    let mut held = Family::ALL.map(|family| world.open("three", vip(1, family, 80)).unwrap());
    node.nft.set_options(weft::service::nft::Options { proxy_cluster_ips: true, ..options() }).unwrap();
    node.nft.finish().unwrap();
    let keys: Vec<_> = ports.iter().map(|port| port.key.clone()).collect();
    let mut applied = node.ipvs.sync(&[], &keys, node.now()).unwrap();
    while applied.more {
        applied = node.ipvs.proceed(node.now()).unwrap();
    }
    for (family, held) in Family::ALL.into_iter().zip(&mut held) {
        held.echo().unwrap();
        assert_eq!(names(&world.ask_often("three", vip(1, family, 80), 16)).len(), 2);
        held.echo().unwrap();
    }
    assert!(!node.ipvs.is_empty());
    node.tick(LIMIT + Duration::from_secs(1));
    assert!(node.ipvs.is_empty());
    assert_eq!(node.routes.remove().unwrap(), 2);
    node.ipvs.remove_all().unwrap();
    for family in Family::ALL {
        assert_eq!(names(&world.ask_often("three", vip(1, family, 80), 16)).len(), 2);
    }
    assert!(Socket::open().unwrap().virtual_servers().unwrap().is_empty());
}

#[test]
fn the_settings_are_made_and_the_timeouts_are_conntracks() {
    let world = World::new();
    let _node = world.netns("node").guard().unwrap();
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).map(|text| text.trim().to_owned());
    let (node, _) = Node::start(&[]);
    for (name, value) in [("conntrack", "1"), ("expire_nodest_conn", "1"), ("expire_quiescent_template", "1")] {
        assert_eq!(read(&format!("net/ipv4/vs/{name}")).unwrap(), value, "{name}");
    }
    // Linux 6.2 has it.
    if let Ok(value) = read("net/ipv4/vs/run_estimation") {
        assert_eq!(value, "0");
    }
    let timeouts = Socket::open().unwrap().timeouts().unwrap();
    let conntrack = read("net/netfilter/nf_conntrack_tcp_timeout_established").unwrap();
    assert_eq!(timeouts.tcp, Some(Duration::from_secs(conntrack.parse().unwrap())));
    node.ipvs.remove_all().unwrap();
    assert_eq!(Socket::open().unwrap().timeouts().unwrap().tcp, Some(Duration::from_secs(900)));
}
