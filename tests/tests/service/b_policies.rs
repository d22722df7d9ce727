//! 4.2: no endpoints, and policies.

use std::time::Duration;

use weft_tests::kube::{Port, Service};
use weft_tests::probe::Transport;
use weft_tests::svc::{Bench, Case, patience, vips};
use weft_tests::wait;

use super::{BLIND, OPEN, at, outer, usual, web};

/// A Service with every kind of external address.
fn external(case: &Case<'_>, node_port: u16) -> Service {
    case.service("web", &[Port::tcp(80, 8080).on_nodes(node_port)])
        .external_ips(&case.outer_ips())
        .load_balancer(&case.outer_ips(), "VIP")
}

/// Its external addresses: node ports of node 1, external IPs, load balancers.
fn doors(bench: &Bench, service: &Service) -> Vec<std::net::SocketAddr> {
    let node_port = service.ports()[0].node_port.unwrap();
    [at(bench.node_ips(), node_port), outer(service)].concat()
}

#[test]
fn t027_without_endpoints_every_frontend_refuses_at_once() {
    let bench = usual();
    let case = bench.case("t027");
    let service = external(&case, case.node_port());
    case.apply(&service, &[]);
    for vip in vips(&service) {
        [&bench.pod, &bench.node, &bench.ext].into_iter().for_each(|place| place.to(vip).is_refused());
    }
    for door in doors(&bench, &service) {
        [&bench.pod, &bench.node, &bench.ext].into_iter().for_each(|place| place.to(door).is_refused());
    }
}

#[test]
fn t029_endpoints_that_appear_are_used_by_the_next_connection() {
    let bench = usual();
    let case = bench.case("t029");
    let service = case.service("web", &web());
    case.apply(&service, &[]);
    vips(&service).into_iter().for_each(|vip| bench.pod.to(vip).is_refused());
    case.apply(&service, &[bench.l1.ready()]);
    vips(&service).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1"])));
    case.apply(&service, &[]);
    vips(&service).into_iter().for_each(|vip| bench.pod.to(vip).is_refused());
}

#[test]
fn t030_internal_policy_local_keeps_to_the_clients_node() {
    let bench = usual();
    let case = bench.case("t030");
    let service = case.service("web", &web()).internal_local();
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    for vip in vips(&service) {
        bench.pod.to(vip).is_served_by(&["l1"]).keeps_its_source();
        bench.node.to(vip).is_served_by(&["l1"]);
        bench.far.to(vip).is_served_by(&["r1"]);
    }
}

#[test]
fn t031_internal_policy_local_without_local_endpoint_is_silent() {
    let bench = usual();
    let case = bench.case("t031");
    let service = case.service("web", &web()).internal_local();
    case.apply(&service, &[bench.r1.ready()]);
    for vip in vips(&service) {
        bench.pod.to(vip).is_dropped();
        bench.node.to(vip).is_dropped();
        bench.far.to(vip).is_served_by(&["r1"]);
    }
    let counted = || {
        let text = bench.proxy("/metrics").map_err(|error| format!("{error:#}"))?.body;
        let of_policy = |line: &&str| line.contains("no_local_endpoints") && line.contains("policy=\"internal\"");
        let numbers: Vec<f64> =
            text.lines().filter(of_policy).filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect();
        if numbers.iter().any(|number| *number >= 1.0) { Ok(()) } else { Err(format!("{numbers:?}")) }
    };
    wait::until_ok(patience(Duration::from_secs(5)), "the metric of Services without local endpoints", counted)
        .unwrap();
}

#[test]
fn t033_external_policy_local_keeps_the_source() {
    let bench = usual();
    let case = bench.case("t033");
    let service = external(&case, case.node_port()).external_local();
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    for door in doors(&bench, &service) {
        bench.ext.to(door).is_served_by(&["l1"]).keeps_its_source();
    }
}

#[test]
fn t034_pods_see_all_endpoints_on_external_frontends_with_their_own_address() {
    let bench = usual();
    let case = bench.case("t034");
    let service = external(&case, case.node_port()).external_local();
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    for door in doors(&bench, &service) {
        bench.pod.to(door).is_served_by(&["l1", "r1"]).keeps_its_source();
    }
}

#[test]
fn t035_the_node_sees_all_endpoints_on_external_frontends_as_itself() {
    let bench = usual();
    let case = bench.case("t035");
    let service = external(&case, case.node_port()).external_local();
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    for door in doors(&bench, &service) {
        bench.node.to(door).is_served_by(&["l1", "r1"]).seen_as(&bench.node);
    }
}

#[test]
fn t037_external_policy_local_without_local_endpoint_is_silent_outside_only() {
    let bench = usual();
    let case = bench.case("t037");
    let service = external(&case, case.node_port()).external_local();
    case.apply(&service, &[bench.r1.ready()]);
    for door in doors(&bench, &service) {
        bench.ext.to(door).is_dropped();
        bench.pod.to(door).is_served_by(&["r1"]).keeps_its_source();
        bench.node.to(door).is_served_by(&["r1"]).seen_as(&bench.node);
    }
}

#[cfg(any(feature = "whole", not(feature = "guest")))]
#[test]
fn t038_pods_that_cannot_be_told_from_others_count_as_outside() {
    let bench = BLIND.get();
    let case = bench.case("t038");
    let service = external(&case, case.node_port()).external_local();
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    for door in outer(&service) {
        bench.pod.to(door).is_served_by(&["l1"]).keeps_its_source();
    }
}

#[test]
fn t039_external_policy_cluster_masquerades() {
    let bench = usual();
    let case = bench.case("t039");
    let service = external(&case, case.node_port());
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    for door in doors(&bench, &service) {
        bench.ext.to(door).is_served_by(&["l1", "r1"]).seen_as(&bench.node);
        bench.pod.to(door).is_served_by(&["l1", "r1"]).seen_as(&bench.node);
        bench.node.to(door).is_served_by(&["l1", "r1"]).seen_as(&bench.node);
    }
    let udp = case.service("udp", &[Port::udp(53, 8080).on_nodes(case.node_port())]);
    case.apply(&udp, &[bench.l1.ready(), bench.r1.ready()]);
    for door in at(bench.node_ips(), udp.ports()[0].node_port.unwrap()) {
        bench.ext.to(door).over(Transport::Udp).is_served_by(&["l1", "r1"]).seen_as(&bench.node);
    }
}

#[test]
fn t041_the_outside_reaches_cluster_ips_masqueraded_if_it_can_be_told() {
    let bench = usual();
    let case = bench.case("t041");
    let service = case.service("web", &web());
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    for vip in vips(&service) {
        bench.ext.to(vip).is_served_by(&["l1", "r1"]).seen_as(&bench.node);
    }
}

#[cfg(any(feature = "whole", not(feature = "guest")))]
#[test]
fn t041_without_a_way_to_tell_the_outside_it_keeps_its_source() {
    let bench = BLIND.get();
    let case = bench.case("t041");
    let service = case.service("web", &web());
    case.apply(&service, &[bench.l1.ready()]);
    for vip in vips(&service) {
        bench.ext.to(vip).is_served_by(&["l1"]).keeps_its_source();
    }
}

#[cfg(any(feature = "whole", not(feature = "guest")))]
#[test]
fn t042_masquerade_all_takes_pods_too() {
    let bench = OPEN.get();
    let case = bench.case("t042");
    let service = case.service("web", &web());
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    for vip in vips(&service) {
        bench.pod.to(vip).is_served_by(&["l1", "r1"]).seen_as(&bench.node);
    }
}

#[test]
fn t043_external_policy_means_nothing_to_cluster_ips() {
    let bench = usual();
    let case = bench.case("t043");
    let service = case.service("web", &web()).external_local();
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    vips(&service).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1", "r1"])));
    case.apply(&service, &[bench.r1.ready()]);
    vips(&service).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["r1"])));
}
