//! What `init` says to the API server, and `weft token`, on a real control plane from `WEFT_PEERS`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[macro_use]
#[allow(dead_code, reason = "these tests take less of it than others do")]
mod control_plane;
#[allow(dead_code, reason = "these tests take less of it than others do")]
mod etcd;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use control_plane::{ControlPlane, ask, unbase64, until};
use jiff::Timestamp;
use serde_json::{Value, json};
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
    let refused = mark_control_plane(&late, "cp", &[taint.clone()]).await.unwrap_err().to_string();
    assert!(refused.contains("not registered"), "{refused}");
    let foreign = json!({"key": "example.org/x", "effect": "NoExecute"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "cp"}, "spec": {"taints": [foreign]}});
    plane.ask("POST", "/api/v1/nodes", Some(&node)).await.unwrap();
    let refused = mark_control_plane(&late, "cp", &[taint.clone()]).await.unwrap_err().to_string();
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

/// `weft token` as an administrator.
fn weft(plane: &ControlPlane, args: &[&str]) -> Output {
    let mut command = tool::command(env!("CARGO_BIN_EXE_weft"));
    command.arg("token").arg("--kubeconfig").arg(plane.paths.kubernetes.join("admin.conf")).args(args);
    tool::run_with(&mut command, Stdin::Bytes(b"")).unwrap()
}

async fn j02_create_prints_one_line_and_the_signature_is_there(plane: &ControlPlane) {
    let made = weft(plane, &["create", "--ttl", "2h", "--print-join-command"]);
    assert_eq!((made.exit, made.stdout.lines().count()), (Some(0), 1), "{made:?}");
    let words: Vec<&str> = made.stdout.split_whitespace().collect();
    let pin = plane.pin();
    assert_eq!(words[..3], ["weft", "join", &plane.address.to_string()]);
    assert_eq!((words[3], words[5], words[6]), ("--token", "--discovery-token-ca-cert-hash", pin.as_str()));
    let token: Token = words[4].parse().unwrap();
    let info = plane.get(INFO).await;
    assert!(info["data"][format!("jws-kubeconfig-{}", token.id())].is_string(), "nobody has to wait: {info}");
    let secret = plane.get(&format!("{SECRETS}/bootstrap-token-{}", token.id())).await;
    let left = TokenSpec::from_secret(&secret).unwrap().left(Timestamp::now()).unwrap();
    assert!((7100..=7200).contains(&left.as_secs()), "{left:?}");
    // The controller manager signs the same way: nothing changes when it does.
    let signed = info["data"].clone();
    let held = wait_until_stable(plane).await;
    for (key, value) in signed.as_object().unwrap() {
        assert_eq!(&held["data"][key], value, "{key}");
    }
    let kubeadm = weft(plane, &["create", "--print-join-command", "--kubeadm", "--certificate-key", &"1".repeat(64)]);
    assert!(kubeadm.stdout.starts_with("kubeadm join ") && kubeadm.stdout.contains("--control-plane"), "{kubeadm:?}");
}

/// cluster-info once the controller manager has had its look at it: it signs for a token that we have not signed for.
async fn wait_until_stable(plane: &ControlPlane) -> Value {
    let probe = spec("probe0.0123456789abcdef", "1h");
    let server = plane.server().await;
    create_token(&server, &probe).await.unwrap();
    until("the controller manager's signature", async || {
        let info = plane.get(INFO).await;
        info["data"]["jws-kubeconfig-probe0"].is_string().then_some(info)
    })
    .await;
    // What it has signed is what we would have.
    assert_eq!(sign_cluster_info(&server, &probe).await.unwrap(), Outcome::Kept);
    let info = plane.get(INFO).await;
    delete_token(&server, "probe0").await.unwrap();
    info
}

async fn j03_tokens_have_rules(plane: &ControlPlane) {
    let again = weft(plane, &["create", TOKEN]);
    assert!(again.exit == Some(1) && again.stderr.contains("is there already"), "{again:?}");
    assert!(!again.stderr.contains("0123456789abcdef"), "no secret in a message");
    let forever = weft(plane, &["create", "eterna.0123456789abcdef", "--ttl", "0"]);
    assert_eq!(forever.stdout, "eterna.0123456789abcdef\n", "{forever:?}");
    let secret = plane.get(&format!("{SECRETS}/bootstrap-token-eterna")).await;
    assert!(secret["data"].get("expiration").is_none());
    for (args, word) in [
        (&["create", "--groups", "system:masters"][..], "system:bootstrappers:"),
        (&["create", "--usages", "signing"], "authentication"),
        (&["create", "--usages", "nothing"], "signing"),
        (&["create", "--ttl", "soon"], "duration"),
        (&["create", "not-a-token"], "abcdef.0123456789abcdef"),
    ] {
        let refused = weft(plane, args);
        assert!(refused.exit == Some(1) && refused.stdout.is_empty(), "{args:?}: {refused:?}");
        assert!(refused.stderr.contains(word), "{args:?}: {refused:?}");
    }
}

async fn j04_a_broken_secret_does_not_hide_the_others(plane: &ControlPlane) {
    let broken = json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"namespace": "kube-system", "name": "bootstrap-token-broken"},
        "stringData": {"token-id": "others", "token-secret": "0123456789abcdef"}});
    plane.ask("POST", SECRETS, Some(&broken)).await.unwrap();
    let listed = weft(plane, &["list", "-o", "json"]);
    assert_eq!(listed.exit, Some(0), "{listed:?}");
    assert!(listed.stderr.contains("bootstrap-token-broken") && listed.stderr.contains("token-id"), "{listed:?}");
    let tokens: Vec<Value> =
        serde_json::Deserializer::from_str(&listed.stdout).into_iter().collect::<Result<_, _>>().unwrap();
    let ids: Vec<&str> = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert!(ids.contains(&TOKEN) && ids.contains(&"eterna.0123456789abcdef"), "{ids:?}");
    assert_eq!(tokens[0]["apiVersion"], "output.kubeadm.k8s.io/v1alpha3");
    let text = weft(plane, &["list"]);
    assert!(text.stdout.starts_with("TOKEN") && text.stdout.contains("<forever>"), "{}", text.stdout);
    plane.ask("DELETE", &format!("{SECRETS}/bootstrap-token-broken"), None).await.unwrap();
}

async fn j06_an_expired_token_goes_and_its_signature_too(plane: &ControlPlane) {
    let made = weft(plane, &["create", "moment.0123456789abcdef", "--ttl", "15s"]);
    assert_eq!(made.exit, Some(0), "{made:?}");
    let key = "jws-kubeconfig-moment";
    assert!(plane.get(INFO).await["data"][key].is_string());
    until("the token to be gone", async || {
        plane.ask("GET", &format!("{SECRETS}/bootstrap-token-moment"), None).await.is_err().then_some(())
    })
    .await;
    until("its signature to be gone", async || plane.get(INFO).await["data"][key].is_null().then_some(())).await;
}

async fn c07_generate_and_delete(plane: &ControlPlane) {
    let generated = weft(plane, &["generate"]);
    assert!(generated.stdout.trim().parse::<Token>().is_ok(), "{generated:?}");
    let mistyped = weft(plane, &["genorate"]);
    assert!(mistyped.exit == Some(2) && mistyped.stdout.is_empty(), "{mistyped:?}");
    let gone = weft(plane, &["delete", "eterna.0123456789abcdef"]);
    assert_eq!((gone.exit, gone.stdout.as_str()), (Some(0), "bootstrap token eterna deleted\n"), "{gone:?}");
    let again = weft(plane, &["delete", "eterna"]);
    assert!(again.exit == Some(1) && again.stderr.contains("no token eterna"), "{again:?}");
    let wrong = weft(plane, &["delete", "nonsense"]);
    assert!(wrong.exit == Some(1) && wrong.stderr.contains("nonsense"), "{wrong:?}");
    let dry = weft(plane, &["create", "--dry-run"]);
    let id = dry.stdout.trim().parse::<Token>().unwrap().id().to_owned();
    assert!(plane.ask("GET", &format!("{SECRETS}/bootstrap-token-{id}"), None).await.is_err());
}

async fn weft_is_applied_whole_and_foreign_changes_stay(plane: &ControlPlane) {
    let server = plane.server().await;
    let (pods, services) = (["10.244.0.0/16".parse().unwrap()], ["10.96.0.0/12".parse().unwrap()]);
    let settings = BTreeMap::new();
    let url = plane.url();
    let addon = WeftAddon {
        image: "localhost/weft:test",
        pod_subnets: &pods,
        service_subnets: &services,
        api_server: &url,
        proxy_mode: "auto",
        settings: &settings,
    };
    let applied = apply_weft(&server, &addon).await.unwrap();
    assert!(applied.iter().all(|(_, outcome)| *outcome == Outcome::Made), "{applied:?}");
    // Every resource of the folder is there, whatever is added to it.
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/base"));
    let list: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(folder.join("kustomization.yaml")).unwrap()).unwrap();
    let mut named = 0;
    for file in list["resources"].as_array().unwrap() {
        let text = std::fs::read_to_string(folder.join(file.as_str().unwrap())).unwrap();
        for object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
            let metadata = &object["metadata"];
            let name = match metadata["namespace"].as_str() {
                Some(namespace) => format!("{namespace}/{}", metadata["name"].as_str().unwrap()),
                None => metadata["name"].as_str().unwrap().to_owned(),
            };
            let words = format!("{} {name}", object["kind"].as_str().unwrap());
            assert!(applied.iter().any(|(it, _)| *it == words), "{words} is not applied");
            named += 1;
        }
    }
    assert_eq!(named, applied.len());
    let set = plane.get("/apis/apps/v1/namespaces/kube-system/daemonsets/weft").await;
    assert_eq!(set["spec"]["template"]["spec"]["containers"][0]["image"], "localhost/weft:test");
    assert_eq!(set["metadata"]["managedFields"][0]["manager"], "weft-init");
    let again = apply_weft(&server, &addon).await.unwrap();
    assert!(again.iter().all(|(_, outcome)| *outcome == Outcome::Kept), "{again:?}");
    // What somebody else has set in the configuration stays; in the rest it does not.
    let map = "/api/v1/namespaces/kube-system/configmaps/weft-config";
    let theirs = json!({"data": {"config.yaml": "proxy-mode: ipvs\n"}});
    plane.ask("PATCH", map, Some(&theirs)).await.unwrap();
    let third = apply_weft(&server, &addon).await.unwrap();
    let retained: Vec<&str> =
        third.iter().filter(|(_, it)| *it == Outcome::Retained).map(|(words, _)| words.as_str()).collect();
    assert_eq!(retained, ["ConfigMap kube-system/weft-config"], "{third:?}");
    assert_eq!(plane.get(map).await["data"]["config.yaml"], "proxy-mode: ipvs\n");
    compare_with_kustomize(&addon);
}

/// The little that is built in renders what kustomize does.
fn compare_with_kustomize(addon: &WeftAddon<'_>) {
    let kubectl = PathBuf::from(std::env::var_os("WEFT_PEERS").unwrap()).join("kubectl");
    if !kubectl.is_file() {
        skip!("WEFT_PEERS has no kubectl to compare with");
    }
    let text = tool::run(
        tool::command(kubectl).args(["kustomize", concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/base")]),
    );
    let mut theirs: Vec<Value> = serde_saphyr::from_multiple(&text.unwrap()).unwrap();
    let mut ours = weft_objects(addon).unwrap();
    for object in ours.iter_mut().chain(&mut theirs) {
        even(object);
        // kustomize gives a namespace to what has none, if it does not know the kind.
        if object["kind"].as_str().unwrap().starts_with("ValidatingAdmission") {
            object["metadata"].as_object_mut().unwrap().remove("namespace");
        }
        // What is the cluster's own.
        if object["kind"] == "ConfigMap" {
            object["data"] = Value::Null;
        }
        if object["kind"] == "DaemonSet" {
            let template = &mut object["spec"]["template"];
            template["spec"]["containers"][0]["image"] = Value::Null;
            template["metadata"].as_object_mut().unwrap().remove("annotations");
        }
    }
    let key = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    ours.sort_by_key(key);
    theirs.sort_by_key(key);
    assert_eq!(ours, theirs);
}

/// Folded text with blanks at its lines' beginnings is written again in more than one way.
fn even(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.split_whitespace().collect::<Vec<_>>().join(" "),
        Value::Array(items) => items.iter_mut().for_each(even),
        Value::Object(fields) => fields.values_mut().for_each(even),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

async fn coredns_keeps_what_an_operator_has_changed(plane: &ControlPlane) {
    let server = plane.server().await;
    let dns = CoreDns {
        image: "registry.example/coredns:v1",
        dns_domain: "cluster.local",
        address: dns_address("10.96.0.0/12".parse().unwrap()).unwrap(),
    };
    let as_is = |object: Value| Ok(object);
    assert_eq!(apply_coredns(&server, &dns, &as_is).await.unwrap(), Outcome::Made);
    assert_eq!(plane.get("/api/v1/namespaces/kube-system/services/kube-dns").await["spec"]["clusterIP"], "10.96.0.10");
    let deployment = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";
    let generation = plane.get(deployment).await["metadata"]["generation"].clone();
    assert_eq!(apply_coredns(&server, &dns, &as_is).await.unwrap(), Outcome::Kept);
    assert_eq!(plane.get(deployment).await["metadata"]["generation"], generation);
    let map = "/api/v1/namespaces/kube-system/configmaps/coredns";
    plane.ask("PATCH", map, Some(&json!({"data": {"Corefile": ".:53 {}"}}))).await.unwrap();
    plane.ask("PATCH", deployment, Some(&json!({"spec": {"replicas": 5}}))).await.unwrap();
    let newer = CoreDns { image: "registry.example/coredns:v2", ..dns };
    let patched = |mut object: Value| {
        object["spec"]["template"]["spec"]["priorityClassName"] = json!("system-node-critical");
        Ok(object)
    };
    assert_eq!(apply_coredns(&server, &newer, &patched).await.unwrap(), Outcome::Changed);
    let spec = plane.get(deployment).await["spec"].clone();
    assert_eq!(
        (&spec["replicas"], &spec["template"]["spec"]["priorityClassName"]),
        (&json!(5), &json!("system-node-critical"))
    );
    assert_eq!(spec["template"]["spec"]["containers"][0]["image"], "registry.example/coredns:v2");
    assert_eq!(plane.get(map).await["data"]["Corefile"], ".:53 {}");
    let refused = apply_coredns(&server, &newer, &|_| Err("it is broken".to_owned())).await.unwrap_err().to_string();
    assert!(refused.contains("coredns") && refused.contains("it is broken"), "{refused}");
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
