//! The control plane as static pods: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, as kubeadm 1.36 has
//! them (`phases/controlplane`, `phases/etcd/local`); and weft's own ([`Helper`]).
//!
//! Pure down to [`write`]: the resolved configuration and a few facts of the host go in, a command line and a Pod come out.
//! Tools read these files back: labels, annotations, names of volumes and the flags' spelling are kubeadm's.

mod api_server;
mod args;
mod controller_manager;
mod environment;
mod etcd;
mod helpers;
mod pod;
mod scheduler;
mod volumes;
mod write;

use std::time::Duration;

use serde_json::Value;

use super::config::model::{Arg, EnvVar};
use super::resolved::{Cluster, EtcdPlace, Limits, Node};

pub use environment::{ProxyError, proxy_environment};
pub use etcd::EtcdVersion;
pub use helpers::{Helper, HelperFacts, helper_file, helper_pod, write_helper};
pub use volumes::ca_directories;
pub use write::{WriteError, remove, write};

pub(super) use args::command_line;

/// A part of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// etcd.
    Etcd,
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
}

impl Part {
    /// All, in the order in which they are written.
    pub const ALL: [Self; 4] = [Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Scheduler];

    /// Name of the pod, its container, its program, its file and its patches.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }
}

/// What the pods depend on besides the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Directories with certificate authorities that the host has, from [`ca_directories`].
    pub ca_directories: Vec<String>,
    /// Environment of the Kubernetes components, from [`proxy_environment`]; empty unless asked for.
    pub proxy: Vec<EnvVar>,
    /// Whether the cluster's certificate authority is without its key: then nobody here can sign.
    pub external_ca: bool,
    /// Further etcd members by name and peer URL when this one joins them; empty for the first.
    pub etcd_members: Vec<(String, String)>,
    /// Version of the etcd that is in the image.
    pub etcd_version: EtcdVersion,
    /// How long a component may take to start: from [`Limits::component`].
    pub start_limit: Duration,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            ca_directories: Vec::new(),
            proxy: Vec::new(),
            external_ca: false,
            etcd_members: Vec::new(),
            etcd_version: EtcdVersion::USUAL,
            start_limit: Limits::default().component,
        }
    }
}

/// A static pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Which.
    pub part: Part,
    /// core/v1 Pod.
    pub pod: Value,
}

/// The static pods of this node, in the order of [`Part::ALL`]: etcd only where the cluster has its own.
#[must_use]
pub fn manifests(cluster: &Cluster, node: &Node, facts: &Facts) -> Vec<Manifest> {
    let parts =
        Part::ALL.into_iter().filter(|part| *part != Part::Etcd || matches!(cluster.etcd, EtcdPlace::Local { .. }));
    parts.filter_map(|part| Some(Manifest { part, pod: pod(part, cluster, node, facts)? })).collect()
}

/// One static pod; `None` for etcd where the cluster has an external one.
#[must_use]
pub fn pod(part: Part, cluster: &Cluster, node: &Node, facts: &Facts) -> Option<Value> {
    let command = command(part, cluster, node, facts)?;
    let pod = match (part, &cluster.etcd) {
        (Part::Etcd, EtcdPlace::Local { config, image, data_dir }) => {
            etcd::pod(cluster, node, config, image, data_dir, facts.etcd_version, command)
        }
        (Part::Etcd, EtcdPlace::External(_)) => return None,
        (Part::ApiServer, _) => api_server::pod(cluster, node, facts, command),
        (Part::ControllerManager, _) => controller_manager::pod(cluster, facts, command),
        (Part::Scheduler, _) => scheduler::pod(cluster, facts, command),
    };
    Some(pod.into_value(facts.start_limit))
}

/// The command line of a component, its program's name first; `None` for etcd where the cluster has an external one.
#[must_use]
pub fn command(part: Part, cluster: &Cluster, node: &Node, facts: &Facts) -> Option<Vec<String>> {
    let (defaults, extra) = match (part, &cluster.etcd) {
        (Part::Etcd, EtcdPlace::Local { config, data_dir, .. }) => {
            (etcd::flags(cluster, node, data_dir, &facts.etcd_members, facts.etcd_version), &config.extra_args)
        }
        (Part::Etcd, EtcdPlace::External(_)) => return None,
        (Part::ApiServer, _) => (api_server::flags(cluster, node), &cluster.api_server.component.extra_args),
        (Part::ControllerManager, _) => {
            (controller_manager::flags(cluster, facts.external_ca), &cluster.controller_manager.extra_args)
        }
        (Part::Scheduler, _) => (scheduler::flags(), &cluster.scheduler.extra_args),
    };
    let mut command = vec![part.name().to_owned()];
    command.extend(command_line(defaults, extra));
    Some(command)
}

/// `<repository>/<name>:<version>`; a tag may not hold each character that a version may.
fn image(cluster: &Cluster, part: Part) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let tag: String = cluster.kubernetes_version.chars().map(allowed).collect();
    format!("{}/{}:{tag}", cluster.image_repository, part.name())
}

/// The value of a flag that the configuration adds; the last one counts, as in the component itself.
fn extra<'a>(extra: &'a [Arg], name: &str) -> Option<&'a str> {
    extra.iter().rev().find(|arg| arg.name == name).map(|arg| arg.value.as_str())
}

/// A port that the configuration gives by a flag, else the usual one.
fn extra_port(args: &[Arg], name: &str, usual: u16) -> u16 {
    extra(args, name).and_then(|value| value.parse().ok()).unwrap_or(usual)
}

/// Ranges with commas between, as the components take them.
fn list(networks: &[ipnetwork::IpNetwork]) -> String {
    networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
pub(crate) mod golden;
#[cfg(test)]
mod tests;
