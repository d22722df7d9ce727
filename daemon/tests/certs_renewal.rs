//! `weft certs renew all --if-due --every`: the process that the static pod weft-cert-renewal is, on the files of a node.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weft::bootstrap::config::model::{ApiServer, Component, EncryptionAlgorithm, LocalEtcd, NodeRegistration};
use weft::bootstrap::kubeconfig;
use weft::bootstrap::pki::renew::{RenewOptions, renew};
use weft::bootstrap::pki::restart::ANNOTATION;
use weft::bootstrap::pki::{Options, ensure_all};
use weft::bootstrap::resolved::{Cluster, EtcdPlace, Node, Paths};
use weft_tests::wait::until;

const LIMIT: Duration = Duration::from_secs(60);
const YEAR: Duration = Duration::from_secs(8760 * 3600);
const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

fn cluster() -> Cluster {
    Cluster {
        kubernetes_version: "v1.36.2".to_owned(),
        name: "kubernetes".to_owned(),
        service_subnets: vec!["10.96.0.0/12".parse().unwrap()],
        pod_subnets: Vec::new(),
        dns_domain: "cluster.local".to_owned(),
        control_plane_endpoint: None,
        image_repository: "registry.k8s.io".to_owned(),
        certificates_dir: "/etc/kubernetes/pki".into(),
        encryption: EncryptionAlgorithm::EcdsaP256,
        certificate_validity: YEAR,
        ca_validity: 10 * YEAR,
        api_server: ApiServer::default(),
        controller_manager: Component::default(),
        scheduler: Component::default(),
        etcd: EtcdPlace::Local {
            config: LocalEtcd::default(),
            image: "etcd".to_owned(),
            data_dir: "/var/lib/etcd".into(),
        },
        dns: None,
    }
}

fn node() -> Node {
    Node {
        name: "n1".to_owned(),
        hostname: "n1".to_owned(),
        address: "192.0.2.10".parse().unwrap(),
        second_address: None,
        bind_port: 6443,
        taints: Vec::new(),
        registration: NodeRegistration::default(),
        cri_socket: String::new(),
    }
}

/// A node whose certificates were made so long ago. Its components do not run: nothing listens on these ports.
fn made(root: &Path, days: i64) -> Paths {
    let paths = Paths::under(root);
    let then = Timestamp::now() - SignedDuration::from_hours(24 * days);
    ensure_all(&cluster(), &node(), &paths, &Options::default(), then).unwrap();
    kubeconfig::ensure(&kubeconfig::INIT, &cluster(), &node(), &paths, then).unwrap();
    fs::create_dir_all(paths.manifests()).unwrap();
    for component in COMPONENTS {
        let flags = "    - --secure-port=1\n    - --advertise-address=127.0.0.1\n    - --listen-client-urls=https://127.0.0.1:1\n";
        let text =
            format!("metadata:\n  name: {component}\nspec:\n  containers:\n  - command:\n    - {component}\n{flags}");
        fs::write(paths.manifests().join(format!("{component}.yaml")), text).unwrap();
    }
    paths
}

fn weft(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.args(args).arg("--rootfs").arg(root);
    command
}

fn check(root: &Path) -> Output {
    weft(root, &["certs", "check", "--fail-if-overdue"]).output().unwrap()
}

fn restarted(paths: &Paths, component: &str) -> bool {
    fs::read_to_string(paths.manifests().join(format!("{component}.yaml"))).unwrap().contains(ANNOTATION)
}

/// Ended with its test, whatever becomes of that.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn p0_14_what_is_due_is_renewed_and_used_without_anybodys_doing() {
    let root = tempfile::tempdir().unwrap();
    let paths = made(root.path(), 300);
    let output = check(root.path());
    assert_eq!(output.status.code(), Some(3), "the pod is not Ready");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("apiserver") && said.contains("admin.conf"), "{said}");

    let mut command = weft(root.path(), &["certs", "renew", "all", "--if-due", "--every", "1s"]);
    let mut helper = Helper(command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap());
    until(LIMIT, "everything to be renewed", || check(root.path()).status.success()).unwrap();
    until(LIMIT, "all components to be restarted", || COMPONENTS.iter().all(|part| restarted(&paths, part))).unwrap();

    // As a run leaves it that is killed between the certificate and the restart.
    let manifest = paths.manifests().join("kube-scheduler.yaml");
    let before = fs::read(&manifest).unwrap();
    let others = fs::read(paths.manifests().join("etcd.yaml")).unwrap();
    renew("scheduler.conf", &paths, RenewOptions::default(), Timestamp::now()).unwrap();
    until(LIMIT, "the scheduler to be restarted", || fs::read(&manifest).unwrap() != before).unwrap();
    assert_eq!(fs::read(paths.manifests().join("etcd.yaml")).unwrap(), others, "nobody else is");

    kill(Pid::from_raw(i32::try_from(helper.0.id()).unwrap()), Signal::SIGTERM).unwrap();
    let mut ended = None;
    until(LIMIT, "the helper to end", || {
        ended = helper.0.try_wait().unwrap();
        ended.is_some()
    })
    .unwrap();
    assert_eq!(ended.unwrap().code(), Some(0));
}

#[test]
fn p0_14_without_the_authoritys_key_it_says_so_and_is_not_ready() {
    let root = tempfile::tempdir().unwrap();
    let paths = made(root.path(), 300);
    fs::remove_file(paths.pki.join("ca.key")).unwrap();
    let output = weft(root.path(), &["certs", "renew", "all", "--if-due", "--no-restart"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("apiserver: not renewed, its authority's key is not here"), "{said}");
    let output = check(root.path());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && said.contains("apiserver") && !said.contains("etcd-server"), "{said}");
}

#[test]
fn for_ever_is_for_what_is_due() {
    let root = tempfile::tempdir().unwrap();
    let output = weft(root.path(), &["certs", "renew", "all", "--every", "1s"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "it would renew all of it each second");
}
