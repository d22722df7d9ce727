//! Bringing flags, environment, file and defaults together, and the checks that concern more than one key.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::error::ConfigError;
use super::file;
use super::flags::Flags;
use super::flannel;
use super::keys::{KEYS, Key, Settings, find};
use super::kube_proxy;
use super::rule::Rule;
use super::value::Value;
use crate::cluster::etcd::EtcdOptions;
use crate::cluster::kube::KubeOptions;
use crate::cluster::{NetConf, NetConfError};

/// The file that is read if it is there and no other is named.
const DEFAULT_FILE: &str = "/etc/weft/config.yaml";

/// Where flannel's pods find the name of their node.
const NODE_NAME: &str = "NODE_NAME";

/// Where they find their own, by which flannel has the API server tell the node's.
const POD_NAME: &str = "POD_NAME";

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// A flag of flannel's, by its name.
    FlannelFlag(&'static str),
    /// An environment variable, by its name.
    Environment(String),
    /// A configuration file.
    File(PathBuf),
    /// A network configuration of flannel's.
    NetConf(PathBuf),
    /// A key of kube-proxy's in a KubeProxyConfiguration.
    KubeProxy(PathBuf, String),
    /// Nowhere: it is the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => out.write_str("flag"),
            Self::FlannelFlag(name) => write!(out, "flag --{name}"),
            Self::NetConf(path) => write!(out, "net-conf {}", path.display()),
            Self::Environment(name) => write!(out, "environment {name}"),
            Self::File(path) => write!(out, "file {}", path.display()),
            Self::KubeProxy(path, key) => write!(out, "{key} of the kube-proxy configuration {}", path.display()),
            Self::Default => out.write_str("default"),
        }
    }
}

/// One line of the listing of what is in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The key.
    pub key: &'static str,
    /// Its value; stars for a secret.
    pub value: String,
    /// Where the value came from.
    pub origin: Origin,
}

/// A complete configuration, checked.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The value of every key.
    pub settings: Settings,
    /// How to reach the store, from the `etcd-` keys.
    pub etcd: EtcdOptions,
    /// How to reach the API server.
    pub kube: KubeOptions,
    /// The network configuration for a store that has none, from `network` and the keys beside it, or from
    /// `net-config-path`.
    pub network: NetConf,
    /// What is to be logged once there is a log: keys of kube-proxy's that weft has no use for, and differences to it.
    pub warnings: Vec<String>,
    texts: Texts,
}

impl AgentConfig {
    /// Reads the configuration of this process.
    ///
    /// # Errors
    /// Names the key, its value, where that came from and what was expected; or the file and what is wrong with it.
    pub fn load<const AGENT: bool>(flags: &Flags<AGENT>) -> Result<Self, ConfigError> {
        let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self::load_from(flags, variable, Path::new(DEFAULT_FILE))
    }

    /// As [`Self::load`], with the environment and the default file given. An empty variable is as good as none.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_from<const AGENT: bool>(
        flags: &Flags<AGENT>,
        variable: impl Fn(&str) -> Option<String>,
        default_file: &Path,
    ) -> Result<Self, ConfigError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let named = flags.file.clone().or_else(|| variable("WEFT_CONFIG").map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| default_file.to_owned());
        // Only the default file may be missing: whoever names one means it.
        let from_file = match file::read(&path) {
            Err(ConfigError::Unreadable { cause, .. })
                if named.is_none() && cause.kind() == std::io::ErrorKind::NotFound =>
            {
                BTreeMap::new()
            }
            other => other?,
        };
        let mut flannels_flags = flannel::layer(|flag| {
            let texts = flags.texts.get(flag.name).filter(|_| flag.is_foreign())?;
            Some((texts.clone(), Origin::FlannelFlag(flag.name)))
        })?;
        let mut flannels_variables =
            flannel::layer(|flag| Some((vec![variable(&flag.variable())?], Origin::Environment(flag.variable()))))?;
        flannels_flags.join_health(&mut flannels_variables);
        let own = |name: &str| Some((vec![variable(name)?], Origin::Environment(name.to_owned())));
        let given = |key: &Key| {
            let flag = flags.texts.get(key.name).map(|texts| (texts.clone(), Origin::Flag));
            flag.or_else(|| flannels_flags.texts.get(key.name).cloned())
                .or_else(|| own(&key.variable()))
                .or_else(|| flannels_variables.texts.get(key.name).cloned())
                .or_else(|| own(key.flannels_variable()?))
                .or_else(|| Some((from_file.get(key.name)?.clone(), Origin::File(path.clone()))))
        };
        // As flannel has it in its manifest, and only in Kubernetes: elsewhere somebody else may have set it.
        let in_kubernetes = find("source").and_then(given).is_some_and(|(texts, _)| texts.concat() == "kube");
        let pods_node = |key: &Key| own(NODE_NAME).filter(|_| in_kubernetes && key.name == "node-name");
        // Where kube-proxy's file lies only the layers above it say; what is no absolute path, the key's rule refuses below.
        let below = find("kube-proxy-config").and_then(given).map(|(texts, _)| PathBuf::from(texts.concat()));
        let below = below.filter(|path| path.is_absolute());
        let layer = below.as_deref().map(kube_proxy::read).transpose()?.unwrap_or_default();
        let from_layer = |key: &Key| {
            let (from, texts) = layer.texts.get(key.name)?;
            Some((texts.clone(), Origin::KubeProxy(below.clone()?, from.clone())))
        };
        let default = |key: &Key| (vec![(key.default)()], Origin::Default);
        let text = |key: &'static Key| {
            let text = given(key).or_else(|| pods_node(key)).or_else(|| from_layer(key));
            (key.name, text.unwrap_or_else(|| default(key)))
        };
        let texts = Texts(KEYS.iter().map(text).collect());
        let settings = Settings::read(&texts)?;
        let etcd = etcd(&settings, &texts)?;
        let kube = KubeOptions {
            kube_api_server: settings.kube_api_server.as_ref().map(|endpoint| endpoint.0.clone()),
            kubeconfig: settings.kubeconfig.clone(),
        };
        let mut warnings = flannels_flags.warnings;
        warnings.extend(flannels_variables.warnings);
        warnings.extend(layer.warnings);
        let is_own = texts.0.get("node-name").is_some_and(|(_, origin)| *origin == Origin::Default);
        if in_kubernetes && is_own && variable(POD_NAME).is_some() {
            warnings.push(format!(
                "{POD_NAME} is not looked up: the node's name is taken to be the host's, {}; set node-name if it is another",
                settings.node_name
            ));
        }
        let network = match &settings.net_config_path {
            Some(path) => network_in(path, &mut warnings)?,
            None => network(&settings, &texts)?,
        };
        Ok(Self { settings, etcd, kube, network, warnings, texts })
    }

    /// Each key with its value and where that came from, in the order of the table; no secrets.
    pub fn effective(&self) -> impl Iterator<Item = Effective> {
        let file = self.settings.net_config_path.as_ref();
        let in_file = file.map(|path| (path, network_texts(&self.network)));
        KEYS.iter().map(move |key| {
            let is_network = NETWORK_KEYS.iter().any(|(_, known)| *known == key.name);
            let (value, origin) = match &in_file {
                Some((path, texts)) if is_network => {
                    (texts.get(key.name).cloned().unwrap_or_default(), Origin::NetConf((*path).clone()))
                }
                _ => self.texts.shown(key),
            };
            Effective { key: key.name, value, origin }
        })
    }
}

/// Every key's text and origin.
#[derive(Debug, Clone)]
pub(super) struct Texts(BTreeMap<&'static str, (Vec<String>, Origin)>);

impl Texts {
    /// The typed value of a key.
    pub(super) fn read<T: Value>(&self, name: &'static str, rule: &Rule<T>) -> Result<T, ConfigError> {
        let texts = self.0.get(name).map(|(texts, _)| texts.as_slice()).unwrap_or_default();
        T::read(texts).filter(rule.holds).ok_or_else(|| self.wrong(name, rule.expected))
    }

    fn wrong(&self, name: &str, expected: &str) -> ConfigError {
        let (value, origin) = find(name).map_or((String::new(), Origin::Default), |key| self.shown(key));
        ConfigError::Value { key: name.to_owned(), value, origin, expected: expected.to_owned() }
    }

    fn shown(&self, key: &Key) -> (String, Origin) {
        let (texts, origin) = self.0.get(key.name).cloned().unwrap_or((Vec::new(), Origin::Default));
        let value = texts.join(",");
        (if key.is_secret() && !value.is_empty() { "***".to_owned() } else { value }, origin)
    }
}

fn etcd(settings: &Settings, texts: &Texts) -> Result<EtcdOptions, ConfigError> {
    let endpoints: Vec<String> = settings.etcd_endpoints.iter().map(|endpoint| endpoint.0.clone()).collect();
    if endpoints.is_empty() {
        return Err(texts.wrong("etcd-endpoints", <super::value::Endpoint as Value>::EXPECTED));
    }
    if settings.etcd_certfile.is_some() != settings.etcd_keyfile.is_some() {
        return Err(contradiction("etcd-certfile and etcd-keyfile go together: give both or neither"));
    }
    let tls_files = [&settings.etcd_cafile, &settings.etcd_certfile].into_iter().any(Option::is_some);
    let plain = endpoints.iter().find(|endpoint| endpoint.starts_with("http://"));
    let secure = endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
    if let Some(plain) = plain.filter(|_| secure || tls_files) {
        let text =
            format!("etcd-endpoints has {plain}, which is not encrypted, beside TLS settings; use https:// for all");
        return Err(contradiction(&text));
    }
    let password = match (&settings.etcd_password, &settings.etcd_password_file) {
        (Some(_), Some(_)) => return Err(contradiction("give etcd-password or etcd-password-file, not both")),
        (Some(password), None) => Some(password.clone()),
        (None, Some(path)) => Some(password_in(path)?),
        (None, None) => None,
    };
    let user = match (&settings.etcd_username, password) {
        (Some(name), Some(password)) => Some((name.clone(), password)),
        (None, None) => None,
        _ => return Err(contradiction("etcd-username and a password for it go together: give both or neither")),
    };
    Ok(EtcdOptions {
        endpoints,
        cafile: settings.etcd_cafile.clone(),
        certfile: settings.etcd_certfile.clone(),
        keyfile: settings.etcd_keyfile.clone(),
        user,
    })
}

fn password_in(path: &Path) -> Result<String, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The network configuration in a file of flannel's.
fn network_in(path: &Path, warnings: &mut Vec<String>) -> Result<NetConf, ConfigError> {
    let text = std::fs::read(path).map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
    let (network, odd) = NetConf::parse(&text)
        .map_err(|fault| ConfigError::NetConf { path: path.to_owned(), message: fault.to_string() })?;
    warnings.extend(odd.into_iter().map(|warning| format!("{}: {warning}", path.display())));
    Ok(network)
}

/// Keys of a net-conf and those of the configuration that they are made of; no name comes before a longer one that has
/// it in it.
const NETWORK_KEYS: &[(&str, &str)] = &[
    ("IPv6SubnetLen", "ipv6-subnet-len"),
    ("IPv6SubnetMin", "ipv6-subnet-min"),
    ("IPv6SubnetMax", "ipv6-subnet-max"),
    ("IPv6Network", "ipv6-network"),
    ("SubnetLen", "subnet-len"),
    ("SubnetMin", "subnet-min"),
    ("SubnetMax", "subnet-max"),
    ("Network", "network"),
    ("VNI", "vni"),
    ("Port", "vxlan-port"),
];

/// What a network configuration says, by weft's keys.
fn network_texts(network: &NetConf) -> BTreeMap<&'static str, String> {
    // It is our own JSON; if it could not be read there would be nothing to show.
    let conf: serde_json::Value = serde_json::from_str(&network.to_json()).unwrap_or_default();
    let text = |field: &str| match conf.get(field).or_else(|| conf.get("Backend")?.get(field))? {
        serde_json::Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    NETWORK_KEYS.iter().filter_map(|(field, key)| Some((*key, text(field)?))).collect()
}

/// The network configuration, by way of its JSON form, so that its rules stand in one place.
fn network(settings: &Settings, texts: &Texts) -> Result<NetConf, ConfigError> {
    let text = json!({
        "EnableIPv4": settings.network.is_some(),
        "Network": settings.network.map(|network| network.to_string()),
        "SubnetLen": settings.subnet_len,
        "SubnetMin": settings.subnet_min,
        "SubnetMax": settings.subnet_max,
        "EnableIPv6": settings.ipv6_network.is_some(),
        "IPv6Network": settings.ipv6_network.map(|network| network.to_string()),
        "IPv6SubnetLen": settings.ipv6_subnet_len,
        "IPv6SubnetMin": settings.ipv6_subnet_min,
        "IPv6SubnetMax": settings.ipv6_subnet_max,
        "Backend": {"Type": "vxlan", "VNI": settings.vni, "Port": settings.vxlan_port},
    });
    let fault = match NetConf::parse(text.to_string().as_bytes()) {
        Ok((network, _)) => return Ok(network),
        Err(fault) => fault,
    };
    let (field, expected) = match &fault {
        NetConfError::Field { key: "EnableIPv4", .. } => {
            return Err(contradiction("network and ipv6-network are both empty; give at least one"));
        }
        NetConfError::Field { key, expected, .. } => (*key, expected.as_str()),
        NetConfError::NotAnObject(_) => ("Network", "a network"),
    };
    // One bound may be wrong because of the other, which then is named, too.
    let expected = NETWORK_KEYS.iter().fold(expected.to_owned(), |text, (field, key)| text.replace(field, key));
    let name = NETWORK_KEYS.iter().find(|(known, _)| *known == field).map_or(field, |(_, key)| key);
    Err(texts.wrong(name, &expected))
}

fn contradiction(text: &str) -> ConfigError {
    ConfigError::Contradiction(text.to_owned())
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
