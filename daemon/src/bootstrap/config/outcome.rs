//! What the commands call: a configuration for init, join and reset, the reading of an uploaded one, and the verbs of
//! `weft config`.

use std::path::Path;

use serde_json::Value;

use super::assemble::{self, Assembled};
use super::documents::{Documents, Kind};
use super::facts::Facts;
use super::finding::{ConfigError, Finding, judge};
use super::flags::{InitFlags, JoinFlags, ResetFlags};
use super::layers::Layers;
use super::model::{ClusterConfiguration, InitConfiguration, JoinConfiguration, ResetConfiguration};
use super::secret::Secret;
use super::weft::WeftOptions;
use super::{defaults, render, resolve};
use crate::bootstrap::resolved::{Cluster, Limits, Node};

/// All that `weft init` goes by.
#[derive(Debug, Clone)]
pub struct InitConfig {
    /// The cluster.
    pub cluster: Cluster,
    /// This node.
    pub node: Node,
    /// How long is waited for what.
    pub limits: Limits,
    /// The document, defaults filled in: tokens, phases to skip, patches, certificate key.
    pub init: InitConfiguration,
    /// The document as it is uploaded ([`super::uploaded`] writes it): defaults filled in, kube-proxy disabled.
    pub cluster_configuration: ClusterConfiguration,
    /// The file's `KubeletConfiguration`, as it came.
    pub kubelet: Option<Value>,
    /// The file's `KubeProxyConfiguration`, as it came; its mode is in [`WeftOptions::proxy_mode`].
    pub kube_proxy: Option<Value>,
    /// Whether the user gave the first token. Else it is a new one, and an earlier run's may be kept in its place.
    pub is_token_given: bool,
    /// weft's own options.
    pub weft: WeftOptions,
    /// What the user should know.
    pub notices: Vec<Finding>,
    /// Each value and where it is from.
    pub layers: Layers,
}

/// All that `weft join` goes by until it has found the cluster; [`read_uploaded`] reads the rest.
#[derive(Debug, Clone)]
pub struct JoinConfig {
    /// This node.
    pub node: Node,
    /// How long is waited for what.
    pub limits: Limits,
    /// The document, defaults filled in; `control_plane` is `None` for a worker.
    pub join: JoinConfiguration,
    /// weft's own options.
    pub weft: WeftOptions,
    /// What the user should know.
    pub notices: Vec<Finding>,
    /// Each value and where it is from.
    pub layers: Layers,
}

/// All that `weft reset` goes by.
#[derive(Debug, Clone)]
pub struct ResetConfig {
    /// The document, defaults filled in.
    pub reset: ResetConfiguration,
    /// How long is waited for what.
    pub limits: Limits,
    /// What the user should know.
    pub notices: Vec<Finding>,
    /// Each value and where it is from.
    pub layers: Layers,
}

/// A cluster's configuration as a joining node finds it.
#[derive(Debug, Clone)]
pub struct UploadedConfig {
    /// The cluster.
    pub cluster: Cluster,
    /// The document as it was uploaded, in today's terms.
    pub configuration: ClusterConfiguration,
    /// What is odd about it.
    pub notices: Vec<Finding>,
}

/// The configuration of `weft init`.
///
/// # Errors
/// The file cannot be read, or everything that is wrong with it and the flags.
pub fn init(flags: &InitFlags, facts: &Facts) -> Result<InitConfig, ConfigError> {
    let mut documents = read(flags.node.config.as_deref())?;
    let Assembled { mut layers, findings, address } = assemble::init(&documents, flags, facts);
    let notices = all(std::mem::take(&mut documents.findings), findings)?;
    let init: InitConfiguration = layers.document(Kind::Init)?;
    let port = init.local_api_endpoint.bind_port.unwrap_or(defaults::API_PORT);
    defaults::api(&mut layers, std::net::SocketAddr::new(address, port));
    let cluster_configuration: ClusterConfiguration = layers.document(Kind::Cluster)?;
    Ok(InitConfig {
        cluster: resolve::cluster(&cluster_configuration)?,
        node: resolve::node(&init.node_registration, facts, address, port),
        limits: resolve::limits(init.timeouts.as_ref()),
        weft: layers.document(Kind::Weft)?,
        kubelet: foreign(&documents, Kind::Kubelet),
        kube_proxy: foreign(&documents, Kind::KubeProxy),
        is_token_given: init.bootstrap_tokens.first().is_some_and(|first| first.token != facts.token.0),
        init,
        cluster_configuration,
        notices,
        layers,
    })
}

/// The configuration of `weft join`.
///
/// # Errors
/// The file cannot be read, or everything that is wrong with it and the flags.
pub fn join(flags: &JoinFlags, facts: &Facts) -> Result<JoinConfig, ConfigError> {
    let documents = read(flags.node.config.as_deref())?;
    let Assembled { layers, findings, address } = assemble::join(&documents, flags, facts);
    let notices = all(documents.findings, findings)?;
    let join: JoinConfiguration = layers.document(Kind::Join)?;
    let port = join.control_plane.as_ref().and_then(|part| part.local_api_endpoint.bind_port);
    let port = port.unwrap_or(defaults::API_PORT);
    Ok(JoinConfig {
        node: resolve::node(&join.node_registration, facts, address, port),
        limits: resolve::limits(join.timeouts.as_ref()),
        weft: layers.document(Kind::Weft)?,
        join,
        notices,
        layers,
    })
}

/// The configuration of `weft reset`.
///
/// # Errors
/// The file cannot be read, or everything that is wrong with it and the flags.
pub fn reset(flags: &ResetFlags, facts: &Facts) -> Result<ResetConfig, ConfigError> {
    let documents = read(flags.config.as_deref())?;
    let (layers, findings) = assemble::reset(&documents, flags, facts);
    let notices = all(documents.findings, findings)?;
    let reset: ResetConfiguration = layers.document(Kind::Reset)?;
    Ok(ResetConfig { limits: resolve::limits(reset.timeouts.as_ref()), reset, notices, layers })
}

/// Reads the key `ClusterConfiguration` of ConfigMap kube-system/kubeadm-config, whoever has written it.
///
/// # Errors
/// It is no such document, or a value cannot be used.
pub fn read_uploaded(text: &str) -> Result<UploadedConfig, ConfigError> {
    let documents = Documents::parse("ConfigMap kube-system/kubeadm-config", text)?;
    let is_there = documents.found.contains_key(&Kind::Cluster);
    let layers = Layers::of(&documents, &[Kind::Cluster]);
    let notices = judge(documents.findings, false)?;
    if !is_there {
        let message = "it has no ClusterConfiguration".to_owned();
        return Err(ConfigError::Unsound { kind: Kind::Cluster.name(), message });
    }
    let configuration: ClusterConfiguration = layers.document(Kind::Cluster)?;
    Ok(UploadedConfig { cluster: resolve::cluster(&configuration)?, configuration, notices })
}

/// Looks at a file as strictly as can be, without this machine: unknown and repeated fields are errors.
///
/// Returns what the user should know all the same.
///
/// # Errors
/// The file cannot be read, or everything that is wrong with it.
pub fn validate(path: &Path) -> Result<Vec<Finding>, ConfigError> {
    let mut documents = Documents::read(path)?;
    let facts = Facts::unknown();
    let mut findings = std::mem::take(&mut documents.findings);
    let has = |kinds: &[Kind]| kinds.iter().any(|kind| documents.found.contains_key(kind));
    // weft's document alone is looked at as part of an init.
    if has(&[Kind::Init, Kind::Cluster]) || (has(&[Kind::Weft]) && !has(&[Kind::Join])) {
        findings.extend(assemble::init(&documents, &InitFlags::default(), &facts).findings);
    }
    if has(&[Kind::Join]) {
        findings.extend(assemble::join(&documents, &JoinFlags::default(), &facts).findings);
    }
    if has(&[Kind::Reset]) {
        findings.extend(assemble::reset(&documents, &ResetFlags::default(), &facts).1);
    }
    let mut unique: Vec<Finding> = Vec::new();
    for finding in findings {
        if !unique.contains(&finding) {
            unique.push(finding);
        }
    }
    judge(unique, true)
}

/// A file in today's terms, nothing added: its text, and what the user should know.
///
/// # Errors
/// The file cannot be read, or everything that is wrong with it.
pub fn migrate(path: &Path) -> Result<(String, Vec<Finding>), ConfigError> {
    let mut documents = Documents::read(path)?;
    let notices = judge(std::mem::take(&mut documents.findings), false)?;
    Ok((render::documents(&documents), notices))
}

/// Whose defaults are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defaults {
    /// `weft init`'s.
    Init,
    /// `weft join`'s.
    Join,
    /// `weft reset`'s.
    Reset,
}

/// The defaults as a file, with placeholders where a default depends on the machine or is a secret, as with kubeadm.
/// `with_weft` adds weft's own document, which `kubeadm config validate` does not take.
#[must_use]
pub fn print_defaults(which: Defaults, with_weft: bool) -> String {
    let print = |layers: &Layers, kinds: &[Kind]| {
        let weft: &[Kind] = if with_weft { &[Kind::Weft] } else { &[] };
        render::layers(layers, &[kinds, weft].concat())
    };
    let (documents, facts) = (Documents::default(), Facts::unknown());
    match which {
        Defaults::Init => {
            let assembled = assemble::init(&documents, &InitFlags::default(), &facts);
            print(&assembled.layers, &[Kind::Init, Kind::Cluster])
        }
        Defaults::Join => {
            let flags = JoinFlags {
                endpoint: Some(format!("kube-apiserver:{}", defaults::API_PORT)),
                token: Some(Secret(facts.token.0.clone())),
                discovery_token_unsafe_skip_ca_verification: Some(true),
                ..JoinFlags::default()
            };
            let assembled = assemble::join(&documents, &flags, &facts);
            print(&assembled.layers, &[Kind::Join])
        }
        Defaults::Reset => {
            let (layers, _) = assemble::reset(&documents, &ResetFlags::default(), &facts);
            print(&layers, &[Kind::Reset])
        }
    }
}

fn read(path: Option<&Path>) -> Result<Documents, ConfigError> {
    path.map_or_else(|| Ok(Documents::default()), Documents::read)
}

/// Of the file and of all the rest: what is wrong is an error, the rest is worth a word.
fn all(mut of_file: Vec<Finding>, others: Vec<Finding>) -> Result<Vec<Finding>, ConfigError> {
    of_file.extend(others);
    judge(of_file, false)
}

fn foreign(documents: &Documents, kind: Kind) -> Option<Value> {
    documents.found.get(&kind).map(|document| Value::Object(document.value.clone()))
}
