//! kubeadm of upstream on a [`Bare`] machine: what its package would have brought along, its configuration, and its commands.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::bare::{Bare, ROOMY};
use super::peers;
use crate::tool::Output;
use crate::{tool, wait};

/// What these tests need besides [`super::bare::PROGRAMS`] and [`super::bare::RUNTIME`].
pub const PROGRAMS: [&str; 2] = ["kubeadm", "loopback"];

const SYSTEMCTL: &str = include_str!("systemctl.sh");

/// The version of all parts.
pub const VERSION: &str = "v1.36.2";

/// What a machine of these tests is not: control groups of version 2; and some have a disk or a memory of another size.
pub const LENIENT: &str = "--ignore-preflight-errors=SystemVerification,Hostname,Mem,NumCPU";

/// How long a command may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// kubeadm hands kubelet's configuration on as it is, where weft finds these two out by itself.
const KUBELET: &str = "failCgroupV1: false\ncgroupDriver: cgroupfs\n";

/// A KubeletConfiguration that is right for every machine of a cluster, whoever brings it up.
#[must_use]
pub fn kubelet_config() -> String {
    format!("{ROOMY}{KUBELET}")
}

/// What a distribution's packages bring along, where upstream's tools take it for granted: a service manager, the loopback plugin,
/// forwarding, and a name for the machine that needs no resolver.
///
/// # Errors
/// When the machine's file system refuses.
pub fn furnish(node: &Bare) -> Result<()> {
    let machine = &node.machine;
    let systemctl = machine.inside("/usr/bin/systemctl")?;
    // Another one may be there; it is another machine's.
    let _ = fs::remove_file(&systemctl);
    fs::write(&systemctl, SYSTEMCTL)?;
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755))?;
    let plugins = machine.inside("/opt/cni/bin")?;
    fs::create_dir_all(&plugins)?;
    fs::copy(peers::need("loopback")?, plugins.join("loopback"))?;
    machine.netns().sysctl("net/ipv4/ip_forward", "1")?;
    let hosts = machine.inside("/etc/hosts")?;
    let known = fs::read_to_string(&hosts).unwrap_or_default();
    Ok(fs::write(hosts, format!("{known}\n{} {}\n", machine.ip(), machine.name()))?)
}

/// Has the images of a node imported before anything else is done.
///
/// # Errors
/// When containerd refuses.
pub fn preload(node: &Bare) -> Result<()> {
    let folder = format!("--kubernetes-bin={}", node.folder().display());
    let pulled = node.weft(&["images", "pull", "--no-probe", &folder])?;
    anyhow::ensure!(pulled.exit == Some(0), "images: {}", pulled.stderr);
    Ok(())
}

/// Runs kubeadm on a machine.
///
/// # Errors
/// When it cannot be run; its exit code is not an error here.
pub fn run(node: &Bare, args: &[&str]) -> Result<Output> {
    let output = node.machine.run_within("kubeadm", args, LIMIT)?;
    eprintln!(
        "{}: kubeadm {} ended with {:?} after {:.1?}\n{}{}",
        node.machine.name(),
        args.join(" "),
        output.exit,
        output.took,
        output.stdout,
        output.stderr
    );
    Ok(output)
}

/// The same for one that has to succeed; what it has printed.
///
/// # Errors
/// When it does not succeed; the end of kubelet's log is in the error.
pub fn must(node: &Bare, args: &[&str]) -> Result<Output> {
    let output = run(node, args)?;
    anyhow::ensure!(output.exit == Some(0), "kubeadm {}: {}\n{}", args.join(" "), output.stderr, kubelet_log(node));
    Ok(output)
}

/// The end of what kubelet has said below the stand-in.
#[must_use]
pub fn kubelet_log(node: &Bare) -> String {
    super::tail(&node.machine.path("log/kubelet.log"), 30)
}

/// `kubeadm init` with this machine as the first node of a cluster without kube-proxy.
///
/// # Errors
/// As [`must`].
pub fn init(node: &Bare) -> Result<Output> {
    let ip = node.machine.ip();
    let documents = [
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "InitConfiguration",
            "localAPIEndpoint": {"advertiseAddress": ip},
            "nodeRegistration": {"name": node.machine.name(), "criSocket": "unix:///run/containerd/containerd.sock"},
            "patches": {"directory": patches(node, Etcd::First)?},
        }),
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration",
            "kubernetesVersion": VERSION, "proxy": {"disabled": true},
            "networking": {"podSubnet": "10.244.0.0/16"},
        }),
    ];
    let text = documents.map(|document| document.to_string()).join("\n---\n");
    let file = node.machine.path("kubeadm.yaml");
    fs::write(&file, format!("{text}\n---\n{}", kubelet_config()))?;
    must(node, &["init", &format!("--config={}", file.display()), LENIENT])
}

/// `kubeadm join` by such a line, with some words more.
///
/// # Errors
/// As [`must`].
pub fn join(node: &Bare, line: &str, more: &[&str]) -> Result<Output> {
    let words: Vec<&str> = line.split_whitespace().skip(1).chain([LENIENT]).chain(more.iter().copied()).collect();
    must(node, &words)
}

/// The line that joins a worker, as kubeadm prints it on a node with admin.conf. `more` makes it one for a control plane.
///
/// # Errors
/// As [`must`].
pub fn join_line(node: &Bare, more: &[&str]) -> Result<String> {
    let printed = must(node, &[&["token", "create", "--print-join-command"], more].concat())?.stdout;
    let line = printed.lines().find(|line| line.starts_with("kubeadm join ")).context("no line to join with")?;
    Ok(line.trim().to_owned())
}

/// Waits until a node is Ready, as an administrator on `from` sees it.
///
/// # Errors
/// When it does not get so.
pub fn await_ready(from: &Bare, node: &str) -> Result<()> {
    let ready = ["wait", "--for=condition=Ready", &format!("node/{node}"), "--timeout=50s"];
    wait::until_ok(LIMIT, &format!("node {node} to be Ready"), || from.kubectl(&ready))?;
    Ok(())
}

/// How etcd's command line comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Etcd {
    /// On the first node.
    First,
    /// On a further one, which has `--initial-cluster-state` as well.
    Further,
}

/// A folder of patches that make kubeadm's etcd manifest one for the etcd that is here. kubeadm writes the flags and probes of
/// etcd 3.6, whatever the image's tag says.
///
/// # Errors
/// When it cannot be written.
pub fn patches(node: &Bare, etcd: Etcd) -> Result<PathBuf> {
    let folder = node.machine.path("patches");
    fs::create_dir_all(&folder)?;
    let version = etcd_version()?;
    if version < (3, 6) {
        eprintln!(
            "etcd {}.{} in the place of kubeadm's 3.6: --feature-gates and --watch-progress-notify-interval are patched out of its \
             manifest, and its probes ask /health",
            version.0, version.1
        );
        let last = if etcd == Etcd::First { 19 } else { 20 };
        let container = "/spec/containers/0";
        let mut operations = Vec::new();
        // From behind, as what follows moves up. kubeadm sorts flags.
        for (place, flag) in
            [(last, "--watch-progress-notify-interval=5s"), (5, "--feature-gates=InitialCorruptCheck=true")]
        {
            let path = format!("{container}/command/{place}");
            operations.push(json!({"op": "test", "path": path, "value": flag}));
            operations.push(json!({"op": "remove", "path": path}));
        }
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            let path = format!("{container}/{probe}/httpGet/path");
            operations.push(json!({"op": "replace", "path": path, "value": "/health"}));
        }
        fs::write(folder.join("etcd+json.json"), Value::Array(operations).to_string())?;
    }
    Ok(folder)
}

/// Major and minor version of the etcd that is here.
fn etcd_version() -> Result<(u32, u32)> {
    let said = tool::run(tool::command(peers::need("etcd")?).arg("--version"))?;
    let words = said.lines().next().and_then(|line| line.split_whitespace().last()).unwrap_or_default();
    let mut numbers = words.split('.').map(str::parse::<u32>);
    let mut number = || numbers.next().context("etcd tells no version")?.context("etcd tells a strange version");
    Ok((number()?, number()?))
}
