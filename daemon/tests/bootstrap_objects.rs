//! What `init` says to the API server, and `weft token`, on a real control plane from `WEFT_PEERS`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[macro_use]
#[allow(dead_code, reason = "these tests take less of it than others do")]
mod control_plane;
#[allow(dead_code, reason = "these tests take less of it than others do")]
mod etcd;

#[path = "bootstrap_objects/addons.rs"]
mod addons;
#[path = "bootstrap_objects/tokens.rs"]
mod tokens;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use addons::{coredns_keeps_what_an_operator_has_changed, weft_is_applied_whole_and_foreign_changes_stay};
use control_plane::{ControlPlane, ask, unbase64, until};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokens::{
    c07_generate_and_delete, j02_create_prints_one_line_and_the_signature_is_there, j03_tokens_have_rules,
    j04_a_broken_secret_does_not_hide_the_others, j06_an_expired_token_goes_and_its_signature_too,
};
use weft::bootstrap::api::*;
use weft::bootstrap::config::model::{LocalEtcd, Taint};
use weft::bootstrap::resolved::EtcdPlace;
use weft_tests::skip;
use weft_tests::tool::{self, Output, Stdin};

const GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";
const TOKEN: &str = "abcdef.0123456789abcdef";
const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

/// The cases share a control plane, in this order: what init does first comes first.
#[test]
fn objects_of_init() {
    let starting = control_plane::runtime();
    let Some(plane) = starting.block_on(ControlPlane::start()) else {
        skip!("WEFT_PEERS names no folder with kube-apiserver and kube-controller-manager");
    };
    cases!(
        plane,
        [
            k09_admin_gets_its_rights_from_super_admin,
            i05_all_objects_of_init_are_there,
            i06_a_second_run_writes_nothing,
            i12_the_node_is_marked_once_it_is_there,
            i16_certificates_are_under_the_key_and_go_with_their_token,
            j18_a_wrong_key_writes_no_file,
            j02_create_prints_one_line_and_the_signature_is_there,
            j03_tokens_have_rules,
            j04_a_broken_secret_does_not_hide_the_others,
            j06_an_expired_token_goes_and_its_signature_too,
            c07_generate_and_delete,
            weft_is_applied_whole_and_foreign_changes_stay,
            coredns_keeps_what_an_operator_has_changed,
            etcd_is_where_its_pods_say,
        ]
    );
}

fn spec(token: &str, ttl: &str) -> TokenSpec {
    let config = weft::bootstrap::config::model::BootstrapToken {
        token: token.to_owned(),
        ttl: Some(ttl.to_owned()),
        ..Default::default()
    };
    TokenSpec::from_config(&config, Timestamp::now()).unwrap()
}

async fn k09_admin_gets_its_rights_from_super_admin(plane: &ControlPlane) {
    let admin_conf = plane.client(&plane.paths.kubernetes.join("admin.conf")).await;
    assert_eq!(ask(&admin_conf, "GET", "/api/v1/nodes", None).await.unwrap_err(), 403, "the right is not built in");
    let limits = ControlPlane::limits();
    let (server, outcome) = admin(&plane.paths, &plane.url(), &limits).await.unwrap();
    assert_eq!((outcome, list_tokens(&server).await.unwrap().0.len()), (Outcome::Made, 0));
    ask(&admin_conf, "GET", "/api/v1/nodes", None).await.unwrap();
    assert_eq!(admin(&plane.paths, &plane.url(), &limits).await.unwrap().1, Outcome::Kept);
    // Taken away, a second run gives it back; without super-admin.conf it says who can.
    let binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/kubeadm:cluster-admins";
    plane.ask("DELETE", binding, None).await.unwrap();
    until("the right to be gone", async || ask(&admin_conf, "GET", "/api/v1/nodes", None).await.is_err().then_some(()))
        .await;
    let conf = plane.paths.kubernetes.join("super-admin.conf");
    let kept = std::fs::read(&conf).unwrap();
    std::fs::remove_file(&conf).unwrap();
    let short = weft::bootstrap::resolved::Limits { api_call: Duration::from_secs(1), ..limits };
    let refused = admin(&plane.paths, &plane.url(), &short).await.unwrap_err();
    std::fs::write(&conf, kept).unwrap();
    assert!(refused.is(403) && refused.to_string().contains("super-admin.conf"), "{refused}");
    assert_eq!(admin(&plane.paths, &plane.url(), &limits).await.unwrap().1, Outcome::Made);
}

/// What init writes once the control plane is up.
async fn init(plane: &ControlPlane, server: &Server) -> Vec<Outcome> {
    let token = spec(TOKEN, "24h");
    let cluster = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nproxy:\n  disabled: true\n";
    let kubelet = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    vec![
        upload_kubeadm_config(server, cluster).await.unwrap(),
        upload_kubelet_config(server, kubelet, true).await.unwrap(),
        ensure_token(server, &token, Timestamp::now()).await.unwrap(),
        publish_cluster_info(server, &plane.info()).await.unwrap(),
        sign_cluster_info(server, &token).await.unwrap(),
    ]
}

async fn may(plane: &ControlPlane, who: Value, verb: &str, group: &str, resource: &str, place: (&str, &str)) -> bool {
    let mut spec = who;
    spec["resourceAttributes"] =
        json!({"verb": verb, "group": group, "resource": resource, "namespace": place.0, "name": place.1});
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    plane.ask("POST", path, Some(&review)).await.unwrap()["status"]["allowed"] == true
}

async fn i05_all_objects_of_init_are_there(plane: &ControlPlane) {
    let server = plane.server().await;
    assert_eq!(init(plane, &server).await, [Outcome::Made; 5]);
    let map = plane.get("/api/v1/namespaces/kube-system/configmaps/kubelet-config").await;
    let hash = map["metadata"]["annotations"]["kubeadm.kubernetes.io/component-config.hash"].as_str().unwrap();
    assert!(hash.starts_with("sha256:"), "{hash}");
    assert!(read_kubeadm_config(&server).await.unwrap().contains("disabled: true"));

    let newcomer = json!({"user": "system:bootstrap:abcdef", "groups": ["system:bootstrappers", GROUP]});
    let node = json!({"user": "system:node:n1", "groups": ["system:nodes"]});
    let requests = ("certificates.k8s.io", "certificatesigningrequests");
    for (who, verb, group, resource, place) in [
        (&newcomer, "get", "", "configmaps", ("kube-system", "kubeadm-config")),
        (&newcomer, "get", "", "configmaps", ("kube-system", "kubelet-config")),
        (&node, "get", "", "configmaps", ("kube-system", "kubeadm-config")),
        (&node, "get", "", "configmaps", ("kube-system", "kubelet-config")),
        (&newcomer, "get", "", "nodes", ("", "n1")),
        (&newcomer, "create", requests.0, requests.1, ("", "")),
    ] {
        assert!(may(plane, who.clone(), verb, group, resource, place).await, "{who} {verb} {resource} {place:?}");
    }
    assert!(!may(plane, newcomer, "get", "", "secrets", ("kube-system", "bootstrap-token-abcdef")).await);
    let anybody = json!({"user": "system:anonymous", "groups": ["system:unauthenticated"]});
    assert!(may(plane, anybody, "get", "", "configmaps", ("kube-public", "cluster-info")).await);
    let api_server = json!({"user": "kube-apiserver-kubelet-client", "groups": []});
    assert!(may(plane, api_server, "get", "", "nodes", ("", "n1")).await);

    let secret = plane.get(&format!("{SECRETS}/bootstrap-token-abcdef")).await;
    assert_eq!(secret["type"], "bootstrap.kubernetes.io/token");
    let text = |key: &str| String::from_utf8(unbase64(&secret["data"][key])).unwrap();
    assert_eq!((text("auth-extra-groups").as_str(), text("usage-bootstrap-signing").as_str()), (GROUP, "true"));
}

/// The version of every object that init has made.
async fn versions(plane: &ControlPlane) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    for path in [
        "/api/v1/namespaces/kube-system/configmaps",
        "/api/v1/namespaces/kube-public/configmaps",
        SECRETS,
        &format!("{rbac}/clusterroles"),
        &format!("{rbac}/clusterrolebindings"),
        &format!("{rbac}/namespaces/kube-system/roles"),
        &format!("{rbac}/namespaces/kube-system/rolebindings"),
        &format!("{rbac}/namespaces/kube-public/rolebindings"),
        "/apis/apps/v1/deployments",
        "/apis/apps/v1/daemonsets",
    ] {
        for item in plane.get(path).await["items"].as_array().unwrap() {
            // The controller manager's own business.
            if item["metadata"]["name"] == "kube-root-ca.crt" {
                continue;
            }
            let generation = &item["metadata"]["generation"];
            let version = if generation.is_null() { &item["metadata"]["resourceVersion"] } else { generation };
            all.insert(format!("{path} {}", item["metadata"]["name"]), version.clone());
        }
    }
    all
}

async fn i06_a_second_run_writes_nothing(plane: &ControlPlane) {
    let server = plane.server().await;
    // Once the controller manager has had its look at the token, too.
    until("the controllers to be at rest", async || {
        let before = versions(plane).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        (before == versions(plane).await).then_some(())
    })
    .await;
    let before = versions(plane).await;
    assert_eq!(init(plane, &server).await, [Outcome::Kept; 5]);
    assert_eq!(before, versions(plane).await);
    // A label that somebody adds is no difference; a value that somebody changes is.
    let path = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config";
    plane.ask("PATCH", path, Some(&json!({"metadata": {"labels": {"x": "y"}}}))).await.unwrap();
    assert_eq!(init(plane, &server).await[0], Outcome::Kept);
    plane.ask("PATCH", path, Some(&json!({"data": {"ClusterConfiguration": "x"}}))).await.unwrap();
    assert_eq!(init(plane, &server).await[0], Outcome::Changed);
    assert_eq!(plane.get(path).await["metadata"]["labels"]["x"], "y");
    // A user's kubelet configuration loses the mark of a generated one.
    upload_kubelet_config(&server, "kind: KubeletConfiguration\n", false).await.unwrap();
    let map = plane.get("/api/v1/namespaces/kube-system/configmaps/kubelet-config").await;
    assert!(map["metadata"].get("annotations").is_none(), "{map}");
}

async fn i12_the_node_is_marked_once_it_is_there(plane: &ControlPlane) {
    let taint = Taint {
        key: "node-role.kubernetes.io/control-plane".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    let server = plane.server().await;
    let late = server.within(Duration::from_millis(100));
    let refused = mark_control_plane(&late, "cp", std::slice::from_ref(&taint)).await.unwrap_err().to_string();
    assert!(refused.contains("not registered"), "{refused}");
    let foreign = json!({"key": "example.org/x", "effect": "NoExecute"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "cp"}, "spec": {"taints": [foreign]}});
    plane.ask("POST", "/api/v1/nodes", Some(&node)).await.unwrap();
    let refused = mark_control_plane(&late, "cp", std::slice::from_ref(&taint)).await.unwrap_err().to_string();
    assert!(refused.contains("not labelled"), "{refused}");
    // kubelet's label comes while it waits.
    let label = json!({"metadata": {"labels": {"kubernetes.io/hostname": "cp"}}});
    let wanted = [taint];
    let (marked, labelled) =
        tokio::join!(mark_control_plane(&server, "cp", &wanted), plane.ask("PATCH", "/api/v1/nodes/cp", Some(&label)));
    labelled.unwrap();
    assert_eq!(marked.unwrap(), Outcome::Changed);
    let node = plane.get("/api/v1/nodes/cp").await;
    let keys: Vec<&str> =
        node["spec"]["taints"].as_array().unwrap().iter().map(|it| it["key"].as_str().unwrap()).collect();
    assert!(keys.contains(&"example.org/x") && keys.contains(&"node-role.kubernetes.io/control-plane"), "{keys:?}");
    assert_eq!(node["metadata"]["labels"]["node.kubernetes.io/exclude-from-external-load-balancers"], "");
    // The controller manager has its say about Nodes, too; between two of its words nothing changes.
    until("a second run that writes nothing", async || {
        let version = async || plane.get("/api/v1/nodes/cp").await["metadata"]["resourceVersion"].clone();
        let before = version().await;
        assert_eq!(mark_control_plane(&server, "cp", &wanted).await.unwrap(), Outcome::Kept);
        (before == version().await).then_some(())
    })
    .await;
    plane.ask("DELETE", "/api/v1/nodes/cp", None).await.unwrap();
}

fn local_etcd() -> EtcdPlace {
    EtcdPlace::Local { config: LocalEtcd::default(), image: String::new(), data_dir: PathBuf::new() }
}

async fn i16_certificates_are_under_the_key_and_go_with_their_token(plane: &ControlPlane) {
    let server = plane.server().await;
    let (key, now) = (CertificateKey::generate().unwrap(), Timestamp::now());
    let files = certificate_files(&plane.paths, &local_etcd());
    assert_eq!(upload_certs(&server, &files, &key, now).await.unwrap(), Outcome::Made);
    let path = format!("{SECRETS}/kubeadm-certs");
    let secret = plane.get(&path).await;
    let keys: Vec<&String> = secret["data"].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "ca.crt",
            "ca.key",
            "etcd-ca.crt",
            "etcd-ca.key",
            "front-proxy-ca.crt",
            "front-proxy-ca.key",
            "sa.key",
            "sa.pub"
        ]
    );
    let plain = std::fs::read(plane.paths.pki.join("ca.key")).unwrap();
    assert_eq!(unbase64(&secret["data"]["ca.key"]).len(), plain.len() + 12 + 16);
    let owner = secret["metadata"]["ownerReferences"][0].clone();
    assert_eq!((&owner["kind"], &owner["controller"]), (&json!("Secret"), &json!(true)));
    let token = plane.get(&format!("{SECRETS}/{}", owner["name"].as_str().unwrap())).await;
    let token = TokenSpec::from_secret(&token).unwrap();
    assert!(token.usages.is_empty() && token.groups.is_empty());
    assert!(token.left(now).unwrap() <= Duration::from_secs(7201));

    assert_eq!(upload_certs(&server, &files, &key, now).await.unwrap(), Outcome::Kept);
    assert_eq!(plane.get(&path).await["metadata"]["resourceVersion"], secret["metadata"]["resourceVersion"]);

    // Another machine: what is written is what was there, keys for their owner only.
    let other = tempfile::tempdir().unwrap();
    let paths = weft::bootstrap::resolved::Paths::under(other.path());
    let wanted = certificate_files(&paths, &local_etcd());
    let written = download_certs(&server, &wanted, &key).await.unwrap();
    assert!(written.len() == 8 && written.iter().all(|(_, outcome)| *outcome == Outcome::Made), "{written:?}");
    for ((_, from), (_, to)) in files.iter().zip(&wanted) {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::read(from).unwrap(), std::fs::read(to).unwrap());
        let mode = std::fs::metadata(to).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if to.extension().unwrap() == "key" { 0o600 } else { 0o644 }, "{}", to.display());
    }
    let again = download_certs(&server, &wanted, &key).await.unwrap();
    assert!(again.iter().all(|(_, outcome)| *outcome == Outcome::Kept));

    // It goes with its token.
    assert!(delete_token(&server, token.token.id()).await.unwrap());
    until("the garbage collector", async || plane.ask("GET", &path, None).await.is_err().then_some(())).await;
    let gone = download_certs(&server, &wanted, &key).await.unwrap_err().to_string();
    assert!(gone.contains("two hours") && gone.contains("upload-certs"), "{gone}");
}

async fn j18_a_wrong_key_writes_no_file(plane: &ControlPlane) {
    let server = plane.server().await;
    let key = CertificateKey::generate().unwrap();
    let files = certificate_files(&plane.paths, &local_etcd());
    upload_certs(&server, &files, &key, Timestamp::now()).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let wanted = certificate_files(&weft::bootstrap::resolved::Paths::under(other.path()), &local_etcd());
    let wrong = CertificateKey::generate().unwrap();
    let refused = download_certs(&server, &wanted, &wrong).await.unwrap_err().to_string();
    assert!(refused.contains("does not open") && !refused.contains(&wrong.reveal()), "{refused}");
    // The last one spoiled: nothing of the others either.
    let path = format!("{SECRETS}/kubeadm-certs");
    plane.ask("PATCH", &path, Some(&json!({"data": {"etcd-ca.key": "AAAA"}}))).await.unwrap();
    download_certs(&server, &wanted, &key).await.unwrap_err();
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);
}

async fn etcd_is_where_its_pods_say(plane: &ControlPlane) {
    let short = plane.server().await.within(Duration::from_millis(100));
    let none = etcd_endpoints(&short).await.unwrap_err().to_string();
    assert!(none.contains("none in kube-system"), "{none}");
    let pods = "/api/v1/namespaces/kube-system/pods";
    for (node, annotations) in [
        ("n1", json!({"kubeadm.kubernetes.io/etcd.advertise-client-urls": "https://192.0.2.1:2379"})),
        ("n2", json!({})),
    ] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("etcd-{node}"), "labels": {"component": "etcd", "tier": "control-plane"},
                         "annotations": annotations},
            "spec": {"containers": [{"name": "etcd", "image": "etcd"}], "automountServiceAccountToken": false}});
        until("the namespace's account", async || plane.ask("POST", pods, Some(&pod)).await.ok()).await;
    }
    let unsaid = etcd_endpoints(&short).await.unwrap_err().to_string();
    assert!(unsaid.contains("etcd-n2"), "{unsaid}");
    plane.ask("DELETE", &format!("{pods}/etcd-n2?gracePeriodSeconds=0"), None).await.unwrap();
    assert_eq!(etcd_endpoints(&short).await.unwrap(), ["https://192.0.2.1:2379"]);
}
