//! `weft status --all` and `weft doctor` with the Kubernetes API, on a real server from the folder that `WEFT_PEERS` names.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "these tests take less of it than others do")]
mod apiserver;
#[expect(dead_code, reason = "these tests take less of it than others do")]
mod etcd;

use std::net::SocketAddr;
use std::sync::Arc;

use apiserver::ApiServer;
use etcd::Etcd;
use serde_json::{Value, json};
use weft::serve::{Board, Component, Health, Metrics, serve};
use weft_tests::tool::{self, Output, Stdin};

const COMPONENTS: [Component; 8] = [
    Component::Uplink,
    Component::Store,
    Component::Lease,
    Component::Links,
    Component::Peers,
    Component::Filter,
    Component::Publish,
    Component::Services,
];

/// A Node of flannel's annotations, whose agent is at `address`.
async fn node(server: &ApiServer, number: u8, address: &str, available: bool) {
    let annotations = json!({
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-data": format!(r#"{{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:{number:02x}"}}"#),
        "flannel.alpha.coreos.com/public-ip": format!("192.0.2.{number}"),
    });
    let cidr = format!("10.244.{number}.0/24");
    let condition = json!({"type": "NetworkUnavailable", "status": if available { "False" } else { "True" },
        "reason": "FlannelIsUp", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let body = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("n{number}"), "annotations": annotations},
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}], "conditions": [condition]}});
    server.ask("POST", "/api/v1/nodes", Some(&body)).await;
}

/// Serves `/status` as the agent of a node that is well.
async fn agent(name: &str, address: SocketAddr) {
    let health = Arc::new(Health::default());
    for component in COMPONENTS {
        health.good(component, "fine");
    }
    let board = Arc::new(Board::new(name.to_owned(), "kube"));
    tokio::spawn(serve(address, health, Arc::new(Metrics::default()), board));
    while weft::status::fetch::status(address, etcd::LIMIT).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Runs `weft` as node n1.
async fn weft(server: &ApiServer, verb: &'static str, port: u16, args: &'static [&'static str]) -> Output {
    let kubeconfig = server.kubeconfig();
    let run = move || {
        let mut command = tool::command(env!("CARGO_BIN_EXE_weft"));
        command.arg(verb).args(["--source", "kube", "--node-name", "n1", "--kubeconfig"]).arg(&kubeconfig);
        command.args(["--healthz-bind", &format!("127.0.0.1:{port}"), "-o", "json"]).args(args);
        tool::run_with(&mut command, Stdin::Bytes(b"")).unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn document(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_the_api_server_are_shown_and_what_is_wrong_with_them() {
    let etcd = Etcd::start().await;
    let Some(mut server) = ApiServer::start(&etcd).await else {
        weft_tests::skip!("WEFT_PEERS names no folder with a kube-apiserver");
    };
    let port = etcd::free_port();
    agent("n1", SocketAddr::from(([127, 0, 0, 1], port))).await;
    agent("n2", SocketAddr::from(([127, 0, 0, 2], port))).await;
    node(&server, 1, "127.0.0.1", true).await;
    node(&server, 2, "127.0.0.2", true).await;

    let well = weft(&server, "status", port, &["--all"]).await;
    assert_eq!(well.exit, Some(0), "{well:?}");
    let rows = document(&well)["nodes"].as_array().unwrap().clone();
    let found: Vec<_> = rows.iter().map(|row| (&row["node"], &row["own"], &row["ready"], &row["addresses"])).collect();
    let (n1, n2, yes, no) = (json!("n1"), json!("n2"), json!(true), json!(false));
    assert_eq!(found, [(&n1, &yes, &yes, &json!(["192.0.2.1"])), (&n2, &no, &yes, &json!(["192.0.2.2"]))]);

    // No agent there; then one whose network is not there either.
    node(&server, 3, "127.0.0.3", true).await;
    assert_eq!(weft(&server, "status", port, &["--all"]).await.exit, Some(2));
    node(&server, 4, "127.0.0.2", false).await;
    let wrong = weft(&server, "status", port, &["--all"]).await;
    assert_eq!(wrong.exit, Some(1), "{wrong:?}");
    let text = document(&wrong)["nodes"][3]["wrong"].to_string();
    assert!(text.contains("NetworkUnavailable is True") && text.contains("is that of n2"), "{text}");

    // What else the doctor finds on this machine is not this test's; that it asks the API server is.
    let checks = document(&weft(&server, "doctor", port, &["--peers", "0"]).await)["checks"].clone();
    let outcome = |group: &str, name: &str| {
        let is = |check: &&Value| check["group"] == group && check["name"] == name;
        checks.as_array().unwrap().iter().find(is).map(|check| check["outcome"].clone()).unwrap_or_default()
    };
    assert_eq!(outcome("store", "answers"), "good", "{checks}");
    assert_eq!(outcome("clock", "this node"), "good", "{checks}");

    server.stop();
    let away = weft(&server, "status", port, &["--all"]).await;
    assert_eq!(away.exit, Some(2), "{away:?}");
    assert!(away.stderr.contains("the nodes cannot be listed"), "{}", away.stderr);
}
