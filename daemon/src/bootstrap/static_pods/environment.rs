//! Environment of the components: a proxy only when asked for, and then with everything of the cluster excepted from it.

use std::collections::BTreeMap;

use crate::bootstrap::config::model::EnvVar;
use crate::bootstrap::resolved::{Cluster, Node};

/// The variables for a proxy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {name} is {value:?}; expected a URL such as http://proxy:3128")]
pub struct ProxyError {
    /// The variable.
    pub name: String,
    /// Its value without a password.
    pub value: String,
}

/// The proxy variables of `environment` for the components, if they are to go through a proxy at all.
///
/// The ranges of pods and Services, the node's address, the API's stable name and the cluster's domain are excepted: Go
/// takes `NO_PROXY` literally, and what it does not hold breaks webhooks and the aggregated API. Both spellings of it are
/// made alike, as the components read the one and their libraries the other.
///
/// # Errors
/// [`ProxyError`] for a proxy that is no URL.
pub fn proxy_environment(
    environment: impl IntoIterator<Item = (String, String)>,
    cluster: &Cluster,
    node: &Node,
) -> Result<Vec<EnvVar>, ProxyError> {
    let mut proxies: BTreeMap<String, String> = BTreeMap::new();
    let mut exceptions: Vec<String> = Vec::new();
    for (name, value) in environment {
        if value.is_empty() || !name.to_ascii_lowercase().ends_with("_proxy") {
            continue;
        }
        if name.eq_ignore_ascii_case("no_proxy") {
            exceptions.extend(value.split(',').map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()));
        } else if value.contains(char::is_whitespace) || value.contains(['"', '\n']) {
            return Err(ProxyError { name, value: value.rsplit('@').next().unwrap_or_default().to_owned() });
        } else {
            proxies.insert(name, value);
        }
    }
    if proxies.is_empty() {
        return Ok(Vec::new());
    }
    let own = ["127.0.0.1", "::1", "localhost"].map(String::from).into_iter();
    let own = own.chain(cluster.pod_subnets.iter().chain(&cluster.service_subnets).map(ToString::to_string));
    let own = own.chain([node.address.to_string(), node.name.clone()]);
    let own = own.chain(cluster.control_plane_endpoint.iter().map(|(host, _)| host.clone()));
    let own = own.chain([".svc".to_owned(), format!(".{}", cluster.dns_domain)]);
    for entry in own {
        if !exceptions.contains(&entry) {
            exceptions.push(entry);
        }
    }
    let exceptions = exceptions.join(",");
    proxies.insert("NO_PROXY".into(), exceptions.clone());
    proxies.insert("no_proxy".into(), exceptions);
    Ok(proxies.into_iter().map(|(name, value)| EnvVar { name, value, value_from: None }).collect())
}

/// The proxy's variables with the configuration's over them, by name (kubeadm `util.MergeKubeadmEnvVars`).
pub(super) fn merge(proxy: &[EnvVar], extra: &[EnvVar]) -> Vec<EnvVar> {
    let all = proxy.iter().chain(extra).map(|variable| (variable.name.clone(), variable.clone()));
    all.collect::<BTreeMap<_, _>>().into_values().collect()
}
