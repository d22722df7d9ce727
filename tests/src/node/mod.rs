//! Real Kubernetes nodes on this machine, for end-to-end tests: containerd and kubelet in namespaces of every kind.
//!
//! ```text
//!   <name>-underlay ┌──────────────── br0 192.168.100.1/24 ────────────────┐   clients outside of the cluster
//!                   └──────┬────────────────────────────────────┬──────────┘
//!                   eth0 .11                               eth0 .12
//!   <name>-n1   containerd, kubelet, weft's pod   <name>-n2   containerd, kubelet, weft's pod
//!               etcd, API server, controller manager, scheduler
//! ```
//!
//! [`machine`] makes the namespaces, [`kubelet`] is what runs in them, [`control`] the control plane, [`cluster`] puts them
//! together, [`bare`] is a machine with a runtime alone, [`machines`] are several, [`kubeadm`] is upstream's tool on one and
//! [`served`] what a cluster of them is for, [`workload`] is what tests run on a cluster, [`flannel`] the agent that weft replaces and
//! [`flannel_addon`] its manifests, [`conformance`] upstream's own tests with [`agnhost`] for their pods. Programs come from
//! [`peers`], images are made by [`image`]; nothing is fetched. All of it ends with its owner, also when a test panics, and several
//! can be there at once.

pub mod agnhost;
pub mod bare;
pub mod cluster;
pub mod conformance;
pub mod control;
pub mod dns;
pub mod flannel;
pub mod flannel_addon;
pub mod image;
pub mod kubeadm;
mod kubelet;
pub mod machine;
pub mod machines;
pub mod peers;
pub mod served;
pub mod workload;

use std::path::Path;

pub use cluster::Cluster;
pub use machine::{Machine, Service};

/// The last lines of a file.
fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    format!("{}:\n{}", path.display(), all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n"))
}
