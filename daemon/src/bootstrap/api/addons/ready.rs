//! Waiting until what has been applied is there, and saying what it is that it waits for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::bootstrap::api::error::ApiError;
use crate::bootstrap::api::object::Place;
use crate::bootstrap::api::server::Server;
use crate::cluster::kube::api::Refusal;

/// Between two looks: somebody stands there and waits.
pub(in crate::bootstrap::api) const LOOK: Duration = Duration::from_millis(100);
/// What lasts as long as this is worth a line; most passes before.
const WORTH_A_LINE: Duration = Duration::from_secs(5);

/// Hears why something is not there yet, once for each reason.
pub type Hear<'a> = dyn Fn(&str) + 'a;

/// Waits, as long as the server's limit is, until a Node is Ready.
///
/// # Errors
/// [`ApiError::Refused`] with the reason that its condition gives.
pub async fn await_node(server: &Server, name: &str, hear: &Hear<'_>) -> Result<(), ApiError> {
    let (server, place) = (server.every(LOOK), Place::new("v1", "Node", "", name));
    let patience = Patience::new(hear);
    server
        .persist("wait for", &place.words, || async {
            let node = server.get_once(&place).await?.unwrap_or_default();
            patience.judge(state(&node, "Ready").map_err(|words| format!("it is not Ready: {words}")))
        })
        .await
}

/// The same for a Deployment that has to be Available. What keeps its pods is said by them, and by the nodes.
///
/// # Errors
/// [`ApiError::Refused`] with the reason that its condition gives.
pub async fn await_available(server: &Server, namespace: &str, name: &str, hear: &Hear<'_>) -> Result<(), ApiError> {
    let (server, place) = (server.every(LOOK), Place::new("apps/v1", "Deployment", namespace, name));
    let patience = Patience::new(hear);
    server
        .persist("wait for", &place.words, || async {
            let found = server.get_once(&place).await?.unwrap_or_default();
            let Err(words) = state(&found, "Available") else { return Ok(()) };
            let pods = server.list_once(&format!("/api/v1/namespaces/{namespace}/pods{}", selector(&found))).await?;
            let nodes = server.list_once("/api/v1/nodes").await?;
            let causes = obstacles(&pods, &nodes);
            let words = if causes.is_empty() { words } else { causes.join("; ") };
            patience.judge(Err(format!("it is not Available: {words}")))
        })
        .await
}

/// Tells a reason that has lasted for a while.
pub(in crate::bootstrap::api) struct Patience<'a> {
    hear: &'a Hear<'a>,
    /// The reason, since when it is there, and whether it has been told.
    last: RefCell<(String, Instant, bool)>,
}

impl<'a> Patience<'a> {
    pub(in crate::bootstrap::api) fn new(hear: &'a Hear<'a>) -> Self {
        Self { hear, last: RefCell::new((String::new(), Instant::now(), false)) }
    }

    pub(in crate::bootstrap::api) fn judge<T>(&self, state: Result<T, String>) -> Result<T, Refusal> {
        let words = match state {
            Ok(value) => return Ok(value),
            Err(words) => words,
        };
        let mut last = self.last.borrow_mut();
        // Numbers of ports and times are no other reason.
        let reason: String = words.chars().filter(|c| !c.is_ascii_digit()).collect();
        if last.0 != reason {
            *last = (reason, Instant::now(), false);
        } else if !last.2 && last.1.elapsed() >= WORTH_A_LINE {
            last.2 = true;
            (self.hear)(&words);
        }
        Err(Refusal { code: None, words })
    }
}

/// Whether a condition is true, or what it says instead.
fn state(object: &Value, condition: &str) -> Result<(), String> {
    let Some(found) = conditions(object).find(|it| it["type"] == condition) else {
        return Err("nobody has said so yet".to_owned());
    };
    match found["status"] == "True" {
        true => Ok(()),
        false => Err(found["message"].as_str().unwrap_or("without a reason").to_owned()),
    }
}

fn conditions(object: &Value) -> impl Iterator<Item = &Value> {
    object["status"]["conditions"].as_array().into_iter().flatten()
}

/// The query for a Deployment's pods.
fn selector(deployment: &Value) -> String {
    let labels = deployment["spec"]["selector"]["matchLabels"].as_object();
    let labels: Vec<String> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{}%3D{}", key.replace('/', "%2F"), value.as_str()?)))
        .collect();
    if labels.is_empty() { String::new() } else { format!("?labelSelector={}", labels.join("%2C")) }
}

/// What keeps pods from being ready: a node's trouble, the scheduler's words, a container's; each kind once.
fn obstacles(pods: &[Value], nodes: &[Value]) -> Vec<String> {
    let mut causes = BTreeMap::new();
    if pods.iter().any(|pod| pod["spec"]["nodeName"].is_null()) {
        for node in nodes {
            causes.extend(pressures(node));
        }
    }
    for pod in pods {
        let scheduled = conditions(pod).find(|it| it["type"] == "PodScheduled" && it["status"] == "False");
        let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        let waiting = statuses.map(|status| &status["state"]["waiting"]).filter(|waiting| !waiting.is_null());
        for it in scheduled.into_iter().chain(waiting) {
            let (kind, words) = (word(it, "reason"), word(it, "message"));
            // The one follows the other for as long as an image cannot be had.
            let kind = if kind == "ErrImagePull" { "ImagePullBackOff" } else { kind };
            causes.entry(kind.to_owned()).or_insert_with(|| format!("{kind} {words}").trim_end().to_owned());
        }
    }
    causes.into_values().collect()
}

/// Why a node takes no pods in.
fn pressures(node: &Value) -> impl Iterator<Item = (String, String)> {
    let name = word(&node["metadata"], "name");
    let is_trouble = |it: &&Value| it["status"] == "True" && word(it, "type").ends_with("Pressure");
    conditions(node).filter(is_trouble).map(move |it| {
        let (kind, words) = (word(it, "type"), word(it, "message"));
        let fix = match kind {
            "DiskPressure" => "; make room, or set evictionHard in a KubeletConfiguration document",
            _ => "",
        };
        (format!("{name} {kind}"), format!("node {name} has {kind} and takes no pods in: {words}{fix}"))
    })
}

fn word<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn p0_8_a_full_disk_is_told_where_a_pod_is_pending() {
        let nodes = [json!({"metadata": {"name": "n1"}, "status": {"conditions": [
            {"type": "DiskPressure", "status": "True", "message": "kubelet has disk pressure"},
            {"type": "Ready", "status": "True"}]}})];
        let pending = json!({"status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]}});
        let causes = obstacles(&[pending.clone(), pending], &nodes);
        assert_eq!(causes.len(), 2, "{causes:?}");
        assert!(causes[0].contains("0/1 nodes") && causes[1].contains("n1 has DiskPressure"), "{causes:?}");
        let running = json!({"spec": {"nodeName": "n1"}, "status": {"containerStatuses": [
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}, {"state": {"running": {}}}]}});
        assert_eq!(obstacles(&[running], &nodes), ["ImagePullBackOff no such image"]);
    }

    #[test]
    fn pods_are_asked_for_by_their_labels() {
        let deployment = json!({"spec": {"selector": {"matchLabels": {"k8s-app": "kube-dns", "a/b": "c"}}}});
        assert_eq!(selector(&deployment), "?labelSelector=a%2Fb%3Dc%2Ck8s-app%3Dkube-dns");
    }
}
