//! Which virtual servers and IP sets are kube-proxy's. Pure.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_netlink::ipvs::Target;

/// The device on which kube-proxy, in ipvs mode, has the addresses of all Services.
pub const DEVICE: &str = "kube-ipvs0";

/// The ports that Services take on nodes' own addresses, unless the API server was told otherwise.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// Names of kube-proxy's sets in ipvs mode (kubernetes/kubernetes, `pkg/proxy/ipvs/ipset.go`). Those of IPv6 have a 6 in
/// the second place, and names that would be too long are cut off.
const SETS: [&str; 17] = [
    "KUBE-LOOP-BACK",
    "KUBE-CLUSTER-IP",
    "KUBE-EXTERNAL-IP",
    "KUBE-EXTERNAL-IP-LOCAL",
    "KUBE-LOAD-BALANCER",
    "KUBE-LOAD-BALANCER-LOCAL",
    "KUBE-LOAD-BALANCER-FW",
    "KUBE-LOAD-BALANCER-SOURCE-IP",
    "KUBE-LOAD-BALANCER-SOURCE-CIDR",
    "KUBE-NODE-PORT-TCP",
    "KUBE-NODE-PORT-LOCAL-TCP",
    "KUBE-NODE-PORT-UDP",
    "KUBE-NODE-PORT-LOCAL-UDP",
    "KUBE-NODE-PORT-SCTP-HASH",
    "KUBE-NODE-PORT-LOCAL-SCTP-HASH",
    "KUBE-HEALTH-CHECK-NODE-PORT",
    "KUBE-IPVS-IPS",
];
/// The longest name of a set (`IPSET_MAXNAMELEN`, without the final zero).
const SET_NAME: usize = 31;

/// What is known of the node when its virtual servers are judged.
#[derive(Debug, Clone, Default)]
pub struct Ground {
    /// The addresses of kube-proxy's device; `None` if there is no such device.
    pub on_device: Option<Vec<IpAddr>>,
    /// The networks that cluster IPs are taken from.
    pub service_cidrs: Vec<IpNetwork>,
    /// The node's other addresses.
    pub own: Vec<IpAddr>,
    /// Whether weft serves cluster IPs by virtual servers: then those are its own, as it took them over.
    pub weft_has_ipvs: bool,
}

/// Those of the virtual servers that kube-proxy has left. Others on this node (keepalived's, for one) are neither on its
/// device, nor in a service network; those of node ports are told by address and port, and only while the device is there.
#[must_use]
pub fn left(ground: &Ground, found: &[Target]) -> Vec<Target> {
    let is_left = |target: &&Target| {
        let Target::Address { address, port, .. } = target else { return false };
        let in_range = ground.service_cidrs.iter().any(|network| network.contains(*address));
        if in_range {
            return !ground.weft_has_ipvs;
        }
        let Some(on_device) = &ground.on_device else { return false };
        on_device.contains(address) || (ground.own.contains(address) && NODE_PORTS.contains(port))
    };
    found.iter().filter(is_left).copied().collect()
}

/// Whether an IP set is kube-proxy's.
#[must_use]
pub fn is_its_set(name: &str) -> bool {
    SETS.iter().any(|set| {
        let v6 = set.replacen("KUBE-", "KUBE-6-", 1);
        *set == name || v6.get(..SET_NAME).unwrap_or(&v6) == name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Target {
        let address: std::net::SocketAddr = text.parse().unwrap();
        Target::Address { address: address.ip(), port: address.port(), protocol: 6 }
    }

    #[test]
    fn what_kube_proxy_left_is_told_from_what_others_have() {
        let all = [
            at("10.96.0.1:443"),
            at("192.0.2.1:30080"),
            at("203.0.113.5:80"),
            at("192.0.2.1:443"),
            at("192.0.2.9:30080"),
        ];
        let ground = Ground {
            on_device: Some(vec!["10.96.0.1".parse().unwrap(), "203.0.113.5".parse().unwrap()]),
            service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
            own: vec!["192.0.2.1".parse().unwrap()],
            weft_has_ipvs: false,
        };
        assert_eq!(left(&ground, &all), all[..3]);
        // Where weft has virtual servers, those in the service network are its own.
        assert_eq!(left(&Ground { weft_has_ipvs: true, ..ground.clone() }, &all), all[1..3]);
        // Without the device, only the service network speaks for kube-proxy.
        assert_eq!(left(&Ground { on_device: None, ..ground }, &all), all[..1]);
    }

    #[test]
    fn sets_of_both_families_are_known_by_name() {
        for its in ["KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP", "KUBE-6-LOAD-BALANCER-SOURCE-CID"] {
            assert!(is_its_set(its), "{its}");
        }
        for other in ["KUBE-SRC-ABC", "cali40all", "KUBE-DST-2"] {
            assert!(!is_its_set(other), "{other}");
        }
    }
}
