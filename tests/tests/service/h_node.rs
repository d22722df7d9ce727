//! 4.3 and 4.6: what the cluster says of the node itself, and what becomes of it while the agent runs.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use weft_tests::kube::{Endpoint, LEAVING, Node, Port};
use weft_tests::lab::NETWORK_PREFIX;
use weft_tests::process::ProcessId;
use weft_tests::svc::{Bench, patience, vips};
use weft_tests::{skip, wait};

use super::monitor::{has_nft, written_while};
use super::{at, usual, web};

/// How long `/healthz` may take to tell of a Node that has changed.
const TOLD: Duration = Duration::from_secs(3);
/// kube-proxy's port of `/healthz` and `/livez`.
const HEALTHZ: u16 = 10256;

/// Node 1 as the bench has made it, also when a test fails: other cases count on its zone.
struct Restored<'a>(&'a Bench);

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        self.0.api().put(Node::new("node1").zone("a").json()).unwrap();
    }
}

fn agent(bench: &Bench) -> Option<ProcessId> {
    bench.lab().node("node1").unwrap().agent
}

fn in_zone(zone: &'static str) -> impl Fn(Endpoint) -> Endpoint {
    move |endpoint| endpoint.for_zones(&[zone])
}

#[test]
fn t054_a_node_that_changes_its_zone_is_served_for_the_new_one_without_restart() {
    let bench = usual();
    let case = bench.alone("t054");
    let _restored = Restored(&bench);
    let service = case.service("web", &web());
    case.apply(&service, &[bench.l1.but(in_zone("a")), bench.r1.but(in_zone("b")), bench.r2.but(in_zone("b"))]);
    let running = agent(&bench);
    let served_by = |pod: &[&str], far: &[&str]| {
        case.settle();
        for vip in vips(&service) {
            bench.pod.to(vip).is_served_by(pod);
            bench.far.to(vip).is_served_by(far);
        }
    };
    served_by(&["l1"], &["r1", "r2"]);
    let node = Node::new("node1");
    case.put(node.clone().zone("b").json());
    served_by(&["r1", "r2"], &["r1", "r2"]);
    // Without a zone, hints mean nothing; what is known of nothing has no zone either.
    case.put(node.json());
    served_by(&["l1", "r1", "r2"], &["r1", "r2"]);
    case.put(node.clone().zone("a").json());
    served_by(&["l1"], &["r1", "r2"]);
    case.delete(node.json());
    served_by(&["l1", "r1", "r2"], &["r1", "r2"]);
    case.put(node.zone("a").json());
    served_by(&["l1"], &["r1", "r2"]);
    // What cannot be read changes nothing, and is named.
    bench.lab().etcd().unwrap().put(&format!("{NETWORK_PREFIX}/nodes/node1"), "{\"kind\":").unwrap();
    served_by(&["l1"], &["r1", "r2"]);
    let log = bench.lab().log("node1").unwrap();
    assert!(log.lines().any(|line| line.contains("Node node1 is not readable")), "nothing is said of the garbled Node");
    assert_eq!(agent(&bench), running);
    assert!(running.is_some_and(ProcessId::alive));
}

#[test]
fn t054_a_zone_that_is_given_wins_over_the_label() {
    let bench = usual();
    let case = bench.alone("t054given");
    let _restored = Restored(&bench);
    let service = case.service("web", &web());
    case.apply(&service, &[bench.l1.but(in_zone("a")), bench.r1.but(in_zone("b"))]);
    let restart = |args: &[&str]| {
        bench.lab().stop_agent("node1").unwrap();
        bench.lab().set_agent_args("node1", args).unwrap();
        bench.start_agent();
        case.settle();
    };
    restart(&["--node-zone", "b"]);
    vips(&service).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["r1"])));
    case.put(Node::new("node1").zone("c").json());
    case.settle();
    vips(&service).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["r1"])));
    restart(&[]);
    vips(&service).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1", "r1"])));
}

#[test]
fn t054_a_change_of_zone_writes_nothing_of_services_without_hints() {
    if !has_nft() {
        skip!("there is no nft to watch with");
    }
    let bench = usual();
    let case = bench.alone("t054few");
    let _restored = Restored(&bench);
    let ports = [Port::tcp(80, 8080).named("a").on_nodes(case.node_port()), Port::udp(53, 8080).named("b")];
    for name in ["x", "y", "z"] {
        case.apply(&case.service(name, &ports[usize::from(name != "x")..]), &[bench.l1.ready(), bench.r1.ready()]);
    }
    let moves = || bench.lab().log("node1").unwrap().matches("this node is in another zone").count();
    let written_by = |zone: &str| {
        let first = moves();
        written_while(&bench, zone, || {
            case.put(Node::new("node1").zone(zone).json());
            wait::until(patience(TOLD), "the agent to tell of the zone", || moves() > first).unwrap();
        })
    };
    assert_eq!(written_by("b"), [""; 0]);
    // The node port is nftables' in both modes.
    let hinted = case.service_v4("hinted", &[Port::tcp(80, 8080).on_nodes(case.node_port())]);
    case.apply(&hinted, &[bench.l1.but(in_zone("a")), bench.r1.but(in_zone("b"))]);
    assert_ne!(written_by("a"), [""; 0]);
}

#[test]
fn t081_a_node_that_leaves_tells_load_balancers_and_serves_on() {
    let bench = usual();
    let case = bench.alone("t081");
    let _restored = Restored(&bench);
    let (node_port, checks) = (case.node_port(), case.node_port());
    let service = case
        .service("web", &[Port::tcp(80, 8080).on_nodes(node_port)])
        .load_balancer(&case.outer_ips(), "VIP")
        .external_local()
        .with("/spec/healthCheckNodePort", checks);
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    let ask = |door: SocketAddr, path: &str| -> (u16, Value) {
        let answer = bench.http_from_outside(door, path).unwrap();
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    };
    let healthz = SocketAddr::new(bench.node_ips()[0], HEALTHZ);
    let checks = || at(bench.node_ips(), checks).into_iter().map(|door| ask(door, "/")).collect::<Vec<_>>();
    let checked = checks();
    assert!(checked.iter().all(|(status, body)| *status == 200 && body["localEndpoints"] == 1), "{checked:?}");
    let running = agent(&bench);
    let becomes = |what: &str, is_eligible: bool| {
        let status = if is_eligible { 200 } else { 503 };
        wait::until_ok(patience(TOLD), &format!("{status} of a node {what}"), || {
            let (code, body) = ask(healthz, "/healthz");
            let right = code == status && body["nodeEligible"] == is_eligible && body["healthy"] == true;
            if right { Ok(()) } else { Err(format!("{code} {body}")) }
        })
        .unwrap();
        let (code, body) = ask(healthz, "/livez");
        assert_eq!((code, &body["healthy"], body.get("nodeEligible")), (200, &Value::Bool(true), None), "{what}");
        assert_eq!(checks(), checked, "{what}");
        for door in at(bench.node_ips(), node_port) {
            bench.ext.to(door).is_served_by(&["l1"]).keeps_its_source();
        }
    };
    let node = Node::new("node1").zone("a");
    becomes("that is there", true);
    case.put(node.clone().taint(LEAVING).json());
    becomes("that the autoscaler removes", false);
    case.put(node.clone().taint("node.kubernetes.io/unschedulable").json());
    becomes("that takes no new pods", true);
    case.put(node.clone().deleted().json());
    becomes("that is being deleted", false);
    case.delete(node.json());
    becomes("of which nothing is known", true);
    // Also from the first moment of an agent that starts then.
    case.put(node.taint(LEAVING).json());
    becomes("that the autoscaler removes", false);
    assert_eq!(agent(&bench), running);
    bench.kill_agent();
    bench.start_agent();
    becomes("that the autoscaler removes, with a new agent", false);
}
