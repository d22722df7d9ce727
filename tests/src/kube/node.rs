//! `v1.Node`.

use serde_json::{Value, json};

/// The taint by which the cluster autoscaler announces that it removes a node.
pub const LEAVING: &str = "ToBeDeletedByClusterAutoscaler";

/// A Node as the API server would hold it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node(Value);

impl Node {
    /// A Node that has joined.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"kubernetes.io/hostname": name}, "annotations": {},
            },
            "spec": {"taints": []},
        }))
    }

    /// The same in a zone.
    #[must_use]
    pub fn zone(mut self, zone: &str) -> Self {
        self.0["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!(zone);
        self
    }

    /// The same with a taint.
    #[must_use]
    pub fn taint(mut self, key: &str) -> Self {
        if let Some(taints) = self.0["spec"]["taints"].as_array_mut() {
            taints.push(json!({"key": key, "effect": "NoSchedule"}));
        }
        self
    }

    /// The same, being deleted.
    #[must_use]
    pub fn deleted(mut self) -> Self {
        self.0["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
        self
    }

    /// The object.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.0
    }
}
