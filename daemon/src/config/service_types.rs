//! Kinds of values that only keys of Services have.

use std::fmt;
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::types::InterfaceName;
use super::value::{Scalar, Value};

/// What serves Services (`proxy-mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// IPVS where the kernel has it, else nftables.
    Auto,
    /// IPVS for cluster IPs, nftables for the rest.
    Ipvs,
    /// nftables alone.
    Nftables,
    /// Nothing: somebody else does, or nobody.
    None,
}

impl Scalar for ProxyMode {
    const EXPECTED: &'static str = "one of: auto, ipvs, nftables, none";

    fn read(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "ipvs" => Some(Self::Ipvs),
            "nftables" => Some(Self::Nftables),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

/// How pods of the cluster are told from other clients (`detect-local`; kube-proxy's `detectLocalMode`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetectLocal {
    /// By their address: in one of the cluster's pod networks.
    ClusterCidr,
    /// By their address: in this node's subnet.
    NodeCidr,
    /// By the interface that they come from, a bridge.
    Bridge(InterfaceName),
    /// By the beginning of the name of the interface that they come from.
    InterfacePrefix(InterfaceName),
    /// Not at all.
    Nothing,
}

impl Scalar for DetectLocal {
    const EXPECTED: &'static str = "one of: cluster-cidr, node-cidr, bridge:NAME, interface-prefix:PREFIX, none";

    fn read(text: &str) -> Option<Self> {
        let interface = |name: &str| <InterfaceName as Scalar>::read(name);
        match text.split_once(':') {
            Some(("bridge", name)) => interface(name).map(Self::Bridge),
            Some(("interface-prefix", prefix)) => interface(prefix).map(Self::InterfacePrefix),
            Some(_) => None,
            None => match text {
                "cluster-cidr" => Some(Self::ClusterCidr),
                "node-cidr" => Some(Self::NodeCidr),
                "none" => Some(Self::Nothing),
                _ => None,
            },
        }
    }
}

/// Addresses of the node that take node ports (`node-port-addresses`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The node's first address of each family.
    Primary,
    /// Those in the networks, at least one. A family that none is of takes node ports at all its addresses, as does one
    /// with a network of prefix length 0.
    In(Vec<IpNetwork>),
}

impl Value for NodePortAddresses {
    const EXPECTED: &'static str = "the word primary alone, or networks such as 192.0.2.0/24 or 2001:db8::/64";
    const IS_LIST: bool = true;
    const IS_SWITCH: bool = false;

    fn read(texts: &[String]) -> Option<Self> {
        let texts: Vec<String> = <Vec<String> as Value>::read(texts)?;
        if texts == ["primary"] {
            return Some(Self::Primary);
        }
        <Vec<IpNetwork> as Value>::read(&texts).filter(|networks| !networks.is_empty()).map(Self::In)
    }
}

/// The name of an IPVS scheduler, as the kernel's module `ip_vs_NAME` has it (`IP_VS_SCHEDNAME_MAXLEN` is 16 with the final
/// zero). Whether this kernel has it shows when it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerName(String);

impl SchedulerName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SchedulerName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Scalar for SchedulerName {
    const EXPECTED: &'static str =
        "the name of an IPVS scheduler such as rr, lc or mh: 1 to 15 small letters, digits or '_'";

    fn read(text: &str) -> Option<Self> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        ((1..=15).contains(&text.len()) && text.chars().all(inner)).then(|| Self(text.to_owned()))
    }
}

/// A time that may be 0, which then has a meaning of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOrZero(Duration);

impl TimeOrZero {
    /// The time.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// The time, unless it is 0.
    #[must_use]
    pub fn if_any(self) -> Option<Duration> {
        Some(self.0).filter(|time| !time.is_zero())
    }
}

impl Scalar for TimeOrZero {
    const EXPECTED: &'static str = "a time with its unit, such as 500ms, 10s, 2m or 24h, or 0";

    fn read(text: &str) -> Option<Self> {
        if text == "0" { Some(Self(Duration::ZERO)) } else { <Duration as Scalar>::read(text).map(Self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_apart_in_five_ways() {
        let read = |text| <DetectLocal as Scalar>::read(text);
        let name = |text| <InterfaceName as Scalar>::read(text).unwrap();
        assert_eq!(read("cluster-cidr"), Some(DetectLocal::ClusterCidr));
        assert_eq!(read("node-cidr"), Some(DetectLocal::NodeCidr));
        assert_eq!(read("none"), Some(DetectLocal::Nothing));
        assert_eq!(read("bridge:cni0"), Some(DetectLocal::Bridge(name("cni0"))));
        assert_eq!(read("interface-prefix:veth"), Some(DetectLocal::InterfacePrefix(name("veth"))));
        for text in ["", "bridge", "bridge:", "bridge:a:b", "interface-prefix:a-name-of-16-cha", "ClusterCIDR", "x:y"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn primary_stands_alone() {
        let read = |text: &str| <NodePortAddresses as Value>::read(&[text.to_owned()]);
        assert_eq!(read("primary"), Some(NodePortAddresses::Primary));
        let networks = ["192.0.2.0/24", "::/0"].map(|text| text.parse().unwrap());
        assert_eq!(read("192.0.2.7/24,::/0"), Some(NodePortAddresses::In(networks.to_vec())));
        for text in ["", "primary,10.0.0.0/8", "10.0.0.1", "secondary"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_may_be_none() {
        let read = |text| <TimeOrZero as Scalar>::read(text);
        assert_eq!(read("0").and_then(TimeOrZero::if_any), None);
        assert_eq!(read("15m").and_then(TimeOrZero::if_any), Some(Duration::from_secs(900)));
        assert!(read("0").is_some() && read("-1s").is_none() && read("5").is_none());
    }
}
