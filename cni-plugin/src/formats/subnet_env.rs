//! The subnet file, `/run/flannel/subnet.env`: what a node got out of the cluster network.
//!
//! Byte-compatible with what flannel writes, in flannel's order, as others read it too (k3s, `mk-docker-opts.sh`).

use std::fmt;
use std::str::FromStr;

use ipnetwork::IpNetwork;

/// Mode of the subnet file.
pub const MODE: u32 = 0o644;

/// The content of the subnet file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetEnv {
    /// The cluster's networks (`FLANNEL_NETWORK`, `FLANNEL_IPV6_NETWORK`), IPv4 before IPv6.
    pub networks: Vec<IpNetwork>,
    /// This node's subnets, at most one a family, IPv4 before IPv6, each with the address of its gateway: the first of
    /// the subnet (`FLANNEL_SUBNET=10.244.1.1/24`, `FLANNEL_IPV6_SUBNET`).
    pub subnets: Vec<IpNetwork>,
    /// MTU of pods, in bytes: that of the uplink less the overhead of the overlay.
    pub mtu: u32,
    /// Whether flannel itself masquerades what leaves the cluster network.
    pub ip_masq: bool,
}

/// Why a text is not a subnet file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetEnvError {
    /// Keys that must be there are not.
    #[error("is missing {}", .0.join(", "))]
    Missing(Vec<&'static str>),
    /// A key's value cannot be understood.
    #[error("{key}={value}: expected {expected}")]
    Bad {
        /// The key.
        key: &'static str,
        /// Its value as it stands in the file.
        value: String,
        /// What it should look like.
        expected: &'static str,
    },
}

impl FromStr for SubnetEnv {
    type Err = SubnetEnvError;

    /// Reads `KEY=VALUE` lines; unknown keys, comments and blank lines are passed over, the last of two equal keys counts.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let find = |key: &'static str| {
            let line = text.lines().rev().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
            line.map(|value| value.trim_matches(['"', '\'', ' ', '\t'])).filter(|value| !value.is_empty())
        };
        let cidrs = |key: &'static str, v6: bool| {
            let expected =
                if v6 { "an IPv6 network such as fd00:10:244::/64" } else { "an IPv4 network such as 10.244.0.0/16" };
            find(key).into_iter().flat_map(|list| list.split(',')).map(move |text| {
                let bad = || SubnetEnvError::Bad { key, value: text.to_owned(), expected };
                // ipnetwork takes a bare address for a host route; here it is a mistake.
                let network = text.trim().parse::<IpNetwork>().ok().filter(|_| text.contains('/')).ok_or_else(bad)?;
                if network.is_ipv6() == v6 { Ok(network) } else { Err(bad()) }
            })
        };
        let networks: Vec<_> =
            cidrs("FLANNEL_NETWORK", false).chain(cidrs("FLANNEL_IPV6_NETWORK", true)).collect::<Result<_, _>>()?;
        let subnets: Vec<_> =
            cidrs("FLANNEL_SUBNET", false).chain(cidrs("FLANNEL_IPV6_SUBNET", true)).collect::<Result<_, _>>()?;
        let has = |list: &[IpNetwork], v6: bool| list.iter().any(|network| network.is_ipv6() == v6);

        let mut missing = Vec::new();
        for (v6, network_key, subnet_key) in
            [(false, "FLANNEL_NETWORK", "FLANNEL_SUBNET"), (true, "FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET")]
        {
            let wanted = has(&networks, v6) || has(&subnets, v6) || (!v6 && networks.is_empty() && subnets.is_empty());
            missing.extend((wanted && !has(&networks, v6)).then_some(network_key));
            missing.extend((wanted && !has(&subnets, v6)).then_some(subnet_key));
        }
        let (mtu, ip_masq) = (find("FLANNEL_MTU"), find("FLANNEL_IPMASQ"));
        missing.extend(mtu.is_none().then_some("FLANNEL_MTU"));
        missing.extend(ip_masq.is_none().then_some("FLANNEL_IPMASQ"));
        let (Some(mtu), Some(ip_masq), true) = (mtu, ip_masq, missing.is_empty()) else {
            return Err(SubnetEnvError::Missing(missing));
        };

        let bad = |key, value: &str, expected| SubnetEnvError::Bad { key, value: value.to_owned(), expected };
        for key_and_v6 in [("FLANNEL_SUBNET", false), ("FLANNEL_IPV6_SUBNET", true)] {
            let (key, v6) = key_and_v6;
            if subnets.iter().filter(|subnet| subnet.is_ipv6() == v6).count() > 1 {
                return Err(bad(key, find(key).unwrap_or_default(), "one subnet"));
            }
        }
        Ok(Self {
            networks,
            subnets,
            mtu: mtu
                .parse()
                .ok()
                .filter(|mtu| (68..=65535).contains(mtu))
                .ok_or_else(|| bad("FLANNEL_MTU", mtu, "a number of bytes from 68 to 65535"))?,
            ip_masq: match ip_masq {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(bad("FLANNEL_IPMASQ", ip_masq, "true or false")),
            },
        })
    }
}

impl fmt::Display for SubnetEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |all: &[IpNetwork], v6: bool| {
            all.iter().filter(|network| network.is_ipv6() == v6).map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        for (v6, network_key, subnet_key) in
            [(false, "FLANNEL_NETWORK", "FLANNEL_SUBNET"), (true, "FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET")]
        {
            for (key, value) in [(network_key, list(&self.networks, v6)), (subnet_key, list(&self.subnets, v6))] {
                if !value.is_empty() {
                    writeln!(f, "{key}={value}")?;
                }
            }
        }
        writeln!(f, "FLANNEL_MTU={}", self.mtu)?;
        writeln!(f, "FLANNEL_IPMASQ={}", self.ip_masq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FLANNEL: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n\
        FLANNEL_IPV6_NETWORK=2001:cafe:42::/56\nFLANNEL_IPV6_SUBNET=2001:cafe:42::1/64\n\
        FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

    #[test]
    fn flannels_file_and_back_to_the_byte() {
        let env: SubnetEnv = FLANNEL.parse().unwrap();
        assert_eq!(env.to_string(), FLANNEL);
        assert_eq!(env.subnets[0].to_string(), "10.244.1.1/24");
        assert_eq!(env.mtu, 1450);
    }

    #[test]
    fn one_family_alone_and_several_networks() {
        let text = "FLANNEL_NETWORK=10.244.0.0/16,10.9.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
        let env: SubnetEnv = text.parse().unwrap();
        assert_eq!((env.networks.len(), env.subnets.len()), (2, 1));
        assert_eq!(env.to_string(), text);
        let text =
            "FLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n";
        assert_eq!(text.parse::<SubnetEnv>().unwrap().to_string(), text);
    }

    #[test]
    fn f66_names_every_missing_key() {
        let error = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_IPMASQ=true\n".parse::<SubnetEnv>().unwrap_err();
        assert_eq!(error.to_string(), "is missing FLANNEL_SUBNET, FLANNEL_MTU");
        let error = "".parse::<SubnetEnv>().unwrap_err();
        assert_eq!(error.to_string(), "is missing FLANNEL_NETWORK, FLANNEL_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ");
    }

    #[test]
    fn a_bad_value_is_named() {
        for (from, to) in
            [("10.244.1.1/24", "10.244.1.1"), ("10.244.1.1/24", "fd00::1/64"), ("1450", "67"), ("=true", "=maybe")]
        {
            let error = FLANNEL.replace(from, to).parse::<SubnetEnv>().unwrap_err().to_string();
            assert!(error.contains("FLANNEL_") && error.contains("expected"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_not_a_panic(text: String) {
            let _ = text.parse::<SubnetEnv>();
        }

        #[test]
        fn text_and_back(network: u16, node: u8, mtu in 68u32..=65535, ip_masq: bool, v6: bool) {
            let [a, b] = network.to_be_bytes();
            let mut env = SubnetEnv {
                networks: vec![format!("{a}.{b}.0.0/16").parse().unwrap()],
                subnets: vec![format!("{a}.{b}.{node}.1/24").parse().unwrap()],
                mtu,
                ip_masq,
            };
            if v6 {
                env.networks.push(format!("fd00:{network:x}::/48").parse().unwrap());
                env.subnets.push(format!("fd00:{network:x}:0:{node:x}::1/64").parse().unwrap());
            }
            prop_assert_eq!(env.to_string().parse::<SubnetEnv>().unwrap(), env);
        }
    }
}
