//! The configuration API `kubeadm.k8s.io/v1beta4`, as values (kubeadm 1.36, `cmd/kubeadm/app/apis/kubeadm/v1beta4`).
//!
//! A field that the file leaves out is `None` or empty here; the defaults come in later, so that it can be told which value
//! came from where. Older versions of the API are read into these values as well.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `apiVersion` of these documents.
pub const API_VERSION: &str = "kubeadm.k8s.io/v1beta4";

/// What is the same on each node of the cluster; uploaded as ConfigMap `kubeadm-config`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterConfiguration {
    /// Where the cluster's state lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Etcd>,
    /// The cluster's address ranges and domain.
    pub networking: Networking,
    /// Version of the control plane, `v1.36.2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes_version: Option<String>,
    /// Stable `host[:port]` of the API server for all who are not on its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<String>,
    /// kube-apiserver.
    pub api_server: ApiServer,
    /// kube-controller-manager.
    pub controller_manager: Component,
    /// kube-scheduler.
    pub scheduler: Component,
    /// CoreDNS.
    pub dns: Dns,
    /// kube-proxy.
    pub proxy: Proxy,
    /// Where certificates and keys live: an absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates_dir: Option<String>,
    /// Where images come from, `registry.k8s.io`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_repository: Option<String>,
    /// kubeadm's own feature gates.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub feature_gates: BTreeMap<String, bool>,
    /// The cluster's name in kubeconfigs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Kind of all keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_algorithm: Option<EncryptionAlgorithm>,
    /// How long leaf certificates hold, as Go prints durations: `8760h0m0s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_validity_period: Option<String>,
    /// How long certificate authorities hold, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_certificate_validity_period: Option<String>,
}

/// Kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EncryptionAlgorithm {
    /// RSA with 2048 bits: kubeadm's default.
    #[serde(rename = "RSA-2048")]
    Rsa2048,
    /// RSA with 3072 bits.
    #[serde(rename = "RSA-3072")]
    Rsa3072,
    /// RSA with 4096 bits.
    #[serde(rename = "RSA-4096")]
    Rsa4096,
    /// The curve P-256: weft's default.
    #[serde(rename = "ECDSA-P256")]
    EcdsaP256,
    /// The curve P-384.
    #[serde(rename = "ECDSA-P384")]
    EcdsaP384,
}

/// Address ranges and domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Networking {
    /// Range of the ClusterIPs, or one a family with a comma between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_subnet: Option<String>,
    /// Range of the pods, or one a family with a comma between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_subnet: Option<String>,
    /// The cluster's domain, `cluster.local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_domain: Option<String>,
}

/// Exactly one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Etcd {
    /// A member on each control-plane node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalEtcd>,
    /// Somebody else's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalEtcd>,
}

/// An etcd member as a static pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalEtcd {
    /// Where its image comes from, if not from where the others do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_repository: Option<String>,
    /// Its image's tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
    /// Where it keeps its data: an absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<String>,
    /// Further flags, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<Arg>,
    /// Further environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_envs: Vec<EnvVar>,
    /// Further names of the server certificate.
    #[serde(rename = "serverCertSANs", skip_serializing_if = "Vec::is_empty")]
    pub server_cert_sans: Vec<String>,
    /// Further names of the peer certificate.
    #[serde(rename = "peerCertSANs", skip_serializing_if = "Vec::is_empty")]
    pub peer_cert_sans: Vec<String>,
}

/// An etcd that weft does not run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalEtcd {
    /// URLs of its members.
    pub endpoints: Vec<String>,
    /// URLs of its members' HTTP interface, if that is apart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http_endpoints: Vec<String>,
    /// Its certificate authority.
    pub ca_file: String,
    /// The client certificate for it.
    pub cert_file: String,
    /// That one's key.
    pub key_file: String,
}

/// A component of the control plane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Component {
    /// Further flags, in their order; one that has a default's name takes its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<Arg>,
    /// Further directories and files of the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_volumes: Vec<HostPathMount>,
    /// Further environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_envs: Vec<EnvVar>,
}

/// kube-apiserver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiServer {
    /// What it has in common with the others.
    #[serde(flatten)]
    pub component: Component,
    /// Further names and addresses of its serving certificate.
    #[serde(rename = "certSANs", skip_serializing_if = "Vec::is_empty")]
    pub cert_sans: Vec<String>,
}

/// A flag without its dashes, and its value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arg {
    /// `v`.
    #[serde(default)]
    pub name: String,
    /// `4`.
    #[serde(default)]
    pub value: String,
}

/// An environment variable (core/v1 EnvVar; `valueFrom` is kept as it came).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Where its value comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<serde_json::Value>,
}

/// A file or directory of the host in a static pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostPathMount {
    /// Name of the volume.
    pub name: String,
    /// On the host.
    pub host_path: String,
    /// In the container.
    pub mount_path: String,
    /// Whether the container may only read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// core/v1 HostPathType.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_type: Option<String>,
}

/// CoreDNS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Dns {
    /// Where its image comes from, if not from where the others do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_repository: Option<String>,
    /// Its image's tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
    /// Whether the cluster does without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// kube-proxy, which weft is in the place of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    /// Whether the cluster does without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// What is true of the first node only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InitConfiguration {
    /// Tokens by which others may join.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bootstrap_tokens: Vec<BootstrapToken>,
    /// Whether nothing is to be done, only told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// The node.
    pub node_registration: NodeRegistration,
    /// Where this node's API server listens.
    #[serde(rename = "localAPIEndpoint")]
    pub local_api_endpoint: ApiEndpoint,
    /// Key that uploaded certificates are encrypted with: 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_key: Option<String>,
    /// Phases that are not run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip_phases: Vec<String>,
    /// Patches of the generated files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patches: Option<Patches>,
    /// How long is waited for what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}

/// A bootstrap token.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BootstrapToken {
    /// `[a-z0-9]{6}.[a-z0-9]{16}`.
    pub token: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How long it holds, as Go prints durations; `0s` is for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Until when it holds (RFC 3339), instead of `ttl`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// `signing`, `authentication`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub usages: Vec<String>,
    /// Groups of whoever shows it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// How a node is registered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeRegistration {
    /// The Node's name, if not the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Socket of the container runtime, `unix:///run/containerd/containerd.sock`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cri_socket: Option<String>,
    /// Its taints; `Some(vec![])` is none at all, `None` the default of its role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taints: Option<Vec<Taint>>,
    /// Further flags of kubelet's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubelet_extra_args: Vec<Arg>,
    /// Checks whose failure only warns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_preflight_errors: Vec<String>,
    /// `Always`, `IfNotPresent` or `Never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Whether images are pulled one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_serial: Option<bool>,
}

/// core/v1 Taint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taint {
    /// `node-role.kubernetes.io/control-plane`.
    #[serde(default)]
    pub key: String,
    /// Mostly empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    #[serde(default)]
    pub effect: String,
}

/// Where an API server listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiEndpoint {
    /// The address by which the others reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise_address: Option<String>,
    /// Its port, 6443.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_port: Option<u16>,
}

/// Where patches lie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Patches {
    /// A directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

/// How long is waited for what, as Go prints durations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Timeouts {
    /// `4m0s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_component_health_check: Option<String>,
    /// `4m0s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubelet_health_check: Option<String>,
    /// `1m0s`.
    #[serde(rename = "kubernetesAPICall", skip_serializing_if = "Option::is_none")]
    pub kubernetes_api_call: Option<String>,
    /// `2m0s`.
    #[serde(rename = "etcdAPICall", skip_serializing_if = "Option::is_none")]
    pub etcd_api_call: Option<String>,
    /// `5m0s`.
    #[serde(rename = "tlsBootstrap", skip_serializing_if = "Option::is_none")]
    pub tls_bootstrap: Option<String>,
    /// `5m0s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discovery: Option<String>,
    /// `5m0s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade_manifests: Option<String>,
}

/// What is true of a node that joins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JoinConfiguration {
    /// Whether nothing is to be done, only told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// The node.
    pub node_registration: NodeRegistration,
    /// Where the cluster's certificate authority is written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_cert_path: Option<String>,
    /// How the cluster is found.
    pub discovery: Discovery,
    /// The node's part in the control plane; `None` for a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<JoinControlPlane>,
    /// Phases that are not run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip_phases: Vec<String>,
    /// Patches of the generated files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patches: Option<Patches>,
    /// How long is waited for what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}

/// How a cluster is found: exactly one of token and file.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Discovery {
    /// By a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap_token: Option<BootstrapTokenDiscovery>,
    /// By a kubeconfig.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileDiscovery>,
    /// Token that the kubelet's first certificate is asked for with, if it is another.
    #[serde(rename = "tlsBootstrapToken", skip_serializing_if = "Option::is_none")]
    pub tls_bootstrap_token: Option<String>,
}

/// Finding a cluster by a token.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BootstrapTokenDiscovery {
    /// The token.
    pub token: String,
    /// `host:port` of an API server; several with commas between, tried in turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server_endpoint: Option<String>,
    /// `sha256:<hex>` of the public keys that the cluster's certificate authority may have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ca_cert_hashes: Vec<String>,
    /// Whether the authority is believed without.
    #[serde(rename = "unsafeSkipCAVerification", skip_serializing_if = "Option::is_none")]
    pub unsafe_skip_ca_verification: Option<bool>,
}

/// Finding a cluster by a kubeconfig.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileDiscovery {
    /// A path, or an https URL.
    pub kube_config_path: String,
}

/// A node's part in the control plane.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JoinControlPlane {
    /// Where its API server listens.
    #[serde(rename = "localAPIEndpoint")]
    pub local_api_endpoint: ApiEndpoint,
    /// Key that the uploaded certificates were encrypted with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_key: Option<String>,
}

/// What a reset does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetConfiguration {
    /// Whether kubeadm's folder for temporary files goes, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleanup_tmp_dir: Option<bool>,
    /// Where certificates and keys live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates_dir: Option<String>,
    /// Socket of the container runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cri_socket: Option<String>,
    /// Whether nothing is to be done, only told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// Whether nobody is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Checks whose failure only warns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_preflight_errors: Vec<String>,
    /// Phases that are not run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip_phases: Vec<String>,
    /// `MNT_FORCE`, `MNT_DETACH`, `MNT_EXPIRE`, `UMOUNT_NOFOLLOW`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unmount_flags: Vec<String>,
    /// How long is waited for what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}
