//! What a configuration comes to, once defaults and the machine have had their say: what the rooms work from.
//!
//! Everything is given and checked here; nobody below has to guess.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::config::model::{
    ApiServer, Component, EncryptionAlgorithm, ExternalEtcd, LocalEtcd, NodeRegistration, Taint,
};
use super::static_pods::Part;

/// Where things lie on the host. A test, or `--rootfs`, puts them all under another directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// What all others begin with; `/` on a real machine.
    pub root: PathBuf,
    /// `/etc/kubernetes`.
    pub kubernetes: PathBuf,
    /// `/etc/kubernetes/pki`, or where the configuration puts it.
    pub pki: PathBuf,
    /// `/var/lib/kubelet`.
    pub kubelet: PathBuf,
    /// `/var/lib/weft`: the journal.
    pub state: PathBuf,
}

impl Paths {
    /// The usual ones, under `root`.
    #[must_use]
    pub fn under(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let kubernetes = root.join("etc/kubernetes");
        Self {
            pki: kubernetes.join("pki"),
            kubelet: root.join("var/lib/kubelet"),
            state: root.join("var/lib/weft"),
            kubernetes,
            root,
        }
    }

    /// `/var/log/weft`: what a run has said, and what supervised services say.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("var/log/weft")
    }

    /// Where kubelet looks for static pods.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.kubernetes.join("manifests")
    }

    /// The static pod of a part of the control plane.
    #[must_use]
    pub fn manifest(&self, part: Part) -> PathBuf {
        self.manifests().join(format!("{}.yaml", part.name()))
    }
}

/// A cluster, as each of its nodes sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Version of the control plane, `v1.36.2`.
    pub kubernetes_version: String,
    /// Its name in kubeconfigs.
    pub name: String,
    /// Ranges of the ClusterIPs, the first family first.
    pub service_subnets: Vec<IpNetwork>,
    /// Ranges of the pods, the first family first.
    pub pod_subnets: Vec<IpNetwork>,
    /// `cluster.local`.
    pub dns_domain: String,
    /// Stable `host:port` of the API, if there is one.
    pub control_plane_endpoint: Option<(String, u16)>,
    /// Where images come from.
    pub image_repository: String,
    /// Where certificates live, as the components are told (without `Paths::root`).
    pub certificates_dir: PathBuf,
    /// Kind of all keys.
    pub encryption: EncryptionAlgorithm,
    /// How long leaf certificates hold.
    pub certificate_validity: Duration,
    /// How long certificate authorities hold.
    pub ca_validity: Duration,
    /// kube-apiserver.
    pub api_server: ApiServer,
    /// kube-controller-manager.
    pub controller_manager: Component,
    /// kube-scheduler.
    pub scheduler: Component,
    /// Where the state lives.
    pub etcd: EtcdPlace,
    /// CoreDNS's image without its tag (`registry.k8s.io/coredns/coredns`), and the tag; `None` without CoreDNS.
    pub dns: Option<(String, String)>,
}

/// Where a cluster's state lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtcdPlace {
    /// A member on each control-plane node.
    Local {
        /// What the configuration says of it.
        config: LocalEtcd,
        /// Its image.
        image: String,
        /// Where it keeps its data.
        data_dir: PathBuf,
    },
    /// Somebody else's.
    External(ExternalEtcd),
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// The host's own name, in lower case.
    pub hostname: String,
    /// The address by which the others reach it.
    pub address: IpAddr,
    /// Its address of the other family, if it has one: of use where the cluster has both families.
    pub second_address: Option<IpAddr>,
    /// Port of its API server, 6443.
    pub bind_port: u16,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// What the configuration says of it.
    pub registration: NodeRegistration,
    /// Socket of the container runtime with its scheme.
    pub cri_socket: String,
}

impl Node {
    /// `https://<address>:<port>` of this node's own API server.
    #[must_use]
    pub fn local_endpoint(&self) -> String {
        format!("https://{}", std::net::SocketAddr::new(self.address, self.bind_port))
    }
}

impl Cluster {
    /// `https://host:port` for everybody who is not on the node: the stable endpoint if there is one.
    #[must_use]
    pub fn public_endpoint(&self, node: &Node) -> String {
        match &self.control_plane_endpoint {
            Some((host, port)) if host.contains(':') => format!("https://[{host}]:{port}"),
            Some((host, port)) => format!("https://{host}:{port}"),
            None => node.local_endpoint(),
        }
    }
}

/// How long is waited for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A component of the control plane: 4 min.
    pub component: Duration,
    /// kubelet: 4 min.
    pub kubelet: Duration,
    /// A call of the API: 1 min.
    pub api_call: Duration,
    /// A call of etcd: 2 min.
    pub etcd_call: Duration,
    /// kubelet's first certificate: 5 min.
    pub tls_bootstrap: Duration,
    /// Finding the cluster: 5 min.
    pub discovery: Duration,
    /// New static pods of an upgrade: 5 min.
    pub upgrade: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            component: minutes(4),
            kubelet: minutes(4),
            api_call: minutes(1),
            etcd_call: minutes(2),
            tls_bootstrap: minutes(5),
            discovery: minutes(5),
            upgrade: minutes(5),
        }
    }
}
