//! The acceptance cases about what Services mean, by number.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::plan::{HealthPort, PlanOptions, PlannedService, plan};
use super::testing::{
    entrances, hinted, node, node_in, ready, service, shown, slice, slice_with, terminating, unready,
};
use super::types::{FrontendKind, NodeView, PortPlan};
use crate::cluster::services::{EndpointSlice, Protocol, Service, TrafficPolicy};
use crate::cluster::{Family, PerFamily};

const L1: &str = "10.180.0.1";
const R1: &str = "10.181.0.1";

fn planned(service: &Service, slices: &[Arc<EndpointSlice>]) -> PlannedService {
    plan(service, slices, &node(), PlanOptions::default())
}

/// The only port of the only family.
fn only(planned: PlannedService) -> PortPlan {
    let [port] = planned.ports.try_into().unwrap();
    port
}

/// The only port of `default/web` with these members and endpoints.
fn web(members: Value, endpoints: &[Value]) -> PortPlan {
    only(planned(&service(members), &[slice("web-1", endpoints)]))
}

fn web_on(node: &NodeView, endpoints: &[Value]) -> PortPlan {
    only(plan(&service(json!({})), &[slice("web-1", endpoints)], node, PlanOptions::default()))
}

#[test]
fn t01_a_cluster_ip_leads_to_its_endpoint() {
    let port = web(json!({}), &[ready(L1, "n1")]);
    assert_eq!(port.key.to_string(), "default/web (TCP, IPv4)");
    assert_eq!(entrances(&port.frontends), ["172.30.0.41:80/TCP"]);
    assert_eq!(shown(&port.cluster), ["L:10.180.0.1:80"]);
    assert!(port.local.is_empty() && port.has_any && port.serving == port.cluster && port.affinity.is_none());
}

#[test]
fn t03_the_slice_says_where_endpoints_listen() {
    let slices = [slice_with("web-1", json!({"ports": [{"name": "", "port": 8443}], "endpoints": [ready(L1, "n1")]}))];
    let port = only(planned(&service(json!({"ports": [{"port": 443, "targetPort": 8443}]})), &slices));
    assert_eq!(entrances(&port.frontends), ["172.30.0.41:443/TCP"]);
    assert_eq!(shown(&port.cluster), ["L:10.180.0.1:8443"]);
}

#[test]
fn t05_one_port_in_three_protocols_is_three_ports() {
    let ports = json!([{"name": "t", "port": 80}, {"name": "u", "port": 80, "protocol": "UDP"},
        {"name": "s", "port": 80, "protocol": "SCTP"}]);
    let listening = json!([{"name": "t", "port": 1}, {"name": "u", "port": 2, "protocol": "UDP"},
        {"name": "s", "port": 3, "protocol": "TCP"}]);
    let slices = [slice_with("web-1", json!({"ports": listening, "endpoints": [ready(L1, "n1")]}))];
    let planned = planned(&service(json!({"ports": ports})), &slices);
    let protocols: Vec<Protocol> = planned.ports.iter().map(|port| port.key.protocol).collect();
    assert_eq!(protocols, [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let backends: Vec<_> = planned.ports.iter().map(|port| shown(&port.cluster)).collect();
    // Name and protocol both have to match.
    assert_eq!(backends, [vec!["L:10.180.0.1:1"], vec!["L:10.180.0.1:2"], vec![]]);
    assert_eq!(entrances(&planned.ports[2].frontends), ["172.30.0.41:80/SCTP"]);
}

#[test]
fn t17_an_endpoint_in_two_slices_is_one_and_the_running_one_counts() {
    let slices = |first: Value, second: Value| [slice("web-1", &[first]), slice("web-2", &[second])];
    for slices in [
        slices(terminating(L1, "n1"), ready(L1, "n1")),
        slices(ready(L1, "n1"), terminating(L1, "n1")),
        slices(ready(L1, "n1"), ready(L1, "n1")),
    ] {
        let port = only(planned(&service(json!({})), &[slices.as_slice(), &[slice("x", &[ready(R1, "n2")])]].concat()));
        assert_eq!(shown(&port.cluster), ["L:10.180.0.1:80", "R:10.181.0.1:80"]);
    }
}

#[test]
fn t25_a_service_of_one_family_on_a_node_of_two() {
    let slices = [
        slice("web-1", &[ready(L1, "n1")]),
        slice_with("web-2", json!({"addressType": "IPv6", "endpoints": [ready("fd00:180::1", "n1")]})),
    ];
    let port = only(planned(&service(json!({"clusterIP": "fd00:30::41"})), &slices));
    assert_eq!(port.key.family, Family::V6);
    assert_eq!(entrances(&port.frontends), ["[fd00:30::41]:80/TCP"]);
    assert_eq!(shown(&port.cluster), ["L:[fd00:180::1]:80"]);
}

#[test]
fn t26_a_family_that_the_node_lacks_is_not_planned() {
    let dual = service(json!({"clusterIPs": ["172.30.0.41", "fd00:30::41"], "type": "LoadBalancer",
        "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000}));
    let options = PlanOptions { families: PerFamily { v4: Some(()), v6: None }, ..PlanOptions::default() };
    let planned = plan(&dual, &[], &node(), options);
    assert_eq!(planned.ports.iter().map(|port| port.key.family).collect::<Vec<_>>(), [Family::V4]);
    assert_eq!(planned.health.unwrap().local_endpoints, PerFamily { v4: Some(0), v6: None });
}

#[test]
fn t27_nobody_anywhere() {
    let port = web(json!({"internalTrafficPolicy": "Local"}), &[unready(L1, "n1")]);
    assert!(!port.has_any && port.cluster.is_empty() && port.local.is_empty());
    assert!(!port.lacks_local_internally());
}

#[test]
fn t30_internal_policy_local() {
    let port = web(json!({"internalTrafficPolicy": "Local"}), &[ready(L1, "n1"), ready(R1, "n2")]);
    assert_eq!(shown(port.backends_of(FrontendKind::ClusterIp)), ["L:10.180.0.1:80"]);
    assert!(port.cluster.is_empty(), "nobody is led there");
}

#[test]
fn t31_internal_policy_local_and_nobody_here() {
    let port = web(json!({"internalTrafficPolicy": "Local"}), &[ready(R1, "n2")]);
    assert!(port.has_any && port.backends_of(FrontendKind::ClusterIp).is_empty());
    assert!(port.lacks_local_internally() && !port.lacks_local_externally());
}

#[test]
fn t33_t34_t35_external_policy_local() {
    let members = json!({"externalTrafficPolicy": "Local", "ports": [{"port": 80, "nodePort": 30001}]});
    let port = web(members, &[ready(L1, "n1"), ready(R1, "n2")]);
    assert_eq!(shown(port.backends_of(FrontendKind::NodePort)), ["L:10.180.0.1:80"]);
    assert_eq!(shown(port.backends_of(FrontendKind::ClusterIp)), ["L:10.180.0.1:80", "R:10.181.0.1:80"]);
    // Where pods and the node itself are led.
    assert_eq!(shown(&port.cluster), ["L:10.180.0.1:80", "R:10.181.0.1:80"]);
    assert!(!port.lacks_local_externally());
}

#[test]
fn t37_external_policy_local_and_nobody_here() {
    let members = json!({"externalTrafficPolicy": "Local", "ingress": [{"ip": "1.2.3.4"}]});
    let port = web(members, &[ready(R1, "n2")]);
    assert!(port.backends_of(FrontendKind::LoadBalancer).is_empty() && port.has_any);
    assert_eq!(shown(&port.cluster), ["R:10.181.0.1:80"]);
    assert!(port.lacks_local_externally() && !port.lacks_local_internally());
}

#[test]
fn t39_external_policy_cluster() {
    let members = json!({"ports": [{"port": 80, "nodePort": 30001}], "externalIPs": ["192.168.99.22"]});
    let port = web(members, &[ready(L1, "n1"), ready(R1, "n2")]);
    assert_eq!(entrances(&port.frontends), ["172.30.0.41:80/TCP", "192.168.99.22:80/TCP", "IPv4 node port 30001/TCP"]);
    assert_eq!(shown(port.backends_of(FrontendKind::NodePort)), ["L:10.180.0.1:80", "R:10.181.0.1:80"]);
    assert!(port.local.is_empty());
}

#[test]
fn t43_an_external_policy_without_entrance_from_outside_means_nothing() {
    let endpoints = [ready(R1, "n2")];
    let both = web(json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"}), &endpoints);
    assert_eq!((both.internal, both.external), (TrafficPolicy::Local, TrafficPolicy::Cluster));
    assert!(both.lacks_local_internally() && !both.lacks_local_externally());
    let external = web(json!({"externalTrafficPolicy": "Local"}), &endpoints);
    assert_eq!(shown(external.backends_of(FrontendKind::ClusterIp)), ["R:10.181.0.1:80"]);
    assert!(external.local.is_empty());
}

#[test]
fn t45_only_terminating_endpoints_that_serve() {
    let port = web(json!({}), &[terminating(L1, "n1"), terminating(R1, "n2"), unready("10.181.0.2", "n2")]);
    assert_eq!(shown(&port.cluster), ["L:10.180.0.1:80", "R:10.181.0.1:80"]);
    let mixed = web(json!({}), &[terminating(L1, "n1"), ready(R1, "n2")]);
    assert_eq!(shown(&mixed.cluster), ["R:10.181.0.1:80"], "ready ones win, never a mix");
}

#[test]
fn t46_only_terminating_endpoints_that_do_not_serve() {
    let gone = json!({"addresses": [L1], "conditions": {"ready": false, "serving": false, "terminating": true}});
    for members in [json!({}), json!({"internalTrafficPolicy": "Local"})] {
        let port = web(members, std::slice::from_ref(&gone));
        assert!(port.cluster.is_empty() && !port.has_any);
    }
}

#[test]
fn t47_the_local_ones_are_terminating_and_a_ready_one_is_elsewhere() {
    let members = json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
        "ports": [{"port": 80, "nodePort": 30001}]});
    let port = web(members, &[terminating(L1, "n1"), ready(R1, "n2")]);
    assert_eq!(shown(&port.local), ["L:10.180.0.1:80"]);
    assert_eq!(shown(&port.cluster), ["R:10.181.0.1:80"]);
}

#[test]
fn t49_ready_though_not_serving() {
    let published = json!({"addresses": [L1], "conditions": {"ready": true, "serving": false}});
    let ports = json!([{"port": 80, "protocol": "UDP"}]);
    let slices = [slice_with(
        "web-1",
        json!({"ports": [{"name": "", "port": 80, "protocol": "UDP"}], "endpoints": [published, ready(R1, "n2")]}),
    )];
    let port = only(planned(&service(json!({"ports": ports})), &slices));
    assert_eq!(shown(&port.cluster), ["R:10.180.0.1:80", "R:10.181.0.1:80"]);
    assert_eq!(port.serving, port.cluster, "its flows are not stale");
}

#[test]
fn t50_no_conditions_at_all() {
    for conditions in [json!(null), json!({}), json!({"ready": null, "serving": null, "terminating": null})] {
        let port = web(json!({}), &[json!({"addresses": [L1], "nodeName": "n1", "conditions": conditions})]);
        assert_eq!(shown(&port.cluster), ["L:10.180.0.1:80"]);
    }
}

#[test]
fn t51_zone_hints() {
    let endpoints = [
        hinted(ready(L1, "n1"), "forZones", &["b"]),
        hinted(ready(R1, "n2"), "forZones", &["a", "b"]),
        hinted(ready("10.182.0.1", "n3"), "forZones", &["a"]),
        terminating("10.183.0.1", "n4"),
    ];
    assert_eq!(shown(&web_on(&node_in("a"), &endpoints).cluster), ["R:10.181.0.1:80", "R:10.182.0.1:80"]);
    // T54: the node moves.
    assert_eq!(shown(&web_on(&node_in("b"), &endpoints).cluster), ["L:10.180.0.1:80", "R:10.181.0.1:80"]);
}

#[test]
fn t53_zone_hints_that_are_not_for_us() {
    let endpoints = [hinted(ready(L1, "n1"), "forZones", &["b"]), hinted(ready(R1, "n2"), "forZones", &["c"])];
    for node in [node_in("a"), node()] {
        assert_eq!(web_on(&node, &endpoints).cluster.len(), 2);
    }
    let one_without = [hinted(ready(L1, "n1"), "forZones", &["a"]), ready(R1, "n2")];
    assert_eq!(web_on(&node_in("a"), &one_without).cluster.len(), 2);
}

#[test]
fn t55_node_hints_win_and_give_way_to_zone_hints() {
    let both = |endpoint, node: &str, zone: &str| hinted(hinted(endpoint, "forNodes", &[node]), "forZones", &[zone]);
    let endpoints = [
        both(ready(L1, "n1"), "n1", "a"),
        both(ready(R1, "n2"), "n2", "a"),
        both(ready("10.182.0.1", "n3"), "n3", "b"),
    ];
    assert_eq!(shown(&web_on(&node_in("a"), &endpoints).cluster), ["L:10.180.0.1:80"]);
    let ours_unready = [both(unready(L1, "n1"), "n1", "a"), endpoints[1].clone(), endpoints[2].clone()];
    assert_eq!(shown(&web_on(&node_in("a"), &ours_unready).cluster), ["R:10.181.0.1:80"]);
    assert_eq!(web_on(&node(), &ours_unready).cluster.len(), 2);
}

#[test]
fn t57_hints_mean_nothing_to_policy_local() {
    let endpoints = [hinted(ready(L1, "n1"), "forZones", &["b"]), hinted(ready(R1, "n2"), "forZones", &["a"])];
    let local = service(json!({"internalTrafficPolicy": "Local"}));
    let port = only(plan(&local, &[slice("web-1", &endpoints)], &node_in("a"), PlanOptions::default()));
    assert_eq!(shown(&port.local), ["L:10.180.0.1:80"]);
}

#[test]
fn t58_the_only_endpoint_of_our_zone_is_not_ready() {
    let endpoints = [hinted(unready(L1, "n1"), "forZones", &["a"]), hinted(ready(R1, "n2"), "forZones", &["b"])];
    assert_eq!(shown(&web_on(&node_in("a"), &endpoints).cluster), ["R:10.181.0.1:80"]);
}

#[test]
fn t70_t71_source_ranges_of_the_load_balancer() {
    let ranges = |listed: &[&str]| {
        let members = json!({"ingress": [{"ip": "1.2.3.4"}], "loadBalancerSourceRanges": listed});
        web(members, &[]).source_ranges.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(ranges(&["203.0.113.0/24"]), ["203.0.113.0/24"]);
    // The node itself is in: so is what it sends with the load balancer's own address as source.
    assert_eq!(ranges(&["203.0.113.0/24", "192.168.0.0/16"]), ["1.2.3.4/32", "192.168.0.0/16", "203.0.113.0/24"]);
    assert_eq!(ranges(&["10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/16", "10.0.0.0/8"]), ["10.0.0.0/8"]);
    let without_address = web(json!({"loadBalancerSourceRanges": ["203.0.113.0/24"]}), &[]);
    assert!(without_address.source_ranges.is_empty());
}

#[test]
fn t73_a_range_of_everything_is_no_limit() {
    let members = json!({"ingress": [{"ip": "1.2.3.4"}], "loadBalancerSourceRanges": ["0.0.0.0/0", "1.2.3.0/24"]});
    assert!(web(members, &[]).source_ranges.is_empty());
}

#[test]
fn t74_ranges_of_one_family_do_not_limit_the_other() {
    let dual = service(json!({"clusterIPs": ["172.30.0.41", "fd00:30::41"], "loadBalancerSourceRanges": ["fd01::/16"],
        "ingress": [{"ip": "1.2.3.4"}, {"ip": "fd02::4"}]}));
    let [v4, v6] = planned(&dual, &[]).ports.try_into().unwrap();
    assert!(v4.source_ranges.is_empty());
    assert_eq!(v6.source_ranges, ["fd01::/16".parse().unwrap()]);
    assert_eq!(entrances(&v4.frontends), ["1.2.3.4:80/TCP", "172.30.0.41:80/TCP"]);
    assert_eq!(entrances(&v6.frontends), ["[fd00:30::41]:80/TCP", "[fd02::4]:80/TCP"]);
}

#[test]
fn t78_external_ips_only_if_allowed() {
    let members = json!({"externalIPs": ["192.168.99.22"], "externalTrafficPolicy": "Local"});
    let options = PlanOptions { allow_external_ips: false, ..PlanOptions::default() };
    let port = only(plan(&service(members.clone()), &[], &node(), options));
    assert_eq!(entrances(&port.frontends), ["172.30.0.41:80/TCP"]);
    assert_eq!(port.external, TrafficPolicy::Cluster);
    assert_eq!(web(members, &[]).external, TrafficPolicy::Local);
}

#[test]
fn an_address_that_is_named_twice_is_one_entrance_and_the_stricter() {
    let members = json!({"externalIPs": ["1.2.3.4", "172.30.0.41", "1.2.3.4"], "ingress": [{"ip": "1.2.3.4"}]});
    let kinds: Vec<FrontendKind> = web(members, &[]).frontends.iter().map(|frontend| frontend.kind).collect();
    assert_eq!(kinds, [FrontendKind::LoadBalancer, FrontendKind::ClusterIp]);
}

#[test]
fn t79_health_counts_ready_addresses_of_this_node() {
    let service =
        service(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
        "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}));
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let listed = [ready(L1, "n1"), ready(R1, "n2"), terminating("10.180.0.2", "n1"), ready("10.180.0.3", "n1")];
    let slices = [
        slice_with("web-1", json!({"ports": ports, "endpoints": listed})),
        slice_with("web-2", json!({"ports": ports, "endpoints": [ready(L1, "n1")]})),
    ];
    let expected =
        HealthPort { service: service.name.clone(), port: 31000, local_endpoints: PerFamily { v4: Some(2), v6: None } };
    assert_eq!(planned(&service, &slices).health, Some(expected));
}

#[test]
fn t89_udp_flows_may_stay_with_everybody_who_serves() {
    let udp = json!([{"port": 53, "protocol": "UDP"}]);
    let members = json!({"ports": udp, "internalTrafficPolicy": "Local"});
    let listed = [ready(L1, "n1"), terminating(R1, "n2"), unready("10.181.0.2", "n2")];
    let slices =
        [slice_with("web-1", json!({"ports": [{"name": "", "port": 53, "protocol": "UDP"}], "endpoints": listed}))];
    let port = only(planned(&service(members), &slices));
    assert_eq!(shown(&port.serving), ["L:10.180.0.1:53", "R:10.181.0.1:53"]);
}

#[test]
fn affinity_and_scheduler_are_carried_over() {
    let mut service = service(json!({"sessionAffinity": "ClientIP"}));
    service.scheduler = Some("lc".into());
    let port = only(planned(&service, &[]));
    assert_eq!(port.affinity, Some(Duration::from_secs(10_800)));
    assert_eq!(port.scheduler.as_deref(), Some("lc"));
}

#[test]
fn an_endpoint_of_no_node_is_never_local() {
    let node = NodeView { name: "".into(), ..node() };
    let endpoints = [json!({"addresses": [L1]}), json!({"addresses": [R1], "nodeName": ""})];
    assert_eq!(shown(&web_on(&node, &endpoints).cluster), ["R:10.180.0.1:80", "R:10.181.0.1:80"]);
}

fn endpoint() -> impl Strategy<Value = Value> {
    let name = || prop::sample::select(vec!["n1", "n2"]);
    let hints = || prop::collection::vec(prop::sample::select(vec!["a", "b"]), 0..2);
    (0u8..4, name(), any::<[bool; 3]>(), hints(), prop::option::of(name())).prop_map(
        |(last, node, [ready, serving, terminating], zones, for_node)| {
            let conditions = json!({"ready": ready, "serving": serving, "terminating": terminating});
            let address = format!("10.180.0.{last}");
            let base = json!({"addresses": [address], "nodeName": node, "conditions": conditions});
            let nodes: Vec<&str> = for_node.into_iter().collect();
            hinted(hinted(base, "forZones", &zones), "forNodes", &nodes)
        },
    )
}

proptest! {
    /// What holds whatever the endpoints are.
    #[test]
    fn endpoints_are_chosen_soundly(
        first in prop::collection::vec(endpoint(), 0..6),
        second in prop::collection::vec(endpoint(), 0..6),
        policies in any::<[bool; 2]>(),
        is_external: bool,
    ) {
        let policy = |is_local| if is_local { "Local" } else { "Cluster" };
        let node_port = if is_external { 30001 } else { 0 };
        let members = json!({"internalTrafficPolicy": policy(policies[0]), "externalTrafficPolicy": policy(policies[1]),
            "ports": [{"port": 80, "nodePort": node_port}]});
        let service = service(members);
        let slices = [slice("web-1", &first), slice("web-2", &second)];
        let port = only(plan(&service, &slices, &node_in("a"), PlanOptions::default()));
        let usable = |e: &crate::cluster::services::SliceEndpoint| e.ready || (e.serving && e.terminating);
        let all: Vec<_> = slices.iter().flat_map(|slice| &slice.endpoints).collect();
        for list in [&port.cluster, &port.local] {
            prop_assert!(list.windows(2).all(|pair| pair[0] < pair[1]), "sorted, each once");
            for backend in list {
                prop_assert!(all.iter().any(|e| e.address == backend.address && usable(e)));
            }
        }
        prop_assert!(port.local.iter().all(|backend| backend.local));
        prop_assert!(port.has_any || (port.cluster.is_empty() && port.local.is_empty()));
        // Policies take endpoints away from a Service, hints never the last one.
        if service.internal == TrafficPolicy::Cluster || is_external {
            prop_assert_eq!(port.has_any, !port.cluster.is_empty());
        }
    }
}
