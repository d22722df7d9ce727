//! The way of packets to IPVS, on the running kernel: it needs no ip_vs for that. Needs root.
#![expect(clippy::disallowed_methods, reason = "ip and nft play the other party")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[path = "ipvs/world.rs"]
#[allow(dead_code, reason = "the tests of the whole back end need more of it")]
mod world;

use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
use weft::cluster::family::{Family, PerFamily};
use weft::service::ipvs::{ArpGuard, LocalRoutes};
use world::{Server, World, cluster_ip, datagram, node_ip};

fn ranges() -> Vec<IpNetwork> {
    vec!["10.96.0.0/12".parse().unwrap(), "fd96::/108".parse().unwrap()]
}

fn addresses() -> PerFamily<IpAddr> {
    PerFamily { v4: Some(node_ip(Family::V4)), v6: Some(node_ip(Family::V6)) }
}

/// The state of the neighbour's entry for an address of the node, after it was asked for.
fn neighbour_entry(world: &World, family: Family) -> String {
    let target = SocketAddr::new(cluster_ip(9, family), 9);
    world.ip("lan", "neighbour flush dev eth0");
    let socket = world.udp("lan", target);
    // The entry is INCOMPLETE until the node has answered or three seconds have passed.
    for _ in 0..50 {
        let _ = datagram(&socket);
        let entry = world.ip("lan", &format!("neighbour show {} dev eth0", target.ip()));
        if !entry.is_empty() && !entry.contains("INCOMPLETE") {
            return entry;
        }
    }
    panic!("no verdict on {}", target.ip());
}

#[test]
fn p17_neighbours_get_no_answer_for_service_addresses_and_others_do() {
    let world = World::new();
    let _node = world.netns("node").guard().unwrap();
    // What makes a neighbour ask: it takes the service networks for on-link.
    for range in ranges() {
        world.ip("lan", &format!("route add {range} dev eth0"));
    }
    let mut routes = LocalRoutes::open().unwrap();
    assert_eq!(routes.ensure(&ranges(), &addresses()).unwrap(), 2);
    assert!(neighbour_entry(&world, Family::V4).contains("lladdr"), "without the guard the kernel answers");
    assert!(neighbour_entry(&world, Family::V6).contains("FAILED"), "neighbour discovery asks the interface");

    let mut guard = ArpGuard::open().unwrap();
    assert!(guard.ensure(&ranges()).unwrap());
    assert!(!guard.ensure(&ranges()).unwrap(), "nothing differs");
    assert!(neighbour_entry(&world, Family::V4).contains("FAILED"));
    // An address that the machine has on another interface is answered for as ever.
    let listed = world.nft("list table arp weft");
    assert!(listed.contains("arp operation request arp daddr ip 10.96.0.0/12 drop"), "{listed}");
    world.ip("lan", "neighbour flush dev eth0");
    world.ip("lan", "route add 10.244.1.1 dev eth0");
    let _server = Server::start(&world, "node", 7777);
    assert_eq!(world.ask("lan", "10.244.1.1:7777".parse().unwrap()).unwrap().0, "node");

    // Another range, another rule; none, no table.
    let other: Vec<IpNetwork> = vec!["10.97.0.0/16".parse().unwrap()];
    assert!(guard.ensure(&other).unwrap());
    assert!(world.nft("list table arp weft").contains("10.97.0.0/16"));
    assert!(guard.ensure(&["fd96::/108".parse().unwrap()]).unwrap());
    assert!(!guard.remove().unwrap());
    assert_eq!(world.nft("list tables"), "");
}

#[test]
fn t109_the_machine_does_not_take_a_service_address_for_its_own() {
    let world = World::new();
    let _node = world.netns("node").guard().unwrap();
    let mut routes = LocalRoutes::open().unwrap();
    assert_eq!(routes.ensure(&ranges(), &addresses()).unwrap(), 2);
    assert_eq!(routes.ensure(&ranges(), &addresses()).unwrap(), 0, "nothing differs");
    let _server = Server::start(&world, "node", 7777);
    for family in Family::ALL {
        let (_, seen) = world.ask("node", SocketAddr::new(cluster_ip(9, family), 7777)).unwrap();
        assert_eq!(seen, node_ip(family));
    }
}

#[test]
fn routes_follow_the_node_heal_and_go() {
    let world = World::new();
    let _node = world.netns("node").guard().unwrap();
    world.ip("node", "address add 192.0.2.9/24 dev lan");
    world.ip("node", "address add fd02::9/64 dev lan nodad");
    world.ip("node", "route add local 172.30.0.0/16 dev lo proto 42 table local");
    let mut routes = LocalRoutes::open().unwrap();
    routes.ensure(&ranges(), &addresses()).unwrap();

    let moved = PerFamily { v4: Some("192.0.2.9".parse().unwrap()), v6: Some("fd02::9".parse().unwrap()) };
    assert_eq!(routes.ensure(&ranges(), &moved).unwrap(), 2);
    let list = || {
        ["-4 route show table local proto 119", "-6 route show table local proto 119"]
            .map(|words| world.ip("node", words))
            .concat()
    };
    assert!(list().contains("10.96.0.0/12 dev lo") && list().contains("src 192.0.2.9"), "{}", list());
    assert!(list().contains("fd96::/108 dev lo") && list().contains("src fd02::9"), "{}", list());
    assert_eq!(list().lines().count(), 2, "{}", list());

    // One whose source is no address any more, and one that somebody has deleted.
    world.ip("node", "address del 192.0.2.9/24 dev lan");
    world.ip("node", "-6 route del local fd96::/108 dev lo table local");
    assert_eq!(list().lines().count(), 1, "{}", list());
    assert_eq!(routes.ensure(&ranges(), &addresses()).unwrap(), 2);
    assert_eq!(routes.ensure(&ranges()[..1], &addresses()).unwrap(), 1, "a range that is no more");
    assert_eq!(routes.remove().unwrap(), 1);
    assert_eq!(list(), "");
    assert!(world.ip("node", "route show table local").contains("172.30.0.0/16"), "another's stays");
}

#[test]
fn an_address_that_is_not_the_machines_is_refused() {
    let world = World::new();
    let _node = world.netns("node").guard().unwrap();
    let strange = PerFamily { v4: Some("198.51.100.1".parse().unwrap()), v6: None };
    let error = LocalRoutes::open().unwrap().ensure(&ranges(), &strange).unwrap_err().to_string();
    assert!(error.contains("10.96.0.0/12"), "{error}");
}
