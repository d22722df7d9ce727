//! Nodes of a real cluster that come and go, and daemons that start anew: pods go on talking, and no address is lost to nobody.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use serde_json::json;
use weft_tests::node::cluster::{Cluster, LIMIT, items, obstacle};
use weft_tests::node::workload::{Pod, container, deployment, pod_on, service};
use weft_tests::probe::{Asker, Question, ask};
use weft_tests::{skip, wait};

/// Asks one pod from another all the time.
fn between(cluster: &Cluster, from: &Pod, to: &Pod) -> Asker {
    let question = Question { limit: Duration::from_secs(10), ..Question::new(to.socket()) };
    let inside = cluster.inside(from).unwrap();
    let asker = Asker::start(&inside, question);
    // The namespace's name goes with `inside`: it shall have entered it before.
    asker.let_pass(5).unwrap();
    asker
}

fn nothing_lost(asker: Asker) {
    asker.let_pass(50).unwrap();
    let outcome = asker.finish().unwrap();
    assert_eq!(outcome.served(), outcome.asked(), "{outcome:?}");
}

fn reaches(cluster: &Cluster, from: &Pod, to: &Pod) {
    let inside = cluster.inside(from).unwrap();
    let what = format!("{} on {} to reach {} on {}", from.name, from.node, to.name, to.node);
    wait::until_ok(LIMIT, &what, || {
        let outcome = ask(&inside, &Question::new(to.socket()), 1, 1).unwrap();
        if outcome.by.contains_key(&to.name) { Ok(()) } else { Err(format!("{outcome:?}")) }
    })
    .unwrap();
}

fn on<'a>(pods: &'a [Pod], node: &str) -> &'a Pod {
    pods.iter().find(|pod| pod.node == node).unwrap_or_else(|| panic!("none on {node}: {pods:?}"))
}

/// A node more, with pods on it, and then without it.
fn a_third_node(cluster: &mut Cluster, pods: &[Pod]) {
    cluster.add_node(3).unwrap();
    cluster.await_ready().unwrap();
    cluster.await_rollout(cluster.nodes().len()).unwrap();
    cluster.apply(&[pod_on("n3", "guest", &container())]).unwrap();
    let guest = cluster.pods("guest", 1).unwrap().remove(0);
    for node in ["n1", "n2"] {
        reaches(cluster, on(pods, node), &guest);
        reaches(cluster, &guest, on(pods, node));
    }
    let node = cluster.get(&["node", "n3"]).unwrap();
    let subnet = node["spec"]["podCIDR"].as_str().unwrap();
    cluster.remove_node("n3").unwrap();
    for node in ["n1", "n2"] {
        let netns = cluster.node(node).machine.netns();
        let routes = || netns.tool("ip", &["route", "show", subnet]).unwrap();
        wait::until_ok(LIMIT, "the route to go", || if routes().is_empty() { Ok(()) } else { Err(routes()) }).unwrap();
    }
}

/// Kubelet and the agent start anew; not one request between pods is lost.
fn restarts(cluster: &mut Cluster, pods: &[Pod]) {
    let asker = between(cluster, on(pods, "n1"), on(pods, "n2"));
    cluster.restart_kubelet("n2").unwrap();
    let field = ["--namespace", "kube-system", "--field-selector", "spec.nodeName=n2", "--selector"];
    let agents = [&["pods"], field.as_slice(), &["app.kubernetes.io/name=weft"]].concat();
    let before = cluster.get(&agents).unwrap();
    let name = items(&before).next().unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.kubectl(&["--namespace", "kube-system", "delete", "pod", &name, "--wait=false"]).unwrap();
    wait::until_ok(LIMIT, "another agent", || {
        let now = cluster.get(&agents).unwrap();
        let other = items(&now).next().is_some_and(|pod| pod["metadata"]["name"] != name.as_str());
        if other { Ok(()) } else { Err(now.to_string()) }
    })
    .unwrap();
    cluster.await_rollout(cluster.nodes().len()).unwrap();
    nothing_lost(asker);
    assert_eq!(cluster.pods("web", 4).unwrap(), pods, "pods were replaced");
    cluster.await_no_leak("n2").unwrap();
}

/// A power cut: memory is lost, and so is the network namespace; pods come back on the node, each with an address.
fn a_reboot(cluster: &mut Cluster, pods: &[Pod]) {
    let boots = |cluster: &Cluster| -> u64 {
        let list = cluster.get(&["pods", "--selector", "app=web", "--field-selector", "spec.nodeName=n2"]).unwrap();
        items(&list).filter_map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64()).sum()
    };
    assert_eq!(boots(cluster), 0);
    cluster.reboot("n2").unwrap();
    wait::until(LIMIT, "the pods of n2 to start anew", || boots(cluster) >= 2).unwrap();
    cluster.await_ready().unwrap();
    cluster.await_rollout(cluster.nodes().len()).unwrap();
    let now = cluster.pods("web", 4).unwrap();
    assert_eq!(
        now.iter().map(|pod| &pod.name).collect::<Vec<_>>(),
        pods.iter().map(|pod| &pod.name).collect::<Vec<_>>()
    );
    reaches(cluster, on(&now, "n1"), on(&now, "n2"));
    reaches(cluster, on(&now, "n2"), on(&now, "n1"));
    for node in ["n1", "n2"] {
        cluster.await_no_leak(node).unwrap();
    }
}

#[test]
fn nodes_come_and_go_and_daemons_start_anew() {
    if let Some(reason) = obstacle() {
        skip!("{reason}");
    }
    let mut cluster = Cluster::start(2).unwrap();
    cluster.install_weft("manifests").unwrap();
    cluster.await_ready().unwrap();
    cluster.apply(&[deployment("web", 4), service("web", "ClusterIP", "web")]).unwrap();
    let pods = cluster.pods("web", 4).unwrap();
    for from in &pods {
        for to in &pods {
            reaches(&cluster, from, to);
        }
    }
    restarts(&mut cluster, &pods);
    a_reboot(&mut cluster, &pods);
    let pods = cluster.pods("web", 4).unwrap();
    a_third_node(&mut cluster, &pods);

    // Every address comes back when its pod goes.
    cluster.kubectl(&["delete", "deployment", "web", "--wait=false"]).unwrap();
    for node in ["n1", "n2"] {
        cluster.await_no_leak(node).unwrap();
    }
    assert_eq!(json!(cluster.pods("web", 0).unwrap().len()), 0);
}
