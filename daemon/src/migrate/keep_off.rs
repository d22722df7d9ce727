//! How a DaemonSet keeps off the nodes that are weft's, whatever else it asks of nodes. Pure.

use serde_json::{Value, json};

use super::cluster::NODE_LABEL;

/// Where the terms stand that a node has to satisfy one of.
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Whether it does.
#[must_use]
pub fn keeps_off(set: &Value) -> bool {
    let says = |term: &Value| {
        let expressions = term["matchExpressions"].as_array();
        expressions.into_iter().flatten().any(|said| {
            let is_not = said["operator"] == "NotIn"
                && said["values"].as_array().is_some_and(|all| all.contains(&json!("true")));
            said["key"] == NODE_LABEL && (said["operator"] == "DoesNotExist" || is_not)
        })
    };
    let terms = terms(set);
    !terms.is_empty() && terms.iter().all(says)
}

/// The patch that makes it do so, for a strategic merge, in which the list of terms is replaced as a whole: its own, each with
/// one expression more.
#[must_use]
pub fn patch(set: &Value) -> Value {
    let mut terms = terms(set);
    if terms.is_empty() {
        terms.push(json!({}));
    }
    let expression = json!({"key": NODE_LABEL, "operator": "NotIn", "values": ["true"]});
    for term in &mut terms {
        let mut expressions = term["matchExpressions"].as_array().cloned().unwrap_or_default();
        if !expressions.contains(&expression) {
            expressions.push(expression.clone());
        }
        term["matchExpressions"] = expressions.into();
    }
    let node = json!({REQUIRED: {"nodeSelectorTerms": terms}});
    json!({"spec": {"template": {"spec": {"affinity": {"nodeAffinity": node}}}}})
}

/// The DaemonSet as it is with the patch.
#[must_use]
pub fn patched(mut set: Value) -> Value {
    if !keeps_off(&set) {
        let patch = patch(&set);
        merge(&mut set, &patch);
    }
    set
}

/// Puts what a patch has into a value; lists are replaced.
fn merge(value: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return value.clone_from(patch) };
    if !value.is_object() {
        *value = json!({});
    }
    for (key, patch) in patch {
        merge(&mut value[key], patch);
    }
}

fn terms(set: &Value) -> Vec<Value> {
    let terms = &set["spec"]["template"]["spec"]["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"];
    terms.as_array().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(terms: &Value) -> Value {
        json!({"spec": {"template": {"spec": {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms}}}}}}})
    }

    #[test]
    fn the_terms_that_it_has_stay_and_each_says_more() {
        let own = set(&json!([
            {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]}]},
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]},
        ]));
        assert!(!keeps_off(&own));
        let kept = patched(own.clone());
        assert!(keeps_off(&kept), "{kept}");
        let terms = terms(&kept);
        assert_eq!(terms[0]["matchExpressions"].as_array().unwrap().len(), 2);
        assert_eq!(terms[0]["matchExpressions"][0]["key"], "kubernetes.io/arch");
        assert_eq!(terms[1]["matchFields"][0]["values"], json!(["n1"]));
        assert_eq!(patched(kept.clone()), kept);
        // One term that does not say it lets a node in.
        assert!(!keeps_off(&set(
            &json!([{"matchExpressions": [{"key": NODE_LABEL, "operator": "DoesNotExist"}]}, {}])
        )));
    }

    #[test]
    fn a_set_that_asks_for_nothing_keeps_off_by_one_term() {
        for none in [json!({}), json!({"spec": {"template": {"spec": {"affinity": null}}}})] {
            let terms = terms(&patched(none));
            assert_eq!(
                terms,
                [json!({"matchExpressions": [{"key": NODE_LABEL, "operator": "NotIn", "values": ["true"]}]})]
            );
        }
    }
}
