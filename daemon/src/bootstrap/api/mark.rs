//! A node of the control plane is marked as one: its labels keep load balancers off, its taints other pods (kubeadm's
//! `phases/markcontrolplane`).

use serde_json::{Value, json};

use super::error::ApiError;
use super::object::{Outcome, Place, covers};
use super::server::Server;
use crate::bootstrap::config::model::Taint;
use crate::cluster::kube::api::Refusal;

/// Its labels, without values.
const LABELS: [&str; 2] =
    ["node-role.kubernetes.io/control-plane", "node.kubernetes.io/exclude-from-external-load-balancers"];

/// kubelet sets this one itself: a Node without has only just come.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Waits until the Node is there, with kubelet's labels, and marks it. Labels and taints of others stay.
///
/// # Errors
/// [`ApiError::Refused`] if it does not come.
pub async fn mark_control_plane(server: &Server, node: &str, taints: &[Taint]) -> Result<Outcome, ApiError> {
    let place = Place::new("v1", "Node", "", node);
    let not_yet = |what: &str| Refusal { code: None, words: format!("{what}; kubelet's log tells why") };
    server
        .persist("mark", &place.words, || async {
            let found = server.get_once(&place).await?.ok_or_else(|| not_yet("kubelet has not registered it yet"))?;
            if found["metadata"]["labels"][HOSTNAME].is_null() {
                return Err(not_yet("kubelet has not labelled it yet"));
            }
            let wanted = plan(&found, taints);
            if covers(&found, &wanted) {
                return Ok(Outcome::Kept);
            }
            server.patch_once(&place, &found, wanted).await.map(|_| Outcome::Changed)
        })
        .await
}

/// What a Node is to say: the taints that are wanted, and those it has that are others.
fn plan(node: &Value, taints: &[Taint]) -> Value {
    let labels: serde_json::Map<_, _> = LABELS.map(|label| (label.to_owned(), json!(""))).into_iter().collect();
    let mut all: Vec<Value> = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let same = |one: &Value, other: &Taint| {
        let text = |key: &str| one[key].as_str().unwrap_or_default();
        (text("key"), text("value"), text("effect"))
            == (other.key.as_str(), other.value.as_str(), other.effect.as_str())
    };
    for taint in taints {
        if !all.iter().any(|found| same(found, taint)) {
            let mut value = json!({"key": taint.key, "effect": taint.effect});
            if !taint.value.is_empty() {
                value["value"] = json!(taint.value);
            }
            all.push(value);
        }
    }
    let mut wanted = json!({"metadata": {"labels": labels}});
    if !all.is_empty() {
        wanted["spec"] = json!({"taints": all});
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint() -> Taint {
        Taint { key: LABELS[0].to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
    }

    #[test]
    fn i12_taints_of_others_stay_and_none_is_there_twice() {
        let foreign = json!({"key": "a", "effect": "NoSchedule", "timeAdded": "x"});
        let node = json!({"spec": {"taints": [foreign]}});
        let marked = plan(&node, &[taint()]);
        assert_eq!(marked["spec"]["taints"], json!([foreign, {"key": LABELS[0], "effect": "NoSchedule"}]));
        assert_eq!(plan(&marked, &[taint()])["spec"]["taints"], marked["spec"]["taints"]);
        assert!(plan(&json!({}), &[]).get("spec").is_none(), "no taints wanted, none made");
    }
}
