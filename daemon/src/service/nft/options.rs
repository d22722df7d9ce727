//! What the rules depend on beside the Services.

use ipnetwork::IpNetwork;

use crate::cluster::{Family, PerFamily};

/// How traffic of this node's pods is told from other traffic (`detectLocalMode` of kube-proxy).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetectLocal {
    /// Not at all: no masquerade of clients outside of the cluster, and pods count as clients from outside.
    None,
    /// Pods have addresses in these networks. A family without a network is as with [`DetectLocal::None`].
    Cidrs(Vec<IpNetwork>),
    /// Pods come in by this bridge.
    Bridge(String),
    /// Pods come in by interfaces whose names begin so.
    InterfacePrefix(String),
}

/// Which of the node's addresses take node ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// All that are not loopback.
    All,
    /// Those in these networks; networks of the other family are ignored.
    Networks(Vec<IpNetwork>),
}

/// What the rules depend on beside the Services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whether cluster IPs are translated here (nftables mode), or are IPVS virtual servers behind a guard (ipvs mode).
    pub proxy_cluster_ips: bool,
    /// The families in use.
    pub families: PerFamily<()>,
    /// How this node's pods are known.
    pub detect_local: DetectLocal,
    /// Whether everything to a cluster IP is masqueraded.
    pub masquerade_all: bool,
    /// The bits of the packet mark by which a rule in front asks one behind for masquerade.
    pub masquerade_mark: u32,
    /// Which of the node's addresses take node ports; a family without a value takes none.
    pub node_port_addresses: PerFamily<NodePortAddresses>,
    /// The cluster's service networks; empty if they are not known.
    pub service_cidrs: Vec<IpNetwork>,
    /// The cluster's pod networks.
    pub pod_networks: Vec<IpNetwork>,
    /// This node's part of them.
    pub node_subnets: Vec<IpNetwork>,
    /// Whether frames between ports of a bridge pass netfilter by (bridge-nf-call-iptables is 0 or absent), so that answers
    /// from pod to pod of this node would not be translated back.
    pub bridge_bypass: bool,
    /// Whether forwarded packets of pods that belong to no connection are dropped.
    pub drop_invalid: bool,
}

impl Options {
    /// The networks of one family among some.
    pub(super) fn of_family(networks: &[IpNetwork], family: Family) -> impl Iterator<Item = IpNetwork> {
        networks.iter().copied().filter(move |network| Family::of(network.ip()) == family)
    }
}

impl Default for Options {
    /// nftables mode, both families, nothing known of the cluster.
    fn default() -> Self {
        Self {
            proxy_cluster_ips: true,
            families: PerFamily { v4: Some(()), v6: Some(()) },
            detect_local: DetectLocal::None,
            masquerade_all: false,
            masquerade_mark: 0x4000,
            node_port_addresses: PerFamily { v4: Some(NodePortAddresses::All), v6: Some(NodePortAddresses::All) },
            service_cidrs: Vec::new(),
            pod_networks: Vec::new(),
            node_subnets: Vec::new(),
            bridge_bypass: false,
            drop_invalid: true,
        }
    }
}

/// The networks without those that lie in others, in order: an interval set refuses what overlaps.
pub(super) fn disjoint(networks: impl IntoIterator<Item = IpNetwork>) -> Vec<IpNetwork> {
    let mut sorted: Vec<IpNetwork> = networks
        .into_iter()
        .map(|network| IpNetwork::new(network.network(), network.prefix()).unwrap_or(network))
        .collect();
    // A network sorts in front of what lies in it.
    sorted.sort_by_key(|network| (network.ip(), network.prefix()));
    let mut kept: Vec<IpNetwork> = Vec::with_capacity(sorted.len());
    for network in sorted {
        if !kept.last().is_some_and(|wider| wider.contains(network.ip())) {
            kept.push(network);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_another_network_is_left_out() {
        let given = ["10.1.2.3/16", "10.0.0.0/8", "192.0.2.0/24", "10.0.0.0/8", "fd00::1/64", "192.0.2.7/32"];
        let kept = disjoint(given.map(|text| text.parse().unwrap()));
        let expected: Vec<IpNetwork> =
            ["10.0.0.0/8", "192.0.2.0/24", "fd00::/64"].map(|text| text.parse().unwrap()).into();
        assert_eq!(kept, expected);
    }
}
