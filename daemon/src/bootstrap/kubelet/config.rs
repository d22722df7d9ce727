//! `KubeletConfiguration`: the cluster's part and this node's (kubeadm `componentconfigs/kubelet.go`).

use std::net::IpAddr;
use std::path::Path;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::service::ServiceManager;
use crate::bootstrap::cri::CgroupDriver;
use crate::bootstrap::patches::{PatchError, Patches};
use crate::bootstrap::resolved::{Cluster, Node};

/// Name of kubelet's configuration among the patches.
pub const PATCH_TARGET: &str = "kubeletconfiguration";

/// Where systemd-resolved keeps the real servers; /etc/resolv.conf names its own address, which in a pod is nobody's.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Which of the service range's addresses is the cluster's DNS server.
const DNS_SERVER: u128 = 10;

/// What becomes of swap on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Swap {
    /// There is none, or it has been switched off: kubelet refuses to start with it.
    #[default]
    Off,
    /// It stays, and pods do not use it.
    Tolerated,
    /// It stays, and burstable pods use their share (needs cgroup v2).
    Limited,
}

/// What this node's kubelet has to know and no other's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// The runtime's driver, as it says itself; `None` if it does not.
    pub cgroup_driver: Option<CgroupDriver>,
    /// Whether control groups are of version 1, which kubelet refuses by default.
    pub cgroup_v1: bool,
    /// Swap.
    pub swap: Swap,
    /// Whether systemd-resolved serves names.
    pub resolved: bool,
}

impl Host {
    /// What the host under `root` says; the runtime's driver and the decision on swap come from elsewhere.
    #[must_use]
    pub fn detect(root: &Path, services: &ServiceManager, cgroup_driver: Option<CgroupDriver>, swap: Swap) -> Self {
        let groups = root.join("sys/fs/cgroup");
        Self {
            cgroup_driver,
            // Version 2 has this file at its root, and nothing else has.
            cgroup_v1: groups.is_dir() && !groups.join("cgroup.controllers").exists(),
            swap,
            resolved: root.join(RESOLVED.trim_start_matches('/')).exists()
                && services.is_unit_active("systemd-resolved"),
        }
    }
}

/// The cluster's DNS server: the tenth address of the first range of Services.
#[must_use]
pub fn dns_server(services: &[IpNetwork]) -> Option<IpAddr> {
    Some(match services.first()? {
        IpNetwork::V4(range) => {
            IpAddr::V4(u32::try_from(u128::from(range.network().to_bits()) + DNS_SERVER).ok()?.into())
        }
        IpNetwork::V6(range) => IpAddr::V6(range.network().to_bits().checked_add(DNS_SERVER)?.into()),
    })
}

/// A cluster's kubelet configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterWide {
    /// The object that is uploaded as ConfigMap `kubelet-config`.
    pub value: Value,
    /// Where the user's own document is other than weft would have it; told, and left.
    pub warnings: Vec<String>,
}

/// What all kubelets of the cluster have in common: weft's defaults, with the user's document over them.
///
/// Holds nothing that was found out on this node. What the user's document itself says is the cluster's, whatever it is.
#[must_use]
pub fn cluster_wide(cluster: &Cluster, user: Option<&Value>) -> ClusterWide {
    let mut value = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": cluster.certificates_dir.join("ca.crt").display().to_string()},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDomain": cluster.dns_domain,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        // weft needs none of kubelet's iptables chains, which would outlive it.
        "makeIPTablesUtilChains": false,
        "rotateCertificates": true,
        "staticPodPath": "/etc/kubernetes/manifests",
    });
    if let Some(server) = dns_server(&cluster.service_subnets) {
        value["clusterDNS"] = json!([server.to_string()]);
    }
    let mut warnings = Vec::new();
    if let Some(user) = user {
        deviations("", &value, user, &mut warnings);
        json_patch::merge(&mut value, user);
        // Without it the node is dead after a year.
        value["rotateCertificates"] = json!(true);
    }
    ClusterWide { value, warnings }
}

fn deviations(path: &str, ours: &Value, theirs: &Value, warnings: &mut Vec<String>) {
    let (Value::Object(ours), Value::Object(theirs)) = (ours, theirs) else {
        if ours != theirs {
            let usual = if path == ".rotateCertificates" { "it stays" } else { "the usual value is" };
            warnings.push(format!("KubeletConfiguration {}: {theirs} is given; {usual} {ours}", &path[1..]));
        }
        return;
    };
    for (name, ours) in ours {
        if let Some(theirs) = theirs.get(name) {
            deviations(&format!("{path}.{name}"), ours, theirs, warnings);
        }
    }
}

/// What is this node's alone and is kept beside the configuration, so that upgrades find it (`instance-config.yaml`).
#[must_use]
pub fn instance(node: &Node) -> Value {
    json!({"containerRuntimeEndpoint": node.cri_socket})
}

/// The configuration of this node's kubelet: the cluster's, with what this host needs, the user's patches, and the instance's.
///
/// # Errors
/// [`PatchError`] when a patch does not fit.
pub fn for_node(cluster_wide: &Value, host: &Host, node: &Node, patches: &Patches) -> Result<Value, PatchError> {
    let mut value = cluster_wide.clone();
    match host.cgroup_driver {
        Some(driver) => value["cgroupDriver"] = json!(driver.name()),
        // As kubeadm has it. kubelet asks the runtime itself, if that can tell.
        None if value.get("cgroupDriver").is_none() => value["cgroupDriver"] = json!("systemd"),
        None => {}
    }
    if host.cgroup_v1 && value.get("failCgroupV1").is_none() {
        value["failCgroupV1"] = json!(false);
    }
    if host.swap != Swap::Off {
        value["failSwapOn"] = json!(false);
        let behavior = if host.swap == Swap::Limited { "LimitedSwap" } else { "NoSwap" };
        value["memorySwap"] = json!({"swapBehavior": behavior});
    }
    match (host.resolved, value.get("resolvConf").and_then(Value::as_str)) {
        (true, None) => value["resolvConf"] = json!(RESOLVED),
        // Uploaded by a kubeadm whose first node had systemd-resolved; kubelet would start no pod here.
        (false, Some(RESOLVED)) => {
            if let Value::Object(map) = &mut value {
                map.remove("resolvConf");
            }
        }
        _ => {}
    }
    patches.apply(PATCH_TARGET, &mut value)?;
    json_patch::merge(&mut value, &instance(node));
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::static_pods::golden::{cluster, dry_run, node, read};
    use weft_tests::node::peers;
    use weft_tests::skip;

    fn host() -> Host {
        Host { cgroup_driver: Some(CgroupDriver::Systemd), ..Host::default() }
    }

    /// Go prints what is not set as well, with a value that means "not set".
    fn without_zeros(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let members = map.into_iter().map(|(name, value)| (name, without_zeros(value)));
                Value::Object(members.filter(|(_, value)| !is_zero(value)).collect())
            }
            other => other,
        }
    }

    fn is_zero(value: &Value) -> bool {
        match value {
            Value::Object(map) => map.is_empty(),
            Value::String(text) => text == "0s" || text == "0",
            Value::Number(number) => number.as_u64() == Some(0),
            _ => false,
        }
    }

    #[test]
    fn the_file_is_upstreams() {
        if let Err(reason) = peers::check(&["kubeadm"]) {
            skip!("{reason}");
        }
        let folder = tempfile::tempdir().unwrap();
        let configuration = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n\
            localAPIEndpoint: {advertiseAddress: 192.0.2.10}\n\
            nodeRegistration: {name: n1, criSocket: 'unix:///var/run/containerd/containerd.sock'}\n---\n\
            apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.2\n\
            networking: {serviceSubnet: '10.96.0.0/16,fd00:96::/112', podSubnet: '10.244.0.0/16,fd00:10::/56', dnsDomain: example.org}\n---\n\
            apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nfailSwapOn: false\nauthentication: {webhook: {enabled: false}}\n";
        let out = dry_run(&peers::need("kubeadm").unwrap(), folder.path(), configuration);
        let cluster = Cluster {
            service_subnets: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
            dns_domain: "example.org".into(),
            ..cluster()
        };
        let user = json!({"failSwapOn": false, "authentication": {"webhook": {"enabled": false}}});
        let ours = for_node(&cluster_wide(&cluster, Some(&user)).value, &host(), &node(), &Patches::default()).unwrap();
        let mut theirs = without_zeros(read(&out, "config.yaml"));
        // This machine's own, if it has systemd-resolved.
        theirs.as_object_mut().unwrap().remove("resolvConf");
        // weft needs no chains of kubelet's, which would outlive a reset.
        theirs["makeIPTablesUtilChains"] = json!(false);
        assert_eq!(ours, theirs);
    }

    #[test]
    fn what_is_this_nodes_is_never_the_clusters() {
        let wide = cluster_wide(&cluster(), None).value;
        let v1 = Host {
            cgroup_driver: Some(CgroupDriver::Cgroupfs),
            cgroup_v1: true,
            swap: Swap::Tolerated,
            resolved: true,
        };
        let here = for_node(&wide, &v1, &node(), &Patches::default()).unwrap();
        for (field, value) in [
            ("cgroupDriver", json!("cgroupfs")),
            ("failCgroupV1", json!(false)),
            ("failSwapOn", json!(false)),
            ("memorySwap", json!({"swapBehavior": "NoSwap"})),
            ("resolvConf", json!(RESOLVED)),
            ("containerRuntimeEndpoint", json!(node().cri_socket)),
        ] {
            assert_eq!(here[field], value, "{field}");
            assert!(wide.get(field).is_none(), "{field} is uploaded");
        }
    }

    #[test]
    fn a_resolver_of_the_first_nodes_is_not_inherited() {
        let mut wide = cluster_wide(&cluster(), None).value;
        wide["resolvConf"] = json!(RESOLVED);
        wide["cgroupDriver"] = json!("cgroupfs");
        let here = for_node(&wide, &host(), &node(), &Patches::default()).unwrap();
        assert!(here.get("resolvConf").is_none());
        assert_eq!(here["cgroupDriver"], "systemd");
        wide["resolvConf"] = json!("/etc/mine");
        assert_eq!(for_node(&wide, &host(), &node(), &Patches::default()).unwrap()["resolvConf"], "/etc/mine");
    }

    #[test]
    fn what_the_user_has_other_than_usual_is_told() {
        let user = json!({"clusterDomain": "x", "rotateCertificates": false, "maxPods": 5, "healthzPort": 10248});
        let ClusterWide { value, warnings } = cluster_wide(&cluster(), Some(&user));
        assert_eq!(
            (&value["clusterDomain"], &value["rotateCertificates"], &value["maxPods"]),
            (&json!("x"), &json!(true), &json!(5))
        );
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("clusterDomain") && warnings[1].contains("it stays true"), "{warnings:?}");
    }

    #[test]
    fn the_dns_server_is_the_tenth_address_of_the_first_range() {
        let server =
            |ranges: &[&str]| dns_server(&ranges.iter().map(|range| range.parse().unwrap()).collect::<Vec<_>>());
        assert_eq!(server(&["10.96.0.0/12", "fd00::/112"]), "10.96.0.10".parse().ok());
        assert_eq!(server(&["fd00:96::/112", "10.96.0.0/12"]), "fd00:96::a".parse().ok());
        assert_eq!(server(&["255.255.255.248/29"]), None);
        assert_eq!(server(&[]), None);
    }

    #[test]
    fn the_version_of_control_groups_is_found_out() {
        let root = tempfile::tempdir().unwrap();
        let services = ServiceManager::Systemd(root.path().join("no systemctl"));
        let detect = || Host::detect(root.path(), &services, None, Swap::Off).cgroup_v1;
        assert!(!detect());
        std::fs::create_dir_all(root.path().join("sys/fs/cgroup")).unwrap();
        assert!(detect());
        std::fs::write(root.path().join("sys/fs/cgroup/cgroup.controllers"), "cpu").unwrap();
        assert!(!detect());
    }
}
