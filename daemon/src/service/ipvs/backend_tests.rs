//! The back end against a model of the kernel.

use std::sync::Arc;
use std::time::Duration;

use weft_netlink::ipvs::{RealServer, Scheduler};

use super::backend::{Applied, Door};
use super::bench_node::{LIMIT, Node, door, foreign, open, target};
use super::kernel::Op;
use super::plan::tests::port;
use super::problem::Reason;
use crate::cluster::services::{Protocol, TrafficPolicy};
use crate::service::model::PortPlan;

fn tcp(name: &str, address: &str, backends: &[&str]) -> Arc<PortPlan> {
    Arc::new(port(name, Protocol::Tcp, address, backends))
}

fn weights(pairs: &[(&str, u32)]) -> Option<Vec<(String, u32)>> {
    Some(pairs.iter().map(|(address, weight)| ((*address).to_owned(), *weight)).collect())
}

fn reasons(applied: &Applied) -> Vec<&Reason> {
    applied.problems.iter().map(|problem| &problem.reason).collect()
}

#[test]
fn a_start_writes_everything_and_a_restart_nothing() {
    let mut node = Node::new();
    let ports: Vec<_> = (0..600)
        .map(|n| tcp(&format!("s{n}"), &format!("10.96.{}.{}:80", n / 250, n % 250), &["10.0.0.1:80", "10.0.0.2:80"]))
        .collect();
    let applied = node.start(&ports);
    // One for the timeouts.
    assert_eq!((applied.messages, applied.doors.len()), (600 * 3 + 1, 600));
    assert!(applied.problems.is_empty());
    node.kernel.take_log();
    let applied = node.restart(&ports);
    assert_eq!((applied.messages, applied.doors.len()), (0, 600));
    let applied = node.audit();
    assert_eq!((applied.messages, applied.repaired, applied.doors.len()), (0, 0, 0));
    assert!(node.kernel.take_log().is_empty());
}

#[test]
fn one_endpoint_costs_its_own_messages() {
    let mut node = Node::new();
    let before = tcp("web", "10.96.0.1:80", &["10.0.0.1:80", "10.0.0.2:80"]);
    node.start(&[Arc::clone(&before)]);
    let after = tcp("web", "10.96.0.1:80", &["10.0.0.2:80", "10.0.0.3:80"]);
    let applied = node.sync(&[Arc::clone(&after)], &[]);
    assert_eq!((applied.messages, applied.doors.len()), (2, 0));
    assert_eq!(node.weights(&after), weights(&[("10.0.0.1:80", 0), ("10.0.0.2:80", 1), ("10.0.0.3:80", 1)]));
    let applied = node.wait(Duration::from_secs(5));
    assert_eq!(applied.messages, 1);
    assert_eq!(node.weights(&after), weights(&[("10.0.0.2:80", 1), ("10.0.0.3:80", 1)]));
    assert_eq!(node.services.wake(), None);
}

#[test]
fn t93_t94_a_backend_drains_also_over_a_restart_and_t95_not_for_ever() {
    let mut node = Node::new();
    let before = tcp("web", "10.96.0.1:80", &["10.0.0.1:80", "10.0.0.2:80"]);
    let after = tcp("web", "10.96.0.1:80", &["10.0.0.2:80"]);
    node.start(&[Arc::clone(&before)]);
    node.connect(&before, "10.0.0.1:80", 3);
    node.sync(&[Arc::clone(&after)], &[]);
    node.wait(LIMIT - Duration::from_secs(1));
    let drains = weights(&[("10.0.0.1:80", 0), ("10.0.0.2:80", 1)]);
    assert_eq!(node.weights(&after), drains);
    let applied = node.restart(&[Arc::clone(&after)]);
    assert_eq!((applied.messages, node.weights(&after)), (0, drains));
    let wake = node.services.wake().unwrap();
    node.wait(wake - node.now);
    assert!(node.weights(&after).unwrap().len() == 2, "it has connections and time");
    node.wait(LIMIT);
    assert_eq!(node.weights(&after), weights(&[("10.0.0.2:80", 1)]));
}

#[test]
fn p9_a_backend_that_shuts_down_in_order_keeps_its_connections_until_it_is_done() {
    let mut node = Node::new();
    let both = tcp("web", "10.96.0.1:80", &["10.0.0.1:80", "10.0.0.2:80"]);
    node.start(&[Arc::clone(&both)]);
    node.connect(&both, "10.0.0.1:80", 1);
    let gone = tcp("web", "10.96.0.1:80", &["10.0.0.2:80"]);
    let terminating = PortPlan { serving: both.cluster.clone(), ..(*gone).clone() };
    node.sync(&[Arc::new(terminating)], &[]);
    node.wait(3 * LIMIT);
    let drains = weights(&[("10.0.0.1:80", 0), ("10.0.0.2:80", 1)]);
    assert_eq!(node.weights(&both), drains);
    node.sync(&[gone], &[]);
    node.wait(LIMIT - Duration::from_secs(1));
    assert_eq!(node.weights(&both), drains);
    node.wait(Duration::from_secs(1));
    assert_eq!(node.weights(&both), weights(&[("10.0.0.2:80", 1)]));
}

#[test]
fn a_backend_that_returns_while_it_drains_serves_again() {
    let mut node = Node::new();
    let both = tcp("web", "10.96.0.1:80", &["10.0.0.1:80", "10.0.0.2:80"]);
    node.start(&[Arc::clone(&both)]);
    node.connect(&both, "10.0.0.1:80", 1);
    node.sync(&[tcp("web", "10.96.0.1:80", &["10.0.0.2:80"])], &[]);
    node.kernel.take_log();
    node.sync(&[Arc::clone(&both)], &[]);
    let set = Op::SetReal(target(&both), RealServer::new("10.0.0.1".parse().unwrap(), 80, 1));
    assert_eq!(node.kernel.take_log(), [set]);
    node.wait(2 * LIMIT);
    assert_eq!(node.weights(&both), weights(&[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)]));
}

#[test]
fn a_service_that_goes_closes_its_door_keeps_its_connections_and_then_is_gone() {
    let mut node = Node::new();
    let web = tcp("web", "10.96.0.1:80", &["10.0.0.1:80"]);
    let dns = Arc::new(port("dns", Protocol::Udp, "10.96.0.10:53", &["10.0.0.2:53"]));
    node.start(&[Arc::clone(&web), Arc::clone(&dns)]);
    node.connect(&web, "10.0.0.1:80", 1);
    let applied = node.services.sync(&[], &[web.key.clone(), dns.key.clone()], node.now).unwrap();
    assert_eq!(applied.doors, [(door(&web), Door::Closed), (door(&dns), Door::Closed)]);
    assert!(node.weights(&dns).is_some() && applied.more, "not before its door is closed");
    node.finish(applied);
    assert_eq!((node.weights(&dns), node.weights(&web)), (None, weights(&[("10.0.0.1:80", 0)])));
    assert!(!node.services.is_empty());
    node.connect(&web, "10.0.0.1:80", 0);
    node.wait(Duration::from_secs(5));
    assert_eq!(node.weights(&web), None);
    assert!(node.services.is_empty());
    assert!(node.doors.is_empty());
    let applied = node.restart(&[]);
    assert_eq!(applied.messages, 0);
}

#[test]
fn t21_what_was_deleted_during_a_restart_goes_in_order() {
    let mut node = Node::new();
    let dns = Arc::new(port("dns", Protocol::Udp, "10.96.0.10:53", &["10.0.0.2:53"]));
    node.start(&[Arc::clone(&dns)]);
    node.services = open(&node.run, &node.kernel);
    let applied = node.services.start(&[], node.now).unwrap();
    assert_eq!(applied.doors, [(door(&dns), Door::Closed)]);
    assert!(node.weights(&dns).is_some());
    node.finish(applied);
    assert_eq!(node.weights(&dns), None);
}

#[test]
fn a_port_without_backends_has_no_virtual_server_and_its_policy_decides_between_refusal_and_silence() {
    let mut node = Node::new();
    let web = tcp("web", "10.96.0.1:80", &["10.0.0.1:80"]);
    node.start(&[Arc::clone(&web)]);
    let mut local = (*web).clone();
    local.internal = TrafficPolicy::Local;
    let applied = node.sync(&[Arc::new(local)], &[]);
    assert_eq!(applied.doors, [(door(&web), Door::Blocked)]);
    let nobody = tcp("web", "10.96.0.1:80", &[]);
    let applied = node.sync(&[nobody], &[]);
    assert_eq!(applied.doors, [(door(&web), Door::Closed)]);
    node.wait(Duration::from_secs(5));
    assert_eq!(node.weights(&web), None);
    let applied = node.sync(&[Arc::clone(&web)], &[]);
    assert_eq!(applied.doors, [(door(&web), Door::Open)]);
}

#[test]
fn t11_a_service_may_move_and_another_take_its_place() {
    let mut node = Node::new();
    let (a, b) = (tcp("a", "10.96.0.1:80", &["10.0.0.1:80"]), tcp("b", "10.96.0.2:80", &["10.0.0.2:80"]));
    node.start(&[Arc::clone(&a), Arc::clone(&b)]);
    let (a2, b2) = (tcp("a", "10.96.0.2:80", &["10.0.0.1:80"]), tcp("b", "10.96.0.3:80", &["10.0.0.2:80"]));
    node.sync(&[Arc::clone(&a2), Arc::clone(&b2)], &[]);
    node.wait(Duration::from_secs(5));
    assert_eq!(node.weights(&a), None);
    assert_eq!(node.weights(&a2), weights(&[("10.0.0.1:80", 1)]));
    assert_eq!(node.weights(&b2), weights(&[("10.0.0.2:80", 1)]));
}

#[test]
fn t23_foreign_virtual_servers_are_left_alone() {
    let mut node = Node::new();
    let outside = foreign(&node, "192.0.2.1:6443");
    node.start(&[]);
    let inside = foreign(&node, "10.96.0.7:80");
    let web = tcp("web", "10.96.0.7:80", &["10.0.0.1:80"]);
    // It came since the last look.
    let applied = node.sync(&[Arc::clone(&web)], &[]);
    assert_eq!(reasons(&applied), [&Reason::Conflict(inside)]);
    assert_eq!(applied.doors, [(door(&web), Door::Open)], "nor cut off");
    node.audit();
    let applied = node.restart(&[Arc::clone(&web)]);
    assert_eq!((applied.messages, reasons(&applied)), (0, vec![&Reason::Conflict(inside)]));
    let before = weights(&[("172.16.0.1:1", 7)]);
    assert_eq!((node.kernel.weights(&inside), node.kernel.weights(&outside)), (before.clone(), before));
    // When it goes, the Service gets its place.
    node.kernel.tables().servers.remove(&inside);
    node.audit();
    assert_eq!(node.weights(&web), weights(&[("10.0.0.1:80", 1)]));
    node.sync(&[], &[&web]);
    node.wait(Duration::from_secs(5));
    assert!(node.kernel.weights(&outside).is_some());
    node.services.remove_all().unwrap();
    assert_eq!(node.kernel.tables().servers.keys().collect::<Vec<_>>(), [&outside]);
}

#[test]
fn kube_proxys_are_taken_over_when_its_device_is_gone_and_not_before() {
    let mut node = Node::new();
    node.kernel.tables().kube_proxy = true;
    let (stale, kept) = (foreign(&node, "10.96.0.7:80"), foreign(&node, "10.96.0.8:80"));
    let web = tcp("web", "10.96.0.8:80", &["10.0.0.1:80"]);
    let applied = node.start(&[Arc::clone(&web)]);
    assert_eq!(reasons(&applied), [&Reason::KubeProxy(2), &Reason::Conflict(kept)]);
    assert_eq!(node.doors.len(), 2, "both go on to serve");
    assert!(node.audit().problems.is_empty(), "said once");
    node.kernel.tables().kube_proxy = false;
    node.audit();
    node.wait(Duration::from_secs(5));
    assert_eq!(node.weights(&web), weights(&[("10.0.0.1:80", 1)]));
    assert_eq!(node.kernel.weights(&stale), None);
    assert_eq!(node.kernel.tables().servers[&kept].0.scheduler, Scheduler::ROUND_ROBIN);
    assert_eq!(node.doors.len(), 1);
}

#[test]
fn t99_what_others_do_to_ours_is_undone() {
    let mut node = Node::new();
    let ports: Vec<_> = (1..5).map(|n| tcp(&format!("s{n}"), &format!("10.96.0.{n}:80"), &["10.0.0.1:80"])).collect();
    node.start(&ports);
    {
        let mut tables = node.kernel.tables();
        tables.servers.remove(&target(&ports[0]));
        tables.servers.get_mut(&target(&ports[1])).unwrap().0.scheduler = Scheduler::SOURCE_HASHING;
        tables.servers.get_mut(&target(&ports[2])).unwrap().1.clear();
        for real in tables.servers.get_mut(&target(&ports[3])).unwrap().1.values_mut() {
            real.weight = 0;
        }
    }
    let applied = node.audit();
    assert_eq!((applied.repaired, applied.messages), (4, 5));
    assert!(ports.iter().all(|port| node.weights(port) == weights(&[("10.0.0.1:80", 1)])));
    assert_eq!(node.kernel.tables().servers[&target(&ports[1])].0.scheduler, Scheduler::ROUND_ROBIN);
    assert_eq!(node.audit().messages, 0);
}

#[test]
fn p38_a_scheduler_by_annotation_and_the_global_one_where_the_kernel_does_not_have_it() {
    let mut node = Node::new();
    node.kernel.tables().missing.insert("mh".into());
    let with = |name: &str, address: &str, scheduler: &str| {
        let mut port = port(name, Protocol::Tcp, address, &["10.0.0.1:80"]);
        port.scheduler = Some(Arc::from(scheduler));
        Arc::new(port)
    };
    let ports = [
        with("a", "10.96.0.1:80", "lc"),
        with("b", "10.96.0.2:80", "mh"),
        with("c", "10.96.0.3:80", "mh"),
        with("d", "10.96.0.4:80", "fastest"),
    ];
    let applied = node.start(&ports);
    let names: Vec<String> =
        ports.iter().map(|port| node.kernel.tables().servers[&target(port)].0.scheduler.name().to_owned()).collect();
    assert_eq!(names, ["lc", "rr", "rr", "rr"]);
    let said: Vec<String> = applied.problems.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said.iter().all(|said| said.ends_with("rr is used")), "{said:?}");
    let log = node.kernel.take_log();
    let tried = log.iter().filter(|op| matches!(op, Op::AddVirtual(server) if server.scheduler.name() == "mh"));
    assert_eq!(tried.count(), 1, "the kernel looks for a module each time");
    assert!(node.audit().problems.is_empty());
}

#[test]
fn what_the_kernel_refuses_holds_nobody_up_and_is_tried_again() {
    let mut node = Node::new();
    let (bad, good) = (tcp("bad", "10.96.0.1:80", &["10.0.0.1:80"]), tcp("good", "10.96.0.2:80", &["10.0.0.1:80"]));
    let outside = tcp("outside", "10.200.0.1:80", &["10.0.0.1:80"]);
    node.kernel.tables().refused.insert(target(&bad));
    let applied = node.start(&[Arc::clone(&outside), Arc::clone(&bad), Arc::clone(&good)]);
    assert!(matches!(reasons(&applied)[..], [Reason::OutOfRange(_), Reason::Refused(_)]), "{:?}", applied.problems);
    assert_eq!(applied.problems[1].port.as_ref(), Some(&bad.key));
    assert_eq!(node.doors.keys().collect::<Vec<_>>(), [&door(&good)]);
    assert!(node.audit().problems.is_empty(), "said once");
    node.kernel.tables().refused.clear();
    node.audit();
    assert_eq!((node.weights(&bad).is_some(), node.doors.len()), (true, 2));
}

#[test]
fn the_timeouts_are_set_kept_and_given_back() {
    let mut node = Node::new();
    node.start(&[]);
    let day = Some(Duration::from_secs(86_400));
    assert_eq!(node.kernel.tables().timeouts.tcp, day);
    node.kernel.tables().timeouts.tcp = Some(Duration::from_secs(1));
    assert_eq!(node.audit().repaired, 1);
    assert_eq!(node.kernel.tables().timeouts.tcp, day);
    node.restart(&[]);
    node.services.remove_all().unwrap();
    assert_eq!(node.kernel.tables().timeouts.tcp, Some(Duration::from_secs(900)));
    assert_eq!(std::fs::read_dir(node.run.path()).unwrap().count(), 0);
}
