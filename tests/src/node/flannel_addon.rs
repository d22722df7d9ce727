//! flannel as its users install it: what its manifests apply, with images made of the programs that are here.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use weft_image::archive::Archive;

use super::bare::Bare;
use super::image::{self, PROGRAM_MODE};
use super::{kubelet, peers};

/// Copies files in the image, as Alpine does in upstream's; a static one.
pub const BUSYBOX: &str = "/bin/busybox";

/// What the image is made of besides.
pub const PROGRAMS: [&str; 2] = ["flanneld", "flannel"];

const IMAGE: &str = "localhost/flannel:test";
const NAMESPACE: &str = "kube-flannel";
const LABELS: (&str, &str) = ("app", "flannel");

/// Has its image imported on a machine.
///
/// # Errors
/// When a program is missing, or containerd refuses.
pub fn preload(node: &Bare) -> Result<()> {
    let (flanneld, architecture) = image::static_program(&peers::need("flanneld")?)?;
    let (plugin, _) = image::static_program(&peers::need("flannel")?)?;
    let (busybox, _) = image::static_program(Path::new(BUSYBOX))?;
    let mut layer = Archive::default();
    layer.file("cp", PROGRAM_MODE, &busybox)?;
    layer.file("flannel", PROGRAM_MODE, &plugin)?;
    layer.file("flanneld", PROGRAM_MODE, &flanneld)?;
    let bytes = image::archive(&[IMAGE.to_owned()], architecture, &json!({"Entrypoint": ["/flanneld"]}), layer)?;
    let archive = node.machine.path("flannel.tar");
    fs::write(&archive, bytes)?;
    kubelet::import(&node.machine, &archive)
}

/// Applies it, as an administrator on this machine.
///
/// # Errors
/// When the API server refuses.
pub fn apply(node: &Bare) -> Result<()> {
    let file = node.machine.path("flannel.json");
    let items = [namespace(), account(), role(), binding(), settings(), daemon_set()];
    fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    node.kubectl(&["apply", &format!("--filename={}", file.display())]).map(drop)
}

fn namespace() -> Value {
    let labels = json!({"pod-security.kubernetes.io/enforce": "privileged"});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
}

fn account() -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "flannel", "namespace": NAMESPACE}})
}

fn role() -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "flannel"}, "rules": [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
    ]})
}

fn binding() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "flannel"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "flannel"},
        "subjects": [{"kind": "ServiceAccount", "name": "flannel", "namespace": NAMESPACE}],
    })
}

fn settings() -> Value {
    let conflist = json!({"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]});
    let network = json!({"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}});
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-flannel-cfg", "namespace": NAMESPACE},
        "data": {"cni-conf.json": conflist.to_string(), "net-conf.json": network.to_string()},
    })
}

fn daemon_set() -> Value {
    let labels = json!({LABELS.0: LABELS.1});
    let copy = |name: &str, from: &str, to: &str, mounts: Value| {
        json!({
            "name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["/cp"], "args": ["-f", from, to],
            "volumeMounts": mounts,
        })
    };
    let plugin = copy(
        "install-cni-plugin",
        "/flannel",
        "/opt/cni/bin/flannel",
        json!([{"name": "cni-plugin", "mountPath": "/opt/cni/bin"}]),
    );
    let conflist = copy(
        "install-cni",
        "/etc/kube-flannel/cni-conf.json",
        "/etc/cni/net.d/10-flannel.conflist",
        json!([{"name": "cni", "mountPath": "/etc/cni/net.d"}, {"name": "flannel-cfg", "mountPath": "/etc/kube-flannel/"}]),
    );
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let directory =
        |name: &str, path: &str| json!({"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}});
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "kube-flannel-ds", "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
            "hostNetwork": true, "serviceAccountName": "flannel", "priorityClassName": "system-node-critical",
            "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
            "initContainers": [plugin, conflist],
            "containers": [{
                "name": "kube-flannel", "image": IMAGE, "imagePullPolicy": "Never",
                "args": ["--ip-masq", "--kube-subnet-mgr", "--iface=eth0"],
                "securityContext": {"privileged": true},
                "env": [field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace")],
                "volumeMounts": [
                    {"name": "run", "mountPath": "/run/flannel"},
                    {"name": "flannel-cfg", "mountPath": "/etc/kube-flannel/"},
                ],
            }],
            "volumes": [
                directory("run", "/run/flannel"), directory("cni-plugin", "/opt/cni/bin"), directory("cni", "/etc/cni/net.d"),
                {"name": "flannel-cfg", "configMap": {"name": "kube-flannel-cfg"}},
            ],
        }}},
    })
}
