//! Planning WireGuard's tunnels.

use super::super::end::testing;
use super::super::{Chosen, End, LocalEnd, lease_value};
use super::*;
use crate::cluster::family::PerFamily;
use crate::cluster::lease_value::LeaseValue;
use crate::cluster::model::Lease;
use crate::cluster::netconf::NetConf;

/// Private and public keys of RFC 7748, section 6.1: Alice's and Bob's.
const ALICE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const ALICE_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
const BOB_PUBLIC: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";

const PEER: &str = r#"{"PublicIP":"192.0.2.2","PublicIPv6":"2001:db8::2","BackendType":"wireguard",
    "BackendData":{"PublicKey":"BOB","Port":51820},"BackendV6Data":{"PublicKey":"BOB","Port":51821}}"#;

fn cluster() -> [IpNetwork; 2] {
    ["10.244.0.0/16", "fd00:10:244::/48"].map(|network| network.parse().unwrap())
}

fn conf(backend: &str) -> Result<NetConf, NetConfError> {
    let text = format!(r#"{{"Network":"10.244.0.0/16","Backend":{{"Type":"WireGuard"{backend}}}}}"#);
    NetConf::parse(text.as_bytes()).map(|(conf, warnings)| {
        assert_eq!(warnings, [""; 0]);
        conf
    })
}

fn device(backend: &Wireguard, family: Family) -> Device {
    let (cluster, key) = (cluster(), ALICE.parse().unwrap());
    let mtu = 1500 - backend.overhead(family);
    backend.device(&Site { cluster: &cluster, key: Some(&key), mtu, ..testing::site(family) }).unwrap()
}

fn ends(backend: &Wireguard) -> PerFamily<LocalEnd> {
    let end = |family: Family, address: &str| {
        let (device, public_ip) = (device(backend, family), testing::site(family).public_ip);
        let link = if device.name() == Some(DEVICE_V6) { 6 } else { 4 };
        Some(LocalEnd { end: End { device, address: address.parse().unwrap(), public_ip, mtu: 1420 }, link })
    };
    PerFamily { v4: end(Family::V4, "10.244.1.0"), v6: end(Family::V6, "fd00:10:244:1::") }
}

fn lease(value: &str) -> Lease {
    testing::lease("10.244.2.0-24&fd00:10:244:2::-64", &value.replace("BOB", BOB_PUBLIC))
}

/// How both families of a peer are reached.
fn reached(backend: &Wireguard, lease: &Lease) -> Result<Vec<PeerObject>, String> {
    let (cluster, ends) = (cluster(), ends(backend));
    let public_ips = ends.filter_map(|_, local| Some(local.end.public_ip));
    let mut objects = Vec::new();
    for (family, local) in ends.iter() {
        let from = Standpoint { local, public_ips, cluster: &cluster };
        objects.extend(backend.reach(&from, &testing::peer(lease, family))?);
    }
    Ok(objects)
}

/// Link, endpoint and addresses of each tunnel.
fn tunnels(backend: &Wireguard, lease: &Lease) -> Vec<String> {
    let words = |object: PeerObject| {
        let PeerObject::Tunnel { link, peer } = object else { panic!("{object:?}") };
        let networks: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
        format!("{link} {} {}", peer.endpoint.unwrap(), networks.join(" "))
    };
    reached(backend, lease).unwrap().into_iter().map(words).collect()
}

#[test]
fn options_have_flannels_defaults_and_are_written_as_they_were_read() {
    let Chosen(plain) = conf("").unwrap().backend;
    assert_eq!(Chosen(plain).to_json(), json!({"Type": "wireguard"}));
    let all = format!(
        r#","ListenPort":5000,"ListenPortV6":5001,"MTU":9000,"PSK":"{ALICE}","Mode":"ipv6","PersistentKeepaliveInterval":25"#
    );
    let chosen = conf(&all).unwrap().backend;
    assert_eq!(
        chosen.to_json(),
        json!({"Type": "wireguard", "ListenPort": 5000, "ListenPortV6": 5001, "MTU": 9000,
        "PSK": ALICE, "Mode": "ipv6", "PersistentKeepaliveInterval": 25})
    );
    assert_eq!(chosen.underlay_mtu(), Some(9000));
    assert!(!format!("{chosen:?}").contains(&ALICE[..8]), "{chosen:?}");
    assert_eq!(conf(r#","PSK":"","Mode":"Separate""#).unwrap().backend.to_json(), json!({"Type": "wireguard"}));
}

#[test]
fn d09_what_is_wrong_in_an_option_names_it_and_a_key_is_not_repeated() {
    let cases = [
        (r#","PSK":"c2VjcmV0""#, "PSK is no key; expected 32 bytes in base64"),
        (r#","PSK":4711"#, "PSK is no key; expected 32 bytes in base64"),
        (r#","Mode":"ipv5""#, r#"Mode is "ipv5"; expected separate, auto, ipv4 or ipv6"#),
        (r#","Mode":"""#, r#"Mode is ""; expected separate, auto, ipv4 or ipv6"#),
        (r#","ListenPort":0"#, "ListenPort is 0; expected a UDP port number from 1 to 65535"),
        (r#","ListenPortV6":65536"#, "ListenPortV6 is 65536; expected a UDP port number"),
        (r#","PersistentKeepaliveInterval":-1"#, "PersistentKeepaliveInterval is -1; expected seconds"),
        (r#","MTU":"big""#, "MTU is \"big\"; expected"),
    ];
    for (option, expected) in cases {
        let message = conf(option).unwrap_err().to_string();
        assert!(message.contains(expected) && !message.contains("c2Vj") && !message.contains("4711"), "{message}");
    }
}

#[test]
fn each_family_has_a_device_or_both_have_one() {
    let of = |backend: &Wireguard, family| match device(backend, family) {
        Device::Wireguard(tunnel) => {
            assert_eq!(tunnel.public_key.to_string(), ALICE_PUBLIC, "RFC 7748, section 6.1");
            assert_eq!(tunnel.settings.private_key, Some(ALICE.parse::<SecretKey>().unwrap().clamped()));
            (tunnel.link.name, tunnel.link.mtu, tunnel.settings.listen_port)
        }
        other => panic!("{other:?}"),
    };
    let separate = Wireguard::default();
    assert_eq!(of(&separate, Family::V4), ("flannel-wg".into(), Some(1420), 51820));
    assert_eq!(of(&separate, Family::V6), ("flannel-wg-v6".into(), Some(1420), 51821));
    for mode in [Mode::Auto, Mode::Over(Family::V4), Mode::Over(Family::V6)] {
        let one = Wireguard { mode, ..Wireguard::default() };
        assert_eq!(device(&one, Family::V4), device(&one, Family::V6));
        assert_eq!(of(&one, Family::V6).2, 51820);
    }
}

#[test]
fn the_lease_says_what_flannel_would_but_the_port_where_the_device_listens() {
    let said = |backend: &Wireguard| {
        lease_value(backend, &ends(backend).filter_map(|_, local| Some(local.end.clone()))).to_json()
    };
    let expected = |port_v6: u16| {
        format!(
            r#"{{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"wireguard","BackendData":{{"PublicKey":"{ALICE_PUBLIC}","Port":51820}},"BackendV6Data":{{"PublicKey":"{ALICE_PUBLIC}","Port":{port_v6}}}}}"#
        )
    };
    assert_eq!(said(&Wireguard::default()), expected(51821));
    assert_eq!(said(&Wireguard { mode: Mode::Auto, ..Wireguard::default() }), expected(51820));
}

#[test]
fn a_device_a_family_has_each_peer_once_with_that_familys_subnet() {
    let words = ["4 192.0.2.2:51820 10.244.2.0/24", "6 [2001:db8::2]:51821 fd00:10:244:2::/64"];
    assert_eq!(tunnels(&Wireguard::default(), &lease(PEER)), words);
    let old = PEER.replace(r#","Port":51820"#, "").replace(r#","Port":51821"#, "");
    assert_eq!(tunnels(&Wireguard::default(), &lease(&old)), words, "an older flannel tells no port");
}

#[test]
fn one_device_has_each_peer_once_with_all_its_subnets() {
    let over = |mode, value: &str| {
        let tunnels = tunnels(&Wireguard { mode, ..Wireguard::default() }, &lease(value));
        assert_eq!(tunnels[0], tunnels[1], "both families plan one object");
        assert!(tunnels[0].ends_with(" 10.244.2.0/24 fd00:10:244:2::/64"), "{tunnels:?}");
        tunnels[0].split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(over(Mode::Over(Family::V4), PEER), "192.0.2.2:51820");
    // flannel says 51821 for IPv6, and its one device listens at what it says for IPv4.
    assert_eq!(over(Mode::Over(Family::V6), PEER), "[2001:db8::2]:51820");
    assert_eq!(over(Mode::Auto, PEER), "192.0.2.2:51820");
    let private = PEER.replace("192.0.2.2", "192.168.0.2");
    assert_eq!(over(Mode::Auto, &private), "[2001:db8::2]:51820");
    assert_eq!(over(Mode::Auto, &private.replace("2001:db8::2", "fd99::2")), "192.168.0.2:51820");
}

#[test]
fn shared_key_and_keepalive_are_every_peers() {
    let backend = Wireguard { psk: Some(ALICE.parse().unwrap()), keepalive: 25, ..Wireguard::default() };
    for object in reached(&backend, &lease(PEER)).unwrap() {
        let PeerObject::Tunnel { peer, .. } = object else { panic!() };
        assert_eq!((peer.preshared_key, peer.keepalive), (backend.psk.clone(), 25));
        assert_eq!(peer.public_key.to_string(), BOB_PUBLIC);
    }
}

#[test]
fn one_route_a_family_leads_into_the_device_whoever_is_a_peer() {
    let backend = Wireguard::default();
    let (cluster, ends) = (cluster(), ends(&backend));
    let routes: Vec<Route> = ends
        .values()
        .flat_map(|local| backend.common(&Standpoint { local, public_ips: PerFamily::default(), cluster: &cluster }))
        .map(|object| match object {
            PeerObject::Route(route) => route,
            other => panic!("{other:?}"),
        })
        .collect();
    let words: Vec<String> = routes.iter().map(ToString::to_string).collect();
    assert_eq!(words, ["route 10.244.0.0/16 on link 4", "route fd00:10:244::/48 on link 6"]);
    assert_eq!((routes[0].scope, routes[1].scope), (RouteScope::Link, RouteScope::Universe));
}

#[test]
fn d50_what_a_bad_peer_says_is_refused_with_a_reason() {
    let refusal = |value: &str| reached(&Wireguard::default(), &lease(value)).unwrap_err();
    assert_eq!(
        refusal(&PEER.replace("BOB", ALICE_PUBLIC)),
        format!("its public key {ALICE_PUBLIC} is this node's own")
    );
    let inside = refusal(&PEER.replace("192.0.2.2", "10.244.9.9"));
    assert!(
        inside.starts_with("the address 10.244.9.9 of a node lies in the cluster network 10.244.0.0/16"),
        "{inside}"
    );

    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for key in ["", "hi", &BOB_PUBLIC[..40], zero, &format!("{BOB_PUBLIC}AAAA")] {
        let value = PEER.replacen("BOB", key, 1).replace("BOB", BOB_PUBLIC);
        let error = LeaseValue::parse(value.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("BackendData is {") && error.contains("32 bytes in base64"), "{error}");
    }
    for port in ["-1", "65536", "\"51820\""] {
        let value = PEER.replace("BOB", BOB_PUBLIC).replace(":51821}", &format!(":{port}}}"));
        let error = LeaseValue::parse(value.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("BackendV6Data is {"), "{error}");
    }
}

#[test]
fn a_node_inside_the_cluster_network_is_told_so() {
    let (cluster, key) = (["192.0.2.0/24".parse().unwrap()], ALICE.parse().unwrap());
    let site = Site { cluster: &cluster, key: Some(&key), ..testing::site(Family::V4) };
    let error = Wireguard::default().device(&site).unwrap_err();
    assert!(error.contains("192.0.2.1") && error.contains("192.0.2.0/24"), "{error}");
}
