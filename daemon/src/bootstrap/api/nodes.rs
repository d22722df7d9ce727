//! What a joining node has to know of Nodes.

use serde_json::Value;

use super::error::ApiError;
use super::object::Place;
use super::server::Server;

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
