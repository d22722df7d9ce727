//! kube-apiserver (kubeadm `phases/controlplane/manifests.go`).

use std::net::SocketAddr;

use serde_json::json;

use super::pod::{Component, Probe, probe_host};
use super::volumes::Volumes;
use super::{Facts, Part, environment, etcd, extra, extra_port, image, list};
use crate::bootstrap::resolved::{Cluster, EtcdPlace, Node};

/// Which kubeadm learns this node's API endpoint from.
const ANNOTATION: &str = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint";

pub(super) fn flags(cluster: &Cluster, node: &Node) -> Vec<(&'static str, String)> {
    let pki = |file: &str| cluster.certificates_dir.join(file).display().to_string();
    let mut flags = vec![
        ("advertise-address", node.address.to_string()),
        ("allow-privileged", "true".into()),
        ("client-ca-file", pki("ca.crt")),
        ("enable-admission-plugins", "NodeRestriction".into()),
        ("enable-bootstrap-token-auth", "true".into()),
        ("kubelet-client-certificate", pki("apiserver-kubelet-client.crt")),
        ("kubelet-client-key", pki("apiserver-kubelet-client.key")),
        ("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname".into()),
        ("proxy-client-cert-file", pki("front-proxy-client.crt")),
        ("proxy-client-key-file", pki("front-proxy-client.key")),
        ("requestheader-allowed-names", "front-proxy-client".into()),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-".into()),
        ("requestheader-group-headers", "X-Remote-Group".into()),
        ("requestheader-username-headers", "X-Remote-User".into()),
        ("secure-port", node.bind_port.to_string()),
        ("service-account-issuer", format!("https://kubernetes.default.svc.{}", cluster.dns_domain)),
        ("service-account-key-file", pki("sa.pub")),
        ("service-account-signing-key-file", pki("sa.key")),
        ("service-cluster-ip-range", list(&cluster.service_subnets)),
        ("tls-cert-file", pki("apiserver.crt")),
        ("tls-private-key-file", pki("apiserver.key")),
    ];
    // The API server takes either the modes or a file that has them.
    if extra(&cluster.api_server.component.extra_args, "authorization-config").is_none() {
        flags.push(("authorization-mode", "Node,RBAC".into()));
    }
    match &cluster.etcd {
        EtcdPlace::Local { config, .. } => flags.extend([
            ("etcd-cafile", pki("etcd/ca.crt")),
            ("etcd-certfile", pki("apiserver-etcd-client.crt")),
            ("etcd-keyfile", pki("apiserver-etcd-client.key")),
            ("etcd-servers", etcd::servers(config, node)),
        ]),
        EtcdPlace::External(etcd) => {
            flags.push(("etcd-servers", etcd.endpoints.join(",")));
            let files =
                [("etcd-cafile", &etcd.ca_file), ("etcd-certfile", &etcd.cert_file), ("etcd-keyfile", &etcd.key_file)];
            flags.extend(
                files.into_iter().filter(|(_, file)| !file.is_empty()).map(|(name, file)| (name, file.clone())),
            );
        }
    }
    flags
}

pub(super) fn pod(cluster: &Cluster, node: &Node, facts: &Facts, command: Vec<String>) -> Component {
    let component = &cluster.api_server.component;
    let pki = cluster.certificates_dir.display().to_string();
    let mut volumes = Volumes::default().directory("k8s-certs", &pki, true).authorities(&facts.ca_directories);
    if let EtcdPlace::External(etcd) = &cluster.etcd {
        volumes = volumes.external_etcd(etcd, &pki);
    }
    Component {
        part: Part::ApiServer,
        image: image(cluster, Part::ApiServer),
        command,
        environment: environment::merge(&facts.proxy, &component.extra_envs),
        annotation: Some((ANNOTATION, SocketAddr::new(node.address, node.bind_port).to_string())),
        requests: json!({"cpu": "250m"}),
        probe: Probe {
            host: probe_host(&node.address.to_string()),
            port: extra_port(&component.extra_args, "secure-port", node.bind_port),
            scheme: "HTTPS",
            liveness: "/livez",
            readiness: Some("/readyz"),
            startup: "/livez",
        },
        volumes: volumes.extra(&component.extra_volumes),
    }
}
