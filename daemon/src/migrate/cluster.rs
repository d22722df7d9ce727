//! What a cluster has of flannel, kube-proxy and weft, out of the objects of its API. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::keep_off;

/// Labels and names by which weft's own are known (manifests/).
const WEFT: &str = "weft";
const MIGRATION: &str = "weft-migrate";
/// Labels of objects that an operator of the platform's brings back when they are deleted.
const MANAGERS: [&str; 2] = ["addonmanager.kubernetes.io/mode", "eks.amazonaws.com/component"];
const NAME_LABEL: &str = "app.kubernetes.io/name";
/// The label of a node that is weft's, with the value `true`.
pub(super) const NODE_LABEL: &str = "weft/agent";

/// The objects, as they were read. Lists are those of their `items`.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// All Nodes.
    pub nodes: Vec<Value>,
    /// All DaemonSets.
    pub daemon_sets: Vec<Value>,
    /// All pods.
    pub pods: Vec<Value>,
    /// ConfigMaps by namespace and name, those that are there.
    pub config_maps: BTreeMap<(String, String), Value>,
}

/// A DaemonSet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DaemonSet {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether its pods keep away from nodes that are weft's.
    pub keeps_off: bool,
    /// The patch that makes them, for a strategic merge.
    #[serde(skip)]
    pub keep_off: Value,
    /// Whether somebody else brings it back when it is deleted, and who.
    pub manager: Option<String>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    /// Its name.
    pub name: String,
    /// Whether it has weft's label.
    pub labelled: bool,
    /// Whether weft's agent is ready on it.
    pub weft: bool,
    /// Whether `weft migrate node` has done its work on it.
    pub changed_over: bool,
    /// Whether a pod of flannel's is on it.
    pub flannel: bool,
    /// Whether a pod of kube-proxy's is on it.
    pub kube_proxy: bool,
    /// Pods with host ports that have their own network: they keep them.
    pub host_port_pods: Vec<String>,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// flannel's DaemonSets; one an architecture in old manifests.
    pub flannel: Vec<DaemonSet>,
    /// DaemonSets that run flanneld and something else, as canal does.
    pub mixed: Vec<String>,
    /// flannel's net-conf.json.
    pub net_conf: Option<String>,
    /// kube-proxy's DaemonSet.
    pub kube_proxy: Option<DaemonSet>,
    /// kube-proxy's mode, as its ConfigMap has it; empty is its default, iptables.
    pub kube_proxy_mode: Option<String>,
    /// The API server's address that kube-proxy uses.
    pub api_server: Option<String>,
    /// weft's DaemonSet.
    pub weft: Option<DaemonSet>,
    /// Whether it runs on nodes with weft's label only.
    pub weft_by_label: bool,
    /// weft's net-conf.json.
    pub weft_net_conf: Option<String>,
    /// Whether weft's ConfigMap gives the API server's address.
    pub weft_has_api_server: bool,
    /// The DaemonSet that runs `weft migrate node`.
    pub migration: Option<DaemonSet>,
    /// kubeadm's ClusterConfiguration.
    #[serde(skip)]
    pub kubeadm: Option<String>,
    /// Pods of kube-proxy that a node runs out of a file.
    pub static_proxies: Vec<String>,
    /// Whether nodes run k3s.
    pub k3s: bool,
    /// The DaemonSets that `weft migrate finish` has deleted.
    #[serde(skip)]
    pub saved: Vec<Value>,
    /// The nodes that run Linux, by name.
    pub nodes: Vec<NodeState>,
}

/// The ConfigMaps that are asked for, beside flannel's.
pub const CONFIG_MAPS: [(&str, &str); 5] = [
    ("kube-system", "kubeadm-config"),
    ("kube-system", "kube-proxy"),
    ("kube-system", "weft-config"),
    ("kube-flannel", FLANNEL_CONFIG),
    SAVED,
];
/// The ConfigMap in which DaemonSets are kept that were deleted.
pub const SAVED: (&str, &str) = ("kube-system", "weft-migration-saved");
/// flannel's, in the namespace of its DaemonSet.
pub const FLANNEL_CONFIG: &str = "kube-flannel-cfg";

/// Reads the objects.
#[must_use]
pub fn read(objects: &Objects) -> Cluster {
    let sets = |is_it: &dyn Fn(&Value) -> bool| -> Vec<DaemonSet> {
        objects.daemon_sets.iter().filter(|set| is_it(set)).map(daemon_set).collect()
    };
    let one = |name: &str| {
        sets(&|set| text(set, "/metadata/name") == name && text(set, "/metadata/namespace") == "kube-system").pop()
    };
    let flannel = sets(&|set| matches!(flannels(set), (1.., 0)));
    let mixed = sets(&|set| matches!(flannels(set), (1.., 1..)));
    let data = |namespace: &str, name: &str, key: &str| {
        let map = objects.config_maps.get(&(namespace.to_owned(), name.to_owned()))?;
        map["data"][key].as_str().map(str::to_owned)
    };
    let of_flannel = flannel.first().map_or("kube-flannel", |set| &set.namespace);
    let weft_config = data("kube-system", "weft-config", "config.yaml").unwrap_or_default();
    let proxy = data("kube-system", "kube-proxy", "config.conf").and_then(|text| yaml(&text));
    let credentials = data("kube-system", "kube-proxy", "kubeconfig.conf").and_then(|text| yaml(&text));
    Cluster {
        net_conf: data(of_flannel, FLANNEL_CONFIG, "net-conf.json"),
        kube_proxy: one("kube-proxy"),
        kube_proxy_mode: proxy.map(|proxy| text(&proxy, "/mode").to_owned()),
        api_server: credentials
            .map(|credentials| text(&credentials, "/clusters/0/cluster/server").to_owned())
            .filter(|server| !server.is_empty()),
        weft: one(WEFT),
        weft_net_conf: data("kube-system", "weft-config", "net-conf.json"),
        weft_has_api_server: yaml(&weft_config).is_some_and(|config| !text(&config, "/kube-api-server").is_empty()),
        migration: one(MIGRATION),
        kubeadm: data("kube-system", "kubeadm-config", "ClusterConfiguration"),
        nodes: nodes(objects, &flannel),
        flannel,
        mixed: mixed.iter().map(|set| format!("{}/{}", set.namespace, set.name)).collect(),
        weft_by_label: objects.daemon_sets.iter().any(|set| {
            let is_it = text(set, "/metadata/name") == WEFT && text(set, "/metadata/namespace") == "kube-system";
            is_it && set["spec"]["template"]["spec"]["nodeSelector"][NODE_LABEL] == "true"
        }),
        static_proxies: objects.pods.iter().filter(|pod| is_static_proxy(pod)).map(named).collect(),
        k3s: objects.nodes.iter().any(|node| text(node, "/status/nodeInfo/kubeletVersion").contains("+k3s")),
        saved: saved(objects),
    }
}

fn nodes(objects: &Objects, flannel: &[DaemonSet]) -> Vec<NodeState> {
    let linux = objects.nodes.iter().filter(|node| text(node, "/metadata/labels/kubernetes.io~1os") != "windows");
    let mut states: Vec<NodeState> = linux
        .map(|node| {
            let name = text(node, "/metadata/name");
            let pods: Vec<&Value> = objects.pods.iter().filter(|pod| text(pod, "/spec/nodeName") == name).collect();
            let has = |is_it: &dyn Fn(&Value) -> bool| pods.iter().any(|pod| !is_over(pod) && is_it(pod));
            let ready = |label: &str| has(&|pod| is_labelled(pod, label) && is_ready(pod));
            NodeState {
                name: name.to_owned(),
                labelled: node["metadata"]["labels"][NODE_LABEL] == "true",
                weft: ready(WEFT),
                changed_over: ready(MIGRATION),
                flannel: has(&|pod| flannel.iter().any(|set| is_of(pod, set))),
                kube_proxy: has(&|pod| {
                    let is_sets = owner(pod) == "kube-proxy" && text(pod, "/metadata/namespace") == "kube-system";
                    is_sets || is_static_proxy(pod)
                }),
                host_port_pods: pods
                    .iter()
                    .filter(|pod| !is_over(pod) && has_host_ports(pod))
                    .map(|pod| named(pod))
                    .collect(),
            }
        })
        .collect();
    states.sort_by(|a, b| a.name.cmp(&b.name));
    states
}

fn daemon_set(set: &Value) -> DaemonSet {
    let of = |path| text(set, path).to_owned();
    let manager = MANAGERS.into_iter().find(|label| !set["metadata"]["labels"][label].is_null());
    DaemonSet {
        namespace: of("/metadata/namespace"),
        name: of("/metadata/name"),
        keeps_off: keep_off::keeps_off(set),
        keep_off: keep_off::patch(set),
        manager: manager.map(str::to_owned),
    }
}

/// Whatever it is called: how many of its containers run flanneld, and how many do not. Those that run before are left aside.
fn flannels(set: &Value) -> (usize, usize) {
    let containers = set["spec"]["template"]["spec"]["containers"].as_array();
    let runs_it = |container: &&Value| {
        let words = ["command", "args"].into_iter().filter_map(|key| container[key].as_array()).flatten();
        words.filter_map(Value::as_str).any(|word| word.rsplit('/').next() == Some("flanneld"))
    };
    let (of_flannel, others): (Vec<&Value>, Vec<&Value>) = containers.into_iter().flatten().partition(runs_it);
    (of_flannel.len(), others.len())
}

fn is_of(pod: &Value, set: &DaemonSet) -> bool {
    owner(pod) == set.name && text(pod, "/metadata/namespace") == set.namespace
}

fn owner(pod: &Value) -> &str {
    if text(pod, "/metadata/ownerReferences/0/kind") == "DaemonSet" {
        text(pod, "/metadata/ownerReferences/0/name")
    } else {
        ""
    }
}

/// Such a pod is the node's own; its name ends in the node's.
fn is_static_proxy(pod: &Value) -> bool {
    let is_nodes = text(pod, "/metadata/ownerReferences/0/kind") == "Node";
    is_nodes
        && text(pod, "/metadata/namespace") == "kube-system"
        && text(pod, "/metadata/name").starts_with("kube-proxy")
}

fn saved(objects: &Objects) -> Vec<Value> {
    let (namespace, name) = SAVED;
    let map = objects.config_maps.get(&(namespace.to_owned(), name.to_owned()));
    let data = map.and_then(|map| map["data"].as_object()).into_iter().flat_map(|data| data.values());
    data.filter_map(|text| serde_json::from_str(text.as_str()?).ok()).collect()
}

fn is_labelled(pod: &Value, name: &str) -> bool {
    pod["metadata"]["labels"][NAME_LABEL] == name && text(pod, "/metadata/namespace") == "kube-system"
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|found| found["type"] == "Ready" && found["status"] == "True")
}

fn is_over(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

fn has_host_ports(pod: &Value) -> bool {
    let spec = &pod["spec"];
    let containers = ["containers", "initContainers"].into_iter().filter_map(|key| spec[key].as_array()).flatten();
    let mut ports = containers.filter_map(|container| container["ports"].as_array()).flatten();
    spec["hostNetwork"] != true && ports.any(|port| port["hostPort"].as_u64().is_some_and(|port| port != 0))
}

fn named(pod: &Value) -> String {
    format!("{}/{}", text(pod, "/metadata/namespace"), text(pod, "/metadata/name"))
}

fn yaml(text: &str) -> Option<Value> {
    serde_saphyr::from_str(text).ok()
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, name: &str, set: &str, node: &str) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name, "labels": {NAME_LABEL: set},
                "ownerReferences": [{"kind": "DaemonSet", "name": set}]},
            "spec": {"nodeName": node}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    fn set(namespace: &str, name: &str, command: &str) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name},
            "spec": {"template": {"spec": {"containers": [{"command": [command]}]}}}})
    }

    /// Two nodes of flannel's and kube-proxy's; weft is on the first.
    fn objects() -> Objects {
        let map =
            |namespace: &str, name: &str, data: Value| ((namespace.to_owned(), name.to_owned()), json!({"data": data}));
        let kubeconfig = "clusters:\n- cluster:\n    server: https://192.0.2.10:6443\n  name: default\n";
        let web = json!({"metadata": {"namespace": "default", "name": "web"},
            "spec": {"nodeName": "n2", "containers": [{"ports": [{"hostPort": 80, "containerPort": 80}]}]}, "status": {}});
        let mut flannel = set("kube-flannel", "kube-flannel-ds", "/opt/bin/flanneld");
        flannel["spec"]["template"]["spec"]["affinity"] = json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": NODE_LABEL, "operator": "DoesNotExist"}]}]}}});
        Objects {
            nodes: vec![
                json!({"metadata": {"name": "n2", "labels": {"kubernetes.io/os": "linux"}}}),
                json!({"metadata": {"name": "n1", "labels": {NODE_LABEL: "true"}}}),
                json!({"metadata": {"name": "w", "labels": {"kubernetes.io/os": "windows"}}}),
            ],
            daemon_sets: vec![
                flannel,
                set("kube-system", "kube-proxy", "/usr/local/bin/kube-proxy"),
                set("kube-system", "weft", "/weft"),
            ],
            pods: vec![
                pod("kube-system", "weft-a", "weft", "n1"),
                pod("kube-system", "weft-migrate-a", "weft-migrate", "n1"),
                pod("kube-flannel", "kube-flannel-ds-b", "kube-flannel-ds", "n2"),
                pod("kube-system", "kube-proxy-a", "kube-proxy", "n1"),
                web,
            ],
            config_maps: [
                map("kube-flannel", FLANNEL_CONFIG, json!({"net-conf.json": "{\"Network\":\"10.244.0.0/16\"}"})),
                map("kube-system", "kube-proxy", json!({"config.conf": "mode: ipvs\n", "kubeconfig.conf": kubeconfig})),
                map("kube-system", "weft-config", json!({"config.yaml": "# kube-api-server: x\nproxy-mode: auto\n"})),
            ]
            .into(),
        }
    }

    pub(in super::super) fn half_way() -> Cluster {
        read(&objects())
    }

    #[test]
    fn a_cluster_is_known_by_its_objects() {
        let cluster = half_way();
        assert_eq!(
            cluster.flannel.iter().map(|set| (&*set.name, set.keeps_off)).collect::<Vec<_>>(),
            [("kube-flannel-ds", true)]
        );
        assert!(
            !cluster.kube_proxy.as_ref().unwrap().keeps_off && cluster.weft.is_some() && cluster.migration.is_none()
        );
        assert_eq!(cluster.kube_proxy_mode.as_deref(), Some("ipvs"));
        assert_eq!(cluster.api_server.as_deref(), Some("https://192.0.2.10:6443"));
        assert!(!cluster.weft_has_api_server && cluster.net_conf.as_deref().unwrap().contains("10.244"));
        let [n1, n2] = &cluster.nodes[..] else { panic!("{:?}", cluster.nodes) };
        assert!(n1.labelled && n1.weft && n1.changed_over && !n1.flannel && n1.kube_proxy);
        assert!(!n2.labelled && !n2.weft && n2.flannel && !n2.kube_proxy);
        assert_eq!(n2.host_port_pods, ["default/web"]);
        assert_eq!(read(&Objects::default()), Cluster::default());
    }

    #[test]
    fn what_runs_flannel_beside_something_else_is_not_flannel() {
        let mut objects = objects();
        let spec = &mut objects.daemon_sets[0]["spec"]["template"]["spec"];
        spec["initContainers"] = json!([{"name": "install-cni", "command": ["cp"]}]);
        assert_eq!(read(&objects).flannel.len(), 1);
        let spec = &mut objects.daemon_sets[0]["spec"]["template"]["spec"];
        spec["containers"].as_array_mut().unwrap().push(json!({"name": "calico-node", "image": "x"}));
        let canal = read(&objects);
        assert_eq!((canal.flannel.len(), canal.mixed), (0, vec!["kube-flannel/kube-flannel-ds".to_owned()]));
    }

    #[test]
    fn what_platforms_run_by_themselves_is_known() {
        let mut objects = objects();
        objects.daemon_sets[1]["metadata"]["labels"] = json!({"eks.amazonaws.com/component": "kube-proxy"});
        objects.pods.push(json!({"metadata": {"namespace": "kube-system", "name": "kube-proxy-n2",
            "ownerReferences": [{"kind": "Node", "name": "n2"}]}, "spec": {"nodeName": "n2"}, "status": {}}));
        objects.nodes[0]["status"] = json!({"nodeInfo": {"kubeletVersion": "v1.34.1+k3s1"}});
        let cluster = read(&objects);
        assert_eq!(cluster.kube_proxy.unwrap().manager.as_deref(), Some("eks.amazonaws.com/component"));
        assert_eq!(cluster.static_proxies, ["kube-system/kube-proxy-n2"]);
        assert!(cluster.k3s && cluster.nodes[1].kube_proxy);
    }
}
