//! What the cluster says of itself: its version, its Nodes, the pods of its control plane. Nothing is written.

use serde_json::Value;

use super::error::ApiError;
use super::object::Place;
use super::server::Server;

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/namespaces/kube-system/pods?labelSelector=tier%3Dcontrol-plane";
/// Of a mirror pod: what kubelet calls the content of the manifest that it runs.
const HASH: &str = "kubernetes.io/config.hash";
/// Of a Node: the socket of its runtime, as kubeadm before 1.36 wrote it.
const SOCKET: &str = "kubeadm.alpha.kubernetes.io/cri-socket";
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// A Node, as far as health and versions go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its name.
    pub name: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether it has the role of a control plane.
    pub control_plane: bool,
    /// Version of its kubelet, `v1.36.2`; empty as long as that has said nothing.
    pub kubelet: String,
    /// Socket of its runtime, if that is written down.
    pub cri_socket: Option<String>,
}

/// A pod of the control plane, as kubelet mirrors it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSeen {
    /// Its label `component`: `kube-apiserver`.
    pub component: String,
    /// The Node it runs on.
    pub node: String,
    /// Its image.
    pub image: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// kubelet's name for the content of its manifest.
    pub config_hash: Option<String>,
}

/// The version that the API server says it has, `v1.36.2`.
///
/// # Errors
/// [`ApiError::Refused`], [`ApiError::Content`] if it does not say one.
pub async fn server_version(server: &Server) -> Result<String, ApiError> {
    let what = "the API server's version";
    let found = server.persist("read", what, || server.read_once("/version")).await?;
    match found["gitVersion"].as_str() {
        Some(version) => Ok(version.to_owned()),
        None => Err(ApiError::content(what, "it has no gitVersion")),
    }
}

/// All Nodes.
///
/// # Errors
/// [`ApiError::Refused`].
pub async fn nodes(server: &Server) -> Result<Vec<NodeSeen>, ApiError> {
    let found = server.persist("list", "Nodes", || server.list_once(NODES)).await?;
    Ok(found.iter().map(node).collect())
}

/// One Node, which its kubelet may read where it may not list them; `None` if there is none of that name.
///
/// # Errors
/// [`ApiError::Refused`].
pub async fn node_seen(server: &Server, name: &str) -> Result<Option<NodeSeen>, ApiError> {
    let found = server.get(&Place::new("v1", "Node", "", name)).await?;
    Ok(found.as_ref().map(node))
}

/// The control plane's pods of all nodes.
///
/// # Errors
/// [`ApiError::Refused`].
pub async fn control_plane_pods(server: &Server) -> Result<Vec<PodSeen>, ApiError> {
    let found = server.persist("list", "the control plane's pods", || server.list_once(PODS)).await?;
    Ok(found.iter().map(pod).collect())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|it| it["type"] == "Ready" && it["status"] == "True")
}

fn node(object: &Value) -> NodeSeen {
    let metadata = &object["metadata"];
    NodeSeen {
        name: text(&metadata["name"]),
        ready: is_ready(object),
        control_plane: metadata["labels"].get(CONTROL_PLANE).is_some(),
        kubelet: text(&object["status"]["nodeInfo"]["kubeletVersion"]),
        cri_socket: metadata["annotations"][SOCKET].as_str().map(str::to_owned),
    }
}

fn pod(object: &Value) -> PodSeen {
    let metadata = &object["metadata"];
    PodSeen {
        component: text(&metadata["labels"]["component"]),
        node: text(&object["spec"]["nodeName"]),
        image: text(&object["spec"]["containers"][0]["image"]),
        ready: is_ready(object),
        config_hash: metadata["annotations"][HASH].as_str().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_and_pods_are_read() {
        let ready = json!([{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}]);
        let seen = node(&json!({
            "metadata": {"name": "n1", "labels": {CONTROL_PLANE: ""}, "annotations": {SOCKET: "unix:///run/a.sock"}},
            "status": {"conditions": ready, "nodeInfo": {"kubeletVersion": "v1.36.2"}},
        }));
        let socket = Some("unix:///run/a.sock".to_owned());
        let expected = NodeSeen {
            name: "n1".into(),
            ready: true,
            control_plane: true,
            kubelet: "v1.36.2".into(),
            cri_socket: socket,
        };
        assert_eq!(seen, expected);
        let seen = pod(&json!({
            "metadata": {"labels": {"component": "etcd"}, "annotations": {HASH: "abc"}},
            "spec": {"nodeName": "n1", "containers": [{"image": "registry.k8s.io/etcd:3.6.8-0"}]},
            "status": {"conditions": ready},
        }));
        assert_eq!((seen.component.as_str(), seen.node.as_str(), seen.ready), ("etcd", "n1", true));
        assert_eq!((seen.image.as_str(), seen.config_hash.as_deref()), ("registry.k8s.io/etcd:3.6.8-0", Some("abc")));
        assert_eq!(
            node(&json!({})),
            NodeSeen {
                name: String::new(),
                ready: false,
                control_plane: false,
                kubelet: String::new(),
                cri_socket: None
            }
        );
    }
}
