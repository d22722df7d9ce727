//! kube-scheduler (kubeadm `phases/controlplane/manifests.go`).

use serde_json::json;

use super::pod::{Component, Probe, probe_host};
use super::volumes::Volumes;
use super::{Facts, Part, environment, extra, extra_port, image};
use crate::bootstrap::resolved::Cluster;

const KUBECONFIG: &str = "/etc/kubernetes/scheduler.conf";
/// Where it listens unless told otherwise.
const ADDRESS: &str = "127.0.0.1";
const PORT: u16 = 10259;

pub(super) fn flags() -> Vec<(&'static str, String)> {
    vec![
        ("authentication-kubeconfig", KUBECONFIG.into()),
        ("authorization-kubeconfig", KUBECONFIG.into()),
        ("bind-address", ADDRESS.into()),
        ("kubeconfig", KUBECONFIG.into()),
        ("leader-elect", "true".into()),
    ]
}

pub(super) fn pod(cluster: &Cluster, facts: &Facts, command: Vec<String>) -> Component {
    let component = &cluster.scheduler;
    Component {
        part: Part::Scheduler,
        image: image(cluster, Part::Scheduler),
        command,
        environment: environment::merge(&facts.proxy, &component.extra_envs),
        annotation: None,
        requests: json!({"cpu": "100m"}),
        probe: Probe {
            host: probe_host(extra(&component.extra_args, "bind-address").unwrap_or(ADDRESS)),
            port: extra_port(&component.extra_args, "secure-port", PORT),
            scheme: "HTTPS",
            liveness: "/livez",
            readiness: Some("/readyz"),
            startup: "/livez",
        },
        volumes: Volumes::default().file("kubeconfig", KUBECONFIG).extra(&component.extra_volumes),
    }
}
