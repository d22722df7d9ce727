//! `weft migrate plan` and `finish` against a real API server, from the folder that `WEFT_PEERS` names.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "these tests take less of it than others do")]
mod apiserver;
#[expect(dead_code, reason = "these tests take less of it than others do")]
mod etcd;

use apiserver::ApiServer;
use etcd::Etcd;
use serde_json::{Value, json};
use weft_tests::skip;
use weft_tests::tool::{self, Output, Stdin};

const NET_CONF: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
const CLUSTER_CONFIGURATION: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnetworking:\n  \
                                     podSubnet: 10.244.0.0/16\nproxy: {}\nscheduler: {}\n";

/// The cluster, as an administrator makes it.
struct Cluster(ApiServer);

impl Cluster {
    async fn make(&self, path: &str, object: &Value) {
        self.0.ask("POST", path, Some(object)).await;
    }

    async fn config_map(&self, namespace: &str, name: &str, data: Value) {
        let object = json!({"metadata": {"name": name}, "data": data});
        self.make(&format!("/api/v1/namespaces/{namespace}/configmaps"), &object).await;
    }

    async fn daemon_set(&self, namespace: &str, name: &str, command: &str) {
        let labels = json!({"app": name});
        let container = json!({"name": "c", "image": "x", "command": [command]});
        let object = json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}}});
        self.make(&format!("/apis/apps/v1/namespaces/{namespace}/daemonsets"), &object).await;
    }

    /// A pod of a DaemonSet that is ready on the node.
    async fn pod(&self, namespace: &str, set: &str, node: &str) {
        let owner = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": set, "uid": "1"});
        let object = json!({
            "metadata": {"name": format!("{set}-{node}"), "labels": {"app.kubernetes.io/name": set}, "ownerReferences": [owner]},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "x"}]}});
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        self.make(&pods, &object).await;
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        self.0.ask("PATCH", &format!("{pods}/{set}-{node}/status"), Some(&ready)).await;
    }

    async fn remove_pod(&self, namespace: &str, name: &str) {
        let now = json!({"gracePeriodSeconds": 0});
        self.0.ask("DELETE", &format!("/api/v1/namespaces/{namespace}/pods/{name}"), Some(&now)).await;
    }

    async fn get(&self, path: &str) -> Value {
        self.0.ask("GET", path, None).await
    }

    fn migrate(&self, words: &[&str]) -> Output {
        let mut command = tool::command(env!("CARGO_BIN_EXE_weft"));
        command.arg("migrate").args(words).args(["--kubeconfig", self.0.kubeconfig().to_str().unwrap()]);
        tool::run_with(&mut command, Stdin::Bytes(b"")).unwrap()
    }
}

/// One node of flannel's and kube-proxy's, made by kubeadm.
async fn flannels(server: ApiServer) -> Cluster {
    let cluster = Cluster(server);
    cluster.make("/api/v1/namespaces", &json!({"metadata": {"name": "kube-flannel"}})).await;
    for namespace in ["kube-system", "kube-flannel"] {
        let account = json!({"metadata": {"name": "default"}, "automountServiceAccountToken": false});
        cluster.make(&format!("/api/v1/namespaces/{namespace}/serviceaccounts"), &account).await;
    }
    cluster.make("/api/v1/nodes", &json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/os": "linux"}}})).await;
    cluster.daemon_set("kube-flannel", "kube-flannel-ds", "/opt/bin/flanneld").await;
    cluster.daemon_set("kube-system", "kube-proxy", "/usr/local/bin/kube-proxy").await;
    cluster.config_map("kube-flannel", "kube-flannel-cfg", json!({"net-conf.json": NET_CONF})).await;
    let kubeconfig = "clusters:\n- cluster:\n    server: https://192.0.2.10:6443\n  name: default\n";
    let proxy = json!({"config.conf": "mode: \"\"\n", "kubeconfig.conf": kubeconfig});
    cluster.config_map("kube-system", "kube-proxy", proxy).await;
    let kubeadm = json!({"ClusterConfiguration": CLUSTER_CONFIGURATION});
    cluster.config_map("kube-system", "kubeadm-config", kubeadm).await;
    cluster.pod("kube-flannel", "kube-flannel-ds", "n1").await;
    cluster.pod("kube-system", "kube-proxy", "n1").await;
    cluster
}

fn done(plan: &Value) -> Vec<&str> {
    let steps = plan["steps"].as_array().unwrap().iter();
    steps.filter(|step| step["done"] == true).map(|step| step["what"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_cluster_is_planned_and_finished_and_finished_again() {
    let etcd = Etcd::start().await;
    let Some(server) = ApiServer::start(&etcd).await else { skip!("WEFT_PEERS names no folder with a kube-apiserver") };
    let cluster = flannels(server).await;
    let plan = || {
        let said = cluster.migrate(&["plan", "--node-name", "x", "-o", "json"]);
        assert_eq!(said.exit, Some(0), "{}", said.stderr);
        serde_json::from_str::<Value>(&said.stdout).unwrap()
    };
    let first = plan();
    assert_eq!(done(&first), Vec::<&str>::new());
    assert_eq!(first["cluster"]["apiServer"], "https://192.0.2.10:6443");
    assert_eq!(first["cluster"]["nodes"][0]["kubeProxy"], true);
    let text = cluster.migrate(&["plan", "--node-name", "x"]).stdout;
    assert!(
        text.contains("kubectl label --overwrite node n1 weft/agent=true") && text.contains("iptables mode"),
        "{text}"
    );
    let early = cluster.migrate(&["finish"]);
    assert!(early.exit == Some(1) && early.stderr.contains("node n1 is not weft's"), "{}", early.stderr);

    // The node changes over.
    let config = json!({"net-conf.json": NET_CONF, "config.yaml": "kube-api-server: https://192.0.2.10:6443\n"});
    cluster.config_map("kube-system", "weft-config", config).await;
    for name in ["weft", "weft-migrate"] {
        cluster.daemon_set("kube-system", name, "/weft").await;
        cluster.pod("kube-system", name, "n1").await;
    }
    cluster.remove_pod("kube-flannel", "kube-flannel-ds-n1").await;
    cluster.remove_pod("kube-system", "kube-proxy-n1").await;
    let second = plan();
    assert_eq!(done(&second).len(), 4, "{:?}", done(&second));

    let sets = "/apis/apps/v1/daemonsets";
    let foretold = cluster.migrate(&["finish", "--dry-run"]);
    assert!(foretold.exit == Some(0) && foretold.stdout.contains("kube-flannel/kube-flannel-ds would be deleted"));
    assert_eq!(cluster.get(sets).await["items"].as_array().unwrap().len(), 4);
    let finished = cluster.migrate(&["finish"]);
    assert_eq!(finished.exit, Some(0), "{}\n{}", finished.stdout, finished.stderr);
    let left = cluster.get(sets).await;
    let left: Vec<&Value> = left["items"].as_array().unwrap().iter().map(|set| &set["metadata"]["name"]).collect();
    assert_eq!(left, ["weft"]);
    let kubeadm = cluster.get("/api/v1/namespaces/kube-system/configmaps/kubeadm-config").await;
    let wanted = CLUSTER_CONFIGURATION.replace("proxy: {}", "proxy:\n  disabled: true");
    assert_eq!(kubeadm["data"]["ClusterConfiguration"], wanted);
    let saved = cluster.get("/api/v1/namespaces/kube-system/configmaps/weft-migration-saved").await;
    let flannel = saved["data"]["kube-flannel.kube-flannel-ds.json"].as_str().unwrap();
    assert!(flannel.contains("flanneld"), "{flannel}");

    // What was kept can be had back, when flannel and kube-proxy cannot come to nodes that are weft's.
    let early = cluster.migrate(&["unfinish"]);
    assert!(
        early.exit == Some(1) && early.stderr.contains("node n1 is weft's and has not its label"),
        "{}",
        early.stderr
    );
    let label = json!({"metadata": {"labels": {"weft/agent": "true"}}});
    cluster.0.ask("PATCH", "/api/v1/nodes/n1", Some(&label)).await;
    let by_label = json!({"spec": {"template": {"spec": {"nodeSelector": {"weft/agent": "true"}}}}});
    cluster.0.ask("PATCH", "/apis/apps/v1/namespaces/kube-system/daemonsets/weft", Some(&by_label)).await;
    let foretold = cluster.migrate(&["unfinish", "--dry-run"]);
    assert!(foretold.exit == Some(0) && foretold.stdout.contains("kube-proxy would be created"), "{}", foretold.stderr);
    let back = cluster.migrate(&["unfinish"]);
    assert_eq!(back.exit, Some(0), "{}\n{}", back.stdout, back.stderr);
    for path in ["kube-flannel/daemonsets/kube-flannel-ds", "kube-system/daemonsets/kube-proxy"] {
        let set = cluster.get(&format!("/apis/apps/v1/namespaces/{path}")).await;
        assert!(weft::migrate::keep_off::keeps_off(&set), "{set}");
    }
    let kubeadm = cluster.get("/api/v1/namespaces/kube-system/configmaps/kubeadm-config").await;
    assert!(kubeadm["data"]["ClusterConfiguration"].as_str().unwrap().contains("disabled: false"));
    let again = cluster.migrate(&["unfinish"]);
    assert!(again.exit == Some(0) && again.stdout.contains("all that were deleted are there"), "{}", again.stdout);
    assert_eq!(cluster.migrate(&["finish"]).exit, Some(0));
    let again = cluster.migrate(&["finish"]);
    assert!(again.exit == Some(0) && again.stdout.contains("are gone"), "{}", again.stdout);
    assert_eq!(cluster.get("/api/v1/namespaces/kube-system/configmaps/kube-proxy").await["kind"], "ConfigMap");
}
