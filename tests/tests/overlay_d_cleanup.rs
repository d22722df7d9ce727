//! Case 49, its second half: after `weft cleanup` a node is to the byte what it was before the agent's first start.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use serde_json::json;
use weft_tests::kube::Port;
use weft_tests::lab::{Lab, NETWORK_PREFIX, Node, OwnedLab, ServiceRequest, Spec, difference};
use weft_tests::netns::Netns;
use weft_tests::runtime::Attachment;
use weft_tests::{binaries, wait};

/// How long pods may take to find each other at first.
const AT_FIRST: Duration = Duration::from_secs(10);

/// Whatever weft may touch, one thing a line. Left out is what the kernel counts, draws at random or learns by itself, and the lab's
/// own: the agent's log, what the runtime remembers.
const SNAPSHOT: &str = r#"
ip -d -o link | sort
ip -o addr | sed 's/valid_lft.*//' | sort
for family in -4 -6; do
    ip $family route show table all | sed 's/expires [0-9]*sec//' | sort
    ip $family rule
    ip $family neigh show nud permanent
done
bridge fdb show | sort
bridge vlan show
tc qdisc show | sort
nft list ruleset
grep -rs . /proc/sys/net | grep -v '_count:\|stable_secret:\|flush:\|/nf_log/\|/mptcp/' | sort
cd "$1"
find . -path ./results -prune -o -name '*.log' -prune -o -printf '%p %y %m %l\n' | sort
find . -path ./results -prune -o -name '*.log' -prune -o -type f -exec sha256sum {} + | sort
"#;

fn snapshot(node: &Node) -> Vec<String> {
    let folder = node.folder.display().to_string();
    let text = node.netns.tool("sh", &["-c", SNAPSHOT, "snapshot", &folder]).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// A pod with a host port and limits of its traffic, as a runtime adds one.
fn pod_with_everything(lab: &Lab, node: &Node) -> Netns {
    let name = format!("{}-{}-pod9", lab.spec().name, node.name);
    let netns = Netns::ensure(&name).unwrap();
    let mut attachment = Attachment::eth0(&name, &netns);
    let ports = json!([{"hostPort": 8088, "containerPort": 80, "protocol": "tcp"}]);
    let limits =
        json!({"ingressRate": 8_000_000, "ingressBurst": 80_000, "egressRate": 8_000_000, "egressBurst": 80_000});
    attachment.capabilities.insert("portMappings".into(), ports);
    attachment.capabilities.insert("bandwidth".into(), limits);
    node.runtime().add(&attachment).unwrap();
    netns
}

#[test]
fn d49_cleanup_leaves_a_node_as_it_was_before() {
    let mut lab = OwnedLab::bare(Spec::test(2).dual_stack().services("auto"));
    for _ in 0..2 {
        let name = lab.new_node().unwrap();
        // So that it is seen to come back; what is on already nobody turns on.
        lab.node(&name).unwrap().netns.sysctl("net/ipv4/ip_forward", "0").unwrap();
    }
    let before: Vec<Vec<String>> = lab.nodes().iter().map(snapshot).collect();
    lab.converge().unwrap();
    let port = Port { node_port: Some(30080), ..Port::tcp(80, 8080) };
    let (namespace, name, kind) = ("default".into(), "web".into(), "NodePort".into());
    lab.add_service(&ServiceRequest { namespace, name, kind, ports: vec![port], ..ServiceRequest::default() }).unwrap();
    let one = lab.node("node1").unwrap().clone();
    pod_with_everything(&lab, &one);
    let matrix = lab.matrix(AT_FIRST).unwrap();
    assert!(matrix.complete(), "{:?}", matrix.broken());
    wait::until(AT_FIRST, "the Service in the kernel", || {
        one.netns.tool("nft", &["list", "ruleset"]).unwrap().contains("30080")
    })
    .unwrap();
    let (running, was) = (snapshot(&one), &before[0]);
    for trace in
        ["flannel.1", "flannel-v6.1", "cni0", "table inet weft {", "table inet weft-cni {", "./net.d/10-weft.conflist"]
    {
        assert!(running.iter().any(|line| line.contains(trace)), "{trace} is not there to be removed");
    }
    assert!(running.contains(&"/proc/sys/net/ipv4/ip_forward:1".to_owned()));
    assert!(was.contains(&"/proc/sys/net/ipv4/ip_forward:0".to_owned()));

    let plugin = binaries::find("weft-cni").unwrap().display().to_string();
    let cleanup = |lab: &Lab, name: &str| lab.weft(name, "cleanup", &["--cni-bin-source", &plugin]).unwrap();
    for (index, name) in ["node1", "node2"].into_iter().enumerate() {
        assert!(lab.stop_agent(name).unwrap());
        let node = lab.node(name).unwrap();
        // The lab's own, beside the plugin.
        std::fs::remove_file(node.path("bin/loopback")).unwrap();
        let output = cleanup(&lab, name);
        assert_eq!((output.exit, &*output.stderr), (Some(0), ""), "{output:?}");
        let now = snapshot(node);
        assert!(now == before[index], "{name}: {}", difference(&before[index], &now));
    }
    let leases = lab.etcd().unwrap().get(&format!("{NETWORK_PREFIX}/subnets/")).unwrap();
    let records = lab.etcd().unwrap().get(&format!("{NETWORK_PREFIX}/weft/nodes/")).unwrap();
    assert_eq!((leases, records), (vec![], vec![]), "the leases were not given back");

    // Once more, on a node that has nothing of weft's.
    let output = cleanup(&lab, "node1");
    assert_eq!(output.exit, Some(0), "{output:?}");
    assert!(snapshot(&one) == before[0]);
}
