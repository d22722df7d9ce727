//! `weft certs generate-csr`: keys, and requests for an authority that is not here.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use ipnetwork::IpNetwork;

use super::{Places, kind};
use crate::bootstrap::config::model::{ApiServer, Component, EncryptionAlgorithm, LocalEtcd, NodeRegistration};
use crate::bootstrap::pki::{Outcome, csr};
use crate::bootstrap::resolved::{Cluster, EtcdPlace, Node};
use crate::bootstrap::stable_name;

/// Make keys and certificate requests for an external authority.
///
/// A key and a request for each certificate, and a kubeconfig without its certificate and a request for each kubeconfig. Have
/// them signed, put the certificates beside the keys (and into the kubeconfigs), and the authorities' certificates without
/// their keys; `weft init` then uses them as they are. Keys and requests that are there are kept.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  weft certs generate-csr --apiserver-advertise-address 192.0.2.10 --cert-dir ./pki --kubeconfig-dir ."
)]
pub(super) struct RequestArgs {
    #[command(flatten)]
    places: Places,

    /// Name of the node; the host's if not given
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,

    /// Address of the node's API server
    #[arg(long, value_name = "ADDRESS")]
    apiserver_advertise_address: std::net::IpAddr,

    /// Port of the node's API server
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    apiserver_bind_port: u16,

    /// Stable host[:port] of the API
    #[arg(long, value_name = "HOST[:PORT]")]
    control_plane_endpoint: Option<String>,

    /// Further names and addresses of the API server, with commas between
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    apiserver_cert_extra_sans: Vec<String>,

    /// Ranges of the ClusterIPs, with a comma between
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', default_value = "10.96.0.0/12")]
    service_cidr: Vec<IpNetwork>,

    /// The cluster's domain
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    service_dns_domain: String,

    /// Kind of the keys, such as ECDSA-P256 or RSA-2048
    #[arg(long, value_name = "KIND", value_parser = kind, default_value = "ECDSA-P256")]
    encryption_algorithm: EncryptionAlgorithm,
}

pub(super) fn run(args: &RequestArgs) -> anyhow::Result<ExitCode> {
    let paths = args.places.paths();
    for step in csr::generate(&cluster(args)?, &node(args)?, &paths, &[])? {
        match step.outcome {
            Outcome::Kept => println!("{}: nothing to do, key and request are there", step.item),
            _ => println!("{}: made", step.item),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn node(args: &RequestArgs) -> anyhow::Result<Node> {
    let hostname = nix::unistd::gethostname()?.to_string_lossy().to_lowercase();
    Ok(Node {
        name: args.node_name.clone().unwrap_or_else(|| hostname.clone()),
        hostname,
        address: args.apiserver_advertise_address,
        second_address: None,
        bind_port: args.apiserver_bind_port,
        taints: Vec::new(),
        registration: NodeRegistration::default(),
        cri_socket: String::new(),
    })
}

/// As much of a cluster as its certificates tell.
fn cluster(args: &RequestArgs) -> anyhow::Result<Cluster> {
    let endpoint = args.control_plane_endpoint.as_deref().map(|text| endpoint(text, args.apiserver_bind_port));
    // The name that weft init would ask for, too.
    let mut cert_sans = args.apiserver_cert_extra_sans.clone();
    cert_sans.push(stable_name::NAME.to_owned());
    let api_server = ApiServer { cert_sans, ..ApiServer::default() };
    Ok(Cluster {
        kubernetes_version: String::new(),
        name: "kubernetes".to_owned(),
        service_subnets: args.service_cidr.clone(),
        pod_subnets: Vec::new(),
        dns_domain: args.service_dns_domain.clone(),
        control_plane_endpoint: endpoint.transpose()?,
        image_repository: String::new(),
        certificates_dir: PathBuf::new(),
        encryption: args.encryption_algorithm,
        certificate_validity: Duration::ZERO,
        ca_validity: Duration::ZERO,
        api_server,
        controller_manager: Component::default(),
        scheduler: Component::default(),
        etcd: EtcdPlace::Local { config: LocalEtcd::default(), image: String::new(), data_dir: PathBuf::new() },
        dns: None,
    })
}

/// `host`, `host:port`, `[v6]:port` or an IPv6 address alone.
fn endpoint(text: &str, default_port: u16) -> anyhow::Result<(String, u16)> {
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        return Ok((address.to_string(), default_port));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host.trim_matches(['[', ']']), port.parse().ok()),
        None => (text, Some(default_port)),
    };
    match port {
        Some(port) if !host.is_empty() => Ok((host.to_owned(), port)),
        _ => bail!("control-plane-endpoint {text:?}: expected host or host:port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_in_each_form() {
        let cases = [
            ("api.example", "api.example", 6443),
            ("api.example:8443", "api.example", 8443),
            ("2001:db8::1", "2001:db8::1", 6443),
            ("[2001:db8::1]:8443", "2001:db8::1", 8443),
        ];
        for (text, host, port) in cases {
            assert_eq!(endpoint(text, 6443).unwrap(), (host.to_owned(), port), "{text}");
        }
        assert!(endpoint("api:foobar", 6443).is_err() && endpoint(":1", 6443).is_err());
    }
}
