//! etcd (kubeadm `phases/etcd/local.go`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use serde_json::json;

use super::pod::{Component, Probe};
use super::volumes::Volumes;
use super::{Part, environment, extra};
use crate::bootstrap::config::model::LocalEtcd;
use crate::bootstrap::resolved::{Cluster, Node};

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
const METRICS_PORT: u16 = 2381;

/// Which kubeadm looks up other members by.
const ANNOTATION: &str = "kubeadm.kubernetes.io/etcd.advertise-client-urls";

/// The loopback address of the family that the node's address has.
pub(super) fn loopback(node: &Node) -> IpAddr {
    if node.address.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
}

fn url(scheme: &str, address: IpAddr, port: u16) -> String {
    format!("{scheme}://{}", SocketAddr::new(address, port))
}

/// Where API servers on this node reach their etcd.
pub(super) fn servers(config: &LocalEtcd, node: &Node) -> String {
    let own = || url("https", loopback(node), CLIENT_PORT);
    extra(&config.extra_args, "advertise-client-urls").map_or_else(own, Into::into)
}

pub(super) fn flags(
    cluster: &Cluster,
    node: &Node,
    data_dir: &Path,
    others: &[(String, String)],
) -> Vec<(&'static str, String)> {
    let pki = |file: &str| cluster.certificates_dir.join("etcd").join(file).display().to_string();
    let client = url("https", node.address, CLIENT_PORT);
    let peer = url("https", node.address, PEER_PORT);
    let mut flags = vec![
        ("advertise-client-urls", client.clone()),
        ("cert-file", pki("server.crt")),
        ("client-cert-auth", "true".into()),
        ("data-dir", data_dir.display().to_string()),
        ("feature-gates", "InitialCorruptCheck=true".into()),
        ("initial-advertise-peer-urls", peer.clone()),
        ("initial-cluster", members(&node.name, &peer, others)),
        ("key-file", pki("server.key")),
        ("listen-client-urls", format!("{},{client}", url("https", loopback(node), CLIENT_PORT))),
        ("listen-metrics-urls", url("http", loopback(node), METRICS_PORT)),
        ("listen-peer-urls", peer),
        ("name", node.name.clone()),
        ("peer-cert-file", pki("peer.crt")),
        ("peer-client-cert-auth", "true".into()),
        ("peer-key-file", pki("peer.key")),
        ("peer-trusted-ca-file", pki("ca.crt")),
        ("snapshot-count", "10000".into()),
        ("trusted-ca-file", pki("ca.crt")),
        ("watch-progress-notify-interval", "5s".into()),
    ];
    if !others.is_empty() {
        flags.push(("initial-cluster-state", "existing".into()));
    }
    flags
}

/// `name=url` of every member, in the order given, and this one behind them unless it is among them.
fn members(name: &str, peer: &str, others: &[(String, String)]) -> String {
    let mut members: Vec<String> = others.iter().map(|(name, url)| format!("{name}={url}")).collect();
    if !others.iter().any(|(_, url)| url == peer) {
        members.push(format!("{name}={peer}"));
    }
    members.join(",")
}

pub(super) fn pod(
    cluster: &Cluster,
    node: &Node,
    config: &LocalEtcd,
    image: &str,
    data_dir: &Path,
    command: Vec<String>,
) -> Component {
    let pki = cluster.certificates_dir.join("etcd");
    let (host, port) = metrics(config, node);
    let volumes = Volumes::default().directory("etcd-data", &data_dir.display().to_string(), false).directory(
        "etcd-certs",
        &pki.display().to_string(),
        false,
    );
    Component {
        part: Part::Etcd,
        image: image.into(),
        command,
        environment: environment::merge(&[], &config.extra_envs),
        annotation: Some((ANNOTATION, url("https", node.address, CLIENT_PORT))),
        requests: json!({"cpu": "100m", "memory": "100Mi"}),
        probe: Probe { host, port, scheme: "HTTP", liveness: "/livez", readiness: Some("/readyz"), startup: "/readyz" },
        volumes,
    }
}

/// Host and port of the first of the URLs for metrics, which tell its health as well.
fn metrics(config: &LocalEtcd, node: &Node) -> (String, u16) {
    let given = extra(&config.extra_args, "listen-metrics-urls").and_then(|urls| {
        let authority = urls.split(',').next()?.split_once("://")?.1.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':')?;
        Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
    });
    given.unwrap_or_else(|| (loopback(node).to_string(), METRICS_PORT))
}
