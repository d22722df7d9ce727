//! What runs on every node: containerd and kubelet, with their configuration.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::machine::{Machine, Service};
use super::peers;
use crate::wait;

/// How long containerd may take to answer.
const LIMIT: Duration = Duration::from_secs(120);
/// The image of which each pod's first container is.
pub(super) const SANDBOX: &str = "localhost/weft:0.1.0";

pub(super) const CONTAINERD: &str = r#"
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "SANDBOX"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#;

/// Writes what the two read.
///
/// # Errors
/// When the folder cannot be written.
pub(super) fn configure(machine: &Machine) -> Result<()> {
    fs::write(machine.path("containerd.toml"), CONTAINERD.replace("SANDBOX", SANDBOX))?;
    let configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs", "failCgroupV1": false, "failSwapOn": false, "oomScoreAdj": 0,
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "clusterDNS": ["10.96.0.10"], "clusterDomain": "cluster.local",
        // A machine whose disk is full for other reasons shall not lose its pods.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": false,
    });
    fs::write(machine.path("kubelet.json"), configuration.to_string())?;
    // What the packages of a node bring along.
    if let Some(loopback) = peers::find("loopback") {
        let folder = machine.inside("/opt/cni/bin")?;
        fs::create_dir_all(&folder)?;
        fs::copy(loopback, folder.join("loopback"))?;
    }
    Ok(())
}

/// Starts containerd and waits until it answers.
///
/// # Errors
/// When it does not.
pub(super) fn containerd(machine: &Machine) -> Result<Service> {
    containerd_with(machine, &machine.path("containerd.toml").display().to_string())
}

/// The same with a configuration that lies elsewhere, as the machine sees it.
///
/// # Errors
/// When it does not answer.
pub(super) fn containerd_with(machine: &Machine, config: &str) -> Result<Service> {
    let service = machine.spawn("containerd", "containerd", &["--config", config])?;
    let answers = || {
        anyhow::ensure!(service.alive(), "it ended");
        machine.run("ctr", &["version"])
    };
    wait::until_ok(LIMIT, "containerd", answers).with_context(|| service.log())?;
    Ok(service)
}

/// Imports an archive of images.
///
/// # Errors
/// When containerd refuses.
pub(super) fn import(machine: &Machine, archive: &Path) -> Result<()> {
    let archive = archive.display().to_string();
    machine.run("ctr", &["--namespace", "k8s.io", "images", "import", &archive]).map(drop)
}

/// Starts kubelet with the credentials of this node.
///
/// # Errors
/// When it does not start.
pub(super) fn kubelet(machine: &Machine, kubeconfig: &Path) -> Result<Service> {
    let config = format!("--config={}", machine.path("kubelet.json").display());
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let (name, ip) = (format!("--hostname-override={}", machine.name()), format!("--node-ip={}", machine.ip()));
    machine.spawn("kubelet", "kubelet", &[&config, &kubeconfig, &name, &ip])
}
