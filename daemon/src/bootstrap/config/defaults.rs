//! What nobody said: kubeadm's defaults, weft's where they differ, and what follows from the machine.

use serde_json::{Value, json};

use super::finding::{Finding, Weight};
use super::layers::{Layers, Origin};
use super::old::CONTROL_PLANE_TAINT;
use super::secret::Secret;
use super::versions::{self, Asked};
use super::weft::WeftOptions;
use crate::bootstrap::stable_name;
use crate::cluster::family::Family;

/// Group of those who show a bootstrap token of a new node.
pub const NODE_TOKEN_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";
/// Port of an API server.
pub const API_PORT: u16 = 6443;
/// Where certificates live.
pub const CERTIFICATES_DIR: &str = "/etc/kubernetes/pki";
/// Where etcd keeps its data.
pub const ETCD_DATA_DIR: &str = "/var/lib/etcd";

const TIMEOUTS: [(&str, &str); 7] = [
    ("controlPlaneComponentHealthCheck", "4m0s"),
    ("discovery", "5m0s"),
    ("etcdAPICall", "2m0s"),
    ("kubeletHealthCheck", "4m0s"),
    ("kubernetesAPICall", "1m0s"),
    ("tlsBootstrap", "5m0s"),
    ("upgradeManifests", "5m0s"),
];

/// The timeouts of a kind.
pub(super) fn timeouts(layers: &mut Layers, kind: &str) {
    for (field, value) in TIMEOUTS {
        layers.default(&format!("{kind}.timeouts.{field}"), value, "");
    }
}

/// What `weft.dev/v1 WeftConfiguration` leaves out.
pub(super) fn weft(layers: &mut Layers) {
    let options = WeftOptions::default();
    let path = |field: &str| format!("{}.{field}", super::weft::KIND);
    layers.default(&path("proxyMode"), options.proxy_mode.name(), "");
    layers.default(&path("backend"), options.backend, "");
    layers.default(&path("swap"), options.swap.name(), "");
    layers.default(&path("wait"), options.wait, "");
    layers.default(&path("fix"), options.fix, "");
    layers.default(&path("prepareHost"), options.prepare_host, "");
    layers.default(&path("apiBalancer"), options.api_balancer, "");
    layers.default(&path("apiBalancerPort"), options.api_balancer_port, "on the loopback device");
}

/// How the API is reached for as long as the cluster lives. Not part of a printed file: whoever changed the node's address
/// there would have to know to change it here.
///
/// Without an endpoint kubeadm lets no further node join the control plane; the address of the first costs nothing, as nodes
/// that weft joins go by the stable name.
pub(super) fn api(layers: &mut Layers, address: std::net::SocketAddr) {
    let why = "this node's address: without one no other could join the control plane";
    layers.default("ClusterConfiguration.controlPlaneEndpoint", address.to_string(), why);
    if layers.get(&format!("{}.apiBalancer", super::weft::KIND)) != Some(&Value::Bool(true)) {
        return;
    }
    let path = "ClusterConfiguration.apiServer.certSANs";
    match layers.get(path).and_then(Value::as_array) {
        None => layers.default(path, json!([stable_name::NAME]), "the name that each node's balancer stands for"),
        Some(names) if names.iter().any(|name| name == stable_name::NAME) => {}
        Some(names) => {
            let names: Vec<Value> = names.iter().cloned().chain([stable_name::NAME.into()]).collect();
            layers.refine(path, names);
        }
    }
}

/// How a node is registered, but for its name and socket, which depend on the machine.
pub(super) fn registration(layers: &mut Layers, kind: &str, is_control_plane: bool) {
    let path = |field: &str| format!("{kind}.nodeRegistration.{field}");
    layers.default(&path("imagePullPolicy"), "IfNotPresent", "");
    layers.default(&path("imagePullSerial"), true, "");
    if is_control_plane {
        let taint = json!([{"key": CONTROL_PLANE_TAINT, "effect": "NoSchedule"}]);
        layers.default(&path("taints"), taint, "a node of the control plane; [] is none");
    }
}

/// The family that the user's ranges begin with, if they gave some.
pub(super) fn family(layers: &Layers) -> Option<Family> {
    ["serviceSubnet", "podSubnet"].iter().find_map(|field| {
        let text = layers.text(&format!("ClusterConfiguration.networking.{field}"))?;
        super::rules::subnets(text)?.first().map(|network| Family::of(network.ip()))
    })
}

/// The cluster's fields. `family` is that of the node's address.
pub(super) fn cluster(layers: &mut Layers, family: Family, findings: &mut Vec<Finding>) {
    let path = |field: &str| format!("ClusterConfiguration.{field}");
    version(layers, findings);
    networking(layers, family);
    layers.default(&path("networking.dnsDomain"), "cluster.local", "");
    layers.default(&path("certificatesDir"), CERTIFICATES_DIR, "");
    layers.default(&path("imageRepository"), versions::IMAGE_REPOSITORY, "");
    layers.default(&path("clusterName"), "kubernetes", "");
    let why = "as safe as kubeadm's RSA-2048, and made at once";
    layers.default(&path("encryptionAlgorithm"), "ECDSA-P256", why);
    layers.default(&path("certificateValidityPeriod"), "8760h0m0s", "one year");
    layers.default(&path("caCertificateValidityPeriod"), "87600h0m0s", "ten years");
    if layers.get(&path("etcd.external")).is_none() {
        layers.default(&path("etcd.local.dataDir"), ETCD_DATA_DIR, "");
    }
    for field in ["apiServer", "controllerManager", "scheduler", "dns"] {
        layers.default(&path(field), json!({}), "");
    }
    proxy(layers, findings);
}

/// The version that is brought up. Labels, which kubeadm looks up in the network, stand for this build's.
fn version(layers: &mut Layers, findings: &mut Vec<Finding>) {
    let path = "ClusterConfiguration.kubernetesVersion";
    layers.default(path, versions::KUBERNETES, "the version that this weft is made for");
    let given = layers.text(path).unwrap_or_default().to_owned();
    match versions::asked(&given) {
        Asked::Exactly(version) if version == given => {}
        Asked::Exactly(version) => layers.refine(path, version),
        Asked::Label => {
            let message = format!(
                "kubernetesVersion {given:?} is not looked up: weft takes {} without asking the network",
                versions::KUBERNETES
            );
            findings.push(layers.finding(Weight::Note, path, message));
            layers.refine(path, versions::KUBERNETES);
        }
        Asked::Refused => {
            let message = format!("kubernetesVersion is {given:?}; expected {}", versions::expected());
            findings.push(layers.finding(Weight::Wrong, path, message));
        }
    }
}

/// The ranges. One that is left out has the families of the other one.
fn networking(layers: &mut Layers, family: Family) {
    let path = |field: &str| format!("ClusterConfiguration.networking.{field}");
    let families = |layers: &Layers, field: &str| -> Option<Vec<Family>> {
        let networks = super::rules::subnets(layers.text(&path(field))?)?;
        Some(networks.iter().map(|network| Family::of(network.ip())).collect())
    };
    let of = |layers: &Layers, other: &str| families(layers, other).unwrap_or_else(|| vec![family]);
    let join = |families: Vec<Family>, v4: &str, v6: &str| -> String {
        let ranges = families.into_iter().map(|family| if family == Family::V4 { v4 } else { v6 });
        ranges.collect::<Vec<_>>().join(",")
    };
    let pods = join(of(layers, "serviceSubnet"), "10.244.0.0/16", "fd00:10:244::/48");
    layers.default(&path("podSubnet"), pods, "weft's network");
    let services = join(of(layers, "podSubnet"), "10.96.0.0/12", "fd00:10:96::/112");
    layers.default(&path("serviceSubnet"), services, "");
}

/// weft is in kube-proxy's place: no other kubeadm may bring it back.
fn proxy(layers: &mut Layers, findings: &mut Vec<Finding>) {
    let path = "ClusterConfiguration.proxy.disabled";
    if layers.get(path) == Some(&Value::Bool(false)) {
        let message = "proxy.disabled is false; it is uploaded as true, since weft is in kube-proxy's place".to_owned();
        findings.push(layers.finding(Weight::Note, path, message));
    }
    if layers.get(path) != Some(&Value::Bool(true)) {
        layers.set(path, true.into(), Origin::Default("weft is in kube-proxy's place".to_owned()));
    }
}

/// The bootstrap tokens: one at least. Flags speak of the first.
pub(super) fn tokens(layers: &mut Layers, fresh: &Secret, token: Option<&Secret>, ttl: Option<&str>) {
    let path = "InitConfiguration.bootstrapTokens";
    let given = layers.get(path).and_then(Value::as_array).filter(|items| !items.is_empty());
    let mut items = given
        .cloned()
        .unwrap_or_else(|| vec![json!({"description": "The default bootstrap token generated by 'weft init'."})]);
    let is_given = given.is_some();
    for (index, item) in items.iter_mut().enumerate() {
        let Value::Object(item) = item else { continue };
        if index == 0 {
            if let Some(Secret(token)) = token {
                item.insert("token".to_owned(), token.as_str().into());
            }
            if let Some(ttl) = ttl {
                item.remove("expires");
                item.insert("ttl".to_owned(), ttl.into());
            }
            item.entry("token").or_insert_with(|| fresh.0.as_str().into());
        }
        if !item.contains_key("expires") {
            item.entry("ttl").or_insert_with(|| "24h0m0s".into());
        }
        let usages = item.entry("usages").or_insert_with(|| json!(["signing", "authentication"]));
        let authenticates = usages.as_array().is_some_and(|usages| usages.contains(&"authentication".into()));
        if authenticates {
            item.entry("groups").or_insert_with(|| json!([NODE_TOKEN_GROUP]));
        }
    }
    let origin = match (token, ttl) {
        (Some(_), _) => Origin::Flag("--token"),
        (None, Some(_)) => Origin::Flag("--token-ttl"),
        (None, None) if is_given => return layers.refine(path, items),
        (None, None) => Origin::Default("a new token, for a day".to_owned()),
    };
    layers.set(path, items.into(), origin);
}
