//! The objects, reduced to what a node's Services are made of.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnetwork::IpNetwork;

use crate::cluster::{Family, PerFamily};

/// Namespace and name of an object; one of the whole cluster (a Node) has an empty namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// The name of an object in a namespace.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// As Kubernetes writes it: `namespace/name`, or `name` if there is no namespace.
impl fmt::Display for ObjectName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return out.write_str(&self.name);
        }
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

/// A transport protocol of a Service (`v1.Protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its number in the IP header (`IPPROTO_*`).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// As the Kubernetes API writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Which endpoints traffic may go to (`internalTrafficPolicy`, `externalTrafficPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TrafficPolicy {
    /// Those of all nodes.
    #[default]
    Cluster,
    /// Those of this node.
    Local,
}

/// A Service (`v1.Service`) that has at least one cluster IP. Headless ones, ExternalNames, and those that another proxy
/// serves (label `service.kubernetes.io/service-proxy-name`) never become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ObjectName,
    /// `creationTimestamp`, RFC 3339 as in the API, which sorts as time does; empty if there is none. The older Service wins
    /// where two claim one address.
    pub created: Box<str>,
    /// Its cluster IPs.
    pub cluster_ips: PerFamily<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` whose `ipMode` is not `Proxy`.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `loadBalancerSourceRanges`, both families, as given.
    pub source_ranges: Vec<IpNetwork>,
    /// `internalTrafficPolicy`.
    pub internal: TrafficPolicy,
    /// `externalTrafficPolicy`.
    pub external: TrafficPolicy,
    /// `healthCheckNodePort`, only of a LoadBalancer whose external policy is Local.
    pub health_check_node_port: Option<u16>,
    /// The timeout of `sessionAffinity: ClientIP`, 1 s to 24 h; `None` without affinity.
    pub affinity: Option<Duration>,
    /// The IPVS scheduler asked for by annotation `weft.dev/ipvs-scheduler` or kube-router's, unchecked.
    pub scheduler: Option<Box<str>>,
}

/// A port of a Service (`v1.ServicePort`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty if it has none.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port that clients use.
    pub port: u16,
    /// The port on each node.
    pub node_port: Option<u16>,
}

/// An EndpointSlice (`discovery.k8s.io/v1`) of a Service. Slices of names instead of addresses (FQDN), of no Service, or of a
/// headless one never become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Its name.
    pub name: ObjectName,
    /// The Service that it belongs to.
    pub service: ObjectName,
    /// Whose addresses it holds.
    pub family: Family,
    /// Its ports; one without a number is left out.
    pub ports: Vec<SlicePort>,
    /// Its endpoints, each with its first address.
    pub endpoints: Vec<SliceEndpoint>,
    /// Annotation `endpoints.kubernetes.io/last-change-trigger-time`.
    pub triggered: Option<SystemTime>,
}

/// A port of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// The name of the Service's port; empty if it has none.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port that the endpoints listen at.
    pub port: u16,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// Takes new connections (default: true).
    pub ready: bool,
    /// Answers, although it may be terminating (default: true).
    pub serving: bool,
    /// Is being deleted (default: false).
    pub terminating: bool,
    /// The node that it runs on; `None` is on no node.
    pub node: Option<Arc<str>>,
    /// Zones that should use it (`hints.forZones`).
    pub zone_hints: Box<[Arc<str>]>,
    /// Nodes that should use it (`hints.forNodes`).
    pub node_hints: Box<[Arc<str>]>,
}

/// A Node (`v1.Node`), as far as Services depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeObject {
    /// Label `topology.kubernetes.io/zone`; `None` also if it is empty.
    pub zone: Option<Arc<str>>,
    /// Whether it is being deleted, or about to be (taint `ToBeDeletedByClusterAutoscaler`).
    pub is_leaving: bool,
}
