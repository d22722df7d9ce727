//! The way of a cluster: what is done, what comes next, and what is in the way. Pure.

use serde::Serialize;

use super::cluster::Cluster;
use super::kubeadm::{ProxyEdit, without_proxy};
use super::obstacles::{Obstacle, keep_off};
use crate::cluster::NetConf;

/// One step of the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Whether it has been made.
    pub done: bool,
    /// What it is.
    pub what: String,
    /// How it is made.
    pub command: String,
}

/// The way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The steps, in their order.
    pub steps: Vec<Step>,
    /// What has to be put right before.
    pub obstacles: Vec<Obstacle>,
}

/// Plans the way of a cluster.
#[must_use]
pub fn plan(cluster: &Cluster) -> Plan {
    let mut plan = Plan::default();
    let mut step = |done: bool, what: String, command: String| plan.steps.push(Step { done, what, command });
    let same_network = match (&cluster.net_conf, &cluster.weft_net_conf) {
        (Some(theirs), Some(ours)) => matches!((conf(theirs), conf(ours)), (Ok(theirs), Ok(ours)) if theirs == ours),
        _ => false,
    };
    let theirs = cluster.net_conf.as_deref().unwrap_or_default().split_whitespace().collect::<String>();
    if !cluster.flannel.is_empty() {
        step(
            same_network,
            "weft's net-conf.json is flannel's".to_owned(),
            format!("in manifests/base/config.yaml: {theirs}"),
        );
    }
    if cluster.kube_proxy.is_some() || cluster.api_server.is_some() {
        let server = cluster.api_server.as_deref().unwrap_or("https://ADDRESS:6443");
        let command = format!("in manifests/base/config.yaml: kube-api-server: {server}");
        step(cluster.weft_has_api_server, "weft knows the API server's own address".to_owned(), command);
    }
    for (set, daemon) in cluster
        .flannel
        .iter()
        .map(|set| (set, "flanneld"))
        .chain(cluster.kube_proxy.iter().map(|set| (set, "kube-proxy")))
    {
        let command = keep_off(daemon).replace("kube-flannel-ds", &set.name).replacen(
            "--namespace kube-flannel ",
            &format!("--namespace {} ", set.namespace),
            1,
        );
        step(set.keeps_off, format!("{} keeps off nodes that are weft's", set.name), command);
    }
    let installed = cluster.weft.is_some() && (cluster.migration.is_some() || cluster.flannel.is_empty());
    step(
        installed,
        "weft is installed".to_owned(),
        "kubectl apply -k manifests/overlays/migrate-from-flannel".to_owned(),
    );
    for node in &cluster.nodes {
        let done = node.weft && (node.changed_over || cluster.migration.is_none()) && !node.flannel && !node.kube_proxy;
        let pods = match node.host_port_pods.len() {
            0 => String::new(),
            count => format!(", {count} pods with host ports among its own"),
        };
        let command = if node.labelled {
            "it is on its way: kubectl --namespace kube-system get pods --field-selector spec.nodeName=".to_owned()
                + &node.name
        } else {
            format!("kubectl label node {} weft/agent=true", node.name)
        };
        step(done, format!("node {} is weft's{pods}", node.name), command);
    }
    let left = !cluster.flannel.is_empty() || cluster.kube_proxy.is_some() || cluster.migration.is_some();
    step(!left, "flannel and kube-proxy are gone".to_owned(), "weft migrate finish".to_owned());
    plan.obstacles = obstacles(cluster);
    plan
}

fn conf(text: &str) -> Result<NetConf, String> {
    NetConf::parse(text.as_bytes()).map(|(conf, _)| conf).map_err(|error| error.to_string())
}

fn obstacles(cluster: &Cluster) -> Vec<Obstacle> {
    let mut found = Vec::new();
    match cluster.net_conf.as_deref().map(conf) {
        Some(Err(error)) => found.push(Obstacle::new(
            format!("weft cannot do what flannel's net-conf.json asks for: {error}"),
            "change flannel's configuration first, node by node as its documentation says",
        )),
        None if !cluster.flannel.is_empty() => found.push(Obstacle::new(
            "flannel's net-conf.json is in no ConfigMap kube-flannel-cfg of its namespace",
            "write it into manifests/base/config.yaml by hand",
        )),
        _ => {}
    }
    if cluster.flannel.is_empty() && cluster.weft.is_none() {
        let install = "for a cluster without a pod network: kubectl apply -k manifests/";
        found.push(Obstacle::new("no DaemonSet of this cluster runs flanneld", install));
    }
    if let Some(Err(error)) = cluster.kubeadm.as_deref().map(without_proxy) {
        let mend = "kubeadm config migrate, or after each upgrade: kubectl --namespace kube-system delete daemonset kube-proxy";
        found.push(Obstacle::new(format!("ConfigMap kube-system/kubeadm-config: {error}"), mend));
    }
    found
}

/// What has to be done for the end of the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finish {
    /// DaemonSets to delete, by namespace and name: flannel's, kube-proxy's, and the one that changed nodes over.
    pub delete: Vec<(String, String)>,
    /// kubeadm's ClusterConfiguration, if it has to be another.
    pub kubeadm: Option<String>,
    /// What has to be put right before.
    pub obstacles: Vec<Obstacle>,
}

/// Plans the end of the way: it comes when each node is weft's. With `keep_proxy`, kube-proxy stays.
#[must_use]
pub fn finish(cluster: &Cluster, keep_proxy: bool) -> Finish {
    let mut finish = Finish::default();
    let sets =
        cluster.flannel.iter().chain(cluster.kube_proxy.iter().filter(|_| !keep_proxy)).chain(&cluster.migration);
    finish.delete = sets.map(|set| (set.namespace.clone(), set.name.clone())).collect();
    let is_over = finish.delete.is_empty();
    for node in &cluster.nodes {
        let missing = if !node.weft {
            "weft's agent is not ready on it"
        } else if node.flannel {
            "a pod of flannel's is on it"
        } else if node.kube_proxy && !keep_proxy {
            "a pod of kube-proxy's is on it"
        } else if !node.changed_over && !is_over {
            "it has not been changed over"
        } else {
            continue;
        };
        let mend = format!(
            "kubectl label node {} weft/agent=true, then wait until weft migrate plan says that it is done",
            node.name
        );
        finish.obstacles.push(Obstacle::new(format!("node {} is not weft's: {missing}", node.name), mend));
    }
    if cluster.nodes.is_empty() {
        finish.obstacles.push(Obstacle::new("this cluster has no node that runs Linux", "is it the right one?"));
    }
    if !keep_proxy {
        match cluster.kubeadm.as_deref().map(without_proxy) {
            Some(Ok(ProxyEdit::Replace(text))) => finish.kubeadm = Some(text),
            Some(Err(error)) => finish.obstacles.push(Obstacle::new(
                format!("ConfigMap kube-system/kubeadm-config: {error}"),
                "edit it: kubectl --namespace kube-system edit configmap kubeadm-config",
            )),
            _ => {}
        }
    }
    finish
}

#[cfg(test)]
mod tests {
    use super::super::cluster::tests::half_way;
    use super::*;

    #[test]
    fn the_way_says_what_is_done_and_what_comes_next() {
        let mut cluster = half_way();
        let found = plan(&cluster);
        let open: Vec<&str> = found.steps.iter().filter(|step| !step.done).map(|step| step.what.as_str()).collect();
        assert_eq!(open.len(), found.steps.len() - 1, "{open:?}");
        assert!(found.steps.iter().any(|step| step.done && step.what.starts_with("kube-flannel-ds keeps off")));
        assert!(found.steps.iter().any(|step| step.command.contains("kube-api-server: https://192.0.2.10:6443")));
        assert!(found.steps.iter().any(|step| step.command == "kubectl label node n2 weft/agent=true"));
        assert_eq!(found.obstacles, []);

        cluster.weft_net_conf = Some("{ \"network\": \"10.244.0.0/16\" }".to_owned());
        cluster.weft_has_api_server = true;
        assert!(plan(&cluster).steps[..2].iter().all(|step| step.done));
        cluster.net_conf = Some(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#.to_owned());
        assert!(plan(&cluster).obstacles[0].what.contains("host-gw"), "{:?}", plan(&cluster).obstacles);
    }

    #[test]
    fn the_end_comes_when_each_node_is_wefts() {
        let mut cluster = half_way();
        let early = finish(&cluster, false);
        assert_eq!(early.obstacles.len(), 2, "{early:?}");
        for node in &mut cluster.nodes {
            (node.weft, node.changed_over, node.flannel, node.kube_proxy) = (true, true, false, false);
        }
        cluster.kubeadm = Some("apiVersion: kubeadm.k8s.io/v1beta4\nproxy: {}\n".to_owned());
        let end = finish(&cluster, false);
        assert_eq!(end.obstacles, []);
        assert_eq!(
            end.delete.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(),
            ["kube-flannel-ds", "kube-proxy"]
        );
        assert!(end.kubeadm.unwrap().contains("disabled: true"));
        let kept = finish(&cluster, true);
        assert_eq!((kept.delete.len(), kept.kubeadm), (1, None));

        // Once all are gone there is nothing to do, and nobody asks for the DaemonSet that is gone, too.
        (cluster.flannel, cluster.kube_proxy) = (Vec::new(), None);
        cluster.nodes.iter_mut().for_each(|node| node.changed_over = false);
        cluster.kubeadm = Some("apiVersion: kubeadm.k8s.io/v1beta4\nproxy: {disabled: true}\n".to_owned());
        assert_eq!(finish(&cluster, false), Finish::default());
        assert_eq!(finish(&Cluster::default(), false).obstacles.len(), 1);
    }
}
