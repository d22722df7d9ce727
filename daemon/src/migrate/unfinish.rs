//! The way back after the end: the DaemonSets that were deleted come again, once they keep off the nodes that are weft's. Pure.

use serde_json::Value;

use super::cluster::Cluster;
use super::keep_off::patched;
use super::kubeadm::with_proxy;
use super::obstacles::Obstacle;

/// The DaemonSet that changes nodes over comes with the overlay.
const MIGRATION: &str = "weft-migrate";

/// What has to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unfinish {
    /// The DaemonSets to create, each of which keeps off nodes that are weft's.
    pub create: Vec<Value>,
    /// kubeadm's ClusterConfiguration, if it has to be another.
    pub kubeadm: Option<String>,
    /// What has to be put right before.
    pub obstacles: Vec<Obstacle>,
}

/// Plans it. Nothing comes while a node that is weft's has no label: flannel and kube-proxy would come there.
#[must_use]
pub fn unfinish(cluster: &Cluster) -> Unfinish {
    let mut plan = Unfinish::default();
    for node in cluster.nodes.iter().filter(|node| node.weft && !node.labelled) {
        plan.obstacles.push(Obstacle::new(
            format!("node {} is weft's and has not its label: flannel and kube-proxy would come there, too", node.name),
            format!("kubectl label --overwrite node {} weft/agent=true", node.name),
        ));
    }
    if cluster.weft.is_some() && !cluster.weft_by_label {
        plan.obstacles.push(Obstacle::new(
            "weft's DaemonSet runs on nodes without the label, too, and would stay where flannel comes",
            "kubectl apply -k manifests/overlays/migrate-from-flannel (when all nodes have the label)",
        ));
    }
    if cluster.saved.is_empty() {
        plan.obstacles.push(Obstacle::new(
            "ConfigMap kube-system/weft-migration-saved has no DaemonSet: weft migrate finish has deleted none",
            "install flannel and kube-proxy anew; weft migrate plan has the patches that keep them off weft's nodes",
        ));
    }
    let present = |set: &Value| {
        let is_it =
            |namespace: &str, name: &str| set["metadata"]["namespace"] == namespace && set["metadata"]["name"] == name;
        cluster.flannel.iter().chain(&cluster.kube_proxy).any(|found| is_it(&found.namespace, &found.name))
            || set["metadata"]["name"] == MIGRATION
    };
    plan.create = cluster.saved.iter().filter(|set| !present(set)).cloned().map(patched).collect();
    let has_proxy = cluster.saved.iter().any(|set| set["metadata"]["name"] == "kube-proxy");
    match cluster.kubeadm.as_deref().filter(|_| has_proxy).map(with_proxy) {
        Some(Ok(text)) => plan.kubeadm = text,
        Some(Err(error)) => plan.obstacles.push(Obstacle::new(
            format!("ConfigMap kube-system/kubeadm-config: {error}"),
            "edit it: kubectl --namespace kube-system edit configmap kubeadm-config",
        )),
        None => {}
    }
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::cluster::tests::half_way;
    use super::super::keep_off::keeps_off;
    use super::*;

    fn set(namespace: &str, name: &str) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"template": {"spec": {}}}})
    }

    #[test]
    fn they_come_again_when_the_nodes_are_told_apart_and_only_once() {
        let mut cluster = half_way();
        (cluster.flannel, cluster.kube_proxy) = (Vec::new(), None);
        cluster.saved = vec![
            set("kube-flannel", "kube-flannel-ds"),
            set("kube-system", "kube-proxy"),
            set("kube-system", MIGRATION),
        ];
        cluster.kubeadm = Some("apiVersion: kubeadm.k8s.io/v1beta4\nproxy:\n  disabled: true\n".to_owned());
        cluster.nodes.iter_mut().for_each(|node| (node.weft, node.labelled) = (true, node.name == "n1"));
        let early = unfinish(&cluster);
        assert_eq!(early.obstacles.len(), 2, "{early:?}");
        assert!(early.obstacles[0].mend.contains("n2") && early.obstacles[1].mend.contains("migrate-from-flannel"));

        cluster.nodes.iter_mut().for_each(|node| node.labelled = true);
        cluster.weft_by_label = true;
        let plan = unfinish(&cluster);
        assert_eq!(plan.obstacles, []);
        assert_eq!(plan.create.len(), 2);
        assert!(plan.create.iter().all(keeps_off) && plan.kubeadm.unwrap().contains("disabled: false"));

        // The next run finds them.
        let mut proxy = half_way();
        (proxy.weft_by_label, proxy.saved) = (true, cluster.saved);
        assert_eq!(unfinish(&proxy), Unfinish::default());
        proxy.saved.clear();
        assert_eq!(unfinish(&proxy).obstacles.len(), 1);
    }
}
