//! What is wrong with a node in Kubernetes is told in one line and one event, and nothing is lost by it. Against a real API
//! server, from `WEFT_PEERS`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "these tests take less of it than others do")]
#[macro_use]
mod apiserver;
#[expect(dead_code, reason = "these tests take less of it than others do")]
mod etcd;
mod kube_node;

use std::time::Duration;

use apiserver::ApiServer;
use etcd::LIMIT;
use kube_node::{Node, event, flannel, node, own_node};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use weft::cluster::kube::api::Write;
use weft::cluster::kube::{Api, node_path, services};
use weft::lease::LeaseState;

const OURS: &str = "c6:d2:32:6f:8f:01";

#[tokio::test]
async fn a_pod_network_that_another_node_has_is_told_by_the_younger_one() {
    let etcd;
    let server = server!(etcd);
    node(&server, "good", Some("10.244.2.0/24"), flannel(2)).await;
    node(&server, "n1", Some("10.244.2.0/24"), json!({})).await;
    let n1 = Node::start(server.api().await).await;
    n1.says(OURS);
    let note = event(&server, "NotAPeer").await;
    assert!(note.contains("overlaps 10.244.2.0-24 of node good, which was leased first"), "{note}");
    n1.peers(1).await;
    // It is mended as the API lets it be: the Node is made anew with a network of its own.
    server.ask("DELETE", "/api/v1/nodes/n1", None).await;
    node(&server, "n1", Some("10.244.3.0/24"), json!({})).await;
    n1.peers(2).await;
    let held = n1.state(|state| matches!(state, LeaseState::Held(held) if held.key.to_string() == "10.244.3.0-24"));
    held.await;
}

#[tokio::test]
async fn an_annotation_that_is_no_address_is_told_and_the_nodes_own_address_stays() {
    let etcd;
    let server = server!(etcd);
    let bad = json!({"flannel.alpha.coreos.com/public-ip-overwrite": "nonsense"});
    node(&server, "n1", Some("10.244.1.0/24"), bad).await;
    let n1 = Node::start(server.api().await).await;
    n1.says(OURS);
    let note = event(&server, "BadAnnotation").await;
    assert_eq!(
        note,
        r#"annotation flannel.alpha.coreos.com/public-ip-overwrite is "nonsense"; expected an IPv4 address"#
    );
    n1.peers(1).await;
    let is_there = |node: &Value| node["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ip"] == "192.0.2.1";
    own_node(&server, is_there).await;
}

#[tokio::test]
async fn two_machines_of_one_name_are_told_and_do_not_flood_the_api_server() {
    let etcd;
    let server = server!(etcd);
    node(&server, "n1", Some("10.244.1.0/24"), json!({})).await;
    let (first, second) = (Node::start(server.api().await).await, Node::start(server.api().await).await);
    first.says(OURS);
    second.says("c6:d2:32:6f:8f:02");
    let note = event(&server, "LeaseConflict").await;
    assert!(note.contains("does another machine have its name?"), "{note}");
    let says_so = |state: &LeaseState| matches!(state, LeaseState::Held(held) if held.notice.as_ref().is_some_and(|notice| notice.contains("another machine")));
    tokio::select! {
        _ = first.state(says_so) => {}
        _ = second.state(says_so) => {}
    }
    // One ends, the other has the last word.
    drop(first);
    own_node(&server, |node| node.to_string().contains("c6:d2:32:6f:8f:02")).await;
}

const ADMISSION: &str = include_str!("../../manifests/base/admission.yaml");

/// Makes what a manifest has.
async fn apply(server: &ApiServer, manifest: &str) {
    for document in serde_saphyr::from_multiple::<Value>(manifest).unwrap() {
        let version = document["apiVersion"].as_str().unwrap();
        let root = if version.contains('/') { "apis" } else { "api" };
        let namespace = document["metadata"]["namespace"].as_str();
        let namespace = namespace.map(|name| format!("namespaces/{name}/")).unwrap_or_default();
        let kind = document["kind"].as_str().unwrap().to_lowercase();
        let plural = kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"));
        server.ask("POST", &format!("/{root}/{version}/{namespace}{plural}"), Some(&document)).await;
    }
}

/// Waits until the API server denies what the policy is to deny: it takes its time to take a policy up.
async fn is_denied(server: &ApiServer) {
    let api = server.api_of_account().await;
    let write = Write {
        method: "PATCH".parse().unwrap(),
        path: format!("{}/status", node_path(&"n1".parse().unwrap())),
        content_type: "application/merge-patch+json",
        body: json!({"metadata": {"annotations": {"flannel.alpha.coreos.com/probe": null}}}),
    };
    let wait = async {
        while api.write("probe", &write, LIMIT).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LIMIT, wait).await.expect("the policy never came into force");
}

#[tokio::test]
async fn a_write_that_admission_denies_is_told_and_done_once_it_is_allowed() {
    let etcd;
    let server = server!(etcd);
    node(&server, "n1", Some("10.244.1.0/24"), json!({})).await;
    apply(&server, ADMISSION).await;
    is_denied(&server).await;
    let n1 = Node::start(server.api_of_account().await).await;
    n1.says(OURS);
    let denied = n1.state(|state| {
        matches!(state, LeaseState::Held(held) if held.notice.as_ref().is_some_and(|notice| notice.contains("names no node")))
    });
    denied.await;
    let note = event(&server, "NodeNotWritten").await;
    assert!(note.contains("cannot write to Node n1") && note.contains("admission policy"), "{note}");
    server
        .ask("DELETE", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/weft-own-node", None)
        .await;
    n1.peers(1).await;
    n1.state(|state| matches!(state, LeaseState::Held(held) if held.notice.is_none())).await;
}

#[tokio::test]
async fn the_account_of_the_manifests_may_do_all_that_a_node_does_and_write_no_other() {
    let etcd;
    let server = server!(etcd);
    for manifest in [
        include_str!("../../manifests/base/service-account.yaml"),
        include_str!("../../manifests/base/rbac.yaml"),
        ADMISSION,
    ] {
        apply(&server, manifest).await;
    }
    let bad = json!({"flannel.alpha.coreos.com/public-ip-overwrite": "nonsense"});
    node(&server, "n1", Some("10.244.1.0/24"), bad).await;
    node(&server, "n2", Some("10.244.2.0/24"), json!({})).await;
    is_denied(&server).await;
    // As kubelet asks for a pod's: the token names the node.
    let uid = server.ask("GET", "/api/v1/nodes/n1", None).await["metadata"]["uid"].clone();
    let bound = json!({"kind": "Node", "apiVersion": "v1", "name": "n1", "uid": uid});
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [], "expirationSeconds": 3600, "boundObjectRef": bound}});
    let path = "/api/v1/namespaces/kube-system/serviceaccounts/weft/token";
    let answer = server.ask("POST", path, Some(&request)).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, answer["status"]["token"].as_str().unwrap()).unwrap();
    let api = Api::new(server.client_with_token_in(&file).await);

    let stop = CancellationToken::new();
    let name: weft::cluster::NodeName = "n1".parse().unwrap();
    let _: Value = api.read("node", &node_path(&name), LIMIT).await.unwrap();
    let services = services::spawn(&api, &name, stop.clone());
    let n1 = Node::start(api.clone()).await;
    n1.says(OURS);
    n1.ready.send_replace(true);
    n1.peers(1).await;
    own_node(&server, |node| node["status"].to_string().contains("FlannelIsUp")).await;
    event(&server, "BadAnnotation").await;
    let mut status = services.status();
    timeout(LIMIT, status.wait_for(|status| status.watching)).await.expect("Services are not read").unwrap();
    let mut cidrs = services.cidrs();
    timeout(LIMIT, cidrs.wait_for(Option::is_some)).await.expect("ServiceCIDRs are not read").unwrap();
    let _stop = stop.drop_guard();

    let write = Write {
        method: "PATCH".parse().unwrap(),
        path: format!("{}/status", node_path(&"n2".parse().unwrap())),
        content_type: "application/merge-patch+json",
        body: json!({"metadata": {"annotations": {"flannel.alpha.coreos.com/public-ip": "192.0.2.66"}}}),
    };
    let refusal = api.write("other", &write, LIMIT).await.unwrap_err();
    assert!(refusal.words.contains("weft on node n1 may not write node n2"), "{refusal:?}");
}
