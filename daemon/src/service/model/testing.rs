//! Services and slices for tests, written as the API has them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::types::{Backend, Frontend, NodeView};
use crate::cluster::PerFamily;
use crate::cluster::services::{Changed, EndpointSlice, Interner, Service, parse};

/// The node `n1` of the cases: 192.168.0.2, 2001:db8::2, no zone.
pub(super) fn node() -> NodeView {
    NodeView {
        name: "n1".into(),
        zone: None,
        addresses: PerFamily { v4: "192.168.0.2".parse().ok(), v6: "2001:db8::2".parse().ok() },
    }
}

/// The node, in a zone.
pub(super) fn node_in(zone: &str) -> NodeView {
    NodeView { zone: Some(zone.into()), ..node() }
}

/// A Service `default/web` at 172.30.0.41:80 with these members in `spec`, but for `created` and the load balancer's
/// `ingress`.
pub(super) fn service(members: Value) -> Service {
    named_service("web", members)
}

/// The same with another name.
pub(super) fn named_service(name: &str, members: Value) -> Service {
    let mut object = json!({"metadata": {"namespace": "default", "name": name},
        "spec": {"clusterIP": "172.30.0.41", "ports": [{"port": 80}]}});
    let Value::Object(members) = members else { panic!("{members}") };
    for (member, value) in members {
        match member.as_str() {
            "created" => object["metadata"]["creationTimestamp"] = value,
            "ingress" => object["status"]["loadBalancer"]["ingress"] = value,
            spec => object["spec"][spec] = value,
        }
    }
    let parsed = parse::service(object.to_string().as_bytes(), None, &mut Interner::default()).unwrap();
    assert_eq!(parsed.warnings, Vec::<String>::new());
    parsed.object.unwrap()
}

/// A slice `default/<name>` of `default/web` with port 80 and these endpoints.
pub(super) fn slice(name: &str, endpoints: &[Value]) -> Arc<EndpointSlice> {
    slice_with(name, json!({"endpoints": endpoints}))
}

/// A slice `default/<name>` of `default/web` with these members.
pub(super) fn slice_with(name: &str, members: Value) -> Arc<EndpointSlice> {
    let mut object = json!({"metadata": {"namespace": "default", "name": name},
        "addressType": "IPv4", "ports": [{"name": "", "port": 80}]});
    object["metadata"]["labels"] = json!({"kubernetes.io/service-name": "web"});
    let Value::Object(members) = members else { panic!("{members}") };
    for (member, value) in members {
        match member.as_str() {
            "service" => object["metadata"]["labels"]["kubernetes.io/service-name"] = value,
            "annotations" => object["metadata"]["annotations"] = value,
            member => object[member] = value,
        }
    }
    let parsed = parse::slice(object.to_string().as_bytes(), None, &mut Interner::default()).unwrap();
    assert_eq!(parsed.warnings, Vec::<String>::new());
    Arc::new(parsed.object.unwrap())
}

/// An endpoint that is ready.
pub(super) fn ready(address: &str, node: &str) -> Value {
    json!({"addresses": [address], "nodeName": node, "conditions": {"ready": true, "serving": true}})
}

/// An endpoint that is being deleted and still answers.
pub(super) fn terminating(address: &str, node: &str) -> Value {
    json!({"addresses": [address], "nodeName": node,
        "conditions": {"ready": false, "serving": true, "terminating": true}})
}

/// An endpoint that does not answer.
pub(super) fn unready(address: &str, node: &str) -> Value {
    json!({"addresses": [address], "nodeName": node, "conditions": {"ready": false, "serving": false}})
}

/// The endpoint with hints.
pub(super) fn hinted(mut endpoint: Value, member: &str, names: &[&str]) -> Value {
    endpoint["hints"][member] = names.iter().map(|name| json!({"name": name})).collect();
    endpoint
}

/// The Service as changed.
pub(super) fn changed(service: Service, slices: &[Arc<EndpointSlice>]) -> Changed {
    Changed { name: service.name.clone(), service: Some(Arc::new(service)), slices: slices.to_vec() }
}

/// Backends as `address:port`, `L:` before those of this node.
pub(super) fn shown(backends: &[Backend]) -> Vec<String> {
    let show = |backend: &Backend| {
        let side = if backend.local { "L:" } else { "R:" };
        format!("{side}{}", std::net::SocketAddr::new(backend.address, backend.port))
    };
    backends.iter().map(show).collect()
}

/// Frontends as they are logged.
pub(super) fn entrances(frontends: &[Frontend]) -> Vec<String> {
    frontends.iter().map(|frontend| frontend.key.to_string()).collect()
}
