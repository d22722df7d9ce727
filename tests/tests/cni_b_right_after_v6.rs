//! A pod's first IPv6 connections, in the moment after its ADD. A file of its own, so that nothing else runs beside it: an
//! answer that takes more than 0.9 s counts as a lost packet.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use weft_tests::cni::{Host, Pod, VERSIONS};
use weft_tests::probe;

#[test]
fn t037_t043_a_pods_first_ipv6_connections_get_through() {
    let gateway: SocketAddr = "[fd00:88::1]:9".parse().unwrap();
    let brief = Duration::from_millis(900);
    for version in VERSIONS {
        for round in 0..10 {
            // A machine of its own each time: the gateway's address is as new as the pod's.
            let host = Host::new();
            let conf = host.conf(version).with_subnets(&["fd00:88::/64"]);
            let pods: Vec<Pod> = (0..3).map(|_| host.pod()).collect();
            for pod in &pods {
                let listener = pod.netns.run(|| TcpListener::bind("[::]:8080").unwrap()).unwrap();
                let address = host.add(&conf, pod).result().ip();
                let asked = probe::refused_or_accepted(&pod.netns, gateway, brief);
                assert!(!asked.unwrap_or_else(|error| panic!("{version}, round {round}, to the gateway: {error:#}")));
                let accepted = probe::refused_or_accepted(&host.netns, SocketAddr::new(address, 8080), brief);
                assert!(accepted.unwrap_or_else(|error| panic!("{version}, round {round}, to the pod: {error:#}")));
                drop(listener);
            }
        }
    }
}
