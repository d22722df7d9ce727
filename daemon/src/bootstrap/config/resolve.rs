//! The configuration as the rooms of the bring-up want it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::facts::Facts;
use super::finding::ConfigError;
use super::model::{ClusterConfiguration, EncryptionAlgorithm, Etcd, LocalEtcd, NodeRegistration, Timeouts};
use super::{address, defaults, detect, rules, versions};
use crate::bootstrap::duration;
use crate::bootstrap::resolved::{Cluster, EtcdPlace, Limits, Node};

/// A cluster as its nodes see it. What the configuration leaves out is kubeadm's default.
///
/// # Errors
/// A value that [`super::check`] would not have let pass, in a configuration that another tool has uploaded.
pub(super) fn cluster(config: &ClusterConfiguration) -> Result<Cluster, ConfigError> {
    let unsound = |message: String| ConfigError::Unsound { kind: "ClusterConfiguration", message };
    let subnets = |field: &str, text: Option<&str>| match text {
        None => Ok(Vec::new()),
        Some(text) => rules::subnets(text).ok_or_else(|| unsound(format!("{field} is {text:?}; expected ranges"))),
    };
    let period = |text: Option<&str>, usual: u64| match text {
        None => Ok(Duration::from_secs(3_600 * usual)),
        Some(text) => duration::parse(text)
            .ok_or_else(|| unsound(format!("a validity is {text:?}; expected {}", duration::EXPECTED))),
    };
    let endpoint = match config.control_plane_endpoint.as_deref() {
        None => None,
        Some(text) => {
            let (host, port) = rules::host_port(text)
                .ok_or_else(|| unsound(format!("controlPlaneEndpoint is {text:?}; expected host:port")))?;
            Some((host, port.unwrap_or(defaults::API_PORT)))
        }
    };
    let repository = config.image_repository.clone().unwrap_or_else(|| versions::IMAGE_REPOSITORY.to_owned());
    let or = |text: &Option<String>, usual: &str| text.clone().unwrap_or_else(|| usual.to_owned());
    let services = or(&config.networking.service_subnet, "10.96.0.0/12");
    Ok(Cluster {
        kubernetes_version: or(&config.kubernetes_version, versions::KUBERNETES),
        name: or(&config.cluster_name, "kubernetes"),
        service_subnets: subnets("networking.serviceSubnet", Some(&services))?,
        pod_subnets: subnets("networking.podSubnet", config.networking.pod_subnet.as_deref())?,
        dns_domain: or(&config.networking.dns_domain, "cluster.local"),
        control_plane_endpoint: endpoint,
        certificates_dir: PathBuf::from(or(&config.certificates_dir, defaults::CERTIFICATES_DIR)),
        // What kubeadm makes where nothing is said; weft itself always says it.
        encryption: config.encryption_algorithm.unwrap_or(EncryptionAlgorithm::Rsa2048),
        certificate_validity: period(config.certificate_validity_period.as_deref(), 8_760)?,
        ca_validity: period(config.ca_certificate_validity_period.as_deref(), 87_600)?,
        api_server: config.api_server.clone(),
        controller_manager: config.controller_manager.clone(),
        scheduler: config.scheduler.clone(),
        etcd: etcd(config.etcd.as_ref(), &repository),
        dns: dns(config, &repository),
        image_repository: repository,
    })
}

fn etcd(config: Option<&Etcd>, repository: &str) -> EtcdPlace {
    match config {
        Some(Etcd { external: Some(external), .. }) => EtcdPlace::External(external.clone()),
        other => {
            let config: LocalEtcd = other.and_then(|etcd| etcd.local.clone()).unwrap_or_default();
            let repository = config.image_repository.as_deref().unwrap_or(repository);
            let tag = config.image_tag.as_deref().unwrap_or(versions::ETCD_TAG);
            let data_dir = PathBuf::from(config.data_dir.as_deref().unwrap_or(defaults::ETCD_DATA_DIR));
            EtcdPlace::Local { image: format!("{repository}/etcd:{tag}"), data_dir, config }
        }
    }
}

/// CoreDNS's image is one level deeper in Kubernetes' own registry, and nowhere else (kubeadm, images.go).
fn dns(config: &ClusterConfiguration, repository: &str) -> Option<(String, String)> {
    if config.dns.disabled == Some(true) {
        return None;
    }
    let tag = config.dns.image_tag.as_deref().unwrap_or(versions::COREDNS_TAG);
    let image = match config.dns.image_repository.as_deref().unwrap_or(repository) {
        versions::IMAGE_REPOSITORY => format!("{}/coredns/coredns", versions::IMAGE_REPOSITORY),
        other => format!("{other}/coredns"),
    };
    Some((image, tag.to_owned()))
}

/// The node, from a registration whose defaults are filled in.
pub(super) fn node(registration: &NodeRegistration, facts: &Facts, address: IpAddr, bind_port: u16) -> Node {
    Node {
        name: registration.name.clone().unwrap_or_default(),
        hostname: detect::hostname(facts),
        address,
        second_address: address::beside(&facts.machine, address),
        bind_port,
        taints: registration.taints.clone().unwrap_or_default(),
        cri_socket: registration.cri_socket.clone().unwrap_or_default(),
        registration: registration.clone(),
    }
}

/// How long is waited for what. A limit that is left out, or is no duration, is the usual one.
pub(super) fn limits(timeouts: Option<&Timeouts>) -> Limits {
    let usual = Limits::default();
    let Some(timeouts) = timeouts else { return usual };
    let or = |text: &Option<String>, usual| text.as_deref().and_then(duration::parse).unwrap_or(usual);
    Limits {
        component: or(&timeouts.control_plane_component_health_check, usual.component),
        kubelet: or(&timeouts.kubelet_health_check, usual.kubelet),
        api_call: or(&timeouts.kubernetes_api_call, usual.api_call),
        etcd_call: or(&timeouts.etcd_api_call, usual.etcd_call),
        tls_bootstrap: or(&timeouts.tls_bootstrap, usual.tls_bootstrap),
        discovery: or(&timeouts.discovery, usual.discovery),
        upgrade: or(&timeouts.upgrade_manifests, usual.upgrade),
    }
}
