//! How the API server is reached: which address, and which credentials.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use super::explain::chain;
use super::servers::Servers;
use super::transport;

/// How to reach the API server. The names are those of the configuration keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeOptions {
    /// URL such as `https://192.0.2.10:6443`. It wins over the address in the kubeconfig, and over the cluster's own Service
    /// address, which nobody serves before weft does.
    pub kube_api_server: Option<String>,
    /// A kubeconfig. Without one, the credentials are those that Kubernetes mounts into a pod.
    pub kubeconfig: Option<PathBuf>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {path}: {message}", path = path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// There is nothing to go by.
    #[error("no kubeconfig is given, and this is no pod of a cluster: {0}")]
    NoCluster(String),
    /// The address is no URL of an API server.
    #[error("kube-api-server is {0:?}; expected a URL such as https://192.0.2.10:6443")]
    Address(String),
    /// Certificates, keys or a token cannot be used.
    #[error("no client for the API server at {url}: {message}")]
    Client {
        /// The address.
        url: String,
        /// What is wrong.
        message: String,
    },
}

/// Makes a client. This does not wait for the API server: connections are made on use, and made again after each outage.
/// A token in a file is read again each time.
///
/// # Errors
/// Files that cannot be read, or that say what cannot be.
pub async fn connect(options: &KubeOptions) -> Result<Client, ConnectError> {
    connect_through(options, &Arc::default()).await
}

/// Makes a client that goes on with another of these servers when the configured one is away; otherwise as [`connect`].
///
/// # Errors
/// Files that cannot be read, or that say what cannot be.
pub async fn connect_through(options: &KubeOptions, servers: &Arc<Servers>) -> Result<Client, ConnectError> {
    let mut config = match &options.kubeconfig {
        Some(path) => from_kubeconfig(path).await?,
        // A pod is told the Service's address; where that is not, it is not needed if another is given.
        None => match Config::incluster_env() {
            Err(InClusterError::ReadEnvironmentVariable(_)) if options.kube_api_server.is_some() => {
                Config::incluster_dns().map_err(|error| no_cluster(&error))?
            }
            other => other.map_err(|error| no_cluster(&error))?,
        },
    };
    if let Some(address) = &options.kube_api_server {
        config.cluster_url = address.parse().map_err(|_| ConnectError::Address(address.clone()))?;
    }
    client(config, Arc::clone(servers))
}

/// Makes a client of a kubeconfig that is in no file; otherwise as [`connect`].
///
/// # Errors
/// A kubeconfig that cannot be used.
pub async fn connect_as(kubeconfig: Kubeconfig) -> Result<Client, ConnectError> {
    let refused =
        |error: KubeconfigError| ConnectError::Kubeconfig { path: "(in memory)".into(), message: chain(&error) };
    client(
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(refused)?,
        Arc::default(),
    )
}

fn client(config: Config, servers: Arc<Servers>) -> Result<Client, ConnectError> {
    let url = config.cluster_url.to_string();
    transport::client(config, servers).map_err(|error| ConnectError::Client { url, message: chain(error.as_ref()) })
}

async fn from_kubeconfig(path: &Path) -> Result<Config, ConnectError> {
    let refused = |error: KubeconfigError| ConnectError::Kubeconfig { path: path.to_owned(), message: chain(&error) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(refused)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(refused)
}

fn no_cluster(error: &InClusterError) -> ConnectError {
    ConnectError::NoCluster(chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_used_is_named() {
        let missing = KubeOptions { kubeconfig: Some("/nonexistent/kubeconfig".into()), ..KubeOptions::default() };
        let text = connect(&missing).await.err().unwrap().to_string();
        assert!(text.starts_with("kubeconfig /nonexistent/kubeconfig: "), "{text}");

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "not: [a kubeconfig").unwrap();
        let broken = KubeOptions { kubeconfig: Some(file.path().to_owned()), ..KubeOptions::default() };
        let text = connect(&broken).await.err().unwrap().to_string();
        assert!(text.starts_with("kubeconfig ") && !text.contains("\n\n"), "{text}");
    }

    #[tokio::test]
    async fn the_given_address_wins_over_the_kubeconfigs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = r#"{"clusters": [{"name": "c", "cluster": {"server": "http://10.96.0.1:443"}}], "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}], "current-context": "x"}"#;
        std::fs::write(file.path(), text).unwrap();
        // Nothing listens there, which only whoever asks there is told.
        let options = KubeOptions {
            kubeconfig: Some(file.path().to_owned()),
            kube_api_server: Some("http://127.0.0.1:1".to_owned()),
        };
        let client = connect(&options).await.unwrap();
        let text = super::super::explain(&client.apiserver_version().await.unwrap_err());
        assert!(text.contains("is it running"), "{text}");
    }
}
