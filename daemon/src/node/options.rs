//! What a node is told once, when its agent starts.

use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;
use weft_cni::formats::conflist::Conflist;
use weft_netlink::sysctl::Sysctl;

use crate::cluster::Events;
use crate::cluster::node::NodeName;
use crate::overlay::uplink::UplinkSpec;
use crate::publish::Places;

/// How this node is to be.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The node's name.
    pub name: NodeName,
    /// Identifies the cluster in the VTEPs' MACs: the prefix in its store.
    pub cluster: String,
    /// How the interface under the overlay is chosen.
    pub uplink: UplinkSpec,
    /// The bridge.
    pub bridge: String,
    /// Whether pods that leave the cluster network take on the node's address.
    pub ip_masq: bool,
    /// Networks that pods reach under their own addresses all the same.
    pub no_masquerade: Vec<IpNetwork>,
    /// Whether masquerade takes ports fully at random.
    pub random_ports: bool,
    /// Whether pods' packets are accepted on their way through the node.
    pub forward_rules: bool,
    /// Whether packets to the node's own subnets end here at the latest.
    pub blackhole_route: bool,
    /// Where the node's files go.
    pub places: Places,
    /// The conflist to install.
    pub conflist: Conflist,
    /// Where the plugin records its attachments.
    pub cni_state_dir: PathBuf,
    /// Where the node's private key is kept, for a back end that needs one.
    pub key_file: PathBuf,
    /// Where the record of changed settings is.
    pub run_dir: PathBuf,
    /// The time within which everything is repaired, events or not.
    pub repair_interval: Duration,
    /// The kernel settings.
    pub sysctl: Sysctl,
    /// Where the cluster is told what somebody should mend.
    pub events: Events,
}
