//! A cluster and a node for this room's tests.

use std::path::PathBuf;
use std::time::Duration;

use crate::bootstrap::config::model::{ApiServer, Component, EncryptionAlgorithm, LocalEtcd, NodeRegistration};
use crate::bootstrap::resolved::{Cluster, EtcdPlace, Node};

/// With weft's defaults.
pub(crate) fn cluster() -> Cluster {
    let hours = |hours: u64| Duration::from_secs(3600 * hours);
    Cluster {
        kubernetes_version: "v1.36.2".to_owned(),
        name: "kubernetes".to_owned(),
        service_subnets: vec!["10.96.0.0/12".parse().unwrap()],
        pod_subnets: vec!["10.244.0.0/16".parse().unwrap()],
        dns_domain: "cluster.local".to_owned(),
        control_plane_endpoint: None,
        image_repository: "registry.k8s.io".to_owned(),
        certificates_dir: PathBuf::from("/etc/kubernetes/pki"),
        encryption: EncryptionAlgorithm::EcdsaP256,
        certificate_validity: hours(8760),
        ca_validity: hours(87_600),
        api_server: ApiServer::default(),
        controller_manager: Component::default(),
        scheduler: Component::default(),
        etcd: EtcdPlace::Local {
            config: LocalEtcd::default(),
            image: "registry.k8s.io/etcd:3.6.8-0".to_owned(),
            data_dir: PathBuf::from("/var/lib/etcd"),
        },
        dns: None,
    }
}

/// `n1` at 192.0.2.10.
pub(crate) fn node() -> Node {
    Node {
        name: "n1".to_owned(),
        hostname: "n1".to_owned(),
        address: "192.0.2.10".parse().unwrap(),
        second_address: None,
        bind_port: 6443,
        taints: Vec::new(),
        registration: NodeRegistration::default(),
        cri_socket: "unix:///run/containerd/containerd.sock".to_owned(),
    }
}
