//! `weft config` as a user meets it, and what kubeadm says of the files that it writes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weft_tests::scratch::Scratch;
use weft_tests::skip;
use weft_tests::tool::{Output, Stdin, command, run_with};

fn weft(arguments: &[&str]) -> Output {
    run(Path::new(env!("CARGO_BIN_EXE_weft")), arguments)
}

fn run(program: &Path, arguments: &[&str]) -> Output {
    run_with(command(program).args(arguments), Stdin::Bytes(b"")).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Upstream's kubeadm, if the peers have it.
fn kubeadm() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("WEFT_PEERS")?).join("kubeadm");
    path.is_file().then_some(path)
}

const OLD: &str = "apiVersion: kubeadm.k8s.io/v1beta2
kind: InitConfiguration
nodeRegistration:
  criSocket: /var/run/dockershim.sock
  kubeletExtraArgs: {v: '4'}
---
apiVersion: kubeadm.k8s.io/v1beta2
kind: ClusterConfiguration
apiServer:
  timeoutForControlPlane: 4m0s
  extraArgs: {authorization-mode: 'Node,RBAC'}
clusterName: 'on'
imageRepository: registry.aliyuncs.com/google_containers
networking: {podSubnet: 10.244.0.0/16}
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: ipvs
";

#[test]
fn c01_printed_defaults_are_valid() {
    let scratch = Scratch::new();
    for which in ["init-defaults", "join-defaults", "reset-defaults"] {
        let printed = weft(&["config", "print", which]);
        assert_eq!(printed.exit, Some(0), "{}", printed.stderr);
        let path = scratch.join(which);
        fs::write(&path, printed.stdout).unwrap();
        let valid = weft(&["config", "validate", "--config", text(&path)]);
        assert_eq!((valid.exit, valid.stdout.as_str()), (Some(0), "ok\n"), "{}", valid.stderr);
    }
}

#[test]
fn c02_an_old_file_is_migrated() {
    let scratch = Scratch::new();
    let (old, new) = (scratch.join("old.yaml"), scratch.join("new.yaml"));
    fs::write(&old, OLD).unwrap();
    let migrated = weft(&["config", "migrate", "--old-config", text(&old), "--new-config", text(&new)]);
    assert_eq!(migrated.exit, Some(0), "{}", migrated.stderr);
    assert!(migrated.stderr.contains("dockershim"), "{}", migrated.stderr);
    assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
    let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(&new).unwrap()).unwrap();
    let cluster = documents.iter().find(|document| document["kind"] == "ClusterConfiguration").unwrap();
    assert_eq!(cluster["apiVersion"], "kubeadm.k8s.io/v1beta4");
    assert_eq!(cluster["apiServer"]["extraArgs"][0]["name"], "authorization-mode");
    let valid = weft(&["config", "validate", "--config", text(&new)]);
    assert_eq!(valid.stdout, "ok\n", "{}", valid.stderr);
}

#[test]
fn c03_unknown_and_repeated_fields_have_their_place() {
    let scratch = Scratch::new();
    let path = scratch.join("bad.yaml");
    let fields = "clusterNam: a\nclusterName: b\nclusterName: c\n";
    fs::write(&path, format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n{fields}")).unwrap();
    let output = weft(&["config", "validate", "--config", text(&path)]);
    assert_eq!((output.exit, output.stdout.as_str()), (Some(1), ""));
    for expected in
        ["bad.yaml:3:1: there is no field clusterNam; did you mean clusterName?", "bad.yaml:5:1: clusterName"]
    {
        assert!(output.stderr.contains(expected), "{}", output.stderr);
    }
}

#[test]
fn c05_a_port_that_is_none_is_a_wrong_argument() {
    for port in ["foobar", "100000", "-6000"] {
        let output = weft(&["config", "effective", "init", "--apiserver-bind-port", port]);
        assert_eq!((output.exit, output.stdout.as_str()), (Some(2), ""), "{port}");
    }
}

#[test]
fn what_is_in_effect_is_shown_with_its_origin_and_no_secret() {
    let line = [
        "config",
        "effective",
        "join",
        "192.0.2.1:6443",
        "--token",
        "abcdef.0123456789abcdef",
        "--node-ip",
        "192.0.2.9",
    ];
    let output = weft(&[&line[..], &["--discovery-token-unsafe-skip-ca-verification", "-o", "json"]].concat());
    assert_eq!(output.exit, Some(0), "{}", output.stderr);
    assert!(!(output.stdout.clone() + &output.stderr).contains("0123456789abcdef"), "a token is shown");
    let values: Vec<Value> = serde_json::from_str(&output.stdout).unwrap();
    let find = |path: &str| values.iter().find(|value| value["path"] == path).unwrap();
    assert_eq!(find("JoinConfiguration.discovery.bootstrapToken.token")["origin"], "--token");
    assert_eq!(find("JoinConfiguration.timeouts.discovery")["value"], "5m0s");
}

#[test]
fn kubeadm_takes_what_weft_writes() {
    let Some(kubeadm) = kubeadm() else { skip!("needs kubeadm in WEFT_PEERS") };
    let scratch = Scratch::new();
    let old = scratch.join("old.yaml");
    fs::write(&old, OLD).unwrap();
    for (name, arguments) in [
        ("init", vec!["config", "print", "init-defaults"]),
        ("join", vec!["config", "print", "join-defaults"]),
        ("reset", vec!["config", "print", "reset-defaults"]),
        ("migrated", vec!["config", "migrate", "--old-config", text(&old)]),
    ] {
        let written = weft(&arguments).stdout;
        let path = scratch.join(name);
        fs::write(&path, &written).unwrap();
        let output = run(&kubeadm, &["config", "validate", "--config", text(&path)]);
        assert_eq!((output.exit, output.stdout.trim()), (Some(0), "ok"), "{name}: {}\n{written}", output.stderr);
    }
}

#[test]
fn defaults_are_kubeadms_but_where_weft_differs_on_purpose() {
    let Some(kubeadm) = kubeadm() else { skip!("needs kubeadm in WEFT_PEERS") };
    for which in ["init-defaults", "join-defaults", "reset-defaults"] {
        let theirs: Vec<Value> =
            serde_saphyr::from_multiple(&run(&kubeadm, &["config", "print", which]).stdout).unwrap();
        let ours: Vec<Value> = serde_saphyr::from_multiple(&weft(&["config", "print", which]).stdout).unwrap();
        for document in theirs {
            let same = ours.iter().find(|own| own["kind"] == document["kind"]).unwrap();
            differences(same, &document, document["kind"].as_str().unwrap());
        }
    }
}

/// Everything that kubeadm says weft says, too, but for these: a newer patch release, faster keys, the name of the machine,
/// the CA's key that is not fixed, and taints that are written out.
fn differences(ours: &Value, theirs: &Value, path: &str) {
    const ON_PURPOSE: [&str; 5] = [
        "ClusterConfiguration.kubernetesVersion",
        "ClusterConfiguration.encryptionAlgorithm",
        "InitConfiguration.nodeRegistration.taints",
        "JoinConfiguration.nodeRegistration.taints",
        "JoinConfiguration.nodeRegistration.name",
    ];
    match theirs {
        _ if ON_PURPOSE.contains(&path) => {}
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| differences(&ours[name], value, &format!("{path}.{name}")));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, item)| differences(&ours[index], item, &format!("{path}[{index}]")));
        }
        value => assert_eq!(ours, value, "{path}"),
    }
}
