//! What the model yields, and both back ends start from.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;

use crate::cluster::services::{ObjectName, Protocol, TrafficPolicy};
use crate::cluster::{Family, PerFamily};

/// What is known of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its name, as endpoints name it.
    pub name: Arc<str>,
    /// Its zone (label `topology.kubernetes.io/zone`).
    pub zone: Option<Arc<str>>,
    /// Its primary address of each family.
    pub addresses: PerFamily<IpAddr>,
}

/// Identifies a port of a Service in one address family.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortKey {
    /// The Service.
    pub service: ObjectName,
    /// The port's name; empty if it has none.
    pub port: Arc<str>,
    /// The port's protocol.
    pub protocol: Protocol,
    /// The address family.
    pub family: Family,
}

impl fmt::Display for PortKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, port, protocol, family } = self;
        let colon = if port.is_empty() { "" } else { ":" };
        write!(out, "{service}{colon}{port} ({protocol}, {family})")
    }
}

/// What a packet is addressed to, that a Service answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKey {
    /// An address and a port.
    Address {
        /// The address.
        address: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
    /// A port of every address of this node that takes node ports.
    NodePort {
        /// The address family.
        family: Family,
        /// The protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address, protocol, port } => {
                write!(out, "{}/{protocol}", std::net::SocketAddr::new(*address, *port))
            }
            Self::NodePort { family, protocol, port } => write!(out, "{family} node port {port}/{protocol}"),
        }
    }
}

/// Where a frontend's address comes from, which decides how it is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// The Service's own address, which only the cluster uses.
    ClusterIp,
    /// `externalIPs`.
    ExternalIp,
    /// An address of the load balancer. Source ranges apply only here.
    LoadBalancer,
    /// A port on the node.
    NodePort,
}

impl FrontendKind {
    /// Whether it is meant for clients outside of the cluster, so that the external policy applies.
    #[must_use]
    pub const fn is_external(self) -> bool {
        !matches!(self, Self::ClusterIp)
    }
}

/// An entrance to a Service's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// What packets are addressed to.
    pub key: FrontendKey,
    /// Where that comes from.
    pub kind: FrontendKind,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Whether it runs on this node.
    pub local: bool,
}

/// A port of a Service in one family: everything that a back end needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortPlan {
    /// Which.
    pub key: PortKey,
    /// Its entrances, sorted; only those that no older Service claims.
    pub frontends: Vec<Frontend>,
    /// Who answers under policy Cluster, sorted, each once.
    pub cluster: Vec<Backend>,
    /// Who answers under policy Local, sorted, each once; empty if no policy of the Service is Local.
    pub local: Vec<Backend>,
    /// Whether anybody answers anywhere. If not, clients are told at once (reject); if so, but not for this policy, their
    /// packets are dropped.
    pub has_any: bool,
    /// Whom the cluster IP leads to.
    pub internal: TrafficPolicy,
    /// Whom clients from outside are led to by external frontends. Pods and the node itself are always led to `cluster`.
    pub external: TrafficPolicy,
    /// How long a client stays with its backend; `None`: every connection is a new choice.
    pub affinity: Option<Duration>,
    /// The scheduler that the Service asks IPVS for, unchecked.
    pub scheduler: Option<Arc<str>>,
    /// From where load balancer addresses may be used; empty: from everywhere. This family only.
    pub source_ranges: Vec<IpNetwork>,
    /// Everybody who serves, ready or not, whatever the policies and hints, sorted: a UDP flow to anyone else is stale, and
    /// only to these may TCP connections go on for as long as they like. Empty for SCTP.
    pub serving: Vec<Backend>,
}

impl PortPlan {
    /// The backends that a frontend leads clients outside of the cluster to, or for the cluster IP, anybody.
    #[must_use]
    pub fn backends_of(&self, kind: FrontendKind) -> &[Backend] {
        let policy = if kind.is_external() { self.external } else { self.internal };
        match policy {
            TrafficPolicy::Cluster => &self.cluster,
            TrafficPolicy::Local => &self.local,
        }
    }

    /// Whether somebody answers, but nobody on this node, and the cluster IP leads to this node only
    /// (`sync_proxy_rules_no_local_endpoints_total{traffic_policy="internal"}`).
    #[must_use]
    pub fn lacks_local_internally(&self) -> bool {
        self.internal == TrafficPolicy::Local && self.local.is_empty() && self.has_any
    }

    /// The same of the frontends for clients outside of the cluster (`traffic_policy="external"`).
    #[must_use]
    pub fn lacks_local_externally(&self) -> bool {
        self.external == TrafficPolicy::Local && self.local.is_empty() && self.has_any
    }
}
