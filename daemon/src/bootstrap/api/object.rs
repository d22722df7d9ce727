//! Objects as JSON: where they are in the API, and whether the one that is there already says what is wanted.

use serde_json::Value;

/// What became of an object, or of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was not there.
    Made,
    /// It was there and as wanted: nothing has been written.
    Kept,
    /// It was there and another.
    Changed,
    /// It was there and another, by somebody else's will: nothing has been written.
    Retained,
}

impl Outcome {
    /// What became of two together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (one, two) if one == two => one,
            (Self::Kept | Self::Retained, Self::Kept | Self::Retained) => Self::Kept,
            _ => Self::Changed,
        }
    }
}

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Path of all objects of its kind, in its namespace.
    pub(super) all: String,
    /// Its own name, fit for a URL.
    pub(super) name: String,
    /// For people: `ConfigMap kube-system/weft-config`.
    pub(super) words: String,
}

impl Place {
    /// Of an object with `apiVersion`, `kind` and `metadata`.
    pub(super) fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        Self::new(
            &text(&object["apiVersion"]),
            &text(&object["kind"]),
            &text(&metadata["namespace"]),
            &text(&metadata["name"]),
        )
    }

    /// By its parts; an empty namespace is none.
    pub(super) fn new(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        let root = if api_version.contains('/') { "/apis" } else { "/api" };
        let (scope, words) = match namespace {
            "" => (String::new(), format!("{kind} {name}")),
            namespace => (format!("/namespaces/{namespace}"), format!("{kind} {namespace}/{name}")),
        };
        let all = format!("{root}/{api_version}{scope}/{}", plural(kind));
        Self { all, name: encoded(name), words }
    }

    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.all, self.name)
    }
}

/// How the API names all objects of a kind: the rule of English that its built-in kinds follow.
fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match (kind.strip_suffix('y'), kind.ends_with('s')) {
        (Some(stem), _) => format!("{stem}ies"),
        (None, true) => format!("{kind}es"),
        (None, false) => format!("{kind}s"),
    }
}

/// Names of RBAC's objects have colons in them, which a path segment may have (RFC 3986 section 3.3).
fn encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// Whether `found` says everything that `wanted` says; more is no difference, since the API server fills in defaults and
/// others add labels. A `null` wants that there is nothing.
pub(super) fn covers(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            let nothing = Value::Null;
            wanted.iter().all(|(key, wanted)| covers(found.get(key).unwrap_or(&nothing), wanted))
        }
        // Of what is not there nothing can be too much.
        (Value::Null, Value::Object(wanted)) if !wanted.is_empty() => wanted.values().all(Value::is_null),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| covers(found, wanted))
        }
        (found, wanted) => found == wanted,
    }
}

/// The object without what is to be nothing.
pub(super) fn without_nulls(object: &Value) -> Value {
    match object {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn places_are_those_of_the_api() {
        let path = |version, kind, namespace| Place::new(version, kind, namespace, "kubeadm:x").path();
        assert_eq!(path("v1", "ConfigMap", "kube-system"), "/api/v1/namespaces/kube-system/configmaps/kubeadm:x");
        assert_eq!(
            path("rbac.authorization.k8s.io/v1", "ClusterRole", ""),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/kubeadm:x"
        );
        let policy = path("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "");
        assert!(policy.ends_with("/validatingadmissionpolicies/kubeadm:x"), "{policy}");
        assert!(path("scheduling.k8s.io/v1", "PriorityClass", "").contains("/priorityclasses/"));
    }

    #[test]
    fn i06_what_others_add_is_no_difference() {
        let wanted = json!({"data": {"a": "1"}, "rules": [{"verbs": ["get"]}], "gone": null});
        let found =
            json!({"data": {"a": "1", "b": "2"}, "rules": [{"verbs": ["get"], "x": 1}], "metadata": {"uid": "u"}});
        assert!(covers(&found, &wanted));
        for other in [
            json!({"data": {"a": "2"}}),
            json!({"rules": []}),
            json!({"rules": [{"verbs": ["get", "list"]}]}),
            json!({"data": {"b": null}}),
        ] {
            assert!(!covers(&found, &other), "{other}");
        }
        assert_eq!(without_nulls(&json!({"a": null, "b": [{"c": null}]})), json!({"b": [{}]}));
    }

    #[test]
    fn outcomes_add_up() {
        use Outcome::{Changed, Kept, Made, Retained};
        assert_eq!((Made.and(Made), Kept.and(Retained), Kept.and(Made)), (Made, Kept, Changed));
    }
}
