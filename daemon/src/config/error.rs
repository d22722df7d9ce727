//! What can be wrong with a configuration.

use std::path::PathBuf;

use super::load::Origin;

/// A configuration that cannot be used. The message names the key, its value, where that came from, and what is right.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {cause}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The file is not YAML, or not a mapping of keys to scalars and lists of scalars.
    #[error("the configuration file {path} is not a list of `key: value` lines: {message}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// The file is not a configuration of kube-proxy's.
    #[error("{path} is not a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1): {message}", path = path.display())]
    NotKubeProxy {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// The file is not a network configuration of flannel's.
    #[error("the network configuration {path}: {message}", path = path.display())]
    NetConf {
        /// The file.
        path: PathBuf,
        /// The field and what is wrong with it.
        message: String,
    },
    /// A key that does not exist.
    #[error("{path}: there is no key {key:?}{hint}", path = path.display(), hint = hint(nearest.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The key that was probably meant.
        nearest: Option<String>,
    },
    /// A value that does not suit its key.
    #[error("{key} is {value:?} ({origin}); expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// The value, or what stands for a secret one.
        value: String,
        /// Where it came from.
        origin: Origin,
        /// What would be right.
        expected: String,
    },
    /// Values that do not go together.
    #[error("{0}")]
    Contradiction(String),
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean {nearest:?}?")).unwrap_or_default()
}
