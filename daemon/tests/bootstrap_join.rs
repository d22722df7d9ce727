//! How a node finds a cluster, and whom it does not believe, on a real control plane from `WEFT_PEERS`; and kubelet's first
//! certificate, with a stand-in for kubelet; and a worker's balancer of the API, which comes and goes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[macro_use]
#[allow(dead_code, reason = "these tests take less of it than others do")]
mod control_plane;
#[allow(dead_code, reason = "these tests take less of it than others do")]
mod etcd;

#[path = "bootstrap_join/balancer.rs"]
mod balancer;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use balancer::{
    p0_18_a_balancer_stays_for_as_long_as_kubelet_has_no_other_way,
    p0_18_a_balancer_that_is_not_wanted_any_more_goes_and_comes_back,
};
use control_plane::authority::{Authority, request};
use control_plane::impostor::{Impostor, response};
use control_plane::{ControlPlane, LIMIT, ask, base64, unbase64, until};
use etcd::free_port;
use jiff::Timestamp;
use rcgen::KeyPair;
use serde_json::{Value, json};
use weft::bootstrap::api::*;
use weft::bootstrap::config::model::{BootstrapToken, BootstrapTokenDiscovery, Discovery, FileDiscovery};
use weft::bootstrap::resolved::Limits;
use weft_tests::{skip, tool};

const TOKEN: &str = "abcdef.0123456789abcdef";
const INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
const GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

/// Within this a message has to come that names the cause.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn joining() {
    let starting = control_plane::runtime();
    let Some(plane) = starting.block_on(ControlPlane::start()) else {
        skip!("WEFT_PEERS names no folder with kube-apiserver and kube-controller-manager");
    };
    cases!(
        plane,
        [
            a_cluster_that_has_published_nothing_is_told_from_a_silent_one,
            j01_a_token_finds_the_cluster_and_reads_its_configuration,
            j05_unknown_tokens_and_wrong_secrets_are_told_apart_soon,
            j07_a_wrong_pin_ends_it_before_the_token_is_shown,
            j08_somebody_in_between_is_noticed,
            j16_a_skewed_clock_is_told,
            j19_the_second_address_serves_when_the_first_does_not,
            j10_a_file_of_any_kind_finds_the_cluster,
            j11_kubelet_gets_its_certificate_and_no_others,
            j12_a_ready_node_of_the_name_is_in_the_way,
            p0_18_a_balancer_that_is_not_wanted_any_more_goes_and_comes_back,
            p0_18_a_balancer_stays_for_as_long_as_kubelet_has_no_other_way,
        ]
    );
}

fn by_token(endpoint: &str, token: &str, pins: &[String]) -> Discovery {
    let by = BootstrapTokenDiscovery {
        token: token.to_owned(),
        api_server_endpoint: Some(endpoint.to_owned()),
        ca_cert_hashes: pins.to_vec(),
        unsafe_skip_ca_verification: Some(pins.is_empty()),
    };
    Discovery { bootstrap_token: Some(by), ..Discovery::default() }
}

/// Tries for a while; also what it has told meanwhile.
async fn find_within(given: &Discovery, limit: Duration) -> (Result<Discovered, DiscoveryError>, Vec<String>) {
    let limits = Limits { discovery: limit, ..ControlPlane::limits() };
    let mut told = Vec::new();
    let found = discover(given, &limits, &mut |error| told.push(error.to_string())).await;
    (found, told)
}

async fn find(given: &Discovery) -> Result<Discovered, DiscoveryError> {
    find_within(given, LIMIT).await.0
}

/// Fails, and soon.
async fn fails(given: &Discovery) -> DiscoveryError {
    let began = Instant::now();
    let error = find(given).await.unwrap_err();
    assert!(began.elapsed() < SOON, "{:?}: {error}", began.elapsed());
    error
}

async fn a_cluster_that_has_published_nothing_is_told_from_a_silent_one(plane: &ControlPlane) {
    let nobody = format!("127.0.0.1:{}", free_port());
    let pins = [plane.pin()];
    let (refused, told) = find_within(&by_token(&nobody, TOKEN, &pins), Duration::from_secs(2)).await;
    assert!(matches!(refused, Err(DiscoveryError::Unreachable(_))), "{refused:?}");
    assert!(!told.is_empty() && told[0].contains(&nobody), "{told:?}");
    let (early, told) = find_within(&by_token(&plane.address.to_string(), TOKEN, &pins), Duration::from_secs(2)).await;
    assert!(matches!(early, Err(DiscoveryError::NotPublished { .. })), "{early:?}");
    assert!(told[0].contains("cluster-info"), "{told:?}");
    let page =
        Impostor::start(&plane.authority.server(&["127.0.0.1"]), |_, _| response("<html>log in</html>", None)).await;
    let (wrong, _) = find_within(&by_token(&page.address.to_string(), TOKEN, &pins), Duration::from_secs(1)).await;
    assert!(matches!(wrong, Err(DiscoveryError::NoApiServer { .. })), "{wrong:?}");
}

async fn j01_a_token_finds_the_cluster_and_reads_its_configuration(plane: &ControlPlane) {
    let server = plane.server().await;
    let config = BootstrapToken { token: TOKEN.to_owned(), ..BootstrapToken::default() };
    let spec = TokenSpec::from_config(&config, Timestamp::now()).unwrap();
    // Somebody has begun to join before there is anything: he waits, and comes through without a signature of anybody.
    let given = by_token(&plane.address.to_string(), TOKEN, &[plane.pin()]);
    let (shared, early, info) = (server.clone(), spec.clone(), plane.info());
    let making = tokio::spawn(async move {
        ensure_token(&shared, &early, Timestamp::now()).await?;
        publish_cluster_info(&shared, &info).await
    });
    let found = find(&given).await;
    assert_eq!(making.await.unwrap().unwrap(), Outcome::Made);
    let found = found.unwrap();
    assert_eq!((&found.info, &found.reached), (&plane.info(), &plane.address.to_string()));

    upload_kubeadm_config(&server, "kind: ClusterConfiguration\n").await.unwrap();
    upload_kubelet_config(&server, "kind: KubeletConfiguration\n", true).await.unwrap();
    let newcomer = found.server(&ControlPlane::limits()).await.unwrap();
    assert_eq!(read_kubeadm_config(&newcomer).await.unwrap(), "kind: ClusterConfiguration\n");
    assert_eq!(read_kubelet_config(&newcomer).await.unwrap(), "kind: KubeletConfiguration\n");
    refuse_ready_node(&newcomer, "n1").await.unwrap();

    // With a signature and without a pin, for those who want it so.
    sign_cluster_info(&server, &spec).await.unwrap();
    let unpinned = find(&by_token(&plane.address.to_string(), TOKEN, &[])).await.unwrap();
    assert_eq!(unpinned.info, plane.info());
}

async fn j05_unknown_tokens_and_wrong_secrets_are_told_apart_soon(plane: &ControlPlane) {
    let (address, pins) = (plane.address.to_string(), [plane.pin()]);
    let unknown = fails(&by_token(&address, "nobody.0123456789abcdef", &pins)).await;
    assert!(matches!(unknown, DiscoveryError::UnknownToken { .. }), "{unknown}");
    assert!(unknown.to_string().contains("weft token create"), "{unknown}");
    let wrong = fails(&by_token(&address, "abcdef.0123456789abcdeX".to_lowercase().as_str(), &pins)).await;
    assert!(matches!(wrong, DiscoveryError::BadSecret { .. }), "{wrong}");
    // Without a pin the token is shown to nobody, and only the signatures tell.
    let unknown = fails(&by_token(&address, "nobody.0123456789abcdef", &[])).await;
    assert!(matches!(unknown, DiscoveryError::UnknownToken { .. }), "{unknown}");
    let wrong = fails(&by_token(&address, "abcdef.0123456789abcdex", &[])).await;
    assert!(matches!(wrong, DiscoveryError::BadSignature { .. }), "{wrong}");
    for error in [unknown, wrong] {
        assert!(!error.to_string().contains("0123456789"), "no secret in a message: {error}");
    }
}

/// What the API server says of cluster-info.
async fn published(plane: &ControlPlane) -> Value {
    plane.get(INFO).await
}

fn shows_no_token(impostor: &Impostor) -> bool {
    let seen = impostor.seen();
    !seen.is_empty() && seen.iter().all(|request| !request.to_lowercase().contains("authorization"))
}

async fn j07_a_wrong_pin_ends_it_before_the_token_is_shown(plane: &ControlPlane) {
    let wrong = format!("sha256:{}", "00".repeat(32));
    let error = fails(&by_token(&plane.address.to_string(), TOKEN, std::slice::from_ref(&wrong))).await;
    assert!(matches!(&error, DiscoveryError::WrongPin { found, .. } if *found == plane.pin()), "{error}");
    let body = published(plane).await.to_string();
    let relay = Impostor::start(&plane.authority.server(&["127.0.0.1"]), move |_, _| response(&body, None)).await;
    let error = fails(&by_token(&relay.address.to_string(), TOKEN, &[wrong])).await;
    assert!(matches!(error, DiscoveryError::WrongPin { .. }), "{error}");
    assert!(shows_no_token(&relay));
}

async fn j08_somebody_in_between_is_noticed(plane: &ControlPlane) {
    let (real, pins) = (published(plane).await, [plane.pin()]);
    let foreign = Authority::new("foreign");
    // His own authority in cluster-info.
    let mut forged = real.clone();
    let text = forged["data"]["kubeconfig"].as_str().unwrap();
    let text = text.replace(&base64(&plane.authority.pem()), &base64(&foreign.pem()));
    assert_ne!(text, real["data"]["kubeconfig"].as_str().unwrap());
    forged["data"]["kubeconfig"] = json!(text);
    let body = forged.to_string();
    let his = Impostor::start(&foreign.server(&["127.0.0.1"]), move |_, _| response(&body, None)).await;
    let error = fails(&by_token(&his.address.to_string(), TOKEN, &pins)).await;
    assert!(matches!(error, DiscoveryError::Intercepted { .. }), "{error}");
    let error = fails(&by_token(&his.address.to_string(), TOKEN, &[])).await;
    assert!(matches!(error, DiscoveryError::BadSignature { .. }), "{error}");
    assert!(shows_no_token(&his));

    // His own authority beside the real one: the pin is found, and is of no use to him.
    let mut both = real.clone();
    let joined = format!("{}{}", plane.authority.pem(), foreign.pem());
    let text = real["data"]["kubeconfig"].as_str().unwrap().replace(&base64(&plane.authority.pem()), &base64(&joined));
    both["data"]["kubeconfig"] = json!(text);
    let body = both.to_string();
    let his = Impostor::start(&foreign.server(&["127.0.0.1"]), move |_, _| response(&body, None)).await;
    let error = fails(&by_token(&his.address.to_string(), TOKEN, &pins)).await;
    assert!(matches!(error, DiscoveryError::NotTrusted { .. }), "{error}");
    assert!(shows_no_token(&his));

    // All as it is, from a server that is another.
    let body = real.to_string();
    let relay = Impostor::start(&foreign.server(&["127.0.0.1"]), move |_, _| response(&body, None)).await;
    let error = fails(&by_token(&relay.address.to_string(), TOKEN, &pins)).await;
    assert!(matches!(error, DiscoveryError::NotTrusted { .. }), "{error}");

    // Changed in the second answer only.
    let (first, mut second) = (real.to_string(), real.clone());
    second["data"]["kubeconfig"] = json!(format!("{}# x\n", real["data"]["kubeconfig"].as_str().unwrap()));
    let second = second.to_string();
    let answer = move |number: usize, _: &str| response(if number.is_multiple_of(2) { &first } else { &second }, None);
    let two_faced = Impostor::start(&plane.authority.server(&["127.0.0.1"]), answer).await;
    let error = fails(&by_token(&two_faced.address.to_string(), TOKEN, &pins)).await;
    assert!(matches!(error, DiscoveryError::Mismatch { .. }), "{error}");
}

async fn j16_a_skewed_clock_is_told(plane: &ControlPlane) {
    let body = published(plane).await.to_string();
    for (date, words) in [
        (SystemTime::now() - Duration::from_secs(600), "clock skew 10m: this machine's clock is ahead of"),
        (SystemTime::now() + Duration::from_secs(600), "clock skew 10m: this machine's clock is behind"),
    ] {
        let (body, date) = (body.clone(), httpdate::fmt_http_date(date));
        let issued = plane.authority.server(&["127.0.0.1"]);
        let server = Impostor::start(&issued, move |_, _| response(&body, Some(&date))).await;
        let error = fails(&by_token(&server.address.to_string(), TOKEN, &[plane.pin()])).await;
        assert!(error.to_string().starts_with(words), "{error}");
    }
}

async fn j19_the_second_address_serves_when_the_first_does_not(plane: &ControlPlane) {
    let endpoints = format!("127.0.0.1:{},{}", free_port(), plane.address);
    let found = find(&by_token(&endpoints, TOKEN, &[plane.pin()])).await.unwrap();
    assert_eq!((found.reached, found.info), (plane.address.to_string(), plane.info()));
}

async fn j10_a_file_of_any_kind_finds_the_cluster(plane: &ControlPlane) {
    let folder = tempfile::tempdir().unwrap();
    let issued = plane.authority.client("newcomer", Some(GROUP));
    std::fs::write(folder.path().join("c.crt"), &issued.cert).unwrap();
    std::fs::write(folder.path().join("c.key"), &issued.key).unwrap();
    let embedded = json!({"client-certificate-data": base64(&issued.cert), "client-key-data": base64(&issued.key)});
    for (user, tls_token) in [
        (embedded, None),
        (json!({"client-certificate": "c.crt", "client-key": "c.key"}), None),
        (json!({"token": TOKEN}), None),
        (json!({}), Some(TOKEN)),
    ] {
        let path = folder.path().join("discovery.conf");
        std::fs::write(&path, plane.kubeconfig_of(&user).to_string()).unwrap();
        let found = find(&by_file(path.to_str().unwrap(), tls_token)).await.unwrap();
        assert_eq!(found.info, plane.info());
        assert_eq!(identity(plane, &found).await, "system:node:n10", "{user}");
    }
    // Without any it says what is missing.
    std::fs::write(folder.path().join("none.conf"), plane.kubeconfig_of(&json!({})).to_string()).unwrap();
    let none = fails(&by_file(folder.path().join("none.conf").to_str().unwrap(), None)).await;
    assert!(none.to_string().contains("--tls-bootstrap-token"), "{none}");

    // From an https server that the machine's own authorities vouch for, which are others in a process of their own.
    let body = plane.kubeconfig_of(&json!({"token": TOKEN})).to_string();
    let web = Authority::new("web");
    let server = Impostor::start(&web.server(&["127.0.0.1"]), move |_, _| response(&body, None)).await;
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, web.pem()).unwrap();
    let url = format!("https://{}/discovery.conf", server.address);
    let untrusted = fails(&by_file(&url, None)).await;
    assert!(matches!(untrusted, DiscoveryError::Given(_)), "{untrusted}");
    let mut child = tool::command(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "j10_in_a_process_with_other_authorities", "--nocapture"]);
    child.env("SSL_CERT_FILE", &roots).env("J10_URL", &url).env_remove("SSL_CERT_DIR");
    let output = tokio::task::spawn_blocking(move || tool::run(&mut child)).await.unwrap().unwrap();
    assert!(output.contains(&format!("found {}", plane.url())), "{output}");
}

fn by_file(place: &str, tls_token: Option<&str>) -> Discovery {
    Discovery {
        file: Some(FileDiscovery { kube_config_path: place.to_owned() }),
        tls_bootstrap_token: tls_token.map(str::to_owned),
        ..Discovery::default()
    }
}

#[tokio::test]
#[ignore = "a part of joining, which starts it in a process of its own"]
async fn j10_in_a_process_with_other_authorities() {
    let found = find(&by_file(&std::env::var("J10_URL").unwrap(), None)).await.unwrap();
    println!("found {}", found.info.server);
}

/// The certificate that a kubelet of these credentials gets, and its key.
async fn certify(client: &kube::Client, node: &str) -> (String, KeyPair) {
    let (name, key) = post(client, node).await.unwrap();
    let path = format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}");
    // A newcomer may look at his own request.
    let certificate = until("the certificate", async || {
        let found = ask(client, "GET", &path, None).await.ok()?;
        (!found["status"]["certificate"].is_null()).then(|| unbase64(&found["status"]["certificate"]))
    })
    .await;
    (String::from_utf8(certificate).unwrap(), key)
}

/// Asks for a certificate; the name of the request, or the code of a refusal.
async fn post(client: &kube::Client, node: &str) -> Result<(String, KeyPair), u16> {
    let key = KeyPair::generate().unwrap();
    let pem = request(&format!("system:node:{node}"), &key);
    let body = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "node-csr-"},
        "spec": {"request": base64(&pem), "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
                 "usages": ["digital signature", "client auth"]},
    });
    let all = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let made = ask(client, "POST", all, Some(&body)).await?;
    Ok((made["metadata"]["name"].as_str().unwrap().to_owned(), key))
}

/// Who one is after kubelet's first certificate.
async fn identity(plane: &ControlPlane, found: &Discovered) -> String {
    let (certificate, key) = first(found, "n10").await;
    let conf = kubelet_conf(plane, &plane.root.path().join("n10.conf"), &certificate, &key);
    whoami(&plane.client(&conf).await).await
}

/// As `weft join` asks for it.
async fn first(found: &Discovered, node: &str) -> (String, KeyPair) {
    let limits = ControlPlane::limits();
    let key = KeyPair::generate().unwrap();
    let asked = request(&format!("system:node:{node}"), &key);
    let certificate =
        first_certificate(&found.server(&limits).await.unwrap(), &asked, &limits, &|words| eprintln!("{words}")).await;
    (certificate.unwrap(), key)
}

fn kubelet_conf(plane: &ControlPlane, path: &Path, certificate: &str, key: &KeyPair) -> std::path::PathBuf {
    let user = json!({"client-certificate-data": base64(certificate), "client-key-data": base64(&key.serialize_pem())});
    std::fs::write(path, plane.kubeconfig_of(&user).to_string()).unwrap();
    path.to_owned()
}

async fn whoami(client: &kube::Client) -> String {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = ask(client, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", Some(&review)).await.unwrap();
    let user = &answer["status"]["userInfo"];
    assert!(user["groups"].as_array().unwrap().contains(&json!("system:nodes")), "{user}");
    user["username"].as_str().unwrap().to_owned()
}

async fn j11_kubelet_gets_its_certificate_and_no_others(plane: &ControlPlane) {
    let found = find(&by_token(&plane.address.to_string(), TOKEN, &[plane.pin()])).await.unwrap();
    let began = Instant::now();
    let (certificate, key) = first(&found, "n11").await;
    eprintln!("kubelet's certificate came after {:.1?}", began.elapsed());
    assert!(certificate.contains("BEGIN CERTIFICATE"));

    // With what it has now it may renew its own, and no other's.
    let conf = kubelet_conf(plane, &plane.paths.kubernetes.join("kubelet.conf"), &certificate, &key);
    let kubelet = plane.client(&conf).await;
    assert_eq!(whoami(&kubelet).await, "system:node:n11");
    certify(&kubelet, "n11").await;
    assert_eq!(post(&kubelet, "other").await.err(), Some(403), "another's is not even asked for");

    // What is no node's is approved by nobody, and it is said who has to.
    let limits = Limits { tls_bootstrap: Duration::from_millis(500), ..ControlPlane::limits() };
    let server = found.server(&limits).await.unwrap();
    let stranger = request("somebody", &KeyPair::generate().unwrap());
    let refused = first_certificate(&server, &stranger, &limits, &|_| ()).await.unwrap_err().to_string();
    assert!(refused.contains("kubectl certificate approve node-csr-") || refused.contains("Failed"), "{refused}");
}

async fn j12_a_ready_node_of_the_name_is_in_the_way(plane: &ControlPlane) {
    let found = find(&by_token(&plane.address.to_string(), TOKEN, &[plane.pin()])).await.unwrap();
    let newcomer = found.server(&ControlPlane::limits()).await.unwrap();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "taken"}});
    plane.ask("POST", "/api/v1/nodes", Some(&node)).await.unwrap();
    refuse_ready_node(&newcomer, "taken").await.unwrap();
    let status = |ready: &str| {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({"status": {"conditions": [{"type": "Ready", "status": ready, "reason": "x", "message": "x",
            "lastHeartbeatTime": now, "lastTransitionTime": now}]}})
    };
    plane.ask("PATCH", "/api/v1/nodes/taken/status", Some(&status("True"))).await.unwrap();
    let refused = refuse_ready_node(&newcomer, "taken").await.unwrap_err().to_string();
    assert!(refused.contains("taken") && refused.contains("--node-name"), "{refused}");
    plane.ask("PATCH", "/api/v1/nodes/taken/status", Some(&status("False"))).await.unwrap();
    refuse_ready_node(&newcomer, "taken").await.unwrap();
    plane.ask("DELETE", "/api/v1/nodes/taken", None).await.unwrap();
}
