//! What a node is told once, when its agent starts.

use std::path::PathBuf;

use weft_cni::formats::conflist::Conflist;
use weft_netlink::sysctl::Sysctl;

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
    /// The kernel settings.
    pub sysctl: Sysctl,
}
