//! What is going to be put on the machine, as far as checks and preparation ask.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;

use crate::bootstrap::resolved::{Cluster, EtcdPlace, Node, Paths};
use crate::bootstrap::stable_name;
use crate::bootstrap::static_pods::Helper;

/// What the machine is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The first node of a cluster.
    Init,
    /// A further node.
    Join {
        /// One with a control plane.
        control_plane: bool,
    },
}

impl Role {
    /// Whether a control plane comes here.
    #[must_use]
    pub const fn has_control_plane(self) -> bool {
        matches!(self, Self::Init | Self::Join { control_plane: true })
    }
}

/// What is to become of swap space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SwapPolicy {
    /// It is turned off, now and in fstab.
    #[default]
    Disable,
    /// It stays, and kubelet bears it; pods do not use it.
    Tolerate,
    /// It stays, and pods may use some (cgroup v2 only).
    Limited,
}

/// A port on which something of the node will listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// What listens there.
    pub component: &'static str,
    /// The program that does.
    pub program: &'static str,
    /// Whether at the loopback addresses alone: what listens at another address is in nobody's way then.
    pub local: bool,
}

impl Port {
    /// A component of Kubernetes at all addresses.
    const fn of(number: u16, component: &'static str) -> Self {
        Self { number, component, program: component, local: false }
    }
}

/// What is going to be put on the machine.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What the machine is to become.
    pub role: Role,
    /// Where things lie.
    pub paths: Paths,
    /// The Node's name.
    pub node_name: String,
    /// The node's own address.
    pub address: Option<IpAddr>,
    /// Where its API server will listen.
    pub bind_port: u16,
    /// Where this node's balancer of the API will listen; `None` if none is wanted.
    pub api_balancer_port: Option<u16>,
    /// Whether the cluster is one that has balancers: its API servers answer to their name. Not, if nothing is known of it.
    pub has_stable_name: bool,
    /// Addresses of the API server that is joined, as far as they are literal.
    pub endpoints: Vec<IpAddr>,
    /// Ranges of the pods; empty if unknown.
    pub pod_subnets: Vec<IpNetwork>,
    /// Ranges of the Services; empty if unknown.
    pub service_subnets: Vec<IpNetwork>,
    /// Version of the control plane, `v1.36.2`; `None` if unknown.
    pub kubernetes_version: Option<String>,
    /// Where a local etcd keeps its data, `Paths::root` included; `None` without one.
    pub etcd_data: Option<PathBuf>,
    /// The runtime's socket if the user has named it.
    pub cri_socket: Option<String>,
    /// The image that pods' sandboxes should have; `None` if that does not matter.
    pub sandbox_image: Option<String>,
    /// What is to become of swap space.
    pub swap: SwapPolicy,
    /// Whether weft prepares the machine (swap, settings, modules) before it goes on.
    pub prepare: bool,
    /// Whether weft changes what is not its own (containerd's configuration, firewalld).
    pub fix: bool,
    /// Whether weft brings kubelet along.
    pub brings_kubelet: bool,
}

impl Wanted {
    /// The first node of a cluster, or a further control-plane node if `role` says so.
    #[must_use]
    pub fn control_plane(role: Role, cluster: &Cluster, node: &Node, paths: &Paths) -> Self {
        let mut this = Self { role, ..Self::worker(node, paths) };
        this.learn(cluster);
        this
    }

    /// Takes over what a cluster says of itself: its ranges and its version, and where a control plane of it has its state.
    pub fn learn(&mut self, cluster: &Cluster) {
        self.pod_subnets.clone_from(&cluster.pod_subnets);
        self.service_subnets.clone_from(&cluster.service_subnets);
        self.kubernetes_version = Some(cluster.kubernetes_version.clone());
        self.has_stable_name = stable_name::is_known(cluster);
        self.etcd_data = match &cluster.etcd {
            EtcdPlace::Local { data_dir, .. } if self.role.has_control_plane() => Some(under(&self.paths, data_dir)),
            EtcdPlace::Local { .. } | EtcdPlace::External(_) => None,
        };
    }

    /// A further node without a control plane.
    #[must_use]
    pub fn worker(node: &Node, paths: &Paths) -> Self {
        Self {
            role: Role::Join { control_plane: false },
            paths: paths.clone(),
            node_name: node.name.clone(),
            address: Some(node.address),
            bind_port: node.bind_port,
            api_balancer_port: None,
            has_stable_name: false,
            endpoints: Vec::new(),
            pod_subnets: Vec::new(),
            service_subnets: Vec::new(),
            kubernetes_version: None,
            etcd_data: None,
            cri_socket: Some(node.cri_socket.clone()),
            sandbox_image: None,
            swap: SwapPolicy::Disable,
            prepare: true,
            fix: false,
            brings_kubelet: false,
        }
    }

    /// Whether there is IPv4, and whether there is IPv6, in what is known of the cluster.
    #[must_use]
    pub fn families(&self) -> (bool, bool) {
        let subnets = self.pod_subnets.iter().chain(&self.service_subnets).map(IpNetwork::ip);
        let addresses: Vec<IpAddr> = subnets.chain(self.address).chain(self.endpoints.iter().copied()).collect();
        (addresses.iter().any(IpAddr::is_ipv4), addresses.iter().any(IpAddr::is_ipv6))
    }

    /// Ports on which something of the node will listen.
    #[must_use]
    pub fn ports(&self) -> Vec<Port> {
        let mut ports = vec![Port::of(10250, "kubelet")];
        if self.role.has_control_plane() {
            ports.extend([
                Port::of(self.bind_port, "kube-apiserver"),
                Port::of(10259, "kube-scheduler"),
                Port::of(10257, "kube-controller-manager"),
            ]);
        }
        if self.etcd_data.is_some() {
            ports.extend([2379, 2380].map(|number| Port::of(number, "etcd")));
        }
        if let Some(number) = self.api_balancer_port.filter(|_| self.has_stable_name) {
            ports.push(Port { number, component: Helper::Balancer.name(), program: "weft", local: true });
        }
        ports
    }

    /// Files that kubeadm wants not to be there.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        if self.role.has_control_plane() {
            let components = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"];
            let components = components.iter().filter(|name| **name != "etcd" || self.etcd_data.is_some());
            files.extend(components.map(|name| self.paths.manifests().join(format!("{name}.yaml"))));
        }
        if self.role != Role::Init {
            let kubeconfigs = ["kubelet.conf", "bootstrap-kubelet.conf"];
            files.extend(kubeconfigs.map(|name| self.paths.kubernetes.join(name)));
        }
        if self.role == (Role::Join { control_plane: false }) {
            files.push(self.paths.pki.join("ca.crt"));
        }
        files
    }
}

/// A path of the configuration under `Paths::root`.
fn under(paths: &Paths, path: &std::path::Path) -> PathBuf {
    if path.starts_with(&paths.root) {
        path.to_owned()
    } else {
        paths.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::pki::samples::{cluster, node};

    #[test]
    fn p0_18_the_balancers_port_is_known_with_the_cluster() {
        let joins = Wanted { api_balancer_port: Some(7444), ..Wanted::worker(&node(), &Paths::under("/")) };
        let numbers = |cluster: &Cluster| {
            let mut wanted = joins.clone();
            wanted.learn(cluster);
            wanted.ports().iter().map(|port| port.number).collect::<Vec<_>>()
        };
        let mut cluster = cluster();
        assert_eq!(numbers(&cluster), [10250], "kubeadm's clusters have no balancers");
        cluster.api_server.cert_sans.push(stable_name::NAME.to_owned());
        assert_eq!(numbers(&cluster), [10250, 7444]);
    }
}
