//! 4.3: endpoints that end, that are not ready, and that are meant for other zones and nodes. Node 1 is in zone `a`, node 2
//! in zone `b`.

use weft_tests::kube::{Endpoint, Port};
use weft_tests::svc::vips;

use super::{at, usual, web};

/// Of a test: the endpoints, and who answers `pod` on node 1 and `far` on node 2.
fn check(name: &str, endpoints: &[Vec<Endpoint>], pod: &[&str], far: &[&str]) {
    let bench = usual();
    let case = bench.case(name);
    let service = case.service("web", &web());
    case.apply(&service, endpoints);
    for vip in vips(&service) {
        bench.pod.to(vip).is_served_by(pod);
        bench.far.to(vip).is_served_by(far);
    }
}

#[test]
fn t045_if_all_are_leaving_those_that_still_serve_are_used() {
    let bench = usual();
    let [serving, silent] = [true, false].map(|serving| move |endpoint: Endpoint| endpoint.terminating(serving));
    let endpoints = [bench.l1.but(serving), bench.r1.but(serving), bench.r2.but(silent)];
    check("t045", &endpoints, &["l1", "r1"], &["l1", "r1"]);
    check("t045b", &[bench.l1.but(serving), bench.r1.ready()], &["r1"], &["r1"]);
}

#[test]
fn t046_leaving_and_silent_endpoints_are_none() {
    let bench = usual();
    let case = bench.case("t046");
    let service = case.service("web", &web());
    case.apply(&service, &[bench.l1.but(|endpoint| endpoint.terminating(false))]);
    vips(&service).into_iter().for_each(|vip| bench.pod.to(vip).is_refused());
}

#[test]
fn t047_policy_local_falls_back_to_leaving_endpoints_of_its_node() {
    let bench = usual();
    let case = bench.case("t047");
    let endpoints = [bench.l1.but(|endpoint| endpoint.terminating(true)), bench.r1.ready()];
    let inner = case.service("inner", &web()).internal_local();
    let outer = case.service("outer", &[Port::tcp(80, 8080).on_nodes(case.node_port())]).external_local();
    case.apply(&inner, &endpoints);
    case.apply(&outer, &endpoints);
    vips(&inner).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1"])));
    for door in at(bench.node_ips(), outer.ports()[0].node_port.unwrap()) {
        bench.ext.to(door).is_served_by(&["l1"]).keeps_its_source();
    }
    vips(&outer).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["r1"])));
}

#[test]
fn t049_ready_decides_whatever_serving_says() {
    let bench = usual();
    let early = |mut endpoint: Endpoint| {
        endpoint.serving = Some(false);
        endpoint
    };
    check("t049", &[bench.l1.but(early), bench.r1.ready()], &["l1", "r1"], &["l1", "r1"]);
    let not_ready = [bench.l1.but(Endpoint::not_ready), bench.r1.ready()];
    check("t049b", &not_ready, &["r1"], &["r1"]);
}

#[test]
fn t050_untold_conditions_mean_ready() {
    let bench = usual();
    let endpoints = [bench.l1.but(Endpoint::untold), bench.r1.but(Endpoint::untold)];
    check("t050", &endpoints, &["l1", "r1"], &["l1", "r1"]);
}

#[test]
fn t051_zone_hints_on_all_keep_traffic_in_the_zone() {
    let bench = usual();
    let zone = |zone: &'static str| move |endpoint: Endpoint| endpoint.for_zones(&[zone]);
    let endpoints = [bench.l1.but(zone("a")), bench.r1.but(zone("b")), bench.r2.but(zone("b"))];
    check("t051", &endpoints, &["l1"], &["r1", "r2"]);
}

#[test]
fn t053_hints_that_do_not_fit_are_ignored() {
    let bench = usual();
    let zone = |zone: &'static str| move |endpoint: Endpoint| endpoint.for_zones(&[zone]);
    check("t053", &[bench.l1.but(zone("c")), bench.r1.but(zone("b"))], &["l1", "r1"], &["r1"]);
    check("t053b", &[bench.l1.but(zone("a")), bench.r1.ready()], &["l1", "r1"], &["l1", "r1"]);
}

#[test]
fn t055_node_hints_come_before_zones() {
    let bench = usual();
    let hint = |node: &'static str, zones: &'static [&'static str]| {
        move |endpoint: Endpoint| endpoint.for_nodes(&[node]).for_zones(zones)
    };
    let all = ["a", "b"].as_slice();
    let endpoints =
        [bench.l1.but(hint("node1", all)), bench.l2.but(hint("node3", all)), bench.r1.but(hint("node2", all))];
    check("t055", &endpoints, &["l1"], &["r1"]);
    // Node 1's own is not ready: the zone decides.
    let unready = bench.l1.but(|endpoint| hint("node1", all)(endpoint).not_ready());
    let endpoints = [unready, bench.l2.but(hint("node3", &["a"])), bench.r1.but(hint("node2", &["b"]))];
    check("t055b", &endpoints, &["l2"], &["r1"]);
}

#[test]
fn t057_hints_mean_nothing_to_policy_local() {
    let bench = usual();
    let case = bench.case("t057");
    let zone = |endpoint: Endpoint| endpoint.for_zones(&["b"]);
    let service = case.service("web", &web()).internal_local();
    case.apply(&service, &[bench.l1.but(zone), bench.l2.but(zone), bench.r1.but(zone)]);
    vips(&service).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1", "l2"])));
}

#[test]
fn t058_an_unready_endpoint_does_not_make_a_zone() {
    let bench = usual();
    let zone = |zone: &'static str| move |endpoint: Endpoint| endpoint.for_zones(&[zone]);
    let unready = bench.l1.but(|endpoint| zone("a")(endpoint).not_ready());
    let endpoints = [unready, bench.r1.but(zone("b")), bench.r2.but(zone("b"))];
    check("t058", &endpoints, &["r1", "r2"], &["r1", "r2"]);
}
