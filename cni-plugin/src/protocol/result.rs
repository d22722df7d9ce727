//! What ADD answers, in each version of the protocol.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Serialize;

use super::error::{CniError, Code, Result};
use super::version::Version;
use crate::formats::attachment::AssignedRoute;

/// The result of ADD, in the terms of the newest version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddResult {
    /// The bridge, the interface on the host, the interface in the container: in the order that consumers expect.
    pub interfaces: Vec<Interface>,
    /// The container's addresses.
    pub ips: Vec<ResultIp>,
    /// The routes that were made.
    pub routes: Vec<AssignedRoute>,
    /// DNS settings.
    pub dns: Dns,
}

/// An interface that ADD made or used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU in bytes, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// `CNI_NETNS` for one in the container; absent on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

/// An address of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultIp {
    /// With the prefix length of its subnet, host bits kept.
    pub address: IpNetwork,
    /// The gateway of its subnet.
    pub gateway: Option<IpAddr>,
    /// Which of the interfaces bears it. Must be below their number: go-cni panics where it is not.
    pub interface: usize,
}

/// DNS settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Dns {
    /// Addresses of name servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Domains to try for short names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads a resolv.conf(5).
    #[must_use]
    pub fn from_resolv_conf(text: &str) -> Self {
        let mut dns = Self::default();
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => dns.nameservers.extend(words.next()),
                Some("domain") => dns.domain = words.next().unwrap_or_default(),
                Some("search") => dns.search.extend(words),
                Some("options") => dns.options.extend(words),
                _ => {}
            }
        }
        dns
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    cni_version: &'static str,
    interfaces: Vec<Interface>,
    ips: Vec<WireIp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<AssignedRoute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<&'a Dns>,
}

#[derive(Serialize)]
struct WireIp {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    interface: usize,
    address: IpNetwork,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire020<'a> {
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<WireIp020>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<WireIp020>,
    dns: &'a Dns,
}

#[derive(Serialize)]
struct WireIp020 {
    ip: IpNetwork,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<AssignedRoute>,
}

impl AddResult {
    /// Whether a version can express a result with these addresses, so that it can be known before anything is done.
    ///
    /// # Errors
    /// Code 7 for more than one address a family before 0.3.0.
    pub fn check_expressible(version: Version, families: impl Iterator<Item = bool>) -> Result<()> {
        let families: Vec<bool> = families.collect();
        let several = |v6| families.iter().filter(|family| **family == v6).count() > 1;
        if version < Version::V030 && (several(false) || several(true)) {
            let message = format!("ipam.ranges: CNI version {version} does not support more than 1 address per family");
            return Err(CniError::new(Code::InvalidConfig, message));
        }
        Ok(())
    }

    /// The result as JSON in a version of the protocol.
    #[must_use]
    pub fn to_json(&self, version: Version) -> String {
        let text = if version < Version::V030 {
            serde_json::to_string(&self.wire_020(version))
        } else {
            serde_json::to_string(&self.wire(version))
        };
        // All keys are strings and there are no maps: nothing in it cannot be written.
        text.unwrap_or_default()
    }

    fn wire(&self, version: Version) -> Wire<'_> {
        let newest = version >= Version::V110;
        let interface =
            |interface: &Interface| Interface { mtu: interface.mtu.filter(|_| newest), ..interface.clone() };
        let ip = |ip: &ResultIp| WireIp {
            version: (version < Version::V100).then_some(if ip.address.is_ipv4() { "4" } else { "6" }),
            interface: ip.interface,
            address: ip.address,
            gateway: ip.gateway,
        };
        Wire {
            cni_version: version.as_str(),
            interfaces: self.interfaces.iter().map(interface).collect(),
            ips: self.ips.iter().map(ip).collect(),
            routes: self.routes.iter().map(|route| if newest { route.clone() } else { plain(route) }).collect(),
            // Go's older types always write it; the newer ones leave it out when empty.
            dns: (version < Version::V100 || !self.dns.is_empty()).then_some(&self.dns),
        }
    }

    fn wire_020(&self, version: Version) -> Wire020<'_> {
        let family = |v6: bool| {
            let ip = self.ips.iter().find(|ip| ip.address.is_ipv6() == v6)?;
            let routes = self.routes.iter().filter(|route| route.dst.is_ipv6() == v6);
            Some(WireIp020 { ip: ip.address, gateway: ip.gateway, routes: routes.map(plain).collect() })
        };
        Wire020 { cni_version: version.as_str(), ip4: family(false), ip6: family(true), dns: &self.dns }
    }
}

/// A route as versions before 1.1.0 know it.
fn plain(route: &AssignedRoute) -> AssignedRoute {
    AssignedRoute { dst: route.dst, gw: route.gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn sample() -> AddResult {
        let interface = |name: &str, sandbox: Option<&str>| Interface {
            name: name.into(),
            mac: "0a:58:0a:01:00:05".into(),
            mtu: Some(1450),
            sandbox: sandbox.map(str::to_owned),
        };
        let route = |dst: &str, gw: &str| AssignedRoute {
            dst: dst.parse().unwrap(),
            gw: Some(gw.parse().unwrap()),
            mtu: Some(1400),
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        };
        let ip = |address: &str, gateway: &str| ResultIp {
            address: address.parse().unwrap(),
            gateway: Some(gateway.parse().unwrap()),
            interface: 2,
        };
        AddResult {
            interfaces: vec![interface("cni0", None), interface("veth1", None), interface("eth0", Some("/n"))],
            ips: vec![ip("10.1.0.5/16", "10.1.0.1"), ip("fd00::5/64", "fd00::1")],
            routes: vec![route("0.0.0.0/0", "10.1.0.1"), route("::/0", "fd00::1")],
            dns: Dns::default(),
        }
    }

    fn json(result: &AddResult, version: Version) -> Value {
        serde_json::from_str(&result.to_json(version)).unwrap()
    }

    #[test]
    fn the_oldest_versions_have_one_address_a_family() {
        assert_eq!(
            json(&sample(), Version::V020),
            json!({"cniVersion":"0.2.0",
                "ip4":{"ip":"10.1.0.5/16","gateway":"10.1.0.1","routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1"}]},
                "ip6":{"ip":"fd00::5/64","gateway":"fd00::1","routes":[{"dst":"::/0","gw":"fd00::1"}]},
                "dns":{}})
        );
        let twice = [false, false].into_iter();
        assert_eq!(AddResult::check_expressible(Version::V020, twice).unwrap_err().code, Code::InvalidConfig);
        assert!(AddResult::check_expressible(Version::V010, [false, true].into_iter()).is_ok());
    }

    #[test]
    fn what_each_version_adds_and_drops() {
        for version in [Version::V030, Version::V031, Version::V040] {
            let value = json(&sample(), version);
            assert_eq!(
                value["ips"][0],
                json!({"version":"4","interface":2,"address":"10.1.0.5/16","gateway":"10.1.0.1"})
            );
            assert_eq!((&value["ips"][1]["version"], &value["dns"]), (&json!("6"), &json!({})));
            assert!(value["interfaces"][0].get("mtu").is_none() && value["routes"][0].get("mtu").is_none());
        }
        let value = json(&sample(), Version::V100);
        assert!(value["ips"][0].get("version").is_none() && value.get("dns").is_none());
        assert!(value["interfaces"][0].get("sandbox").is_none());
        assert_eq!(value["interfaces"][2]["sandbox"], "/n");
        let value = json(&sample(), Version::V110);
        assert_eq!((&value["interfaces"][2]["mtu"], &value["routes"][0]["mtu"]), (&json!(1450), &json!(1400)));
    }

    #[test]
    fn resolv_conf_is_read() {
        let dns = Dns::from_resolv_conf("# c\nnameserver 10.0.0.10\nsearch a.b c\noptions ndots:5\ndomain x\n");
        assert_eq!((dns.nameservers, dns.search), (vec!["10.0.0.10".to_owned()], vec!["a.b".into(), "c".into()]));
        assert_eq!((dns.options, dns.domain), (vec!["ndots:5".to_owned()], "x".to_owned()));
    }

    proptest! {
        #[test]
        fn every_version_is_json_that_says_so(version in 0usize..7, ips in 0usize..3, routes in 0usize..3) {
            let mut result = sample();
            result.ips.truncate(ips);
            result.routes.truncate(routes);
            let version = Version::ALL[version];
            let value = json(&result, version);
            prop_assert_eq!(&value["cniVersion"], version.as_str());
            for ip in value["ips"].as_array().into_iter().flatten() {
                prop_assert!(ip["interface"].as_u64().unwrap() < 3);
            }
        }
    }
}
