//! The kube source against a real API server, from the folder that `WEFT_PEERS` names.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "these tests take less of it than others do")]
#[macro_use]
mod apiserver;
#[expect(dead_code, reason = "these tests take less of it than others do")]
mod etcd;
#[expect(dead_code, reason = "these tests take less of it than others do")]
mod kube_node;

use apiserver::ApiServer;
use etcd::LIMIT;
use kube_node::{Node, flannel, node, own_node};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use weft::cluster::kube::{service_cidrs, services};
use weft::cluster::services::{ObjectName, ServiceStore, ServicesHandle};
use weft::lease::LeaseState;

async fn service(server: &ApiServer, name: &str, address: &str, labels: Value) {
    let body = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels},
        "spec": {"clusterIP": address, "ports": [{"port": 80}]}});
    server.ask("POST", "/api/v1/namespaces/default/services", Some(&body)).await;
}

async fn slice(server: &ApiServer, name: &str, of: &str, address: &str) {
    let body = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": of}}, "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080}], "endpoints": [{"addresses": [address]}]});
    server.ask("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", Some(&body)).await;
}

/// Waits until `holds` is true of a store.
async fn reaches(handle: &ServicesHandle, holds: impl Fn(&ServiceStore) -> bool) {
    let mut status = handle.status();
    let wait = async {
        while !holds(handle.store()) {
            status.changed().await.unwrap();
        }
    };
    timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{:?}", handle.status().borrow()));
}

/// The endpoints' addresses of a Service; `None` if there is no such Service.
fn endpoints(store: &ServiceStore, name: &str) -> Option<Vec<String>> {
    let (all, _) = store.take_all();
    let found = all.into_iter().find(|changed| changed.name == ObjectName::new("default", name))?;
    found.service?;
    let slices = found.slices.iter().flat_map(|slice| &slice.endpoints);
    Some(slices.map(|endpoint| endpoint.address.to_string()).collect())
}

async fn start_services(server: &ApiServer) -> (ServicesHandle, DropGuard) {
    let stop = CancellationToken::new();
    let handle = services::spawn(&server.api().await, &"n1".parse().unwrap(), stop.clone());
    let mut status = handle.status();
    let watching = status.wait_for(|status| status.watching);
    timeout(LIMIT, watching).await.unwrap_or_else(|_| panic!("{:?}", handle.status().borrow())).unwrap();
    (handle, stop.drop_guard())
}

#[tokio::test]
async fn t10_services_follow_the_api_server_and_survive_its_loss() {
    let etcd;
    let mut server = server!(etcd);
    service(&server, "first", "10.96.0.41", json!({})).await;
    service(&server, "headless", "None", json!({})).await;
    service(&server, "elsewhere", "10.96.0.42", json!({"service.kubernetes.io/service-proxy-name": "x"})).await;
    slice(&server, "first-1", "first", "10.244.1.2").await;
    node(&server, "n1", None, json!({})).await;
    let (handle, _stop) = start_services(&server).await;
    let store = handle.store();
    // The API server's own Service is there, too.
    assert_eq!((store.synced(), store.len()), (true, 2));
    assert_eq!(endpoints(store, "first").unwrap(), ["10.244.1.2"]);
    assert_eq!(store.node().unwrap().zone.as_deref(), Some("a"));

    service(&server, "second", "10.96.0.43", json!({})).await;
    slice(&server, "first-2", "first", "10.244.1.3").await;
    reaches(&handle, |store| store.len() == 3 && endpoints(store, "first").unwrap().len() == 2).await;

    // A label that hands a Service to another proxy takes it away, and back.
    let path = "/api/v1/namespaces/default/services/second";
    for (label, count) in [(json!("x"), 2), (Value::Null, 3)] {
        let patch = json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": label}}});
        server.ask("PATCH", path, Some(&patch)).await;
        reaches(&handle, |store| store.len() == count).await;
    }

    server.stop();
    let mut status = handle.status();
    timeout(LIMIT, status.wait_for(|status| !status.watching && status.error.is_some())).await.unwrap().unwrap();
    assert_eq!(store.len(), 3, "a lost API server takes nothing out");

    server.resume().await;
    server.ask("DELETE", path, None).await;
    reaches(&handle, |store| store.len() == 2).await;
    timeout(LIMIT, status.wait_for(|status| status.watching && status.error.is_none())).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_deleted_while_nobody_watched_is_gone_after_a_new_list() {
    let etcd;
    let server = server!(etcd);
    for n in 1..=20 {
        service(&server, &format!("s{n}"), &format!("10.96.1.{n}"), json!({})).await;
    }
    let (first, stop) = start_services(&server).await;
    assert_eq!(first.store().len(), 21);
    drop(stop);
    server.ask("DELETE", "/api/v1/namespaces/default/services/s7", None).await;
    // A list equals what a watch would have told.
    let (second, _stop) = start_services(&server).await;
    assert_eq!(second.store().len(), 20);
    assert_eq!(endpoints(second.store(), "s7"), None);
}

#[tokio::test]
async fn d21_h87_h91_a_node_takes_its_pod_network_and_announces_itself() {
    let etcd;
    let server = server!(etcd);
    node(&server, "flannel", Some("10.244.5.0/24"), flannel(5)).await;
    node(&server, "stranger", Some("10.244.6.0/24"), json!({})).await;
    let n1 = Node::start(server.api().await).await;
    n1.peers(1).await;
    let state = n1
        .state(|state| matches!(state, LeaseState::Acquiring { reason } if reason.contains("there is no Node")))
        .await;
    assert!(matches!(state, LeaseState::Acquiring { .. }));

    // kubelet makes the Node, the controller gives it a network.
    let note = json!({"flannel.alpha.coreos.com/public-ip-overwrite": "203.0.113.1", "note": "mine"});
    node(&server, "n1", None, note).await;
    n1.state(|state| matches!(state, LeaseState::Acquiring { reason } if reason.contains("--allocate-node-cidrs")))
        .await;
    let cidr = json!({"spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}});
    server.ask("PATCH", "/api/v1/nodes/n1", Some(&cidr)).await;
    let LeaseState::Held(held) = n1.state(|state| matches!(state, LeaseState::Held(_))).await else { panic!() };
    assert_eq!(held.key, "10.244.1.0-24".parse().unwrap());

    n1.says("c6:d2:32:6f:8f:01");
    n1.peers(2).await;
    n1.ready.send_replace(true);
    let is_up = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "NetworkUnavailable" && c["status"] == "False"))
    };
    let node = own_node(&server, is_up).await;
    let said = &node["metadata"]["annotations"];
    assert_eq!(said["flannel.alpha.coreos.com/backend-data"], r#"{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:01"}"#);
    assert_eq!(said["flannel.alpha.coreos.com/public-ip"], "203.0.113.1");
    assert_eq!(said["note"], "mine");
    let fields = node["metadata"]["managedFields"].as_array().unwrap();
    assert!(fields.iter().any(|by| by["manager"] == "weft"), "{fields:?}");

    // Somebody else writes over it.
    let other = json!({"metadata": {"annotations": {"flannel.alpha.coreos.com/public-ip": "192.0.2.99"}}});
    server.ask("PATCH", "/api/v1/nodes/n1", Some(&other)).await;
    own_node(&server, |node| node["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ip"] == "203.0.113.1")
        .await;

    // A Node that goes leaves the subnet that the node runs.
    server.ask("DELETE", "/api/v1/nodes/flannel", None).await;
    n1.peers(1).await;
    server.ask("DELETE", "/api/v1/nodes/n1", None).await;
    let gone = n1.state(|state| matches!(state, LeaseState::Held(held) if held.notice.is_some())).await;
    assert!(matches!(gone, LeaseState::Held(held) if held.key == "10.244.1.0-24".parse().unwrap()));
}

#[tokio::test]
async fn bad_annotations_and_overlaps_cost_only_their_node() {
    let etcd;
    let server = server!(etcd);
    node(&server, "good", Some("10.244.2.0/24"), flannel(2)).await;
    let mut bad = flannel(3);
    bad["flannel.alpha.coreos.com/backend-data"] = json!("notjson");
    node(&server, "bad", Some("10.244.3.0/24"), bad).await;
    node(&server, "without", None, flannel(4)).await;
    let n1 = Node::start(server.api().await).await;
    n1.peers(1).await;
    let snapshot = n1.source.leases.snapshots().borrow().clone().unwrap();
    let refused: Vec<String> = snapshot.rejected.iter().map(|r| format!("{}: {}", r.key, r.reason)).collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].starts_with("node bad: annotation backend-data"), "{refused:?}");
    assert!(refused[1].starts_with("node without: has no pod network"), "{refused:?}");
}

#[tokio::test]
async fn t07_the_service_networks_are_those_of_the_cluster() {
    let etcd;
    let server = server!(etcd);
    let stop = CancellationToken::new();
    let mut cidrs = service_cidrs::spawn(&server.api().await, stop.clone());
    let _stop = stop.drop_guard();
    let mut networks = async |count: usize| {
        let reached = cidrs.wait_for(|now| now.as_ref().is_some_and(|now| now.len() == count));
        let found = timeout(LIMIT, reached).await.expect("the networks did not get there").unwrap();
        found.iter().flatten().map(ToString::to_string).collect::<Vec<_>>()
    };
    // What the API server itself was started with.
    assert_eq!(networks(1).await, ["10.96.0.0/16"]);
    let more = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"},
        "spec": {"cidrs": ["10.112.0.0/20"]}});
    server.ask("POST", "/apis/networking.k8s.io/v1/servicecidrs", Some(&more)).await;
    assert_eq!(networks(2).await, ["10.96.0.0/16", "10.112.0.0/20"]);
}
