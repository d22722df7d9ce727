//! The servers over real sockets, on a loopback of their own.

use std::time::Duration;

use super::*;
use crate::cluster::PerFamily;
use crate::serve::proxy::ServingMode;
use crate::serve::testing::{get, on_own_loopback, try_get, until};

const ANY: [IpAddr; 2] = [IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)];

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

fn port(number: u16, v4: Option<usize>, v6: Option<usize>) -> HealthPort {
    HealthPort { service: ObjectName::new("ns", "svc"), port: number, local_endpoints: PerFamily { v4, v6 } }
}

fn servers() -> (HealthPorts, Arc<ProxyHealth>) {
    let health = Arc::new(ProxyHealth::new(ServingMode::Nftables, Family::ALL, Moment::now()));
    (HealthPorts::new(Arc::clone(&health), Events::default()), health)
}

#[test]
fn t079_a_port_that_changes_is_closed_and_the_new_one_is_open() {
    on_own_loopback(|| async {
        let (mut servers, health) = servers();
        servers.set(&[port(31000, Some(2), Some(0))], &ANY);
        let answer = get(at("127.0.0.1", 31000), "/anything").await;
        assert_eq!(answer.status, 200);
        for header in
            ["content-type: application/json", "x-content-type-options: nosniff", "x-load-balancing-endpoint-weight: 2"]
        {
            assert!(answer.has(header), "{answer:?}");
        }
        let exactly = "{\n\t\"service\": {\n\t\t\"namespace\": \"ns\",\n\t\t\"name\": \"svc\"\n\t},\n\t\"localEndpoints\": 2,\n\
                       \t\"serviceProxyHealthy\": true\n}";
        assert_eq!(answer.body, exactly);
        let answer = get(at("::1", 31000), "/").await;
        assert!(answer.status == 503 && answer.has("x-load-balancing-endpoint-weight: 0"), "{answer:?}");

        servers.set(&[port(31001, Some(2), None)], &ANY);
        assert_eq!(get(at("127.0.0.1", 31001), "/").await.status, 200);
        until(async || try_get(at("127.0.0.1", 31000), "/").await.is_none()).await;
        until(async || try_get(at("::1", 31000), "/").await.is_none()).await;
        assert!(try_get(at("::1", 31001), "/").await.is_none(), "a family that the Service does not have");

        let late =
            Moment { steady: Moment::now().steady.checked_sub(Duration::from_secs(61)).unwrap(), ..Moment::now() };
        health.queued(Family::V4, late);
        let answer = get(at("127.0.0.1", 31001), "/").await;
        assert!(answer.status == 503 && answer.body.contains("\"serviceProxyHealthy\": false"), "{answer:?}");

        drop(servers);
        until(async || try_get(at("127.0.0.1", 31001), "/").await.is_none()).await;
    });
}

#[test]
fn counts_change_without_a_new_server() {
    on_own_loopback(|| async {
        let (mut servers, _health) = servers();
        servers.set(&[port(31000, Some(1), None)], &ANY);
        assert_eq!(get(at("127.0.0.1", 31000), "/").await.status, 200);
        for count in [0, 7] {
            servers.set(&[port(31000, Some(count), None)], &ANY);
            // At once: a server that opened again would be away for a moment.
            let answer = try_get(at("127.0.0.1", 31000), "/").await.unwrap();
            assert_eq!(answer.status == 200, count > 0);
            assert!(answer.has(&format!("x-load-balancing-endpoint-weight: {count}")), "{answer:?}");
        }
        let mut other = port(31000, Some(3), None);
        other.service = ObjectName::new("ns", "other");
        servers.set(&[other], &ANY);
        let answer = try_get(at("127.0.0.1", 31000), "/").await.unwrap();
        assert!(answer.body.contains("\"name\": \"other\""), "{answer:?}");
    });
}

#[test]
fn a_port_that_somebody_has_is_tried_again_and_addresses_are_kept_to() {
    on_own_loopback(|| async {
        let (mut servers, _health) = servers();
        let other = std::net::TcpListener::bind(at("127.0.0.2", 31000)).unwrap();
        servers.set(&[port(31000, Some(1), Some(1))], &["127.0.0.2".parse().unwrap(), "::1".parse().unwrap()]);
        assert_eq!(get(at("::1", 31000), "/").await.status, 200);
        assert!(try_get(at("127.0.0.1", 31000), "/").await.is_none());
        drop(other);
        assert_eq!(get(at("127.0.0.2", 31000), "/").await.status, 200);
    });
}
