//! What weft can be told beyond kubeadm's fields: a document of its own in the same file, or flags.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::bootstrap::stable_name;

/// `apiVersion` of the document.
pub const API_VERSION: &str = "weft.dev/v1";
/// Its `kind`.
pub const KIND: &str = "WeftConfiguration";

/// The document's fields, with their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WeftOptions {
    /// What serves Services.
    pub proxy_mode: ProxyMode,
    /// What carries packets between nodes: `vxlan`.
    pub backend: String,
    /// Mirrors of image registries, tried in their order: `host[:port][/path]`, or `registry=host[:port][/path]` for one
    /// registry only; with `http://` before the host for one without TLS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_mirrors: Vec<String>,
    /// Bundles of images, or directories of them, that are loaded before anything is pulled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<PathBuf>,
    /// Directory with Kubernetes' binaries, of which images are made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes_bin: Option<PathBuf>,
    /// What becomes of swap.
    pub swap: Swap,
    /// The node's address for everything: API server, etcd, kubelet and the overlay.
    #[serde(rename = "nodeIP", skip_serializing_if = "Option::is_none")]
    pub node_ip: Option<IpAddr>,
    /// The interface whose address is taken instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Whether it is waited until the node is Ready and CoreDNS is there.
    pub wait: bool,
    /// Whether what the host has set up wrongly is mended, with a backup.
    pub fix: bool,
    /// Whether sysctls, modules and swap are set as the cluster needs them.
    pub prepare_host: bool,
    /// Whether the API gets a name that each node has lead to a balancer of its own (`bootstrap/stable_name`).
    pub api_balancer: bool,
    /// The balancer's port on the loopback device.
    pub api_balancer_port: u16,
}

impl Default for WeftOptions {
    fn default() -> Self {
        Self {
            proxy_mode: ProxyMode::Auto,
            backend: "vxlan".to_owned(),
            image_mirrors: Vec::new(),
            images: Vec::new(),
            kubernetes_bin: None,
            swap: Swap::Disable,
            node_ip: None,
            interface: None,
            wait: true,
            fix: false,
            prepare_host: true,
            api_balancer: true,
            api_balancer_port: stable_name::PORT,
        }
    }
}

/// What serves Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// IPVS where the kernel has it, else nftables.
    Auto,
    /// IPVS.
    Ipvs,
    /// nftables.
    Nftables,
}

impl ProxyMode {
    /// Its name, as the agent's key `proxy-mode` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
        }
    }
}

/// What becomes of swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Swap {
    /// It is switched off, and stays off.
    Disable,
    /// It stays on, and pods do not use it.
    Tolerate,
    /// It stays on, and burstable pods may use it (kubelet's `LimitedSwap`).
    Limited,
}

impl Swap {
    /// Its name in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Tolerate => "tolerate",
            Self::Limited => "limited",
        }
    }
}
