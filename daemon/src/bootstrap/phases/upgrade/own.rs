//! What this node is to its cluster, from the files that init or join, weft's or kubeadm's, have left.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use serde_json::Value;

use super::error::UpgradeError;
use super::manifests::flag;
use crate::bootstrap::config::API_PORT;
use crate::bootstrap::converge::FileError;
use crate::bootstrap::cri::CgroupDriver;
use crate::bootstrap::kubeconfig::Kubeconfig;
use crate::bootstrap::kubelet::config::Swap;
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::resolved::{Node, Paths};
use crate::bootstrap::static_pods::Part;

/// This node, and whether it has a control plane. `socket` is what the user says of the runtime's.
///
/// # Errors
/// [`UpgradeError::NoNode`] if it is none; a file that cannot be read.
pub(super) fn node(paths: &Paths, hostname: &str, socket: Option<&str>) -> Result<(Node, bool), PhaseError> {
    let server = read(&paths.manifest(Part::ApiServer))?;
    let config = read(&paths.kubelet.join("config.yaml"))?;
    let instance = read(&paths.kubelet.join("instance-config.yaml"))?;
    let Some(name) = node_name(paths)? else {
        let words = format!(
            "this is no node of a cluster: {} does not say its name; weft init or weft join makes it one",
            paths.kubernetes.join("kubelet.conf").display()
        );
        return Err(UpgradeError::NoNode(words).into());
    };
    let of = |name: &str| server.as_ref().and_then(|pod| flag(pod, name));
    let told =
        |document: &Option<Value>| document.as_ref()?.get("containerRuntimeEndpoint")?.as_str().map(str::to_owned);
    let given = socket.map(|text| if text.starts_with('/') { format!("unix://{text}") } else { text.to_owned() });
    let node = Node {
        name,
        hostname: hostname.to_owned(),
        // Only a control plane has one that matters here.
        address: of("advertise-address").and_then(|text| text.parse().ok()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        // Of use for kubelet's flags alone, which an upgrade leaves.
        second_address: None,
        bind_port: of("secure-port").and_then(|text| text.parse().ok()).unwrap_or(API_PORT),
        taints: Vec::new(),
        registration: crate::bootstrap::config::model::NodeRegistration::default(),
        cri_socket: given.or_else(|| told(&instance)).or_else(|| told(&config)).unwrap_or_else(usual_socket),
    };
    Ok((node, server.is_some()))
}

/// kubelet's own default.
fn usual_socket() -> String {
    "unix:///run/containerd/containerd.sock".to_owned()
}

/// The name that kubelet's certificate is for.
fn node_name(paths: &Paths) -> Result<Option<String>, PhaseError> {
    let Some(kubelet) = Kubeconfig::load(&paths.kubernetes.join("kubelet.conf"))? else { return Ok(None) };
    let Ok(Some(certificate)) = kubelet.certificate(&paths.kubernetes) else { return Ok(None) };
    let mut parts = certificate.subject_text().split(',').map(str::trim);
    Ok(parts.find_map(|part| part.strip_prefix("CN=system:node:")).map(str::to_owned))
}

/// A YAML file; `None` if there is none.
///
/// # Errors
/// It cannot be read, or is no YAML.
pub(super) fn read(path: &Path) -> Result<Option<Value>, PhaseError> {
    match fs::read_to_string(path) {
        Ok(text) => serde_saphyr::from_str(&text)
            .map(Some)
            .map_err(|error| PhaseError::Usage(format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::of("read", path)(error).into()),
    }
}

/// What was decided of swap when this node came about.
pub(super) fn swap(config: &Value) -> Swap {
    match (config.get("failSwapOn"), config.pointer("/memorySwap/swapBehavior").and_then(Value::as_str)) {
        (Some(Value::Bool(false)), Some("LimitedSwap")) => Swap::Limited,
        (Some(Value::Bool(false)), _) => Swap::Tolerated,
        _ => Swap::Off,
    }
}

/// Who makes its control groups.
pub(super) fn cgroup_driver(config: &Value) -> Option<CgroupDriver> {
    match config.get("cgroupDriver")?.as_str()? {
        "systemd" => Some(CgroupDriver::Systemd),
        "cgroupfs" => Some(CgroupDriver::Cgroupfs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::kubeconfig;
    use crate::bootstrap::patches::Patches;
    use crate::bootstrap::pki::{Options, ensure_all};
    use crate::bootstrap::static_pods::golden;
    use crate::bootstrap::static_pods::{Facts, manifests, write};
    use jiff::Timestamp;
    use serde_json::json;

    #[test]
    fn a_node_is_known_by_its_files() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let error = node(&paths, "host", None).unwrap_err().to_string();
        assert!(error.contains("no node of a cluster"), "{error}");

        let (cluster, made) = (golden::cluster(), Node { bind_port: 7443, ..golden::node() });
        let now = Timestamp::now();
        ensure_all(&cluster, &made, &paths, &Options::default(), now).unwrap();
        kubeconfig::ensure(&["kubelet.conf"], &cluster, &made, &paths, now).unwrap();
        let (worker, has_control_plane) = node(&paths, "host", Some("/run/crio/crio.sock")).unwrap();
        assert_eq!(
            (worker.name.as_str(), worker.cri_socket.as_str(), has_control_plane),
            ("n1", "unix:///run/crio/crio.sock", false)
        );

        for manifest in manifests(&cluster, &made, &Facts::default()) {
            write(&paths, &cluster, &manifest, &Patches::default()).unwrap();
        }
        fs::create_dir_all(&paths.kubelet).unwrap();
        fs::write(paths.kubelet.join("instance-config.yaml"), "containerRuntimeEndpoint: unix:///x\n").unwrap();
        let (found, has_control_plane) = node(&paths, "host", None).unwrap();
        assert!(has_control_plane);
        assert_eq!((found.address, found.bind_port, found.cri_socket.as_str()), (made.address, 7443, "unix:///x"));
    }

    #[test]
    fn kubelets_decisions_stay() {
        assert_eq!(swap(&json!({})), Swap::Off);
        assert_eq!(swap(&json!({"failSwapOn": false})), Swap::Tolerated);
        assert_eq!(swap(&json!({"failSwapOn": false, "memorySwap": {"swapBehavior": "LimitedSwap"}})), Swap::Limited);
        assert_eq!(cgroup_driver(&json!({"cgroupDriver": "cgroupfs"})), Some(CgroupDriver::Cgroupfs));
        assert_eq!(cgroup_driver(&json!({})), None);
    }
}
