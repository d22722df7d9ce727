//! A Service, its slices and this node in; its ports' frontends, backends and policies out.
//!
//! The meaning is that of kube-proxy's nftables mode, for both back ends.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::endpoints::{Categories, is_local, of_port, serving};
use super::types::{Frontend, FrontendKey, FrontendKind, NodeView, PortKey, PortPlan};
use crate::cluster::services::{EndpointSlice, ObjectName, Protocol, Service, ServicePort, TrafficPolicy};
use crate::cluster::{Family, PerFamily};

/// What the operator has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanOptions {
    /// The families that this node has.
    pub families: PerFamily<()>,
    /// Whether `externalIPs` are served at all (feature gate `AllowServiceExternalIPs`).
    pub allow_external_ips: bool,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self { families: PerFamily { v4: Some(()), v6: Some(()) }, allow_external_ips: true }
    }
}

/// A health check port that this node answers at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPort {
    /// The Service.
    pub service: ObjectName,
    /// `healthCheckNodePort`.
    pub port: u16,
    /// In each family that the Service has on this node: how many addresses of this node's are ready, over all ports.
    pub local_endpoints: PerFamily<usize>,
}

/// What a Service comes to on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedService {
    /// Its ports, those of IPv4 first, in the Service's order. Their frontends may be claimed by other Services, too.
    pub ports: Vec<PortPlan>,
    /// Where load balancers ask whether this node has endpoints of it.
    pub health: Option<HealthPort>,
}

/// Plans a Service. `slices` are its own, in the order of their names.
#[must_use]
pub fn plan(service: &Service, slices: &[Arc<EndpointSlice>], node: &NodeView, options: PlanOptions) -> PlannedService {
    let families = service.cluster_ips.filter_map(|family, address| options.families.get(family).and(Some(*address)));
    let scheduler: Option<Arc<str>> = service.scheduler.as_deref().map(Into::into);
    let mut ports = Vec::with_capacity(service.ports.len() * families.iter().count());
    for (family, cluster_ip) in families.iter() {
        let entrances = Entrances::of(service, family, *cluster_ip, node, options);
        for port in &service.ports {
            ports.push(plan_port(service, port, &entrances, slices, node, scheduler.clone()));
        }
    }
    let health = service.health_check_node_port.map(|port| HealthPort {
        service: service.name.clone(),
        port,
        local_endpoints: families.filter_map(|family, _| Some(local_ready(slices, family, node))),
    });
    PlannedService { ports, health }
}

/// A Service's addresses in one family.
struct Entrances {
    family: Family,
    cluster_ip: IpAddr,
    external_ips: Vec<IpAddr>,
    load_balancer_ips: Vec<IpAddr>,
    source_ranges: Vec<IpNetwork>,
}

impl Entrances {
    fn of(service: &Service, family: Family, cluster_ip: IpAddr, node: &NodeView, options: PlanOptions) -> Self {
        let of_family = |listed: &[IpAddr]| -> Vec<IpAddr> {
            listed.iter().copied().filter(|address| Family::of(*address) == family).collect()
        };
        let external_ips = if options.allow_external_ips { of_family(&service.external_ips) } else { Vec::new() };
        let load_balancer_ips = of_family(&service.load_balancer_ips);
        let source_ranges = source_ranges(&service.source_ranges, family, &load_balancer_ips, node);
        Self { family, cluster_ip, external_ips, load_balancer_ips, source_ranges }
    }

    /// The frontends of a port, sorted, each key once.
    fn frontends(&self, port: &ServicePort) -> Vec<Frontend> {
        let at = |kind| {
            let (protocol, port) = (port.protocol, port.port);
            move |address| Frontend { key: FrontendKey::Address { address, protocol, port }, kind }
        };
        let node_port = port.node_port.map(|number| Frontend {
            key: FrontendKey::NodePort { family: self.family, protocol: port.protocol, port: number },
            kind: FrontendKind::NodePort,
        });
        // Where one address is named twice, the stricter treatment counts: the first in this order.
        let mut out: Vec<Frontend> = [self.cluster_ip].map(at(FrontendKind::ClusterIp)).into();
        out.extend(self.load_balancer_ips.iter().copied().map(at(FrontendKind::LoadBalancer)));
        out.extend(self.external_ips.iter().copied().map(at(FrontendKind::ExternalIp)));
        out.extend(node_port);
        out.sort_by_key(|frontend| frontend.key);
        out.dedup_by_key(|frontend| frontend.key);
        out.shrink_to_fit();
        out
    }
}

fn plan_port(
    service: &Service,
    port: &ServicePort,
    entrances: &Entrances,
    slices: &[Arc<EndpointSlice>],
    node: &NodeView,
    scheduler: Option<Arc<str>>,
) -> PortPlan {
    let frontends = entrances.frontends(port);
    let is_external = frontends.iter().any(|frontend| frontend.kind.is_external());
    // Without an entrance from outside, the external policy means nothing.
    let external = if is_external { service.external } else { TrafficPolicy::Cluster };
    let uses_cluster = service.internal == TrafficPolicy::Cluster || is_external;
    let uses_local = service.internal == TrafficPolicy::Local || external == TrafficPolicy::Local;
    let endpoints = of_port(slices, entrances.family, port, node);
    let Categories { cluster, local, has_any } = Categories::of(&endpoints, node, uses_cluster, uses_local);
    PortPlan {
        key: PortKey {
            service: service.name.clone(),
            port: Arc::clone(&port.name),
            protocol: port.protocol,
            family: entrances.family,
        },
        frontends,
        cluster,
        local,
        has_any,
        internal: service.internal,
        external,
        affinity: service.affinity,
        scheduler,
        source_ranges: entrances.source_ranges.clone(),
        serving: if port.protocol == Protocol::Sctp { Vec::new() } else { serving(&endpoints) },
    }
}

/// From where the load balancer's addresses may be used; empty: from everywhere. No network lies within another.
fn source_ranges(listed: &[IpNetwork], family: Family, addresses: &[IpAddr], node: &NodeView) -> Vec<IpNetwork> {
    let mut out: Vec<IpNetwork> = listed.iter().copied().filter(|range| Family::of(range.ip()) == family).collect();
    let is_open = out.iter().any(|range| range.prefix() == 0);
    if is_open || addresses.is_empty() {
        return Vec::new();
    }
    // What a node sends to the load balancer's address may have that same address as its source.
    let is_node_allowed = node.addresses.get(family).is_some_and(|own| out.iter().any(|range| range.contains(*own)));
    if is_node_allowed {
        out.extend(addresses.iter().map(|address| IpNetwork::from(*address)));
    }
    // A wider network sorts before those within it, which then follow it at once.
    out.sort_unstable();
    out.dedup_by(|inner, outer| outer.contains(inner.ip()));
    out
}

/// How many addresses of ready endpoints this node has.
fn local_ready(slices: &[Arc<EndpointSlice>], family: Family, node: &NodeView) -> usize {
    let of_family = slices.iter().filter(|slice| slice.family == family);
    let endpoints = of_family.flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| endpoint.ready && is_local(endpoint, node));
    ready.map(|endpoint| endpoint.address).collect::<HashSet<_>>().len()
}
