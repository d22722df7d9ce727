//! Waiting until what has been applied is there.

use serde_json::Value;

use crate::bootstrap::api::error::ApiError;
use crate::bootstrap::api::object::Place;
use crate::bootstrap::api::server::Server;
use crate::cluster::kube::api::Refusal;

/// Waits, as long as the server's limit is, until a Node is Ready.
///
/// # Errors
/// [`ApiError::Refused`] with the reason that its condition gives.
pub async fn await_node(server: &Server, name: &str) -> Result<(), ApiError> {
    wait(server, &Place::new("v1", "Node", "", name), "Ready").await
}

/// The same for a Deployment that has to be Available.
///
/// # Errors
/// [`ApiError::Refused`] with the reason that its condition gives.
pub async fn await_available(server: &Server, namespace: &str, name: &str) -> Result<(), ApiError> {
    wait(server, &Place::new("apps/v1", "Deployment", namespace, name), "Available").await
}

async fn wait(server: &Server, place: &Place, condition: &str) -> Result<(), ApiError> {
    server
        .persist("wait for", &place.words, || async {
            let found = server.get_once(place).await?.unwrap_or_default();
            match state(&found, condition) {
                Ok(()) => Ok(()),
                Err(words) => Err(Refusal { code: None, words: format!("it is not {condition}: {words}") }),
            }
        })
        .await
}

/// Whether a condition is true, or what it says instead.
fn state(object: &Value, condition: &str) -> Result<(), String> {
    let conditions = object["status"]["conditions"].as_array();
    let Some(found) = conditions.into_iter().flatten().find(|it| it["type"] == condition) else {
        return Err("nobody has said so yet".to_owned());
    };
    match found["status"] == "True" {
        true => Ok(()),
        false => Err(found["message"].as_str().unwrap_or("without a reason").to_owned()),
    }
}
