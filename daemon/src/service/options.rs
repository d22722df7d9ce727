//! What the operator has decided about Services, and what follows from it for the back ends.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use weft_netlink::ipvs::Scheduler;
use weft_netlink::sysctl::Sysctl;

use super::ipvs::{DrainLimits, IpvsConfig, TimeoutSettings};
use super::model::{NodeView, PlanOptions};
use super::nft;
use crate::cluster::{Family, PerFamily};
use crate::config::{DetectLocal, NodePortAddresses, ProxyMode};
use crate::node::NodeFacts;

/// What the operator has decided about Services.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// Which back end is asked for.
    pub mode: ProxyMode,
    /// The node's name.
    pub node: Arc<str>,
    /// The node's zone, whatever its Node object says.
    pub zone: Option<Arc<str>>,
    /// The service networks.
    pub service_cidrs: Vec<IpNetwork>,
    /// How pods are told from other clients.
    pub detect_local: DetectLocal,
    /// The pod networks by which they are; empty for those of the cluster's leases.
    pub cluster_cidrs: Vec<IpNetwork>,
    /// The node's addresses that take node ports.
    pub node_port_addresses: NodePortAddresses,
    /// Whether everything to cluster IPs is masqueraded.
    pub masquerade_all: bool,
    /// The bit of the packet mark by which masquerade is asked for.
    pub masquerade_bit: u8,
    /// Whether `externalIPs` are served.
    pub allow_external_ips: bool,
    /// Whether TCP segments out of their window pass.
    pub be_liberal: bool,
    /// Networks whose virtual servers are never taken over.
    pub exclude: Vec<IpNetwork>,
    /// IPVS's scheduler where a Service asks for none.
    pub scheduler: Scheduler,
    /// How long real servers drain.
    pub drain: DrainLimits,
    /// How long IPVS keeps idle connections.
    pub timeouts: TimeoutSettings,
    /// Whether IPVS estimates rates.
    pub estimation: bool,
    /// Shortest time between two passes.
    pub min_sync_period: Duration,
    /// The time within which everything is repaired.
    pub repair_interval: Duration,
    /// Where the record of what is ours lies.
    pub run_dir: PathBuf,
    /// The kernel settings.
    pub sysctl: Sysctl,
}

impl ProxyOptions {
    /// What IPVS is told.
    #[must_use]
    pub fn ipvs(&self) -> IpvsConfig {
        IpvsConfig {
            run_dir: self.run_dir.clone(),
            node: Arc::clone(&self.node),
            ranges: self.service_cidrs.clone(),
            exclude: self.exclude.clone(),
            scheduler: self.scheduler.clone(),
            drain: self.drain,
            timeouts: self.timeouts,
            sysctl: self.sysctl.clone(),
        }
    }

    /// What the model is told of the node. `label` is the zone that its Node object says, if it does.
    #[must_use]
    pub fn view(&self, facts: &NodeFacts, label: Option<&Arc<str>>) -> NodeView {
        let zone = self.zone.as_ref().or(label).cloned();
        NodeView { name: Arc::clone(&self.node), zone, addresses: facts.addresses }
    }

    /// What the model is told beside it.
    #[must_use]
    pub fn plan(&self) -> PlanOptions {
        PlanOptions { families: families(), allow_external_ips: self.allow_external_ips }
    }

    /// What nf_tables is told. `proxy_cluster_ips` is false in ipvs mode.
    #[must_use]
    pub fn nft(&self, facts: &NodeFacts, proxy_cluster_ips: bool) -> nft::Options {
        nft::Options {
            proxy_cluster_ips,
            families: families(),
            detect_local: self.detect(facts),
            masquerade_all: self.masquerade_all,
            // The configuration admits bits 0 to 31.
            masquerade_mark: 1_u32.checked_shl(u32::from(self.masquerade_bit)).unwrap_or_default(),
            node_port_addresses: self.node_ports(facts),
            service_cidrs: self.service_cidrs.clone(),
            pod_networks: facts.pod_networks.clone(),
            node_subnets: facts.subnets.clone(),
            bridge_bypass: bridge_bypass(&self.sysctl),
            drop_invalid: !self.be_liberal,
        }
    }

    fn detect(&self, facts: &NodeFacts) -> nft::DetectLocal {
        match &self.detect_local {
            DetectLocal::ClusterCidr if self.cluster_cidrs.is_empty() => {
                nft::DetectLocal::Cidrs(facts.pod_networks.clone())
            }
            DetectLocal::ClusterCidr => nft::DetectLocal::Cidrs(self.cluster_cidrs.clone()),
            DetectLocal::NodeCidr => nft::DetectLocal::Cidrs(facts.subnets.clone()),
            DetectLocal::Bridge(name) => nft::DetectLocal::Bridge(name.to_string()),
            DetectLocal::InterfacePrefix(prefix) => nft::DetectLocal::InterfacePrefix(prefix.to_string()),
            DetectLocal::Nothing => nft::DetectLocal::None,
        }
    }

    fn node_ports(&self, facts: &NodeFacts) -> PerFamily<nft::NodePortAddresses> {
        let mut addresses = PerFamily::default();
        for family in Family::ALL {
            let taken = match &self.node_port_addresses {
                NodePortAddresses::Primary => {
                    let own = facts.addresses.get(family).copied().map(host);
                    own.map(|network| nft::NodePortAddresses::Networks(vec![network]))
                }
                NodePortAddresses::In(networks) => {
                    let given: Vec<IpNetwork> =
                        networks.iter().copied().filter(|network| Family::of(network.ip()) == family).collect();
                    let all = given.is_empty() || given.iter().any(|network| network.prefix() == 0);
                    Some(if all { nft::NodePortAddresses::All } else { nft::NodePortAddresses::Networks(given) })
                }
            };
            addresses.set(family, taken);
        }
        addresses
    }
}

/// The families that this machine has at all.
#[must_use]
pub fn families() -> PerFamily<()> {
    let sysctl = Sysctl::default();
    let has_v6 = std::path::Path::new("/proc/net/if_inet6").exists()
        && !matches!(sysctl.read("net/ipv6/conf/all/disable_ipv6"), Ok(Some(value)) if value == "1");
    PerFamily { v4: Some(()), v6: has_v6.then_some(()) }
}

/// A network of one address.
fn host(address: IpAddr) -> IpNetwork {
    IpNetwork::from(address)
}

/// Whether frames from pod to pod of one bridge pass netfilter by: br_netfilter is not there, or told not to look.
fn bridge_bypass(sysctl: &Sysctl) -> bool {
    ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"]
        .iter()
        .any(|name| !matches!(sysctl.read(name), Ok(Some(value)) if value == "1"))
}
