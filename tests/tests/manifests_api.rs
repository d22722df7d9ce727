//! The manifests on a real API server: they apply, and the agent's account may do what it has to and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weft_tests::etcd::Etcd;
use weft_tests::netns::OwnedNetns;
use weft_tests::process::{self, ProcessId};
use weft_tests::scratch::{Scratch, unique_name};
use weft_tests::{skip, tool, wait};

const LIMIT: Duration = Duration::from_secs(120);
const SERVER: &str = "https://127.0.0.1:6443";
const ADMIN: &str = "admin-token";
const PREFIX: &str = "flannel.alpha.coreos.com";

/// Where a program of `WEFT_PEERS` is.
fn peer(program: &str) -> Option<PathBuf> {
    let peers = PathBuf::from(std::env::var_os("WEFT_PEERS")?);
    let folders = [peers.join("kubernetes/bin"), peers.join("bin"), peers];
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn manifests() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests"))
}

/// An API server with its etcd in a namespace of their own.
struct Cluster {
    netns: OwnedNetns,
    scratch: Scratch,
    kubectl: PathBuf,
    processes: Vec<ProcessId>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &self.processes {
            process.signal(Signal::SIGKILL);
        }
    }
}

impl Cluster {
    fn start(server: &PathBuf, kubectl: PathBuf) -> Self {
        let mut this =
            Self { netns: OwnedNetns::new(unique_name()), scratch: Scratch::new(), kubectl, processes: Vec::new() };
        // The server refuses to advertise a loopback address, but not another one of that interface.
        this.netns.tool("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]).unwrap();
        let etcd = Etcd::start(&this.netns, "127.0.0.1:2379".parse().unwrap(), &this.scratch.join("etcd")).unwrap();
        this.processes.push(etcd.process());
        let (key, tokens) = (this.scratch.join("key"), this.scratch.join("tokens"));
        tool::run(tool::command("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048")).unwrap();
        fs::write(&tokens, format!("{ADMIN},admin,admin,\"system:masters\"\n")).unwrap();
        let mut command = tool::command(server);
        command.args(["--secure-port=6443", "--advertise-address=192.0.2.1", "--authorization-mode=Node,RBAC"]);
        command.args(["--service-cluster-ip-range=10.96.0.0/12", "--service-account-issuer=https://kubernetes"]);
        command.arg(format!("--etcd-servers={}", etcd.endpoint()));
        for (flag, path) in [
            ("cert-dir", &this.scratch.join("certificates")),
            ("token-auth-file", &tokens),
            ("service-account-key-file", &key),
            ("service-account-signing-key-file", &key),
        ] {
            command.arg(format!("--{flag}={}", path.display()));
        }
        let log = this.scratch.join("log");
        this.processes.push(process::spawn(&this.netns, &mut command, &log).unwrap());
        let ready = wait::until_ok(LIMIT, "the API server", || this.kubectl(ADMIN, &["get", "--raw", "/readyz"]));
        ready.unwrap_or_else(|error| panic!("{error}; {}", fs::read_to_string(&log).unwrap_or_default()));
        this
    }

    fn kubectl(&self, token: &str, args: &[&str]) -> anyhow::Result<String> {
        let mut command = tool::command(&self.kubectl);
        command.args(["--server", SERVER, "--insecure-skip-tls-verify", "--token", token]).args(args);
        // Not what another cluster's discovery has left in a cache, nor its configuration.
        command.env("HOME", self.scratch.path()).env_remove("KUBECONFIG");
        self.netns.command(&mut command)
    }

    fn create(&self, object: &Value) {
        let file = self.scratch.join("object.json");
        fs::write(&file, object.to_string()).unwrap();
        self.kubectl(ADMIN, &["create", "--filename", file.to_str().unwrap()]).unwrap();
    }

    /// Patches as the agent does, without reading before; returns why it was refused.
    fn patch(&self, token: &str, path: &str, patch: &Value) -> Result<(), String> {
        let mut command = tool::command("curl");
        command.args(["--silent", "--show-error", "--insecure", "--request", "PATCH"]);
        command.args(["--header", "Content-Type: application/strategic-merge-patch+json"]);
        command.arg("--header").arg(format!("Authorization: Bearer {token}"));
        command.arg("--data").arg(patch.to_string()).arg(format!("{SERVER}/api/v1/nodes/{path}"));
        let answer: Value = serde_json::from_str(&self.netns.command(&mut command).unwrap()).unwrap();
        if answer["kind"] == "Node" { Ok(()) } else { Err(answer["message"].as_str().unwrap().to_owned()) }
    }
}

fn annotation(key: &str, value: Option<&str>) -> Value {
    json!({"metadata": {"annotations": {key: value}}})
}

fn condition(kind: &str, status: &str) -> Value {
    json!({"status": {"conditions": [{"type": kind, "status": status, "reason": "X", "message": "x"}]}})
}

/// The rules of `auth can-i --list` that not every account has.
fn rights(listing: &str) -> Vec<Vec<&str>> {
    let lines = listing.lines().filter(|line| !line.contains("selfsubject") && !line.contains("[get]"));
    let mut rights: Vec<Vec<&str>> = lines.skip(1).map(|line| line.split_whitespace().collect()).collect();
    rights.sort();
    rights
}

#[test]
fn the_manifests_on_an_api_server() {
    let kubectl = peer("kubectl").unwrap_or_else(|| "kubectl".into());
    let Some(server) = peer("kube-apiserver") else { skip!("needs kube-apiserver in the folder WEFT_PEERS") };
    if tool::run(tool::command(&kubectl).args(["kustomize", "--help"])).is_err() {
        skip!("needs kubectl, from WEFT_PEERS or installed");
    }
    for program in ["curl", "openssl"] {
        if tool::call(program, &["version"]).is_err() && tool::call(program, &["--version"]).is_err() {
            skip!("needs {program}");
        }
    }
    let cluster = Cluster::start(&server, kubectl);
    let folder = |name: &str| manifests().join(name).display().to_string();
    cluster.kubectl(ADMIN, &["apply", "--kustomize", &folder("")]).unwrap();
    for overlay in fs::read_dir(manifests().join("overlays")).unwrap() {
        let overlay = overlay.unwrap().path().display().to_string();
        cluster.kubectl(ADMIN, &["apply", "--dry-run=server", "--kustomize", &overlay]).unwrap();
    }

    for node in ["n1", "n2"] {
        cluster.create(
            &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "annotations": {"other/is": "1"}}}),
        );
    }
    let container = json!({"name": "weft", "image": "weft"});
    cluster.create(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "weft-n1", "namespace": "kube-system"},
        "spec": {"serviceAccountName": "weft", "nodeName": "n1", "containers": [container]},
    }));
    let token = ["--namespace", "kube-system", "create", "token", "weft"];
    let bound = ["--bound-object-kind", "Pod", "--bound-object-name", "weft-n1"];
    let agent = cluster.kubectl(ADMIN, &[token.as_slice(), &bound].concat()).unwrap().trim().to_owned();
    let unbound = cluster.kubectl(ADMIN, &token).unwrap().trim().to_owned();

    let listing = cluster.kubectl(&agent, &["auth", "can-i", "--list"]).unwrap();
    let all = ["[]", "[]"];
    let expected: Vec<Vec<&str>> = [
        ("endpointslices.discovery.k8s.io", vec!["[list", "watch]"]),
        ("events.events.k8s.io", vec!["[create", "patch]"]),
        ("nodes", vec!["[get", "list", "watch]"]),
        ("nodes/status", vec!["[patch]"]),
        ("servicecidrs.networking.k8s.io", vec!["[list", "watch]"]),
        ("services", vec!["[list", "watch]"]),
    ]
    .into_iter()
    .map(|(resource, verbs)| [&[resource], all.as_slice(), &verbs].concat())
    .collect();
    assert_eq!(rights(&listing), expected);

    let ours = format!("{PREFIX}/public-ip");
    // The policy is in force some moments after it was written.
    wait::until(LIMIT, "the policy", || {
        cluster.patch(&agent, "n2/status", &annotation(&ours, Some("192.0.2.2"))).is_err()
    })
    .unwrap();
    for (path, patch) in [
        ("n1/status", annotation(&ours, Some("192.0.2.1"))),
        ("n1/status", annotation(&ours, Some("192.0.2.3"))),
        ("n1/status", annotation(&ours, None)),
        ("n1/status", condition("NetworkUnavailable", "False")),
    ] {
        assert_eq!(cluster.patch(&agent, path, &patch), Ok(()), "{path} {patch}");
    }
    for (token, path, patch, reason) in [
        (&agent, "n2/status", annotation(&ours, Some("192.0.2.1")), "weft on node n1 may not write node n2"),
        (&agent, "n2/status", condition("NetworkUnavailable", "False"), "weft on node n1 may not write node n2"),
        (&agent, "n1/status", annotation("other/new", Some("1")), "may write annotations below"),
        (&agent, "n1/status", annotation("other/is", Some("2")), "may write annotations below"),
        (&agent, "n1/status", annotation("other/is", None), "may write annotations below"),
        (&agent, "n1/status", json!({"metadata": {"labels": {"a": "b"}}}), "may not write labels"),
        (&agent, "n1/status", condition("Ready", "True"), "NetworkUnavailable only"),
        (&agent, "n1/status", json!({"status": {"capacity": {"cpu": "9"}}}), "NetworkUnavailable only"),
        (&agent, "n1", json!({"spec": {"unschedulable": true}}), "cannot patch resource"),
        (&unbound, "n1/status", annotation(&ours, Some("192.0.2.1")), "token names no node"),
    ] {
        let refusal = cluster.patch(token, path, &patch).unwrap_err();
        assert!(refusal.contains(reason), "{path} {patch}: {refusal}");
    }
    // Everybody else is none of the policy's business.
    assert_eq!(cluster.patch(ADMIN, "n2/status", &condition("Ready", "True")), Ok(()));
}
