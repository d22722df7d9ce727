//! kube-controller-manager (kubeadm `phases/controlplane/manifests.go`).

use serde_json::json;

use super::pod::{Component, Probe, probe_host};
use super::volumes::Volumes;
use super::{Facts, Part, environment, extra, extra_port, image, list};
use crate::bootstrap::resolved::Cluster;

const KUBECONFIG: &str = "/etc/kubernetes/controller-manager.conf";
/// Where it listens unless told otherwise.
const ADDRESS: &str = "127.0.0.1";
const PORT: u16 = 10257;

pub(super) fn flags(cluster: &Cluster, external_ca: bool) -> Vec<(&'static str, String)> {
    let pki = |file: &str| cluster.certificates_dir.join(file).display().to_string();
    // Without the key it must not try to sign, and says so unless both are empty.
    let signing = |file: &str| if external_ca { String::new() } else { pki(file) };
    let mut flags = vec![
        ("authentication-kubeconfig", KUBECONFIG.into()),
        ("authorization-kubeconfig", KUBECONFIG.into()),
        ("bind-address", ADDRESS.into()),
        ("client-ca-file", pki("ca.crt")),
        ("cluster-name", cluster.name.clone()),
        ("cluster-signing-cert-file", signing("ca.crt")),
        ("cluster-signing-key-file", signing("ca.key")),
        ("controllers", "*,bootstrapsigner,tokencleaner".into()),
        ("kubeconfig", KUBECONFIG.into()),
        ("leader-elect", "true".into()),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        ("root-ca-file", pki("ca.crt")),
        ("service-account-private-key-file", pki("sa.key")),
        ("use-service-account-credentials", "true".into()),
    ];
    if !cluster.pod_subnets.is_empty() {
        flags.extend([
            ("allocate-node-cidrs", "true".into()),
            ("cluster-cidr", list(&cluster.pod_subnets)),
            ("service-cluster-ip-range", list(&cluster.service_subnets)),
        ]);
    }
    flags
}

pub(super) fn pod(cluster: &Cluster, facts: &Facts, command: Vec<String>) -> Component {
    let component = &cluster.controller_manager;
    let volumes = Volumes::default()
        .directory("k8s-certs", &cluster.certificates_dir.display().to_string(), true)
        .authorities(&facts.ca_directories)
        .file("kubeconfig", KUBECONFIG)
        .extra(&component.extra_volumes);
    Component {
        part: Part::ControllerManager,
        image: image(cluster, Part::ControllerManager),
        command,
        environment: environment::merge(&facts.proxy, &component.extra_envs),
        annotation: None,
        requests: json!({"cpu": "200m"}),
        probe: Probe {
            host: probe_host(extra(&component.extra_args, "bind-address").unwrap_or(ADDRESS)),
            port: extra_port(&component.extra_args, "secure-port", PORT),
            scheme: "HTTPS",
            liveness: "/healthz",
            readiness: None,
            startup: "/healthz",
        },
        volumes,
    }
}
