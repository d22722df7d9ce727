//! 4.4: node ports, load balancers, external IPs.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::kube::{Port, Service};
use weft_tests::lab::Lab;
use weft_tests::probe::ProbeServer;
use weft_tests::svc::{Bench, Case, client, patience, vips};
use weft_tests::wait;

use super::{BLIND, OPEN, at, outer, usual, web};

fn node_port_service(case: &Case<'_>) -> (Service, u16) {
    let port = case.node_port();
    (case.service("web", &[Port::tcp(80, 8080).on_nodes(port)]), port)
}

fn balanced(case: &Case<'_>) -> Service {
    node_port_service(case).0.load_balancer(&case.outer_ips(), "VIP")
}

/// The addresses of node 1 that are not its first ones: those of its bridge. The overlay's are left out, as in IPv6 that is
/// the subnet's anycast address, from which nobody refuses anything.
fn further_ips(bench: &Bench) -> Vec<IpAddr> {
    let links = bench.node.netns.objects("ip", &["addr", "show", "dev", "cni0", "scope", "global"]).unwrap();
    let entries = links.iter().flat_map(|link| link["addr_info"].as_array().cloned().unwrap_or_default());
    entries.filter_map(|entry| entry["local"].as_str()?.parse().ok()).collect()
}

#[test]
fn t059_node_ports_are_at_the_nodes_first_addresses() {
    let bench = usual();
    let case = bench.case("t059");
    let (service, port) = node_port_service(&case);
    case.apply(&service, &[bench.l1.ready()]);
    at(bench.node_ips(), port).into_iter().for_each(|door| drop(bench.ext.to(door).is_served_by(&["l1"])));
    at(further_ips(&bench), port).into_iter().for_each(|door| bench.pod.to(door).is_refused());
}

#[test]
fn t059_node_ports_are_at_every_address_if_asked_for() {
    let bench = OPEN.get();
    let case = bench.case("t059");
    let (service, port) = node_port_service(&case);
    case.apply(&service, &[bench.l1.ready()]);
    at(bench.node_ips(), port).into_iter().for_each(|door| drop(bench.ext.to(door).is_served_by(&["l1"])));
    at(further_ips(&bench), port).into_iter().for_each(|door| drop(bench.pod.to(door).is_served_by(&["l1"])));
}

#[test]
fn t061_a_family_without_network_has_node_ports_at_all_its_addresses() {
    let bench = BLIND.get();
    let case = bench.case("t061");
    let (service, port) = node_port_service(&case);
    case.apply(&service, &[bench.l1.ready()]);
    at(bench.node_ips(), port).into_iter().for_each(|door| drop(bench.ext.to(door).is_served_by(&["l1"])));
    for door in at(further_ips(&bench), port) {
        if door.is_ipv6() {
            bench.pod.to(door).is_served_by(&["l1"]);
        } else {
            bench.pod.to(door).is_refused();
        }
    }
}

/// Gives node 1 a further address on the underlay.
fn add_address(lab: &Lab, ip: &str) {
    lab.node("node1").unwrap().netns.tool("ip", &["addr", "add", ip, "dev", "eth0"]).unwrap();
}

#[test]
fn t062_an_address_that_is_added_takes_node_ports_within_a_second() {
    let bench = OPEN.get();
    let case = bench.alone("t062");
    let (service, port) = node_port_service(&case);
    case.apply(&service, &[bench.l1.ready()]);
    add_address(&bench.lab(), "192.168.100.62/24");
    let door: SocketAddr = format!("192.168.100.62:{port}").parse().unwrap();
    let look = || bench.ext.to(door).times(1).within(patience(Duration::from_millis(200))).go().served() == 1;
    wait::until(patience(Duration::from_secs(1)), "the new address to take node ports", look).unwrap();
    bench.ext.to(door).is_served_by(&["l1"]).seen_as(&bench.node);
}

#[test]
fn t063_loopback_takes_no_node_ports() {
    for bench in [usual(), OPEN.get()] {
        let case = bench.case("t063");
        let (service, port) = node_port_service(&case);
        case.apply(&service, &[bench.l1.ready()]);
        let loopback: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        at(loopback, port).into_iter().for_each(|door| bench.node.to(door).is_refused());
    }
}

#[test]
fn t065_a_cluster_ip_takes_no_node_port() {
    for bench in [usual(), OPEN.get()] {
        let case = bench.case("t065");
        let (service, port) = node_port_service(&case);
        case.apply(&service, &[bench.l1.ready()]);
        for door in at(service.cluster_ips(), port) {
            [&bench.pod, &bench.node, &bench.ext].into_iter().for_each(|place| place.to(door).is_refused());
        }
    }
}

#[test]
fn t066_a_load_balancers_address_is_served_where_it_arrives_but_not_claimed() {
    let bench = usual();
    let case = bench.case("t066");
    // On the underlay's own network, where neighbours would ask for it.
    let ips: [IpAddr; 2] = ["192.168.100.66".parse().unwrap(), "fd00:100::66".parse().unwrap()];
    let service = node_port_service(&case).0.load_balancer(&ips, "VIP");
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    let link = &bench.node.netns.objects("ip", &["link", "show", "dev", "eth0"]).unwrap()[0];
    let mac = link["address"].as_str().unwrap().to_owned();
    for door in outer(&service) {
        bench.pod.to(door).is_served_by(&["l1", "r1"]);
        bench.node.to(door).is_served_by(&["l1", "r1"]);
        // The neighbour's question has to go unanswered until the kernel gives up, which takes three seconds.
        let unclaimed = bench.ext.to(door).times(1).within(patience(Duration::from_secs(5))).go();
        assert_eq!(unclaimed.served(), 0, "somebody says that he is {door}: {unclaimed:?}");
        let neighbours = bench.ext.netns.tool("ip", &["neigh", "show", &door.ip().to_string()]).unwrap();
        assert!(!neighbours.contains("lladdr"), "{neighbours}");
        let ip = door.ip().to_string();
        let entry = ["neigh", "replace", &ip, "lladdr", &mac, "dev", "eth0", "nud", "permanent"];
        bench.ext.netns.tool("ip", &entry).unwrap();
        bench.ext.to(door).is_served_by(&["l1", "r1"]).seen_as(&bench.node);
        bench.ext.netns.tool("ip", &["neigh", "delete", &ip, "dev", "eth0"]).unwrap();
    }
}

#[test]
fn t067_an_address_of_the_nodes_own_is_served_and_stays_the_nodes() {
    let bench = usual();
    let case = bench.alone("t067");
    add_address(&bench.lab(), "192.168.100.67/24");
    let ip: IpAddr = "192.168.100.67".parse().unwrap();
    let service = node_port_service(&case).0.load_balancer(&[ip], "VIP");
    case.apply(&service, &[bench.l1.ready()]);
    bench.ext.to(outer(&service)[0]).is_served_by(&["l1"]);
    let _server = ProbeServer::start(&bench.node.netns, "host", &[8089]).unwrap();
    bench.ext.to(SocketAddr::new(ip, 8089)).is_served_by(&["host"]);
    case.delete(service.json());
    case.settle();
    bench.ext.to(outer(&service)[0]).is_refused();
    bench.ext.to(SocketAddr::new(ip, 8089)).is_served_by(&["host"]);
    let shown = bench.node.netns.tool("ip", &["addr", "show", "dev", "eth0"]).unwrap();
    assert!(shown.contains("192.168.100.67/24"), "{shown}");
}

#[test]
fn t069_a_load_balancer_of_mode_proxy_is_not_short_cut() {
    let bench = usual();
    let case = bench.case("t069");
    let service = balanced(&case);
    let endpoints = [bench.l1.ready()];
    case.apply(&service, &endpoints);
    outer(&service).into_iter().for_each(|door| drop(bench.pod.to(door).is_served_by(&["l1"])));
    let ips = service.outer_ips();
    let proxied = service.load_balancer(&ips, "Proxy");
    case.apply(&proxied, &endpoints);
    for door in outer(&proxied) {
        // It leaves for the real load balancer, which is not there.
        assert_eq!(bench.pod.to(door).times(3).within(patience(Duration::from_millis(400))).go().served(), 0);
    }
    let port = proxied.ports()[0].node_port.unwrap();
    at(bench.node_ips(), port).into_iter().for_each(|door| drop(bench.ext.to(door).is_served_by(&["l1"])));
    vips(&proxied).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1"])));
}

#[test]
fn t070_source_ranges_close_load_balancers_and_nothing_else() {
    let bench = usual();
    let case = bench.case("t070");
    let ranges = [false, true].map(|v6| client(v6, 1).to_string() + if v6 { "/128" } else { "/32" });
    let service = balanced(&case).external_ips(&case.outer_ips()).with("/spec/loadBalancerSourceRanges", json!(ranges));
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    let [external, balancer] = [&outer(&service)[..2], &outer(&service)[2..]];
    let friend = |door: &SocketAddr| client(door.is_ipv6(), 1);
    let stranger = |door: &SocketAddr| client(door.is_ipv6(), 2);
    for door in balancer {
        bench.ext.to(*door).as_client(friend(door)).is_served_by(&["l1", "r1"]).seen_as(&bench.node);
        bench.ext.to(*door).as_client(stranger(door)).is_dropped();
        bench.pod.to(*door).is_dropped();
    }
    let node_ports = at(bench.node_ips(), service.ports()[0].node_port.unwrap());
    for door in external.iter().chain(&node_ports).chain(&vips(&service)) {
        bench.ext.to(*door).as_client(stranger(door)).is_served_by(&["l1", "r1"]);
    }
}

#[test]
fn t071_the_node_itself_is_bound_by_source_ranges() {
    let bench = usual();
    let case = bench.case("t071");
    let without = balanced(&case).with("/spec/loadBalancerSourceRanges", json!(["198.51.100.0/24", "2001:db8:5::/64"]));
    case.apply(&without, &[bench.l1.ready(), bench.r1.ready()]);
    outer(&without).into_iter().for_each(|door| bench.node.to(door).is_dropped());
    let with = without.with("/spec/loadBalancerSourceRanges", json!(["192.168.100.0/24", "fd00:100::/64"]));
    case.apply(&with, &[bench.l1.ready(), bench.r1.ready()]);
    outer(&with).into_iter().for_each(|door| drop(bench.node.to(door).is_served_by(&["l1", "r1"])));
}

#[test]
fn t071_a_node_that_is_let_in_may_have_the_load_balancers_address_itself() {
    let bench = usual();
    let case = bench.alone("t071v");
    let with = balanced(&case).with("/spec/loadBalancerSourceRanges", json!(["192.168.100.0/24", "fd00:100::/64"]));
    case.apply(&with, &[bench.l1.ready(), bench.r1.ready()]);
    // As those do that announce such addresses. What the node sends there comes from there then.
    for ip in with.outer_ips() {
        bench.node.netns.tool("ip", &["addr", "add", &ip.to_string(), "dev", "lo"]).unwrap();
    }
    for door in outer(&with) {
        bench.node.to(door).is_served_by(&["l1", "r1"]).seen_as(&bench.node);
        bench.node.to(door).as_client(door.ip()).is_served_by(&["l1", "r1"]).seen_as(&bench.node);
        bench.ext.to(door).as_client(client(door.is_ipv6(), 2)).is_dropped();
    }
    let without = with.with("/spec/loadBalancerSourceRanges", json!(["198.51.100.0/24", "2001:db8:5::/64"]));
    case.apply(&without, &[bench.l1.ready(), bench.r1.ready()]);
    for door in outer(&without) {
        bench.node.to(door).is_dropped();
        bench.node.to(door).as_client(door.ip()).is_dropped();
    }
    for ip in without.outer_ips() {
        let length = if ip.is_ipv6() { 128 } else { 32 };
        bench.node.netns.tool("ip", &["addr", "delete", &format!("{ip}/{length}"), "dev", "lo"]).unwrap();
    }
}

#[test]
fn t073_padded_ranges_are_trimmed_and_a_whole_family_is_no_restriction() {
    let bench = usual();
    let case = bench.case("t073");
    let service = balanced(&case).with("/spec/loadBalancerSourceRanges", json!([" 10.250.0.0/24 ", "\tfd00:250::/64"]));
    case.apply(&service, &[bench.l1.ready()]);
    for door in outer(&service) {
        bench.ext.to(door).as_client(client(door.is_ipv6(), 3)).is_served_by(&["l1"]);
        bench.ext.to(door).is_dropped();
    }
    let open = service.with("/spec/loadBalancerSourceRanges", json!(["0.0.0.0/0", "1.2.3.0/24", "::/0"]));
    case.apply(&open, &[bench.l1.ready()]);
    outer(&open).into_iter().for_each(|door| drop(bench.ext.to(door).is_served_by(&["l1"])));
}

#[test]
fn t074_ranges_of_one_family_do_not_bind_the_other() {
    let bench = usual();
    let case = bench.case("t074");
    let service = balanced(&case).with("/spec/loadBalancerSourceRanges", json!(["fd00:250::1/128"]));
    case.apply(&service, &[bench.l1.ready()]);
    for door in outer(&service) {
        if door.is_ipv6() {
            bench.ext.to(door).is_dropped();
        } else {
            bench.ext.to(door).is_served_by(&["l1"]);
        }
    }
}

#[test]
fn t075_a_nodes_address_as_external_ip_leaves_its_other_ports_alone() {
    let bench = usual();
    let case = bench.case("t075");
    let service = case.service("web", &[Port::tcp(75, 8080)]).external_ips(&bench.node_ips());
    case.apply(&service, &[bench.l1.ready()]);
    for ip in bench.node_ips() {
        bench.ext.to(SocketAddr::new(ip, 75)).is_served_by(&["l1"]);
        bench.far.to(SocketAddr::new(ip, 75)).is_served_by(&["l1"]);
    }
    // The agent's own port is one of the others.
    let agent = at([bench.node_ips()[0]], 8081)[0];
    for place in [&bench.ext, &bench.other, &bench.node, &bench.pod, &bench.far] {
        let answer = weft_tests::http::get(&place.netns, agent, "/readyz").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn t077_of_two_services_with_one_external_address_the_older_has_it() {
    let bench = usual();
    let case = bench.case("t077");
    let ips = case.outer_ips();
    let of = |name: &str, created: &str| {
        case.service(name, &web()).external_ips(&ips).with("/metadata/creationTimestamp", created)
    };
    let (young, old) = (of("a", "2026-02-01T00:00:00Z"), of("b", "2025-02-01T00:00:00Z"));
    case.apply(&young, &[bench.l1.ready()]);
    at(ips, 80).into_iter().for_each(|door| drop(bench.ext.to(door).is_served_by(&["l1"])));
    case.apply(&old, &[bench.l2.ready()]);
    at(ips, 80).into_iter().for_each(|door| drop(bench.ext.to(door).is_served_by(&["l2"])));
    vips(&young).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1"])));
    case.delete(old.json());
    case.settle();
    at(ips, 80).into_iter().for_each(|door| drop(bench.ext.to(door).is_served_by(&["l1"])));
}

#[test]
fn t078_external_ips_are_not_served_if_not_allowed() {
    let bench = OPEN.get();
    let case = bench.case("t078");
    let balancer = case.outer_ips();
    let service = case.service("web", &web()).external_ips(&case.outer_ips()).load_balancer(&balancer, "VIP");
    case.apply(&service, &[bench.l1.ready()]);
    let doors = outer(&service);
    for door in &doors[..2] {
        assert_eq!(bench.pod.to(*door).times(3).within(patience(Duration::from_millis(400))).go().served(), 0);
    }
    doors[2..].iter().for_each(|door| drop(bench.pod.to(*door).is_served_by(&["l1"])));
}

#[test]
fn t079_the_health_check_port_counts_local_endpoints() {
    let bench = usual();
    let case = bench.case("t079");
    let (first, second) = (case.node_port(), case.node_port());
    let service = balanced(&case).external_local().with("/spec/healthCheckNodePort", first);
    let health = |port: u16, status: u16, local: u64| {
        for door in at(bench.node_ips(), port) {
            wait::until_ok(patience(Duration::from_secs(3)), &format!("{status} and {local} from {door}"), || {
                let answer = bench.http_from_outside(door, "/any").map_err(|error| format!("{error:#}"))?;
                let expected = json!({"service": {"namespace": "t079", "name": "web"}, "localEndpoints": local,
                    "serviceProxyHealthy": true});
                let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
                let weight = answer.header("X-Load-Balancing-Endpoint-Weight");
                let right = answer.status == status && body == expected && weight == Some(local.to_string().as_str());
                let kind = answer.header("Content-Type") == Some("application/json");
                let sniff = answer.header("X-Content-Type-Options") == Some("nosniff");
                if right && kind && sniff { Ok(()) } else { Err(format!("{answer:?}")) }
            })
            .unwrap();
        }
    };
    case.apply(&service, &[bench.l1.ready(), bench.l2.ready(), bench.r1.ready()]);
    health(first, 200, 2);
    // Those that leave serve on, but are not counted.
    let leaving = |place: &weft_tests::svc::Place| place.but(|endpoint| endpoint.terminating(true));
    case.apply(&service, &[leaving(&bench.l1), leaving(&bench.l2), bench.r1.ready()]);
    health(first, 503, 0);
    let moved = service.with("/spec/healthCheckNodePort", second);
    case.apply(&moved, &[bench.l1.ready(), bench.r1.ready()]);
    health(second, 200, 1);
    let door = at(bench.node_ips(), first)[0];
    let closed = || bench.ext.to(door).times(1).go().refused == 1;
    wait::until(patience(Duration::from_secs(3)), "the old health check port to close", closed).unwrap();
}
