//! Whom to ask whether they are well: read from the very files that kubelet reads (kubeadm `util/apiclient/wait.go`).

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::bootstrap::converge::FileError;
use crate::bootstrap::resolved::{Limits, Paths};
use crate::bootstrap::static_pods::Part;

/// Who is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// kubelet.
    Kubelet,
    /// A static pod.
    Part(Part),
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kubelet => "kubelet",
            Self::Part(part) => part.name(),
        })
    }
}

/// Where somebody says whether he is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Who.
    pub component: Component,
    /// Where he listens.
    pub address: SocketAddr,
    /// Whether he speaks TLS.
    pub tls: bool,
    /// What he is asked for; 200 means well.
    pub path: String,
    /// How long he may take.
    pub limit: Duration,
}

/// A file that kubelet reads cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not what it should be.
    #[error("{file}: {reason}")]
    Odd {
        /// The file.
        file: String,
        /// What is odd.
        reason: String,
    },
}

/// kubelet and the static pods that there are, from `/var/lib/kubelet/config.yaml` and the manifests.
///
/// # Errors
/// [`TargetError`] for a file that is there and cannot be understood.
pub fn all(paths: &Paths, limits: &Limits) -> Result<Vec<Target>, TargetError> {
    let mut targets = Vec::new();
    if let Some(config) = read(&paths.kubelet.join("config.yaml"))? {
        targets.extend(kubelet(&config, limits.kubelet));
    }
    for part in Part::ALL {
        let file = paths.manifests().join(format!("{}.yaml", part.name()));
        if let Some(pod) = read(&file)? {
            let odd = |reason| TargetError::Odd { file: file.display().to_string(), reason };
            targets.push(static_pod(part, &pod, limits.component).map_err(odd)?);
        }
    }
    Ok(targets)
}

fn read(path: &std::path::Path) -> Result<Option<Value>, TargetError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::of("read", path)(error).into()),
    };
    let odd =
        |error: serde_saphyr::Error| TargetError::Odd { file: path.display().to_string(), reason: error.to_string() };
    serde_saphyr::from_str(&text).map(Some).map_err(odd)
}

/// Where kubelet is asked; `None` if its configuration has switched that off.
#[must_use]
pub fn kubelet(config: &Value, limit: Duration) -> Option<Target> {
    let address = config.get("healthzBindAddress").and_then(Value::as_str).and_then(|address| address.parse().ok());
    let port =
        config.get("healthzPort").map_or(Some(10248), Value::as_u64).and_then(|port| u16::try_from(port).ok())?;
    let address = SocketAddr::new(reachable(address.unwrap_or(Ipv4Addr::LOCALHOST.into())), port);
    (port != 0).then_some(Target { component: Component::Kubelet, address, tls: false, path: "/healthz".into(), limit })
}

/// Where a static pod is asked, by its command line.
///
/// # Errors
/// What of the command line makes no sense.
pub fn static_pod(part: Part, pod: &Value, limit: Duration) -> Result<Target, String> {
    let command = pod.pointer("/spec/containers/0/command").and_then(Value::as_array).ok_or("it has no command")?;
    let flag = |name: &str| {
        let value = |argument: &'_ Value| {
            Some(argument.as_str()?.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('=')?.to_owned())
        };
        command.iter().filter_map(value).next_back()
    };
    let address = |name: &str| match flag(name) {
        Some(text) => text.parse().map(reachable).map_err(|_| format!("--{name} is {text:?}; expected an address")),
        None => Ok(Ipv4Addr::LOCALHOST.into()),
    };
    let port = |usual: u16| match flag("secure-port") {
        Some(text) => text.parse().map_err(|_| format!("--secure-port is {text:?}; expected a port")),
        None => Ok(usual),
    };
    // What kubelet asks for, so that both mean the same by well. For etcd that is whether it serves, not whether it is a
    // member already: it need not be when it has just joined.
    let path = pod.pointer("/spec/containers/0/livenessProbe/httpGet/path").and_then(Value::as_str).unwrap_or("/livez");
    let (address, tls) = match part {
        Part::ApiServer => (SocketAddr::new(address("advertise-address")?, port(6443)?), true),
        Part::ControllerManager => (SocketAddr::new(address("bind-address")?, port(10257)?), true),
        Part::Scheduler => (SocketAddr::new(address("bind-address")?, port(10259)?), true),
        Part::Etcd => {
            let urls = flag("listen-metrics-urls").unwrap_or_else(|| "http://127.0.0.1:2381".into());
            let (scheme, authority) = urls.split(',').next().and_then(|url| url.split_once("://")).unwrap_or_default();
            let odd = || format!("--listen-metrics-urls is {urls:?}; expected URLs with an address and a port");
            let at: SocketAddr = authority.trim_end_matches('/').parse().map_err(|_| odd())?;
            (SocketAddr::new(reachable(at.ip()), at.port()), scheme == "https")
        }
    };
    Ok(Target { component: Component::Part(part), address, tls, path: path.to_owned(), limit })
}

/// Who listens everywhere is asked at the loopback.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::config::model::Arg;
    use crate::bootstrap::patches::Patches;
    use crate::bootstrap::resolved::{Cluster, Node};
    use crate::bootstrap::static_pods::golden::{cluster, node};
    use crate::bootstrap::static_pods::{Facts, manifests, write};
    use serde_json::json;

    fn places(cluster: &Cluster, node: &Node) -> Vec<(String, String, bool)> {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        for manifest in manifests(cluster, node, &Facts::default()) {
            write(&paths, cluster, &manifest, &Patches::default()).unwrap();
        }
        fs::create_dir_all(&paths.kubelet).unwrap();
        fs::write(paths.kubelet.join("config.yaml"), "healthzPort: 10248\n").unwrap();
        let targets = all(&paths, &Limits::default()).unwrap();
        targets.iter().map(|at| (at.component.to_string(), format!("{}{}", at.address, at.path), at.tls)).collect()
    }

    #[test]
    fn everybody_is_asked_where_his_own_file_says() {
        let expected = [
            ("kubelet", "127.0.0.1:10248/healthz", false),
            ("etcd", "127.0.0.1:2381/livez", false),
            ("kube-apiserver", "192.0.2.10:6443/livez", true),
            ("kube-controller-manager", "127.0.0.1:10257/healthz", true),
            ("kube-scheduler", "127.0.0.1:10259/livez", true),
        ];
        assert_eq!(places(&cluster(), &node()), expected.map(|(who, place, tls)| (who.into(), place.into(), tls)));
    }

    #[test]
    fn other_ports_and_ipv6_as_well() {
        let mut cluster = cluster();
        let arg = |name: &str, value: &str| Arg { name: name.into(), value: value.into() };
        cluster.controller_manager.extra_args =
            vec![arg("bind-address", "::"), arg("secure-port", "1"), arg("secure-port", "2")];
        let places = places(&cluster, &Node { address: "2001:db8::1".parse().unwrap(), bind_port: 7443, ..node() });
        assert_eq!(places[1].1, "[::1]:2381/livez");
        assert_eq!(places[2].1, "[2001:db8::1]:7443/livez");
        assert_eq!(places[3].1, "[::1]:2/healthz");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let pod = json!({"spec": {"containers": [{"command": ["kube-scheduler", "--secure-port=x"]}]}});
        assert!(static_pod(Part::Scheduler, &pod, Duration::ZERO).unwrap_err().contains("--secure-port is \"x\""));
        assert!(static_pod(Part::Etcd, &json!({}), Duration::ZERO).is_err());
        assert_eq!(kubelet(&json!({"healthzPort": 0}), Duration::ZERO), None);
    }
}
