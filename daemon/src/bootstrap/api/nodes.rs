//! What a joining node has to know of Nodes, and kubelet's first certificate.

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::error::ApiError;
use super::object::{Outcome, Place};
use super::server::{PAUSE, Server};
use crate::bootstrap::resolved::{Limits, Paths};
use crate::cluster::kube::{KubeOptions, connect};

/// Refuses to join in the name of a Node that is there and alive; one that is not Ready, or gone, may be taken over.
///
/// # Errors
/// [`ApiError::Denied`], [`ApiError::Refused`].
pub async fn refuse_ready_node(server: &Server, name: &str) -> Result<(), ApiError> {
    let found = server.get(&Place::new("v1", "Node", "", name)).await?.unwrap_or_default();
    if !is_ready(&found) {
        return Ok(());
    }
    Err(ApiError::Denied(format!(
        "a Node named {name} is in the cluster and Ready: another machine has this name (give --node-name), or this one has \
         joined already; to join anew: kubectl delete node {name}"
    )))
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|it| it["type"] == "Ready" && it["status"] == "True")
}

/// Waits until kubelet has its first certificate: `kubelet.conf` is there and can be used.
///
/// # Errors
/// [`ApiError::Content`] with what is wrong with the file when the time is over.
pub async fn await_kubelet_conf(paths: &Paths, limits: &Limits) -> Result<(), ApiError> {
    let path = paths.kubernetes.join("kubelet.conf");
    let end = Instant::now() + limits.tls_bootstrap;
    loop {
        let problem = if path.is_file() {
            let options = KubeOptions { kubeconfig: Some(path.clone()), kube_api_server: None };
            match connect(&options).await {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            }
        } else {
            "kubelet has not written it: it has no certificate yet; its log tells why, and `kubectl get csr` whether its \
             request was approved"
                .to_owned()
        };
        if Instant::now() >= end {
            return Err(ApiError::content(path.display().to_string(), problem));
        }
        sleep(PAUSE).await;
    }
}

/// Removes the kubeconfig with the token, which kubelet needs no more.
///
/// # Errors
/// [`ApiError::File`].
pub fn remove_bootstrap_conf(paths: &Paths) -> Result<Outcome, ApiError> {
    let path = paths.kubernetes.join("bootstrap-kubelet.conf");
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(Outcome::Changed),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Outcome::Kept),
        Err(cause) => Err(ApiError::File { path, cause }),
    }
}
