//! The flags of `weft init`, `weft join` and `weft reset`: kubeadm's names, and weft's own. All of them go with `--config`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{ArgAction, Args};

use super::secret::Secret;
use super::tables::ENCRYPTION;
use super::weft::{ProxyMode, Swap};

/// What init and join have in common.
#[derive(Debug, Clone, Default, Args)]
pub struct NodeFlags {
    /// File with kubeadm's configuration (v1beta2 to v1beta4) and weft's; flags go over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address by which the other nodes reach this node's API server; the default route's interface has it if not given
    #[arg(long, value_name = "IP")]
    pub apiserver_advertise_address: Option<IpAddr>,

    /// Port of this node's API server [default: 6443]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub apiserver_bind_port: Option<u16>,

    /// Key that uploaded certificates are encrypted with: 64 hexadecimal digits
    #[arg(long, value_name = "KEY")]
    pub certificate_key: Option<Secret>,

    /// Socket of the container runtime; the one that is there if not given
    #[arg(long, value_name = "SOCKET")]
    pub cri_socket: Option<String>,

    /// Say what would be done, and do nothing
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub dry_run: Option<bool>,

    /// Checks whose failure only warns; all for all of them
    #[arg(long, value_delimiter = ',', value_name = "CHECK")]
    pub ignore_preflight_errors: Vec<String>,

    /// Name of the node; the host's, in lower case, if not given
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// Directory with patches of the generated files
    #[arg(long, value_name = "DIR")]
    pub patches: Option<PathBuf>,

    /// Phases that are not run
    #[arg(long, value_delimiter = ',', value_name = "PHASE")]
    pub skip_phases: Vec<String>,

    /// The node's address for everything: API server, etcd, kubelet and the overlay
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,

    /// Interface whose address is taken for everything
    #[arg(long, value_name = "NAME", conflicts_with = "node_ip")]
    pub iface: Option<String>,

    /// Mirror of image registries, host[:port][/path] or registry=host[:port][/path]; several are tried in their order
    #[arg(long, value_delimiter = ',', value_name = "MIRROR")]
    pub image_mirror: Vec<String>,

    /// Bundle of images, or directory of bundles, that is loaded before anything is pulled
    #[arg(long, value_delimiter = ',', value_name = "FILE|DIR")]
    pub images: Vec<PathBuf>,

    /// Directory with Kubernetes' binaries, of which images are made: no registry is needed
    #[arg(long, value_name = "DIR")]
    pub kubernetes_bin: Option<PathBuf>,

    /// What becomes of swap [default: disable]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub swap: Option<Swap>,

    /// Wait until the node is Ready and CoreDNS is there [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub wait: Option<bool>,

    /// Mend what the host has set up wrongly, and keep a backup
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub fix: Option<bool>,

    /// Set sysctls, modules and swap as the cluster needs them [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub prepare_host: Option<bool>,
}

/// The flags of `weft init`.
#[derive(Debug, Clone, Default, Args)]
pub struct InitFlags {
    /// What init and join have in common.
    #[command(flatten)]
    pub node: NodeFlags,

    /// Further names and addresses of the API server's certificate
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub apiserver_cert_extra_sans: Vec<String>,

    /// Directory of certificates and keys [default: /etc/kubernetes/pki]
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,

    /// Stable host[:port] of the API server, which more control-plane nodes can stand behind
    #[arg(long, value_name = "HOST")]
    pub control_plane_endpoint: Option<String>,

    /// kubeadm's feature gates, name=true,...
    #[arg(long, value_delimiter = ',', value_name = "GATE")]
    pub feature_gates: Vec<String>,

    /// Where images come from [default: registry.k8s.io]
    #[arg(long, value_name = "REPOSITORY")]
    pub image_repository: Option<String>,

    /// Version of the control plane; the one that this weft is made for if not given
    #[arg(long, value_name = "VERSION")]
    pub kubernetes_version: Option<String>,

    /// Range of the pods, one a family with a comma between [default: 10.244.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub pod_network_cidr: Option<String>,

    /// Range of the Services, one a family with a comma between [default: 10.96.0.0/12]
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<String>,

    /// The cluster's domain [default: cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    pub service_dns_domain: Option<String>,

    /// Bootstrap token that others may join by; a new one if not given
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<Secret>,

    /// How long that token holds; 0 is for ever [default: 24h0m0s]
    #[arg(long, value_name = "DURATION")]
    pub token_ttl: Option<String>,

    /// Kind of all keys: ECDSA-P256, ECDSA-P384, RSA-2048, RSA-3072 or RSA-4096 [default: ECDSA-P256]
    #[arg(long, value_parser = PossibleValuesParser::new(ENCRYPTION), hide_possible_values = true, value_name = "KIND")]
    pub encryption_algorithm: Option<String>,

    /// What serves Services [default: auto]
    #[arg(long, value_enum, value_name = "MODE")]
    pub proxy_mode: Option<ProxyMode>,

    /// What carries packets between nodes: vxlan [default: vxlan]
    #[arg(long, value_parser = ["vxlan"], hide_possible_values = true, value_name = "BACKEND")]
    pub backend: Option<String>,

    /// Upload the certificates of the control plane, encrypted, for others that join it
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, value_name = "BOOL")]
    pub upload_certs: bool,

    /// Do not print the token
    #[arg(long)]
    pub skip_token_print: bool,

    /// Do not print the key of the uploaded certificates
    #[arg(long)]
    pub skip_certificate_key_print: bool,
}

/// The flags of `weft join`.
#[derive(Debug, Clone, Default, Args)]
pub struct JoinFlags {
    /// host:port of an API server of the cluster; several with commas between are tried in turn
    #[arg(value_name = "ENDPOINT")]
    pub endpoint: Option<String>,

    /// What init and join have in common.
    #[command(flatten)]
    pub node: NodeFlags,

    /// Join the control plane, too
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub control_plane: Option<bool>,

    /// Kubeconfig, or its https URL, by which the cluster is found
    #[arg(long, value_name = "FILE|URL")]
    pub discovery_file: Option<String>,

    /// Token by which the cluster is found
    #[arg(long, value_name = "TOKEN")]
    pub discovery_token: Option<Secret>,

    /// sha256:<hex> of the public key of the cluster's certificate authority
    #[arg(long, value_delimiter = ',', value_name = "HASH")]
    pub discovery_token_ca_cert_hash: Vec<String>,

    /// Believe whatever certificate authority the cluster shows
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub discovery_token_unsafe_skip_ca_verification: Option<bool>,

    /// Token that kubelet's first certificate is asked for with
    #[arg(long, value_name = "TOKEN")]
    pub tls_bootstrap_token: Option<Secret>,

    /// Token for both, if they are not given
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<Secret>,
}

/// The flags of `weft reset`.
#[derive(Debug, Clone, Default, Args)]
pub struct ResetFlags {
    /// File with a ResetConfiguration; flags go over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Directory of certificates and keys; that of the cluster's configuration if not given
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,

    /// Remove kubeadm's folder of temporary files, too
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub cleanup_tmp_dir: Option<bool>,

    /// Socket of the container runtime; the one that is there if not given
    #[arg(long, value_name = "SOCKET")]
    pub cri_socket: Option<String>,

    /// Say what would be done, and do nothing
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub dry_run: Option<bool>,

    /// Do not ask
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub force: Option<bool>,

    /// Checks whose failure only warns; all for all of them
    #[arg(long, value_delimiter = ',', value_name = "CHECK")]
    pub ignore_preflight_errors: Vec<String>,

    /// Phases that are not run
    #[arg(long, value_delimiter = ',', value_name = "PHASE")]
    pub skip_phases: Vec<String>,
}
