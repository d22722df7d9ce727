//! What the rest of the agent may know of the node: the one thing that goes from the node's loop to its Services.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::cluster::PerFamily;

/// The node as its pods and peers see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// The uplink's address of each family: the node's own, whatever address it is published under.
    pub addresses: PerFamily<IpAddr>,
    /// The cluster's pod networks.
    pub pod_networks: Vec<IpNetwork>,
    /// This node's part of them.
    pub subnets: Vec<IpNetwork>,
}
