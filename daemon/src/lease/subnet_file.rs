//! The subnet file's content for a lease, and the lease in a subnet file.

use std::path::Path;

use ipnetwork::IpNetwork;
use weft_cni::formats::SubnetEnv;

use crate::cluster::family::{Family, PerFamily};
use crate::cluster::key::SubnetKey;
use crate::cluster::netconf::NetConf;
use crate::cluster::pool::{Pool, address, number};

/// What the subnet file says about a lease, on an underlay of this MTU.
#[must_use]
pub fn subnet_env(key: &SubnetKey, conf: &NetConf, underlay_mtu: u32, ip_masq: bool) -> SubnetEnv {
    SubnetEnv {
        networks: conf.pools.values().map(Pool::network).collect(),
        subnets: key.subnets().values().map(|subnet| gateway(*subnet)).collect(),
        mtu: pod_mtu(conf, underlay_mtu),
        ip_masq,
    }
}

/// The MTU of pods, in bytes: the underlay's, or the one that the network configuration gives instead, less the overhead
/// of the back end.
#[must_use]
pub fn pod_mtu(conf: &NetConf, underlay_mtu: u32) -> u32 {
    conf.backend.underlay_mtu().unwrap_or(underlay_mtu).saturating_sub(conf.overhead())
}

/// The first address of a subnet, with the subnet's length: the bridge's.
#[must_use]
pub fn gateway(subnet: IpNetwork) -> IpNetwork {
    let first = address(Family::of(subnet.ip()), number(subnet.network()) + 1);
    IpNetwork::new(first, subnet.prefix()).unwrap_or(subnet)
}

/// The subnets in a subnet file. `None` if there is no file, or none that can be read: it then tells nothing.
#[must_use]
pub fn subnets_in(path: &Path) -> Option<(SubnetEnv, SubnetKey)> {
    let env: SubnetEnv = std::fs::read_to_string(path).ok()?.parse().ok()?;
    let mut subnets = PerFamily::default();
    for given in &env.subnets {
        let subnet = IpNetwork::new(given.network(), given.prefix()).ok()?;
        subnets.set(Family::of(subnet.ip()), Some(subnet));
    }
    Some((env, SubnetKey::new(subnets)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a01_a02_the_file_of_a_lease_and_the_lease_of_a_file() {
        let text = br#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"2001:cafe:42::/56"}"#;
        let (conf, _) = NetConf::parse(text).unwrap();
        let key: SubnetKey = "10.244.1.0-24&2001:cafe:42:1::-64".parse().unwrap();
        let env = subnet_env(&key, &conf, 1500, true);
        assert_eq!(
            env.to_string(),
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_NETWORK=2001:cafe:42::/56\n\
             FLANNEL_IPV6_SUBNET=2001:cafe:42:1::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n"
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("subnet.env");
        assert_eq!(subnets_in(&path), None);
        std::fs::write(&path, env.to_string()).unwrap();
        assert_eq!(subnets_in(&path), Some((env, key)));
    }

    #[test]
    fn the_mtu_of_the_network_configuration_is_the_underlays() {
        let (conf, _) = NetConf::parse(br#"{"Network":"10.244.0.0/16","Backend":{"MTU":9000}}"#).unwrap();
        assert_eq!(pod_mtu(&conf, 1500), 8950);
        let (conf, _) = NetConf::parse(br#"{"Network":"10.244.0.0/16"}"#).unwrap();
        assert_eq!(pod_mtu(&conf, 1500), 1450);
        assert_eq!(pod_mtu(&conf, 40), 0);
    }
}
