//! What is wrong with a node in Kubernetes is told in one line and one event, and nothing is lost by it. Against a real API
//! server, from `WEFT_PEERS`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "these tests take less of it than others do")]
mod apiserver;
#[expect(dead_code, reason = "these tests take less of it than others do")]
mod etcd;
#[expect(dead_code, reason = "these tests take less of it than others do")]
mod kube_node;

use std::time::Duration;

use apiserver::ApiServer;
use etcd::{Etcd, LIMIT};
use kube_node::{Node, event, flannel, node, own_node};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use weft::cluster::kube::api::Write;
use weft::cluster::kube::node_path;
use weft::lease::LeaseState;

const OURS: &str = "c6:d2:32:6f:8f:01";

/// Skips aloud if there is no API server to be had.
macro_rules! server {
    ($etcd:ident) => {{
        $etcd = Etcd::start().await;
        match ApiServer::start(&$etcd).await {
            Some(server) => server,
            None => weft_tests::skip!("WEFT_PEERS names no folder with a kube-apiserver"),
        }
    }};
}

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
    let policies = "/apis/admissionregistration.k8s.io/v1";
    let text = include_str!("../../manifests/base/admission.yaml");
    for document in serde_saphyr::from_multiple::<Value>(text).unwrap() {
        let kind = document["kind"].as_str().unwrap().to_lowercase();
        let plural = if kind.ends_with('y') { kind.trim_end_matches('y').to_owned() + "ies" } else { kind + "s" };
        server.ask("POST", &format!("{policies}/{plural}"), Some(&document)).await;
    }
    is_denied(&server).await;
    let n1 = Node::start(server.api_of_account().await).await;
    n1.says(OURS);
    let denied = n1.state(|state| {
        matches!(state, LeaseState::Held(held) if held.notice.as_ref().is_some_and(|notice| notice.contains("names no node")))
    });
    denied.await;
    let note = event(&server, "NodeNotWritten").await;
    assert!(note.contains("cannot write to Node n1") && note.contains("admission policy"), "{note}");
    server.ask("DELETE", &format!("{policies}/validatingadmissionpolicybindings/weft-own-node"), None).await;
    n1.peers(1).await;
    n1.state(|state| matches!(state, LeaseState::Held(held) if held.notice.is_none())).await;
}
