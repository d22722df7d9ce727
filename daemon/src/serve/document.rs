//! What the agent tells at `/status`, as JSON: the words of a protocol between agents and `weft status` of any version.
//!
//! A member that an older agent does not send has its default here, and one that a newer agent adds is passed over. Nothing
//! in it is secret: it says of the node what its annotations, its routes and its metrics say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::health::ComponentStatus;

/// The state of a node as its agent sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// Name of the node.
    pub node: String,
    /// Version of the agent.
    pub version: String,
    /// Where its leases and Services come from: `etcd` or `kube`.
    pub source: String,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// Whether its loop turns.
    pub alive: bool,
    /// Whether the node takes pods (`/readyz`).
    pub ready: bool,
    /// Passes over all tables that have ended.
    pub revision: u64,
    /// The API server that is asked, once one has answered; only with source `kube`.
    pub api_server: Option<ApiServerStatus>,
    /// The components of `/readyz` in their order.
    pub components: Vec<ComponentStatus>,
    /// The node's lease, once there is one.
    pub lease: Option<LeaseStatus>,
    /// The interface under the overlay, once one is chosen.
    pub uplink: Option<UplinkStatus>,
    /// The devices of the overlay, IPv4 first.
    pub overlay: Vec<DeviceStatus>,
    /// The other nodes; those alone that are not as they should be, and of them the first, if it was asked in brief.
    pub peers: Vec<PeerStatus>,
    /// Leases that are ignored; the first of them if it was asked in brief.
    pub rejected: Vec<RejectedStatus>,
    /// Nodes that publish this node's public address, in words; the first of them if it was asked in brief.
    pub shared: Vec<String>,
    /// How many there are of peers and ignored leases; nothing from an agent that lists them all.
    pub counts: Option<Counts>,
    /// Services, if weft serves them on this node.
    pub services: Option<ServicesStatus>,
    /// Objects put back since the agent's start, by kind.
    pub repairs: BTreeMap<String, u64>,
    /// Objects that are not as they should be, by table.
    pub failed: BTreeMap<String, i64>,
    /// What is wrong outside of weft, with the command that mends it.
    pub notices: Vec<String>,
}

/// So many of each list a brief document has at most: one document for each of thousands of nodes
/// must not grow with their number.
pub const LISTED: usize = 10;

/// What lists have that are not sent in whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// The other nodes.
    pub peers: usize,
    /// Those that are in the kernel as they should be.
    pub programmed: usize,
    /// Leases that are ignored.
    pub rejected: usize,
}

impl NodeStatus {
    /// The length of its lists, sent in whole or not.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let programmed = || self.peers.iter().filter(|peer| peer.state == PeerState::Programmed).count();
        self.counts.unwrap_or_else(|| Counts {
            peers: self.peers.len(),
            programmed: programmed(),
            rejected: self.rejected.len(),
        })
    }

    /// The same without what grows with the cluster: numbers, and the first of what is wrong.
    #[must_use]
    pub fn brief(mut self) -> Self {
        self.counts = Some(self.counts());
        self.peers.retain(|peer| peer.state != PeerState::Programmed);
        self.peers.truncate(LISTED);
        self.rejected.truncate(LISTED);
        self.shared.truncate(LISTED);
        self
    }
}

/// The API server that the agent asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiServerStatus {
    /// Where it is, host and port.
    pub in_use: String,
    /// Where the one is that the configuration names; another is asked while that is away.
    pub configured: String,
}

impl ApiServerStatus {
    /// What somebody should know of it: nothing, if it is the configured one.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        let Self { in_use, configured } = self;
        (in_use != configured).then(|| format!("the configured API server {configured} is away, {in_use} is asked"))
    }
}

/// A node's lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseStatus {
    /// The node's subnets, IPv4 first.
    pub subnets: Vec<IpNetwork>,
    /// The networks that they are of.
    pub networks: Vec<IpNetwork>,
    /// How many subnets are leased.
    pub used: u64,
    /// How many there are.
    pub total: u64,
    /// Something that someone should see to, although the lease stands.
    pub notice: Option<String>,
}

/// The interface under the overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UplinkStatus {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// A device of the overlay, as one family has it; both may have one and the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// Its VXLAN network identifier, if that is what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// Its UDP port.
    pub port: u16,
    /// Its MAC; a WireGuard device has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The key that its peers know it by, if it is WireGuard's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// The address to which other nodes send.
    pub public_ip: IpAddr,
    /// Its own address, the first of the node's subnet.
    pub address: IpAddr,
    /// Its MTU in bytes; the pods', too.
    pub mtu: u32,
}

/// How a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// Every kernel object is in place.
    Programmed,
    /// Some are not.
    Failed,
    /// It has nothing that this node could reach it by: another back end or another VNI.
    Unreached,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Its name, if the store tells it; flannel records none in etcd.
    pub node: Option<String>,
    /// Its subnets, IPv4 first.
    pub subnets: Vec<IpNetwork>,
    /// The addresses to which encapsulated packets are sent, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// How it is.
    pub state: PeerState,
    /// What the kernel refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A lease that is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedStatus {
    /// Its key, or the node's name.
    pub lease: String,
    /// Why.
    pub reason: String,
}

/// Services.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicesStatus {
    /// `ipvs` or `nftables`.
    pub mode: String,
    /// How many are served.
    pub count: i64,
    /// Their frontends.
    pub frontends: i64,
    /// Their backends, each once for each port.
    pub backends: i64,
    /// Frontends that an older Service has.
    pub conflicts: i64,
    /// Objects, or parts of them, that are left out because they cannot be right.
    pub rejected: i64,
    /// Real servers of IPVS that keep only the connections they have.
    pub draining: i64,
    /// Revision of the source up to which everything is in the kernel.
    pub revision: i64,
}
