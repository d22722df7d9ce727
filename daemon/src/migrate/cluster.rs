//! What a cluster has of flannel, kube-proxy and weft, out of the objects of its API. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// Labels and names by which weft's own are known (manifests/).
const WEFT: &str = "weft";
const MIGRATION: &str = "weft-migrate";
const NAME_LABEL: &str = "app.kubernetes.io/name";
const NODE_LABEL: &str = "weft/agent";

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
    /// weft's net-conf.json.
    pub weft_net_conf: Option<String>,
    /// Whether weft's ConfigMap gives the API server's address.
    pub weft_has_api_server: bool,
    /// The DaemonSet that runs `weft migrate node`.
    pub migration: Option<DaemonSet>,
    /// kubeadm's ClusterConfiguration.
    #[serde(skip)]
    pub kubeadm: Option<String>,
    /// The nodes that run Linux, by name.
    pub nodes: Vec<NodeState>,
}

/// The ConfigMaps that are asked for, beside flannel's.
pub const CONFIG_MAPS: [(&str, &str); 4] = [
    ("kube-system", "kubeadm-config"),
    ("kube-system", "kube-proxy"),
    ("kube-system", "weft-config"),
    ("kube-flannel", FLANNEL_CONFIG),
];
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
    let flannel = sets(&runs_flannel);
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
                kube_proxy: has(&|pod| owner(pod) == "kube-proxy" && text(pod, "/metadata/namespace") == "kube-system"),
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
    let terms = &set["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ["nodeSelectorTerms"];
    let says = |term: &Value| {
        let expressions = term["matchExpressions"].as_array();
        expressions.into_iter().flatten().any(|said| said["key"] == NODE_LABEL && said["operator"] == "DoesNotExist")
    };
    // A node needs to satisfy one term only.
    let keeps_off = terms.as_array().is_some_and(|terms| !terms.is_empty() && terms.iter().all(says));
    let of = |path| text(set, path).to_owned();
    DaemonSet { namespace: of("/metadata/namespace"), name: of("/metadata/name"), keeps_off }
}

/// Whatever it is called: its containers run flanneld.
fn runs_flannel(set: &Value) -> bool {
    let containers = set["spec"]["template"]["spec"]["containers"].as_array();
    containers.into_iter().flatten().any(|container| {
        let command = container["command"].as_array();
        command
            .into_iter()
            .flatten()
            .chain(container["args"].as_array().into_iter().flatten())
            .any(|word| word.as_str().is_some_and(|word| word.rsplit('/').next() == Some("flanneld")))
    })
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
}
