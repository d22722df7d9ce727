//! The way of a cluster: what is done, what comes next, and what is in the way. Pure.

use serde::Serialize;

use super::cluster::Cluster;
use super::kubeadm::{ProxyEdit, without_proxy};
use super::obstacles::Obstacle;
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
    /// What is to be known, and keeps nobody from anything.
    pub notes: Vec<String>,
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
    for set in cluster.flannel.iter().chain(&cluster.kube_proxy) {
        let command =
            format!("kubectl --namespace {} patch daemonset {} --patch '{}'", set.namespace, set.name, set.keep_off);
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
            format!("kubectl label --overwrite node {} weft/agent=true", node.name)
        };
        step(done, format!("node {} is weft's{pods}", node.name), command);
    }
    let left = !cluster.flannel.is_empty() || cluster.kube_proxy.is_some() || cluster.migration.is_some();
    step(!left, "flannel and kube-proxy are gone".to_owned(), "weft migrate finish".to_owned());
    plan.obstacles = obstacles(cluster);
    plan.notes = notes(cluster);
    plan
}

/// What `finish` cannot bring about for good.
fn notes(cluster: &Cluster) -> Vec<String> {
    let managed = cluster.flannel.iter().chain(&cluster.kube_proxy).filter_map(|set| {
        let manager = set.manager.as_ref()?;
        Some(format!(
            "DaemonSet {}/{} has the label {manager}: whoever manages it will undo the patch and bring it back; switch that \
             add-on off first",
            set.namespace, set.name
        ))
    });
    let fixed = cluster.static_proxies.iter().map(|pod| {
        format!("pod {pod} runs out of a file of its node: no label keeps it off; remove the file from the kubelet's staticPodPath")
    });
    managed.chain(fixed).chain(too_old(cluster)).collect()
}

/// What to do where kubeadm's configuration cannot say that there is no kube-proxy.
fn too_old(cluster: &Cluster) -> Option<String> {
    match cluster.kubeadm.as_deref().map(without_proxy) {
        Some(Ok(ProxyEdit::TooOld(version))) => Some(format!(
            "ConfigMap kube-system/kubeadm-config is of {version}, which has no proxy.disabled: it stays as it is; after each \
             kubeadm upgrade, look whether kube-proxy is back: kubectl --namespace kube-system delete daemonset kube-proxy"
        )),
        _ => None,
    }
}

/// DaemonSets that nobody may take for flannel alone.
fn mixed(cluster: &Cluster) -> impl Iterator<Item = Obstacle> {
    cluster.mixed.iter().map(|set| {
        Obstacle::new(
            format!("DaemonSet {set} runs flanneld and something else, as canal does: weft replaces flannel only"),
            "there is no way for this cluster yet; what else it does (network policies) would be lost",
        )
    })
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
    found.extend(mixed(cluster));
    if cluster.k3s && cluster.flannel.is_empty() && cluster.mixed.is_empty() {
        found.push(Obstacle::new(
            "nodes run k3s, and no DaemonSet flannel: it runs within k3s, and so does kube-proxy",
            "start k3s with --flannel-backend=none --disable-kube-proxy --disable-network-policy on each node, and run weft migrate \
             node there with --k3s-bare",
        ));
    } else if cluster.flannel.is_empty() && cluster.mixed.is_empty() && cluster.weft.is_none() {
        let install = "for a cluster without a pod network: kubectl apply -k manifests/";
        found.push(Obstacle::new("no DaemonSet of this cluster runs flanneld", install));
    }
    if let Some(Err(error)) = cluster.kubeadm.as_deref().map(without_proxy) {
        let mend = "kubeadm config migrate, or after each upgrade: kubectl --namespace kube-system delete daemonset kube-proxy";
        found.push(Obstacle::new(format!("ConfigMap kube-system/kubeadm-config: {error}"), mend));
    }
    found
}

/// What somebody wants to be left at the end of the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leave {
    /// kube-proxy.
    pub kube_proxy: bool,
    /// kubeadm's configuration.
    pub kubeadm: bool,
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
    /// What is to be known of kubeadm.
    pub note: Option<String>,
}

/// Plans the end of the way: it comes when each node is weft's.
#[must_use]
pub fn finish(cluster: &Cluster, leave: Leave) -> Finish {
    let Leave { kube_proxy: keep_proxy, kubeadm: leave_kubeadm } = leave;
    let mut finish = Finish { obstacles: mixed(cluster).collect(), ..Finish::default() };
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
            "kubectl label --overwrite node {} weft/agent=true, then wait until weft migrate plan says that it is done",
            node.name
        );
        finish.obstacles.push(Obstacle::new(format!("node {} is not weft's: {missing}", node.name), mend));
    }
    if cluster.nodes.is_empty() {
        finish.obstacles.push(Obstacle::new("this cluster has no node that runs Linux", "is it the right one?"));
    }
    if !keep_proxy && !leave_kubeadm {
        finish.note = too_old(cluster);
        match cluster.kubeadm.as_deref().map(without_proxy) {
            Some(Ok(ProxyEdit::Replace(text))) => finish.kubeadm = Some(text),
            Some(Err(error)) => finish.obstacles.push(Obstacle::new(
                format!("ConfigMap kube-system/kubeadm-config: {error}"),
                "edit it: kubectl --namespace kube-system edit configmap kubeadm-config; or leave it: --leave-kubeadm",
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
        assert!(found.steps.iter().any(|step| step.command == "kubectl label --overwrite node n2 weft/agent=true"));
        assert_eq!(found.obstacles, []);

        cluster.weft_net_conf = Some("{ \"network\": \"10.244.0.0/16\" }".to_owned());
        cluster.weft_has_api_server = true;
        assert!(plan(&cluster).steps[..2].iter().all(|step| step.done));
        cluster.net_conf = Some(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"udp"}}"#.to_owned());
        assert!(plan(&cluster).obstacles[0].what.contains("udp"), "{:?}", plan(&cluster).obstacles);
    }

    #[test]
    fn what_weft_cannot_replace_is_in_the_way_and_what_comes_back_is_told() {
        let mut cluster = half_way();
        let command = &plan(&cluster)
            .steps
            .iter()
            .find(|step| step.what.starts_with("kube-proxy keeps"))
            .unwrap()
            .command
            .clone();
        assert!(
            command.starts_with("kubectl --namespace kube-system patch daemonset kube-proxy")
                && command.contains("NotIn")
        );
        cluster.kube_proxy.as_mut().unwrap().manager = Some("x".to_owned());
        cluster.static_proxies = vec!["kube-system/kube-proxy-n1".to_owned()];
        assert_eq!(plan(&cluster).notes.len(), 2);
        (cluster.flannel, cluster.k3s) = (Vec::new(), true);
        assert!(plan(&cluster).obstacles[0].what.contains("k3s"));
        cluster.mixed = vec!["kube-system/canal".to_owned()];
        let found = plan(&cluster);
        assert!(found.obstacles.len() == 1 && found.obstacles[0].what.contains("canal"), "{found:?}");
        assert!(!found.steps.iter().any(|step| step.command.contains("canal")));
    }

    #[test]
    fn the_end_comes_when_each_node_is_wefts() {
        let mut cluster = half_way();
        let early = finish(&cluster, Leave::default());
        assert_eq!(early.obstacles.len(), 2, "{early:?}");
        for node in &mut cluster.nodes {
            (node.weft, node.changed_over, node.flannel, node.kube_proxy) = (true, true, false, false);
        }
        cluster.kubeadm = Some("apiVersion: kubeadm.k8s.io/v1beta4\nproxy: {}\n".to_owned());
        let end = finish(&cluster, Leave::default());
        assert_eq!(end.obstacles, []);
        assert_eq!(
            end.delete.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(),
            ["kube-flannel-ds", "kube-proxy"]
        );
        assert!(end.kubeadm.unwrap().contains("disabled: true"));
        let mut old = cluster.clone();
        old.kubeadm = Some("apiVersion: kubeadm.k8s.io/v1beta3\n".to_owned());
        let goes_on = finish(&old, Leave::default());
        assert_eq!((goes_on.obstacles.len(), goes_on.delete.len(), goes_on.kubeadm), (0, 2, None));
        assert!(goes_on.note.unwrap().contains("v1beta3") && plan(&old).notes[0].contains("v1beta3"));
        old.kubeadm = Some("no: configuration\n".to_owned());
        assert_eq!(finish(&old, Leave::default()).obstacles.len(), 1);
        assert_eq!(finish(&old, Leave { kubeadm: true, ..Leave::default() }).obstacles, []);
        old.mixed = vec!["kube-system/canal".to_owned()];
        assert!(finish(&old, Leave { kubeadm: true, ..Leave::default() }).obstacles[0].what.contains("canal"));
        let kept = finish(&cluster, Leave { kube_proxy: true, kubeadm: false });
        assert_eq!((kept.delete.len(), kept.kubeadm), (1, None));

        // Once all are gone there is nothing to do, and nobody asks for the DaemonSet that is gone, too.
        (cluster.flannel, cluster.kube_proxy) = (Vec::new(), None);
        cluster.nodes.iter_mut().for_each(|node| node.changed_over = false);
        cluster.kubeadm = Some("apiVersion: kubeadm.k8s.io/v1beta4\nproxy: {disabled: true}\n".to_owned());
        assert_eq!(finish(&cluster, Leave::default()), Finish::default());
        assert_eq!(finish(&Cluster::default(), Leave::default()).obstacles.len(), 1);
    }
}
