//! 4.1: frontends and their lives.

use std::net::SocketAddr;

use serde_json::{Value, json};
use weft_tests::kube::{Port, Service, slice, slices_of};
use weft_tests::probe::Transport;
use weft_tests::svc::vips;

use super::{usual, web};

#[test]
fn t001_a_pod_reaches_the_endpoint_with_its_own_address() {
    let bench = usual();
    let case = bench.case("t001");
    let service = case.service("web", &web());
    case.apply(&service, &[bench.l1.ready()]);
    for vip in vips(&service) {
        bench.pod.to(vip).is_served_by(&["l1"]).keeps_its_source();
        bench.far.to(vip).is_served_by(&["l1"]).keeps_its_source();
    }
}

/// The statistic of Pearson for equal shares.
fn chi_square(counts: &[usize]) -> f64 {
    let float = |count: usize| f64::from(u32::try_from(count).unwrap());
    let expected = float(counts.iter().sum()) / float(counts.len());
    counts.iter().map(|count| (float(*count) - expected).powi(2) / expected).sum()
}

#[test]
fn t002_two_endpoints_share_a_thousand_connections_evenly() {
    let bench = usual();
    let case = bench.case("t002");
    let service = case.service("web", &web());
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    let outcome = bench.pod.to(vips(&service)[0]).times(1000).is_served_by(&["l1", "r1"]).outcome;
    let counts: Vec<usize> = outcome.by.values().map(|tally| tally.count).collect();
    // One degree of freedom: a fair coin is beyond this once in a hundred thousand runs.
    assert!(chi_square(&counts) < 19.5, "{counts:?}");
}

#[test]
fn t003_the_target_port_is_another_one() {
    let bench = usual();
    let case = bench.case("t003");
    let service = case.service("web", &[Port::tcp(443, 8443)]);
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    for vip in vips(&service) {
        let outcome = bench.pod.to(vip).is_served_by(&["l1", "r1"]).outcome;
        assert!(outcome.by.values().all(|tally| tally.ports.iter().eq([&8443])), "{outcome:?}");
    }
}

#[test]
fn t005_protocols_of_one_port_are_apart() {
    let bench = usual();
    let case = bench.case("t005");
    let sctp = Port { transport: Transport::Sctp, ..Port::tcp(80, 8443) };
    let ports = [Port::tcp(80, 8080).named("tcp"), Port::udp(80, 8443).named("udp"), sctp.named("sctp")];
    let (all, only_tcp) = (case.service("all", &ports), case.service("tcp", &web()));
    case.serve(&only_tcp, &[bench.l1.ready()]);
    case.put(only_tcp.json());
    case.apply(&all, &[bench.l1.ready(), bench.r1.ready()]);
    for transport in Transport::ALL.into_iter().filter(|transport| transport.available()) {
        let target = if transport == Transport::Tcp { 8080 } else { 8443 };
        for vip in vips(&all) {
            let served = bench.pod.to(vip).over(transport).is_served_by(&["l1", "r1"]);
            served.keeps_its_source();
            assert!(served.outcome.by.values().all(|tally| tally.ports.iter().eq([&target])), "{:?}", served.outcome);
        }
    }
    for vip in vips(&only_tcp) {
        bench.pod.to(vip).is_served_by(&["l1"]);
        bench.pod.to(vip).over(Transport::Udp).is_refused();
    }
}

#[test]
fn t006_another_port_of_a_service_is_refused() {
    let bench = usual();
    let case = bench.case("t006");
    let service = case.service("web", &web());
    case.apply(&service, &[bench.l1.ready()]);
    for vip in vips(&service) {
        let other = SocketAddr::new(vip.ip(), 81);
        for place in [&bench.pod, &bench.far, &bench.node, &bench.ext] {
            place.to(other).is_refused();
        }
        bench.pod.to(other).over(Transport::Udp).is_refused();
    }
}

#[test]
fn t007_an_address_that_no_service_has_is_silent() {
    let bench = usual();
    let case = bench.case("t007");
    case.settle();
    for ip in bench.cluster_ips() {
        for place in [&bench.pod, &bench.node, &bench.ext] {
            place.to(SocketAddr::new(ip, 80)).is_dropped();
        }
    }
}

#[test]
fn t009_an_external_name_is_not_served() {
    let bench = usual();
    let case = bench.case("t009");
    let service = case.service("web", &web());
    let name = service.clone().with("/spec/type", "ExternalName").with("/spec/externalName", "example.org");
    case.apply(&name, &[bench.l1.ready()]);
    bench.pod.to(vips(&service)[0]).is_dropped();
    case.apply(&service, &[bench.l1.ready()]);
    vips(&service).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1"])));
    case.apply(&name, &[bench.l1.ready()]);
    vips(&service).into_iter().for_each(|vip| bench.pod.to(vip).is_dropped());
}

#[test]
fn t010_a_service_of_another_proxy_is_left_to_it() {
    let bench = usual();
    let case = bench.case("t010");
    let node_port = case.node_port();
    let service = case.service("web", &[Port::tcp(80, 8080).on_nodes(node_port)]);
    let foreign = service.clone().with("/metadata/labels/service.kubernetes.io~1service-proxy-name", "other");
    let node = SocketAddr::new(bench.node_ips()[0], node_port);
    case.apply(&service, &[bench.l1.ready()]);
    bench.ext.to(node).is_served_by(&["l1"]);
    case.apply(&foreign, &[bench.l1.ready()]);
    bench.pod.to(vips(&service)[0]).is_dropped();
    bench.ext.to(node).is_refused();
    case.apply(&service, &[bench.l1.ready()]);
    bench.pod.to(vips(&service)[0]).is_served_by(&["l1"]);
    bench.ext.to(node).is_served_by(&["l1"]);
}

#[test]
fn t011_a_service_made_anew_leaves_nothing_of_its_old_address() {
    let bench = usual();
    let case = bench.case("t011");
    let (old, new) = (case.service("web", &web()), case.service("web", &web()));
    case.apply(&old, &[bench.l1.ready()]);
    bench.pod.to(vips(&old)[0]).is_served_by(&["l1"]);
    case.delete(old.json());
    case.apply(&new, &[bench.l1.ready()]);
    vips(&new).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1"])));
    vips(&old).into_iter().for_each(|vip| bench.pod.to(vip).is_dropped());
    for words in [["-4", "addr", "show"].as_slice(), &["-6", "addr", "show"], &["route", "show", "table", "all"]] {
        let shown = bench.node.netns.tool("ip", words).unwrap();
        for ip in old.cluster_ips() {
            assert!(!shown.contains(&format!("{ip}/")) && !shown.contains(&format!("{ip} ")), "{shown}");
        }
    }
}

#[test]
fn t013_one_of_two_ports_goes_and_the_other_stays() {
    let bench = usual();
    let case = bench.case("t013");
    let (web, tls) = (Port::tcp(80, 8080).named("web"), Port::tcp(443, 8443).named("tls"));
    let both = case.service("web", &[web.clone(), tls]);
    case.apply(&both, &[bench.l1.ready()]);
    let ports = |port| both.cluster_ips().into_iter().map(move |ip| SocketAddr::new(ip, port));
    ports(80).chain(ports(443)).for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1"])));
    let one = Service::new("t013", "web", &both.cluster_ips()).port(&web);
    case.apply(&one, &[bench.l1.ready()]);
    ports(80).for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1"])));
    ports(443).for_each(|vip| bench.pod.to(vip).is_refused());
}

#[test]
fn t014_a_slice_of_names_is_passed_over() {
    let bench = usual();
    let case = bench.case("t014");
    let service = case.service("web", &web());
    let mut names = slice(&service, "web-names", false, &service.ports(), &[]);
    names["addressType"] = json!("FQDN");
    names["endpoints"] = json!([{"addresses": ["example.org"], "conditions": {"ready": true}}]);
    case.put(&names);
    case.apply(&service, &[bench.l1.ready()]);
    vips(&service).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1"])));
}

#[test]
fn t015_a_slice_port_without_name_or_number_is_passed_over() {
    let bench = usual();
    let case = bench.case("t015");
    let names = [("web", 80), ("zero", 81), ("none", 82)];
    let ports: Vec<Port> = names.iter().map(|(name, port)| Port::tcp(*port, 8080).named(name)).collect();
    let service = case.service_v4("web", &ports);
    let mut odd = slices_of(&service, &bench.l1.ready()).remove(0);
    odd["ports"][1]["port"] = json!(0);
    odd["ports"][2]["port"] = Value::Null;
    odd["ports"].as_array_mut().unwrap().push(json!({"protocol": "TCP", "port": 8443}));
    case.put(&odd);
    case.put(service.json());
    case.settle();
    let ip = service.cluster_ips()[0];
    bench.pod.to(SocketAddr::new(ip, 80)).is_served_by(&["l1"]);
    bench.pod.to(SocketAddr::new(ip, 81)).is_refused();
    bench.pod.to(SocketAddr::new(ip, 82)).is_refused();
}

#[test]
fn t017_an_endpoint_in_two_slices_counts_once_and_as_running() {
    let bench = usual();
    let case = bench.case("t017");
    let service = case.service_v4("web", &web());
    let leaving = bench.l1.but(|endpoint| endpoint.terminating(true));
    for (name, endpoints) in [("a", &leaving), ("b", &bench.l1.ready()), ("c", &bench.r1.ready())] {
        case.put(&slice(&service, name, false, &service.ports(), endpoints));
    }
    case.put(service.json());
    case.settle();
    let outcome = bench.pod.to(vips(&service)[0]).times(1000).is_served_by(&["l1", "r1"]).outcome;
    let counts: Vec<usize> = outcome.by.values().map(|tally| tally.count).collect();
    assert!(chi_square(&counts) < 19.5, "counted twice: {counts:?}");
}

#[test]
fn t018_a_slice_of_no_service_is_passed_over() {
    let bench = usual();
    let case = bench.case("t018");
    let service = case.service_v4("web", &web());
    let mut stray = slices_of(&service, &bench.l1.ready()).remove(0);
    stray["metadata"]["labels"].as_object_mut().unwrap().remove("kubernetes.io/service-name");
    case.put(&stray);
    case.put(service.json());
    case.settle();
    bench.pod.to(vips(&service)[0]).is_refused();
}

#[test]
fn t019_service_and_endpoints_may_come_in_either_order() {
    let bench = usual();
    let case = bench.case("t019");
    let (first, second) = (case.service("first", &web()), case.service("second", &web()));
    case.put(first.json());
    case.serve(&second, &[bench.r1.ready()]);
    case.settle();
    bench.pod.to(vips(&first)[0]).is_refused();
    bench.pod.to(vips(&second)[0]).is_dropped();
    case.serve(&first, &[bench.l1.ready()]);
    case.put(second.json());
    case.settle();
    vips(&first).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1"])));
    vips(&second).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["r1"])));
}

#[test]
fn t021_a_service_that_went_while_no_agent_ran_is_taken_out_at_its_start() {
    let bench = usual();
    let case = bench.alone("t021");
    let node_port = case.node_port();
    let gone = case.service("gone", &[Port::tcp(80, 8080).on_nodes(node_port)]);
    let stays = case.service("stays", &web());
    case.apply(&gone, &[bench.l1.ready()]);
    case.apply(&stays, &[bench.l1.ready()]);
    bench.kill_agent();
    case.delete(gone.json());
    // The kernel serves on while nobody looks after it.
    bench.pod.to(vips(&gone)[0]).is_served_by(&["l1"]);
    bench.start_agent();
    case.settle();
    vips(&gone).into_iter().for_each(|vip| bench.pod.to(vip).is_dropped());
    bench.ext.to(SocketAddr::new(bench.node_ips()[0], node_port)).is_refused();
    vips(&stays).into_iter().for_each(|vip| drop(bench.pod.to(vip).is_served_by(&["l1"])));
}

#[test]
fn t025_a_service_of_ipv6_alone_has_no_other_address() {
    let bench = usual();
    let case = bench.case("t025");
    let [v4, v6] = bench.cluster_ips();
    let service = Service::new("t025", "web", &[v6]).port(&web()[0]);
    case.apply(&service, &[bench.l1.ready(), bench.r1.ready()]);
    bench.pod.to(SocketAddr::new(v6, 80)).is_served_by(&["l1", "r1"]).keeps_its_source();
    bench.pod.to(SocketAddr::new(v4, 80)).is_dropped();
}

#[test]
fn t105_addresses_with_leading_zeros_are_decimal() {
    let bench = usual();
    let case = bench.case("t105");
    let service = case.service_v4("web", &web());
    let vip = vips(&service)[0];
    let padded = |ip: &str| ip.split('.').map(|part| format!("{part:0>3}")).collect::<Vec<_>>().join(".");
    let text = padded(&vip.ip().to_string());
    let odd = service.clone().with("/spec/clusterIP", text.clone()).with("/spec/clusterIPs/0", text);
    let mut slice = slices_of(&service, &bench.l1.ready()).remove(0);
    slice["endpoints"][0]["addresses"][0] = json!(padded(&bench.l1.ip_like(vip.ip()).to_string()));
    case.put(&slice);
    case.put(odd.json());
    case.settle();
    bench.pod.to(vip).is_served_by(&["l1"]);
}
