//! CoreDNS, with kubeadm's names and settings (its `phases/addons/dns`), so that upgrades and tools know it.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::bootstrap::api::error::ApiError;
use crate::bootstrap::api::object::{Outcome, Place};
use crate::bootstrap::api::server::{Existing, Server};

/// What differs from cluster to cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreDns<'a> {
    /// Its image.
    pub image: &'a str,
    /// `cluster.local`.
    pub dns_domain: &'a str,
    /// Address of its Service ([`super::dns_address`]).
    pub address: IpAddr,
}

const NAMESPACE: &str = "kube-system";
const LABELS: (&str, &str) = ("k8s-app", "kube-dns");

/// Pods, if nobody has said otherwise.
const REPLICAS: u64 = 2;

/// Brings CoreDNS to what is wanted. A Corefile that is there stays as it is, and so does the number of pods. `patch` has
/// the last word on the Deployment (the `corednsdeployment` patches); it returns what is wrong with a patch.
///
/// # Errors
/// [`ApiError::Refused`]; [`ApiError::Content`] for a patch.
pub async fn apply_coredns(
    server: &Server,
    dns: &CoreDns<'_>,
    patch: &(dyn Fn(Value) -> Result<Value, String> + Sync),
) -> Result<Outcome, ApiError> {
    let place = Place::new("apps/v1", "Deployment", NAMESPACE, "coredns");
    let found = server.get(&place).await?;
    let replicas = found.as_ref().and_then(|it| it["spec"]["replicas"].as_u64()).unwrap_or(REPLICAS);
    let mut outcome = None;
    for mut object in coredns_objects(dns, replicas) {
        let existing = match object["kind"].as_str() {
            Some("ConfigMap") => Existing::Keep,
            Some("Deployment") => {
                object =
                    patch(object).map_err(|problem| ApiError::content("the patched Deployment coredns", problem))?;
                Existing::Update
            }
            _ => Existing::Update,
        };
        let one = server.ensure(&object, existing).await?;
        outcome = Some(outcome.map_or(one, |all: Outcome| all.and(one)));
    }
    Ok(outcome.unwrap_or(Outcome::Kept))
}

/// The image that runs; `None` without CoreDNS.
///
/// # Errors
/// [`ApiError::Refused`].
pub async fn coredns_image(server: &Server) -> Result<Option<String>, ApiError> {
    let found = server.get(&Place::new("apps/v1", "Deployment", NAMESPACE, "coredns")).await?;
    let image = found.as_ref().and_then(|it| it.pointer("/spec/template/spec/containers/0/image")?.as_str());
    Ok(image.map(str::to_owned))
}

/// All its objects.
#[must_use]
pub fn coredns_objects(dns: &CoreDns<'_>, replicas: u64) -> Vec<Value> {
    let named = |name: &str| json!({"namespace": NAMESPACE, "name": name});
    let role = "system:coredns";
    let verbs = ["list", "watch"];
    let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named("coredns")}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role},
            "rules": [
                rule("", &["endpoints", "services", "pods", "namespaces"]),
                rule("discovery.k8s.io", &["endpointslices"]),
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": NAMESPACE}],
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": named("coredns"),
            "data": {"Corefile": corefile(dns.dns_domain)},
        }),
        service(dns.address),
        deployment(dns.image, replicas),
    ]
}

fn corefile(domain: &str) -> String {
    format!(
        ".:53 {{
    errors
    health {{
       lameduck 5s
    }}
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus :9153
    forward . /etc/resolv.conf {{
       max_concurrent 1000
    }}
    cache 30 {{
       disable success {domain}
       disable denial {domain}
    }}
    loop
    reload
    loadbalance
}}
"
    )
}

fn service(address: IpAddr) -> Value {
    let port = |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "protocol": protocol, "targetPort": port});
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "namespace": NAMESPACE, "name": "kube-dns",
            "labels": {LABELS.0: LABELS.1, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
            "annotations": {"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
        },
        "spec": {
            "clusterIP": address.to_string(),
            "ports": [port("dns", 53, "UDP"), port("dns-tcp", 53, "TCP"), port("metrics", 9153, "TCP")],
            "selector": {LABELS.0: LABELS.1},
        },
    })
}

fn deployment(image: &str, replicas: u64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": NAMESPACE, "name": "coredns", "labels": {LABELS.0: LABELS.1}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {LABELS.0: LABELS.1}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": {LABELS.0: LABELS.1}},
                "spec": {
                    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
                        "weight": 100,
                        "podAffinityTerm": {
                            "labelSelector": {
                                "matchExpressions": [{"key": LABELS.0, "operator": "In", "values": [LABELS.1]}],
                            },
                            "topologyKey": "kubernetes.io/hostname",
                        },
                    }]}},
                    "containers": [container(image)],
                    "dnsPolicy": "Default",
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": "coredns",
                    "tolerations": [
                        {"key": "CriticalAddonsOnly", "operator": "Exists"},
                        {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
                    ],
                    "volumes": [{
                        "name": "config-volume",
                        "configMap": {"name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}]},
                    }],
                },
            },
        },
    })
}

fn container(image: &str) -> Value {
    let port =
        |name: &str, port: u16, protocol: &str| json!({"name": name, "containerPort": port, "protocol": protocol});
    let probe = |path: &str, port: &str| json!({"path": path, "port": port, "scheme": "HTTP"});
    json!({
        "name": "coredns", "image": image, "imagePullPolicy": "IfNotPresent",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            port("dns", 53, "UDP"), port("dns-tcp", 53, "TCP"), port("metrics", 9153, "TCP"),
            port("liveness-probe", 8080, "TCP"), port("readiness-probe", 8181, "TCP"),
        ],
        "livenessProbe": {
            "httpGet": probe("/health", "liveness-probe"),
            "initialDelaySeconds": 60, "timeoutSeconds": 5, "successThreshold": 1, "failureThreshold": 5,
        },
        "readinessProbe": {"httpGet": probe("/ready", "readiness-probe")},
        "resources": {"limits": {"memory": "170Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
        "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true}],
    })
}
