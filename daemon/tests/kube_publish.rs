//! Pods may come to a node once the other nodes know how it is reached, and not before. The agent itself, against a real API
//! server from `WEFT_PEERS`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "this test takes less of it than others do")]
mod agent;
#[expect(dead_code, reason = "this test takes less of it than others do")]
mod apiserver;
#[expect(dead_code, reason = "this test takes less of it than others do")]
mod etcd;

use std::time::Duration;

use agent::Agent;
use apiserver::ApiServer;
use etcd::{Etcd, LIMIT};
use serde_json::json;
use tokio::time::{sleep, timeout};
use weft_tests::scratch::Scratch;
use weft_tests::skip;

const NODE: &str = "/api/v1/nodes/n0";

#[test]
fn a_node_takes_no_pods_before_the_others_know_how_it_is_reached() {
    if ApiServer::binary().is_none() {
        skip!("WEFT_PEERS names no folder with a kube-apiserver");
    }
    agent::enter_a_namespace();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let etcd = Etcd::start().await;
        let server = ApiServer::start(&etcd).await.unwrap();
        let node =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n0"}, "spec": {"podCIDR": "10.0.1.0/24"}});
        server.ask("POST", "/api/v1/nodes", Some(&node)).await;
        // It may read everything and write nothing.
        for (kind, role) in [("clusterroles", reader()), ("clusterrolebindings", binding())] {
            server.ask("POST", &format!("/apis/rbac.authorization.k8s.io/v1/{kind}"), Some(&role)).await;
        }

        let scratch = Scratch::new();
        let agent = Agent::start(&scratch, server.kubeconfig_of_reader().to_str().unwrap());
        let answer = async |words: &str| loop {
            let answer = agent.get("/readyz").await.unwrap_or_default();
            if answer.contains(words) {
                return answer;
            }
            sleep(Duration::from_millis(100)).await;
        };
        let told = timeout(LIMIT, answer("the other nodes have not been told yet how this one is reached")).await;
        let told = told.expect("nothing is said of the node that cannot be written to");
        assert!(told.starts_with("HTTP/1.1 503") && told.contains("links: flannel.1"), "{told}");
        for file in ["subnet.env", "conf/10-weft.conflist"] {
            assert!(!scratch.join(file).exists(), "{file}");
        }

        let all = json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
        server.ask("PATCH", "/apis/rbac.authorization.k8s.io/v1/clusterroles/reader", Some(&all)).await;
        timeout(LIMIT * 3, answer("HTTP/1.1 200")).await.expect("not ready");
        assert!(scratch.join("subnet.env").exists() && scratch.join("conf/10-weft.conflist").exists());
        let annotations = server.ask("GET", NODE, None).await["metadata"]["annotations"].clone();
        assert_eq!(annotations["flannel.alpha.coreos.com/public-ip"], "198.18.0.0");
    });
}

fn reader() -> serde_json::Value {
    json!({"metadata": {"name": "reader"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]})
}

fn binding() -> serde_json::Value {
    json!({"metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"kind": "User", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"}]})
}
