//! weft in a real cluster, installed as users do, and all that its users run on it; then a new version of it, and a control
//! plane that is away for a while. One cluster for all of it, as bringing one up takes longer than most of what is tested.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::netns::Netns;
use weft_tests::node::cluster::{Cluster, LIMIT, obstacle};
use weft_tests::node::dns::{self, Record};
use weft_tests::node::peers;
use weft_tests::node::workload::{Pod, container, deployment, pod_on, service};
use weft_tests::probe::{Asker, Outcome, Question, ask};
use weft_tests::{skip, wait};

/// An address of a load balancer that the test plays: nobody's.
const BALANCER: &str = "192.0.2.50";

/// Asks until everything is answered, and by so many.
fn served_by(from: &Netns, target: SocketAddr, servers: &BTreeSet<String>) {
    wait::until_ok(LIMIT, &format!("{target} from {}", from.name()), || {
        let outcome = ask(from, &Question::new(target), 16 * servers.len(), 4).unwrap();
        let by: BTreeSet<String> = outcome.by.keys().cloned().collect();
        if outcome.served() == outcome.asked() && by == *servers { Ok(()) } else { Err(format!("{outcome:?}")) }
    })
    .unwrap();
}

fn names(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().map(|pod| pod.name.clone()).collect()
}

fn node_port(cluster: &Cluster, name: &str) -> u16 {
    let service = cluster.get(&["service", name]).unwrap();
    service["spec"]["ports"][0]["nodePort"].as_u64().unwrap().try_into().unwrap()
}

fn all_served(outcome: &Outcome) {
    assert!(outcome.served() > 0, "nothing was asked");
    assert_eq!(outcome.served(), outcome.asked(), "{outcome:?}");
}

/// Every pod reaches every other, and each kind of Service from inside and outside.
fn every_way(cluster: &Cluster, pods: &[Pod]) {
    let all = names(pods);
    let cluster_ip = SocketAddr::new(cluster.cluster_ip("web").unwrap(), 80);
    let balancer = SocketAddr::new(BALANCER.parse().unwrap(), 80);
    for from in pods {
        let inside = cluster.inside(from).unwrap();
        for to in pods {
            served_by(&inside, to.socket(), &BTreeSet::from([to.name.clone()]));
        }
        served_by(&inside, cluster_ip, &all);
        served_by(&inside, balancer, &all);
    }
    served_by(cluster.outside(), balancer, &all);
    let port = node_port(cluster, "web");
    for node in cluster.nodes() {
        served_by(cluster.outside(), SocketAddr::new(node.machine.ip(), port), &all);
        served_by(node.machine.netns(), cluster_ip, &all);
    }
}

fn host_port(cluster: &Cluster) {
    let mut container = container();
    container["ports"][0]["hostPort"] = json!(8088);
    cluster.apply(&[pod_on("n1", "door", &container)]).unwrap();
    let door = names(&cluster.pods("door", 1).unwrap());
    let target = SocketAddr::new(cluster.node("n1").machine.ip(), 8088);
    served_by(cluster.outside(), target, &door);
    served_by(cluster.node("n2").machine.netns(), target, &door);
}

/// The agent has two capabilities, a filter of system calls, and nothing that it could write but what is mounted for it.
fn least_privilege(cluster: &Cluster) {
    for node in ["n1", "n2"] {
        let process = cluster.agent(node).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        // CAP_NET_ADMIN is bit 12, CAP_NET_RAW bit 13 (capability.h); 2 is a filter (proc(5)).
        for (name, value) in
            [("CapEff", "0000000000003000"), ("CapBnd", "0000000000003000"), ("NoNewPrivs", "1"), ("Seccomp", "2")]
        {
            assert_eq!(field(name), Some(value), "{name} on {node}");
        }
        let mounts = fs::read_to_string(format!("/proc/{}/mounts", process.pid)).unwrap();
        let options = |line: &str| line.split(' ').nth(3).unwrap().to_owned();
        let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).map(options).unwrap();
        assert!(root.starts_with("ro,"), "{root}");
    }
}

/// Names lead to the Service's address, asked from pods of both nodes. Without CoreDNS there is nothing to ask.
fn names_resolve(cluster: &Cluster, pods: &[Pod]) {
    let Some(program) = peers::find(dns::PROGRAM) else {
        return skip::record("the part with names: needs coredns in the folder WEFT_PEERS");
    };
    dns::install(cluster, &program).unwrap();
    let address = cluster.cluster_ip("web").unwrap();
    for from in pods {
        let inside = cluster.inside(from).unwrap();
        let found = dns::lookup(&inside, dns::ADDRESS.into(), "web.default.svc.cluster.local", Record::A).unwrap();
        assert_eq!(found, address, "{from:?}");
    }
}

/// What asks all the time: from one node's pod through Services and to the other node's pod, and from outside.
fn load(cluster: &Cluster, pods: &[Pod]) -> Vec<Asker> {
    let [from, to] = ["n1", "n2"].map(|node| pods.iter().find(|pod| pod.node == node).unwrap());
    let inside = cluster.inside(from).unwrap();
    let port = node_port(cluster, "web");
    let limit = Duration::from_secs(10);
    let question = |ip: IpAddr, port: u16| Question { limit, ..Question::new(SocketAddr::new(ip, port)) };
    let mut askers = vec![
        Asker::start(&inside, question(cluster.cluster_ip("web").unwrap(), 80)),
        Asker::start(&inside, Question { limit, ..Question::new(to.socket()) }),
    ];
    let outside = |node: &str| Asker::start(cluster.outside(), question(cluster.node(node).machine.ip(), port));
    askers.extend([outside("n1"), outside("n2")]);
    // The namespace's name goes with `inside`: they shall have entered it before.
    askers.iter().for_each(|asker| asker.let_pass(5).unwrap());
    askers
}

fn rolling_update(cluster: &Cluster, pods: &[Pod]) {
    let askers = load(cluster, pods);
    let (old, new) = ("localhost/weft:0.1.0", "localhost/weft:0.1.0-next");
    for node in cluster.nodes() {
        node.machine.run("ctr", &["--namespace", "k8s.io", "images", "tag", old, new]).unwrap();
    }
    let image = format!("weft={new}");
    cluster.kubectl(&["--namespace", "kube-system", "set", "image", "daemonset/weft", &image]).unwrap();
    cluster.await_rollout(cluster.nodes().len()).unwrap();
    askers.iter().for_each(|asker| asker.let_pass(50).unwrap());
    askers.into_iter().for_each(|asker| all_served(&asker.finish().unwrap()));
}

/// `WEFT_E2E_OUTAGE` says for how many seconds.
fn outage(cluster: &mut Cluster, pods: &[Pod]) {
    let seconds = std::env::var("WEFT_E2E_OUTAGE").map_or(30, |text| text.parse().unwrap());
    let tables = |cluster: &Cluster| -> Vec<String> {
        let table = |node: &weft_tests::node::cluster::Node| {
            node.machine.netns().tool("nft", &["--stateless", "list", "table", "inet", "weft"]).unwrap()
        };
        cluster.nodes().iter().map(table).collect()
    };
    let askers = load(cluster, pods);
    let before = tables(cluster);
    cluster.control_mut().stop();
    wait::throughout(Duration::from_secs(seconds), || -> Result<(), String> {
        let lives = cluster.nodes().iter().all(|node| node.kubelet.alive() && node.containerd.alive());
        if lives { Ok(()) } else { Err("a node lost a daemon".into()) }
    })
    .unwrap();
    assert_eq!(tables(cluster), before, "the data plane was changed while nothing could be known");
    askers.into_iter().for_each(|asker| all_served(&asker.finish().unwrap()));
    cluster.control_mut().resume().unwrap();

    cluster.kubectl(&["scale", "deployment/web", "--replicas=6"]).unwrap();
    let pods = cluster.pods("web", 6).unwrap();
    every_way(cluster, &pods);
}

#[test]
fn rollout_services_rolling_update_and_an_outage_of_the_control_plane() {
    if let Some(reason) = obstacle() {
        skip!("{reason}");
    }
    let mut cluster = Cluster::start(2).unwrap();
    cluster.install_weft("manifests").unwrap();
    cluster.await_ready().unwrap();
    cluster.await_rollout(cluster.nodes().len()).unwrap();

    cluster.apply(&[deployment("web", 4), service("web", "LoadBalancer", "web")]).unwrap();
    let status: Value = json!({"status": {"loadBalancer": {"ingress": [{"ip": BALANCER}]}}});
    cluster.kubectl(&["patch", "service", "web", "--subresource=status", "--patch", &status.to_string()]).unwrap();
    let n1 = cluster.node("n1").machine.ip().to_string();
    cluster.outside().tool("ip", &["route", "add", BALANCER, "via", &n1]).unwrap();
    let pods = cluster.pods("web", 4).unwrap();
    assert_eq!(pods.iter().filter(|pod| pod.node == "n1").count(), 2, "{pods:?}");

    every_way(&cluster, &pods);
    host_port(&cluster);
    least_privilege(&cluster);
    names_resolve(&cluster, &pods);
    rolling_update(&cluster, &pods);
    outage(&mut cluster, &pods);
    for node in ["n1", "n2"] {
        cluster.await_no_leak(node).unwrap();
    }
}
