//! What bring-up says to the API server and to etcd, kubeadm's way: configuration, certificates, tokens, rights, addons;
//! and how a new node finds a cluster and comes to trust it.
//!
//! Every step is convergent: what is as wanted is not written again, and a call tries again until its time is over while the
//! control plane is getting up. Objects come from pure functions and are JSON; tokens and keys never show in `Debug` or logs.

mod addons;
mod admin;
mod certs;
mod cluster_info;
mod config_maps;
mod discovery;
mod error;
mod etcd;
mod first_certificate;
mod join_command;
mod jws;
mod mark;
mod nodes;
mod object;
mod pin;
mod rbac;
mod sealed;
mod server;
mod survey;
mod token;
#[cfg(test)]
mod token_tests;
mod tokens;

pub use addons::{
    CoreDns, Hear, WeftAddon, apply_coredns, apply_weft, await_available, await_node, coredns_image, coredns_objects,
    dns_address, read_weft_settings, weft_objects,
};
pub use admin::admin;
pub use certs::{certificate_files, download_certs, upload_certs};
pub use cluster_info::{ClusterInfo, publish_cluster_info, read_cluster_info, sign_cluster_info};
pub use config_maps::{
    is_kubelet_config_generated, read_kubeadm_config, read_kubelet_config, upload_kubeadm_config, upload_kubelet_config,
};
pub use discovery::{Credentials, Discovered, DiscoveryError, discover};
pub use error::ApiError;
pub use etcd::{EtcdAccess, EtcdCluster, EtcdEntry, EtcdError, EtcdHealth, EtcdLeft, EtcdMember, etcd_endpoints};
pub use first_certificate::first_certificate;
pub use join_command::{CertificateArgument, JoinCommand, Joiner};
pub use mark::mark_control_plane;
pub use nodes::refuse_ready_node;
pub use object::Outcome;
pub use pin::{Pin, PinError};
pub use sealed::{CertificateKey, KeyError};
pub use server::{Existing, FIELD_MANAGER, Server, Witness};
pub use survey::{NodeSeen, PodSeen, control_plane_pods, node_seen, nodes, server_version};
pub use token::{DEFAULT_GROUP, Token, TokenError, TokenSpec, id_of};
pub use tokens::{create_token, delete_token, ensure_token, list_tokens};
