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

/// A version of etcd: `--kubernetes-bin` may bring an older one than the image's tag says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EtcdVersion {
    /// 3.
    pub major: u32,
    /// 6.
    pub minor: u32,
    /// 8.
    pub patch: u32,
}

impl EtcdVersion {
    /// What kubeadm 1.36 reckons with, whatever the tag.
    pub const USUAL: Self = Self { major: 3, minor: 6, patch: 8 };

    /// From what `etcd --version` prints, or from a tag: the first three numbers with points between.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let word = |word: &str| {
            let mut numbers = word.trim_start_matches('v').split(['.', '-', '+']).map(|number| number.parse().ok());
            Some(Self { major: numbers.next()??, minor: numbers.next()??, patch: numbers.next()?? })
        };
        text.split_whitespace().find_map(word)
    }

    /// Since 3.6 what was experimental has a gate or its own name.
    fn has_feature_gates(self) -> bool {
        (self.major, self.minor) >= (3, 6)
    }

    /// `/livez` and `/readyz` came with 3.5.11 and 3.4.29; before there was `/health` alone.
    fn has_livez(self) -> bool {
        match (self.major, self.minor) {
            (3, 4) => self.patch >= 29,
            (3, 5) => self.patch >= 11,
            older_or_newer => older_or_newer > (3, 5),
        }
    }
}

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
    version: EtcdVersion,
) -> Vec<(&'static str, String)> {
    let pki = |file: &str| cluster.certificates_dir.join("etcd").join(file).display().to_string();
    let client = url("https", node.address, CLIENT_PORT);
    let peer = url("https", node.address, PEER_PORT);
    let mut flags = vec![
        ("advertise-client-urls", client.clone()),
        ("cert-file", pki("server.crt")),
        ("client-cert-auth", "true".into()),
        ("data-dir", data_dir.display().to_string()),
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
    ];
    flags.extend(if version.has_feature_gates() {
        [("feature-gates", "InitialCorruptCheck=true".into()), ("watch-progress-notify-interval", "5s".into())]
    } else {
        [
            ("experimental-initial-corrupt-check", "true".into()),
            ("experimental-watch-progress-notify-interval", "5s".into()),
        ]
    });
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
    version: EtcdVersion,
    command: Vec<String>,
) -> Component {
    let pki = cluster.certificates_dir.join("etcd");
    let (host, port) = metrics(config, node);
    let paths = if version.has_livez() {
        ("/livez", Some("/readyz"), "/readyz")
    } else {
        // A member that only cannot write, or has no quorum, is not helped by a restart.
        ("/health?exclude=NOSPACE&serializable=true", None, "/health?serializable=false")
    };
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
        probe: Probe { host, port, scheme: "HTTP", liveness: paths.0, readiness: paths.1, startup: paths.2 },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let parse = |text| EtcdVersion::parse(text).unwrap();
        let old = parse("etcd Version: 3.4.23\nGit SHA: Not provided (use ./build instead of go build)\n");
        assert_eq!(old, EtcdVersion { major: 3, minor: 4, patch: 23 });
        assert!(!old.has_feature_gates() && !old.has_livez());
        let new = parse("v3.6.8-0");
        assert_eq!(new, EtcdVersion::USUAL);
        assert!(new.has_feature_gates() && new.has_livez());
        assert!(parse("3.5.24").has_livez() && !parse("3.5.24").has_feature_gates() && !parse("3.5.10").has_livez());
        assert_eq!(EtcdVersion::parse("latest"), None);
    }
}
