//! Which UDP flows hold on to a backend that no longer answers, or to none at all.
//!
//! A UDP client that goes on sending keeps its entry in the connection table alive, and with it the backend that was chosen
//! for its first packet. So when who serves a port has changed, those flows of its frontends whose answers would come from
//! anybody else are deleted, and the next packet is a new choice. Traffic policies and hints do not count here: a flow to a
//! backend that serves is left alone even if it would not be chosen today.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::model::{FrontendKey, PortPlan};
use crate::cluster::Family;
use crate::cluster::services::Protocol;

/// A UDP flow, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UdpFlow {
    /// Where its packets were sent to.
    pub destination: SocketAddr,
    /// Where its answers come from: the backend, or the destination itself if it was not translated.
    pub answers_from: SocketAddr,
}

/// Judges flows by the ports that have changed.
#[derive(Debug, Default)]
pub struct StaleFlows<'a> {
    addresses: HashMap<SocketAddr, HashSet<SocketAddr>>,
    node_ports: HashMap<(Family, u16), HashSet<SocketAddr>>,
    local: Option<&'a HashSet<IpAddr>>,
}

impl<'a> StaleFlows<'a> {
    /// Of all ports given, takes those of UDP that anybody serves. `local` are the node's own addresses, the only ones at
    /// which a node port is this node's.
    ///
    /// A port that nobody serves is left alone: there is nowhere to send its clients.
    pub fn of<'p>(ports: impl IntoIterator<Item = &'p PortPlan>, local: &'a HashSet<IpAddr>) -> Self {
        let mut stale = Self { local: Some(local), ..Self::default() };
        for port in ports {
            if port.key.protocol != Protocol::Udp || port.serving.is_empty() {
                continue;
            }
            let serving: HashSet<SocketAddr> =
                port.serving.iter().map(|backend| SocketAddr::new(backend.address, backend.port)).collect();
            for frontend in &port.frontends {
                match frontend.key {
                    FrontendKey::Address { address, port, .. } => {
                        stale.addresses.insert(SocketAddr::new(address, port), serving.clone());
                    }
                    FrontendKey::NodePort { family, port, .. } => {
                        stale.node_ports.insert((family, port), serving.clone());
                    }
                }
            }
        }
        stale
    }

    /// Every flow to a cluster IP, whoever answers it: another back end translates it from now on.
    pub fn moved<'p>(ports: impl IntoIterator<Item = &'p PortPlan>) -> Self {
        let udp = ports.into_iter().filter(|port| port.key.protocol == Protocol::Udp);
        let frontends = udp.flat_map(|port| &port.frontends).filter(|frontend| !frontend.kind.is_external());
        let nobody = frontends.filter_map(|frontend| match frontend.key {
            FrontendKey::Address { address, port, .. } => Some((SocketAddr::new(address, port), HashSet::new())),
            FrontendKey::NodePort { .. } => None,
        });
        Self { addresses: nobody.collect(), ..Self::default() }
    }

    /// The families that a flow can be stale in.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        let of_addresses = self.addresses.keys().map(|address| Family::of(address.ip()));
        let all: BTreeSet<Family> = of_addresses.chain(self.node_ports.keys().map(|(family, _)| *family)).collect();
        all.into_iter()
    }

    /// Whether the flow is to be deleted.
    #[must_use]
    pub fn holds(&self, flow: &UdpFlow) -> bool {
        let to = flow.destination;
        let node_port = || {
            let family = Family::of(to.ip());
            let is_local = self.local.is_some_and(|local| local.contains(&to.ip()));
            self.node_ports.get(&(family, to.port())).filter(|_| is_local)
        };
        self.addresses.get(&to).or_else(node_port).is_some_and(|serving| !serving.contains(&flow.answers_from))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::services::{ObjectName, TrafficPolicy};
    use crate::service::model::{Backend, Frontend, FrontendKind, PortKey};

    fn port(protocol: Protocol, serving: &[&str]) -> PortPlan {
        let backend = |text: &&str| {
            let at: SocketAddr = text.parse().unwrap();
            Backend { address: at.ip(), port: at.port(), local: false }
        };
        let address = "10.96.0.10".parse().unwrap();
        PortPlan {
            key: PortKey {
                service: ObjectName::new("default", "dns"),
                port: Arc::from(""),
                protocol,
                family: Family::V4,
            },
            frontends: vec![
                Frontend { key: FrontendKey::Address { address, protocol, port: 53 }, kind: FrontendKind::ClusterIp },
                Frontend {
                    key: FrontendKey::NodePort { family: Family::V4, protocol, port: 30053 },
                    kind: FrontendKind::NodePort,
                },
            ],
            cluster: Vec::new(),
            local: Vec::new(),
            has_any: true,
            internal: TrafficPolicy::Cluster,
            external: TrafficPolicy::Cluster,
            affinity: None,
            scheduler: None,
            source_ranges: Vec::new(),
            serving: serving.iter().map(backend).collect(),
        }
    }

    fn flow(destination: &str, answers_from: &str) -> UdpFlow {
        UdpFlow { destination: destination.parse().unwrap(), answers_from: answers_from.parse().unwrap() }
    }

    #[test]
    fn a_flow_to_somebody_else_is_stale_wherever_it_came_in() {
        let local = HashSet::from(["192.0.2.1".parse().unwrap()]);
        let ports = [port(Protocol::Udp, &["10.244.1.2:5353"])];
        let stale = StaleFlows::of(&ports, &local);
        assert!(stale.holds(&flow("10.96.0.10:53", "10.244.9.9:5353")), "a backend that is gone");
        assert!(stale.holds(&flow("10.96.0.10:53", "10.244.1.2:53")), "a port of a backend that is gone");
        assert!(stale.holds(&flow("10.96.0.10:53", "10.96.0.10:53")), "begun before anybody served");
        assert!(stale.holds(&flow("192.0.2.1:30053", "10.244.9.9:5353")), "by the node port");
        assert!(!stale.holds(&flow("10.96.0.10:53", "10.244.1.2:5353")), "one that is served");
        assert!(!stale.holds(&flow("192.0.2.7:30053", "192.0.2.7:30053")), "another node's port");
        assert!(!stale.holds(&flow("10.96.0.10:54", "10.244.9.9:5353")), "another port");
    }

    #[test]
    fn a_change_of_back_end_moves_every_flow_of_a_cluster_ip() {
        let moved = StaleFlows::moved(&[port(Protocol::Udp, &["10.244.1.2:5353"])]);
        assert!(moved.holds(&flow("10.96.0.10:53", "10.244.1.2:5353")));
        assert!(!moved.holds(&flow("192.0.2.1:30053", "10.244.1.2:5353")), "node ports are nftables' in both modes");
    }

    #[test]
    fn what_nobody_serves_and_other_protocols_are_left_alone() {
        let local = HashSet::new();
        assert_eq!(StaleFlows::of(&[port(Protocol::Udp, &[])], &local).families().count(), 0);
        assert_eq!(StaleFlows::of(&[port(Protocol::Tcp, &["10.244.1.2:5353"])], &local).families().count(), 0);
    }
}
