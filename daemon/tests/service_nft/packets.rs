//! What packets meet: a node, pods, another node and the outside in namespaces.
//!
//! A first look; the whole table of cases is tested from outside of the process.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::lab::{Lab, Outcome, PORT, ask};
use crate::support::{Net, Plan, address, node_options, sh};
use weft::cluster::Family;
use weft::cluster::services::{Protocol, TrafficPolicy};
use weft::service::model::{FrontendKind, PortPlan};
use weft::service::nft::NftServices;
use weft_netlink::netns::NetNs;

const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

fn pods(family: Family, numbers: &[u32]) -> Vec<(IpAddr, u16, bool)> {
    numbers.iter().map(|number| (address(family, Net::Pod, *number), PORT, *number < 256)).collect()
}

fn running(plans: impl IntoIterator<Item = Plan>) -> NftServices {
    let plans: Vec<Arc<PortPlan>> = plans.into_iter().map(Plan::done).collect();
    let mut services = NftServices::open().unwrap();
    let mut applied = services.start(plans, node_options()).unwrap();
    applied += services.finish().unwrap();
    assert_eq!(applied.failed, 0, "{:?}", services.failures().collect::<Vec<_>>());
    services
}

/// Every family and protocol, each a plan of its own.
fn each(make: impl Fn(Plan, Family) -> Plan) -> Vec<Plan> {
    let all = Family::ALL.into_iter().flat_map(|family| BOTH.map(|protocol| (family, protocol)));
    all.map(|(family, protocol)| make(Plan::new("svc", protocol, family), family)).collect()
}

/// Asks several times, and returns who answered, and how often.
fn tally(from: &NetNs, protocol: Protocol, to: IpAddr, port: u16, times: u32) -> BTreeMap<(IpAddr, IpAddr), u32> {
    let mut tally = BTreeMap::new();
    for _ in 0..times {
        *tally.entry(ask(from, protocol, to, port).answer()).or_insert(0) += 1;
    }
    tally
}

#[test]
fn t01_t02_t41_a_cluster_ip_leads_to_all_backends_evenly() {
    let lab = Lab::new();
    let _services = running(each(|plan, family| {
        plan.cluster_ip(address(family, Net::Service, 41), 80).backends(pods(family, &[11, 256, 257]))
    }));
    for family in Family::ALL {
        let service = address(family, Net::Service, 41);
        for protocol in BOTH {
            let tally = tally(&lab.pods[0], protocol, service, 80, 300);
            assert_eq!(tally.len(), 3, "{tally:?}");
            for ((backend, source), count) in tally {
                // Expected 100, standard deviation 8.
                assert!((60..=140).contains(&count), "{backend}: {count}");
                let through_the_bridge = backend == address(family, Net::Pod, 11);
                assert_eq!(Lab::own(source), through_the_bridge, "{backend} saw {source}");
                assert!(through_the_bridge || source == address(family, Net::Pod, 10), "{source}");
            }
            ask(&lab.node, protocol, service, 80).answer();
            let (_, source) = ask(&lab.outside, protocol, service, 80).answer();
            assert!(Lab::own(source), "T41: {source}");
        }
    }
}

#[test]
fn t06_t07_t27_t29_t31_who_is_not_there_is_refused_or_dropped() {
    let lab = Lab::new();
    let empty = |plan: Plan, family| plan.cluster_ip(address(family, Net::Service, 1), 80).node_port(30_001);
    let elsewhere = |family| {
        Plan::new("local", Protocol::Tcp, family)
            .cluster_ip(address(family, Net::Service, 2), 80)
            .backends(pods(family, &[256]))
            .policies(TrafficPolicy::Local, TrafficPolicy::Cluster)
    };
    let mut services = running(each(empty).into_iter().chain(Family::ALL.map(elsewhere)));
    for family in Family::ALL {
        let service = |number| address(family, Net::Service, number);
        for (who, from) in [("pod", &lab.pods[0]), ("node", &lab.node)] {
            for protocol in BOTH {
                assert_eq!(ask(from, protocol, service(1), 80), Outcome::Refused, "T27 {who} {family} {protocol}");
                assert_eq!(ask(from, protocol, service(1), 81), Outcome::Refused, "T06");
            }
            assert_eq!(ask(from, Protocol::Tcp, service(2), 80), Outcome::Silence, "T31");
            assert_eq!(ask(from, Protocol::Tcp, service(199), 80), Outcome::Silence, "T07");
        }
        let node: IpAddr = if family == Family::V4 { "192.168.0.2" } else { "2001:db8::2" }.parse().unwrap();
        assert_eq!(ask(&lab.outside, Protocol::Tcp, node, 30_001), Outcome::Refused);
    }
    let come = each(|plan, family| empty(plan, family).backends(pods(family, &[256])));
    services.sync(&come.into_iter().map(Plan::done).collect::<Vec<_>>(), &[]).unwrap();
    for family in Family::ALL {
        for protocol in BOTH {
            let backend = ask(&lab.pods[0], protocol, address(family, Net::Service, 1), 80).backend();
            assert_eq!(backend, address(family, Net::Pod, 256), "T29");
        }
    }
}

#[test]
fn t33_to_t39_external_policies() {
    let lab = Lab::new();
    let external = |plan: Plan, family, number: u32, port, policy| {
        plan.cluster_ip(address(family, Net::Service, number), 80)
            .at(FrontendKind::LoadBalancer, address(family, Net::LoadBalancer, number), 443)
            .node_port(port)
            .backends(pods(family, &[11, 256]))
            .policies(TrafficPolicy::Cluster, policy)
    };
    let local = each(|plan, family| external(plan, family, 1, 30_001, TrafficPolicy::Local));
    let cluster = Family::ALL
        .map(|family| external(Plan::new("c", Protocol::Tcp, family), family, 2, 30_002, TrafficPolicy::Cluster));
    let remote = Family::ALL.map(|family| {
        let plan = external(Plan::new("r", Protocol::Tcp, family), family, 3, 30_003, TrafficPolicy::Local);
        plan.backends(pods(family, &[256]))
    });
    let _services = running(local.into_iter().chain(cluster).chain(remote));
    for family in Family::ALL {
        let node: IpAddr = if family == Family::V4 { "192.168.0.2" } else { "2001:db8::2" }.parse().unwrap();
        let outside: IpAddr = if family == Family::V4 { "192.168.0.1" } else { "2001:db8::1" }.parse().unwrap();
        let vip = |number| address(family, Net::LoadBalancer, number);
        let [here, there] = [11, 256].map(|number| address(family, Net::Pod, number));
        for protocol in BOTH {
            for (to, port) in [(node, 30_001), (vip(1), 443)] {
                let from_outside = tally(&lab.outside, protocol, to, port, 20);
                assert_eq!(from_outside.into_keys().collect::<Vec<_>>(), [(here, outside)], "T33 {to}");
                let from_pod = tally(&lab.pods[0], protocol, to, port, 60);
                let backends: Vec<IpAddr> = from_pod.keys().map(|(backend, _)| *backend).collect();
                assert_eq!(backends, [here, there], "T34 {to}");
                assert!(from_pod.contains_key(&(there, address(family, Net::Pod, 10))), "T34: {from_pod:?}");
                let from_node = tally(&lab.node, protocol, to, port, 60);
                assert!(from_node.keys().all(|(_, source)| Lab::own(*source)), "T35: {from_node:?}");
                assert!([here, there].iter().all(|pod| from_node.keys().any(|(backend, _)| backend == pod)), "T35");
            }
        }
        for (to, port) in [(node, 30_002), (vip(2), 443)] {
            let tally = tally(&lab.outside, Protocol::Tcp, to, port, 60);
            let backends: Vec<IpAddr> = tally.keys().map(|(backend, _)| *backend).collect();
            assert_eq!(backends, [here, there], "T39");
            assert!(tally.keys().all(|(_, source)| Lab::own(*source)), "T39: {tally:?}");
        }
        assert_eq!(ask(&lab.outside, Protocol::Tcp, vip(3), 443), Outcome::Silence, "no backend here");
        assert_eq!(ask(&lab.pods[0], Protocol::Tcp, vip(3), 443).backend(), there, "T37");
        assert_eq!(ask(&lab.node, Protocol::Tcp, node, 30_003).backend(), there, "T37");
    }
}

#[test]
fn t70_source_ranges_are_for_load_balancers_alone() {
    let lab = Lab::new();
    let plans = Family::ALL.map(|family| {
        let ranges = if family == Family::V4 { ["192.0.2.0/24"] } else { ["2001:db8:2::/48"] };
        Plan::new("lb", Protocol::Tcp, family)
            .cluster_ip(address(family, Net::Service, 1), 80)
            .at(FrontendKind::LoadBalancer, address(family, Net::LoadBalancer, 1), 443)
            .node_port(30_001)
            .ranges(&ranges)
            .backends(pods(family, &[256]))
    });
    let mut services = running(plans.clone());
    for (family, node) in [(Family::V4, "192.168.0.2"), (Family::V6, "2001:db8::2")] {
        let (vip, node) = (address(family, Net::LoadBalancer, 1), node.parse().unwrap());
        assert_eq!(ask(&lab.outside, Protocol::Tcp, vip, 443), Outcome::Silence, "T70");
        assert_eq!(ask(&lab.node, Protocol::Tcp, vip, 443), Outcome::Silence, "T71");
        ask(&lab.outside, Protocol::Tcp, node, 30_001).answer();
        ask(&lab.pods[0], Protocol::Tcp, address(family, Net::Service, 1), 80).answer();
    }
    let opened = plans.map(|plan| {
        let ranges = ["192.0.2.0/24", "192.168.0.0/24", "192.168.0.1/32"];
        let ranges6 = ["2001:db8:2::/48", "2001:db8::/64", "2001:db8::1/128"];
        let v4 = plan.0.key.family == Family::V4;
        plan.ranges(if v4 { &ranges } else { &ranges6 }).done()
    });
    services.sync(&opened, &[]).unwrap();
    for family in Family::ALL {
        ask(&lab.outside, Protocol::Tcp, address(family, Net::LoadBalancer, 1), 443).answer();
    }
}

#[test]
fn t82_t85_t86_a_client_stays_with_its_backend_while_there_is_one() {
    let lab = Lab::new();
    let sticky = |plan: Plan, family, numbers: &[u32]| {
        plan.cluster_ip(address(family, Net::Service, 1), 80)
            .node_port(30_001)
            .affinity(10_800)
            .backends(pods(family, numbers))
    };
    let mut services = running(each(|plan, family| sticky(plan, family, &[11, 256, 257])));
    for (family, node) in [(Family::V4, "192.168.0.2"), (Family::V6, "2001:db8::2")] {
        let (service, node): (IpAddr, IpAddr) = (address(family, Net::Service, 1), node.parse().unwrap());
        for protocol in BOTH {
            let stays = tally(&lab.pods[0], protocol, service, 80, 20);
            assert_eq!(stays.len(), 1, "T82: {stays:?}");
            let (backend, _) = *stays.keys().next().unwrap();
            assert_eq!(ask(&lab.pods[0], protocol, node, 30_001).backend(), backend, "T86");

            let rest: Vec<u32> =
                [11, 256, 257].into_iter().filter(|pod| address(family, Net::Pod, *pod) != backend).collect();
            let plan = sticky(Plan::new("svc", protocol, family), family, &rest).done();
            services.sync(&[plan], &[]).unwrap();
            let moved = tally(&lab.pods[0], protocol, service, 80, 20);
            assert_eq!(moved.len(), 1, "T85: {moved:?}");
            assert_ne!(moved.keys().next().unwrap().0, backend, "T85");
        }
        let map = if family == Family::V4 { "svc-affinity4" } else { "svc-affinity6" };
        let remembered = sh(&format!("nft list map inet weft {map}"));
        assert_eq!(remembered.matches("expires").count(), 2, "{remembered}");
    }
}

#[test]
fn t87_a_pod_may_be_led_to_itself() {
    let lab = Lab::new();
    let _services = running(each(|plan, family| {
        plan.cluster_ip(address(family, Net::Service, 1), 80).backends(pods(family, &[10]))
    }));
    for family in Family::ALL {
        for protocol in BOTH {
            let (backend, source) = ask(&lab.pods[0], protocol, address(family, Net::Service, 1), 80).answer();
            assert_eq!(backend, address(family, Net::Pod, 10));
            assert!(Lab::own(source), "{source}");
        }
    }
}
