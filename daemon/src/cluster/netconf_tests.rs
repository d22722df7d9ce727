//! The rules of flannel's net-conf (overlay.md 1.2, cases 6, 7 and 9).

use proptest::prelude::*;

use super::*;
use crate::overlay::backend::Vxlan;
use std::sync::Arc;

fn conf(text: &str) -> NetConf {
    NetConf::parse(text.as_bytes()).unwrap().0
}

fn error(text: &str) -> String {
    NetConf::parse(text.as_bytes()).unwrap_err().to_string()
}

fn range(pool: Pool) -> (String, String, u8) {
    let at = |index| pool.nth(index).unwrap().ip().to_string();
    (at(0), at(pool.size() - 1), pool.subnet_len())
}

#[test]
fn defaults_are_flannels() {
    let conf = conf(r#"{"Network": "10.3.0.0/16", "EnableIPv6": true, "IPv6Network": "fc00::/48"}"#);
    assert_eq!(range(conf.pools.v4.unwrap()), ("10.3.1.0".into(), "10.3.255.0".into(), 24));
    assert_eq!(range(conf.pools.v6.unwrap()), ("fc00:0:0:1::".into(), "fc00:0:0:ffff::".into(), 64));
    assert_eq!(conf.backend, Chosen::default());
    assert_eq!(conf.overhead(), 70);
    assert_eq!(Family::ALL.map(|family| conf.backend.overhead(family)), [50, 70]);
}

#[test]
fn a_small_network_is_cut_into_four() {
    assert_eq!(
        range(conf(r#"{"Network": "10.3.0.0/28"}"#).pools.v4.unwrap()),
        ("10.3.0.4".into(), "10.3.0.12".into(), 30)
    );
    assert_eq!(conf(r#"{"Network": "10.3.0.0/22"}"#).pools.v4.unwrap().subnet_len(), 24);
    assert_eq!(conf(r#"{"Network": "10.3.0.0/23"}"#).pools.v4.unwrap().subnet_len(), 25);
    assert!(error(r#"{"Network": "10.3.0.0/29"}"#).contains("Network is 10.3.0.0/29"));
}

#[test]
fn ipv6_only() {
    let conf = conf(r#"{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fc00::/48"}"#);
    assert!(conf.pools.v4.is_none() && conf.pools.v6.is_some());
    assert!(error(r#"{"EnableIPv4": false}"#).contains("EnableIPv4"));
}

#[test]
fn a06_keys_in_any_case() {
    let conf = conf(
        r#"{"network": "10.9.0.0/16", "subnetlen": 26, "backend": {"type": "VXLAN", "Directrouting": true, "vni": 7, "port": 4789, "mtu": 9000, "gbp": true}}"#,
    );
    assert_eq!(conf.pools.v4.unwrap().subnet_len(), 26);
    let vxlan = Vxlan { vni: 7, port: 4789, mtu: Some(9000), gbp: true, learning: false, direct_routing: true };
    assert_eq!(conf.backend, Chosen(Arc::new(vxlan)));
}

#[test]
fn another_back_end_has_keys_of_its_own() {
    let text = br#"{"Network": "10.9.0.0/16", "Backend": {"type": "Host-GW", "VNI": 3}}"#;
    let (conf, warnings) = NetConf::parse(text).unwrap();
    assert_eq!((conf.backend.kind().name, conf.overhead()), ("host-gw", 0));
    assert!(warnings.len() == 1 && warnings[0].contains("Backend.VNI"), "{warnings:?}");
    assert_eq!(NetConf::parse(conf.to_json().as_bytes()).unwrap().0, conf);
}

#[test]
fn a07_a_misspelt_key_is_a_warning_that_names_the_right_one() {
    let (_, warnings) =
        NetConf::parse(br#"{"Network": "10.9.0.0/16", "SubnetLenn": 26, "Backend": {"DirectRoutng": true}}"#).unwrap();
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].contains("SubnetLenn") && warnings[0].contains("did you mean SubnetLen?"), "{warnings:?}");
    assert!(warnings[1].contains("did you mean Backend.DirectRouting?"), "{warnings:?}");
}

#[test]
fn a09_each_bad_value_names_its_field() {
    let cases = [
        (r#"{"Network": "10.3.0.0/16", "SubnetMin": "10.3.1.7"}"#, "SubnetMin is \"10.3.1.7\"", "such as 10.3.1.0"),
        (r#"{"Network": "10.3.0.0/16", "SubnetMin": "10.4.1.0"}"#, "SubnetMin", "in the network 10.3.0.0/16"),
        (r#"{"Network": "10.3.0.0/16", "SubnetMax": "10.3.9.1"}"#, "SubnetMax", "first address of a subnet"),
        (
            r#"{"Network": "10.3.0.0/16", "SubnetMax": "10.3.0.0"}"#,
            "SubnetMax is 10.3.0.0",
            "not before SubnetMin, 10.3.1.0",
        ),
        (r#"{"Network": "10.3.0.0/16", "SubnetLen": 31}"#, "SubnetLen is 31", "/30"),
        (r#"{"Network": "10.3.0.0/16", "SubnetLen": 17}"#, "SubnetLen is 17", "at least 18"),
        (r#"{"Network": "10.3.0.0/16", "SubnetLen": "24"}"#, "SubnetLen is \"24\"", "prefix length"),
        (r#"{"Network": "10.3.0.0"}"#, "Network is \"10.3.0.0\"", "such as"),
        (r#"{"Network": "fd00::/48"}"#, "Network", "IPv4 network"),
        ("{}", "Network is missing", "10.244.0.0/16"),
        (r#"{"Network": "10.3.0.0/16", "EnableIPv6": true}"#, "IPv6Network is missing", "IPv6 network"),
        (r#"{"Network": "10.3.0.0/16", "EnableIPv6": "yes"}"#, "EnableIPv6 is \"yes\"", "true or false"),
        (r#"{"Network": "10.3.0.0/16", "Backend": {"Type": "udp"}}"#, "Backend.Type is \"udp\"", "vxlan"),
        (r#"{"Network": "10.3.0.0/16", "Backend": {"VNI": 16777216}}"#, "VNI", "16777215"),
        (r#"{"Network": "10.3.0.0/16", "Backend": "vxlan"}"#, "Backend is a string", "object"),
        (r#"{"Network": "10.3.0.0/16", "Backend": "{\"PSK\": \"c2VjcmV0\"}"}"#, "Backend is a string", "object"),
        ("[]", "not a JSON object", ""),
        ("{", "not a JSON object", ""),
    ];
    for (text, field, expected) in cases {
        let message = error(text);
        assert!(message.contains(field) && message.contains(expected), "{text}: {message}");
    }
}

proptest! {
    #[test]
    fn reading_never_panics(text in "\\PC*") {
        let _ = NetConf::parse(text.as_bytes());
    }

    #[test]
    fn odd_networks_never_panic(v4: u32, len in 0u8..=40, subnet_len in 0u8..=40, v6: u128, len6 in 0u8..=130, min: u32) {
        let ip = std::net::Ipv4Addr::from_bits(v4);
        let ip6 = std::net::Ipv6Addr::from_bits(v6);
        let min = std::net::Ipv4Addr::from_bits(min);
        let text = format!(
            r#"{{"Network": "{ip}/{len}", "SubnetLen": {subnet_len}, "EnableIPv6": true, "IPv6Network": "{ip6}/{len6}"}}"#
        );
        let _ = NetConf::parse(text.as_bytes());
        let _ = NetConf::parse(format!(r#"{{"Network": "{ip}/{len}", "SubnetMin": "{min}"}}"#).as_bytes());
    }

    #[test]
    fn what_is_written_is_read_back(v4: u32, len in 1u8..=28, v6: u128, len6 in 1u8..=124, vni in 0u32..1 << 24, which in 1u8..4) {
        let network = |ip: IpAddr, len| IpNetwork::new(ip, len).unwrap();
        let text = json!({
            "EnableIPv4": which & 1 != 0,
            "Network": network(IpAddr::V4(v4.into()), len).to_string(),
            "EnableIPv6": which & 2 != 0,
            "IPv6Network": network(IpAddr::V6(v6.into()), len6).to_string(),
            "Backend": {"VNI": vni, "Learning": true},
        }).to_string();
        let read = conf(&text);
        let (again, warnings) = NetConf::parse(read.to_json().as_bytes()).unwrap();
        prop_assert_eq!(again, read);
        prop_assert!(warnings.is_empty());
    }
}
