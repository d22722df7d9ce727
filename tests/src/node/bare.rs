//! A machine as an administrator finds it: a runtime with its own configuration, and nothing of Kubernetes.

use std::fs;

use anyhow::{Context, Result};

use super::kubelet;
use super::machine::{Machine, Service};

/// Where containerd's configuration is usually.
const CONFIG: &str = "/etc/containerd/config.toml";

/// Starts containerd, configured in the usual place, and waits until it answers.
///
/// # Errors
/// When it does not.
pub fn containerd(machine: &Machine) -> Result<Service> {
    let file = machine.inside(CONFIG)?;
    fs::create_dir_all(file.parent().context("a file is in a folder")?)?;
    fs::write(&file, kubelet::CONTAINERD.replace("SANDBOX", "registry.k8s.io/pause:3.10.2"))?;
    kubelet::containerd_with(machine, CONFIG)
}
