//! A node's Services change over from a real kube-proxy to weft, with its connections kept.
//!
//! ```text
//!   client 192.0.2.2 ── 192.0.2.1 node 10.244.1.1 (cni0) ── pod 10.244.1.2:8080, the endpoint of 10.96.0.50:80
//! ```
//!
//! kube-apiserver, kube-proxy and the agent run in the node's namespace. Binaries are those of `WEFT_PEERS`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "these tests take less of it than others do")]
mod apiserver;
#[expect(dead_code, reason = "these tests take less of it than others do")]
mod etcd;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use apiserver::ApiServer;
use etcd::Etcd;
use serde_json::{Value, json};
use weft_tests::netns::{Netns, OwnedNetns};
use weft_tests::probe::{Answer, Dialogue, ProbeServer, Question};
use weft_tests::process::{self, ProcessId};
use weft_tests::scratch::{Scratch, unique_name};
use weft_tests::tool::{self, Output, Stdin};
use weft_tests::{skip, wait};

const SERVICE: &str = "10.96.0.50:80";
/// How long a program may take to get ready on a busy machine.
const START: Duration = Duration::from_secs(90);

struct World {
    node: OwnedNetns,
    client: OwnedNetns,
    _pod: OwnedNetns,
    _server: ProbeServer,
    scratch: Scratch,
}

impl World {
    fn new() -> Self {
        let name = unique_name();
        let node = OwnedNetns::new(name.clone());
        let (client, pod) = (OwnedNetns::new(format!("{name}-c")), OwnedNetns::bare(format!("{name}-p")));
        for line in [
            format!("link add eth0 type veth peer name eth0 netns {}", client.name()),
            format!("link add veth0 type veth peer name eth0 netns {}", pod.name()),
            "link add cni0 type bridge".to_owned(),
            "link set veth0 master cni0 up".to_owned(),
            "addr add 192.0.2.1/24 dev eth0".to_owned(),
            "addr add 10.244.1.1/24 dev cni0".to_owned(),
            "link set eth0 up".to_owned(),
            "link set cni0 up".to_owned(),
        ] {
            ip(&node, &line);
        }
        for line in ["addr add 192.0.2.2/24 dev eth0", "link set eth0 up", "route add default via 192.0.2.1"] {
            ip(&client, line);
        }
        for line in ["addr add 10.244.1.2/24 dev eth0", "link set eth0 up", "route add default via 10.244.1.1"] {
            ip(&pod, line);
        }
        ip(&node, "route add default via 192.0.2.2");
        node.sysctl("net/ipv4/ip_forward", "1").unwrap();
        let server = ProbeServer::start(&pod, "pod", &[8080]).unwrap();
        Self { node, client, _pod: pod, _server: server, scratch: Scratch::new() }
    }

    fn start_kube_proxy(&self, kubeconfig: &str, mode: &str) -> ProcessId {
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": mode,
            "clientConnection": {"kubeconfig": kubeconfig}, "clusterCIDR": "10.244.0.0/16", "hostnameOverride": "n1",
            // nf_conntrack_max belongs to the whole machine; kube-proxy would end without it.
            "conntrack": {"maxPerCore": 0, "min": 0},
        });
        let file = self.scratch.join("kube-proxy.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = tool::command(peer("kube-proxy").unwrap());
        command.arg("--config").arg(file);
        process::spawn(&self.node, &mut command, &self.scratch.join("kube-proxy.log")).unwrap()
    }

    fn start_agent(&self, kubeconfig: &str) -> ProcessId {
        let mut command = self.weft(&["agent"]);
        let network = self.scratch.join("net-conf.json");
        std::fs::write(&network, r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#).unwrap();
        command.args(["--source", "kube", "--kubeconfig", kubeconfig, "--proxy-mode", "nftables"]);
        command.arg("--net-config-path").arg(network);
        process::spawn(&self.node, &mut command, &self.scratch.join("agent.log")).unwrap()
    }

    /// A command with all that sets this node apart from the others of the machine.
    fn weft(&self, words: &[&str]) -> std::process::Command {
        let mut command = tool::command(env!("CARGO_BIN_EXE_weft"));
        command.args(words).args(["--node-name", "n1", "--service-cidr", "10.96.0.0/16"]);
        let paths = [
            ("--subnet-file", "subnet.env"),
            ("--run-dir", "run"),
            ("--state-dir", "lib"),
            ("--cni-conf-dir", "net.d"),
            ("--cni-bin-dir", "bin"),
            ("--cni-state-dir", "cni"),
        ];
        for (flag, name) in paths {
            command.arg(flag).arg(self.scratch.join(name));
        }
        command
    }

    fn migrate(&self, wait: &str) -> Output {
        let mut command = self.weft(&["migrate", "node", "--wait", wait]);
        command.arg("--data-dir").arg(self.scratch.join("networks"));
        command.arg("--cni-cache-dir").arg(self.scratch.join("results"));
        self.node.run(|| tool::run_with(&mut command, Stdin::Bytes(b""))).unwrap().unwrap()
    }

    fn connect(&self) -> Result<Dialogue, Answer> {
        let target: SocketAddr = SERVICE.parse().unwrap();
        let question = Question { limit: Duration::from_secs(1), ..Question::new(target) };
        Dialogue::open_in(&self.client, &question).unwrap()
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.scratch.join(name)).unwrap_or_default()
    }
}

fn ip(netns: &Netns, line: &str) {
    netns.tool("ip", &line.split(' ').collect::<Vec<_>>()).unwrap();
}

fn peer(name: &str) -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os("WEFT_PEERS")?).join(name);
    path.is_file().then_some(path)
}

fn is_served(dialogue: &Dialogue) -> bool {
    matches!(dialogue.ask(), Answer::Served { .. })
}

/// The Node, a Service with a cluster IP, and its endpoint.
async fn provide(server: &ApiServer) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}});
    server.ask("POST", "/api/v1/nodes", Some(&node)).await;
    let address = json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    server.ask("PATCH", "/api/v1/nodes/n1/status", Some(&address)).await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"clusterIP": "10.96.0.50", "ports": [{"port": 80, "targetPort": 8080}]}});
    server.ask("POST", "/api/v1/namespaces/default/services", Some(&service)).await;
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080}],
        "endpoints": [{"addresses": ["10.244.1.2"], "conditions": {"ready": true}, "nodeName": "n1"}]});
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let made: Value = server.ask("POST", path, Some(&slice)).await;
    assert_eq!(made["kind"], "EndpointSlice");
}

fn changes_over_from(mode: &str, traces: &[&str]) {
    if peer("kube-apiserver").is_none() || peer("kube-proxy").is_none() {
        skip!("WEFT_PEERS names no folder with kube-apiserver and kube-proxy");
    }
    let world = World::new();
    let node = &world.node;
    node.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let etcd = runtime.block_on(Etcd::start());
        let server = runtime.block_on(ApiServer::start(&etcd)).unwrap();
        runtime.block_on(provide(&server));
        the_way(&world, server.kubeconfig().to_str().unwrap(), mode, traces);
    })
    .unwrap();
}

fn the_way(world: &World, kubeconfig: &str, mode: &str, traces: &[&str]) {
    let node = &world.node;
    // kubelet's own, which stay.
    for words in ["-t mangle -N KUBE-KUBELET-CANARY", "-N KUBE-FIREWALL", "-A INPUT -j KUBE-FIREWALL"] {
        node.tool("iptables", &words.split(' ').collect::<Vec<_>>()).unwrap();
    }
    let kube_proxy = world.start_kube_proxy(kubeconfig, mode);
    let served = || world.connect().as_ref().is_ok_and(is_served);
    let waited = wait::until(START, "kube-proxy to serve", served);
    waited.unwrap_or_else(|error| panic!("{error}: {}", world.log("kube-proxy.log")));
    let connection = world.connect().unwrap();
    assert!(is_served(&connection));
    let rules = || node.tool("nft", &["list", "ruleset"]).unwrap();
    let before = rules();
    assert!(traces.iter().all(|trace| before.contains(trace)), "{before}");

    let early = world.migrate("1s");
    assert_eq!(early.exit, Some(75), "{}", early.stderr);
    assert!(early.stderr.contains("kube-proxy runs on this node"), "{}", early.stderr);

    let agent = world.start_agent(kubeconfig);
    kube_proxy.end(Duration::from_secs(10));
    let done = world.migrate("90s");
    assert_eq!(done.exit, Some(0), "{}\n{}\n{}", done.stdout, done.stderr, world.log("agent.log"));
    let after = rules();
    for trace in traces {
        assert!(!after.contains(trace), "{trace} is left: {after}\n{}", done.stdout);
    }
    assert!(after.contains("KUBE-KUBELET-CANARY") && after.contains("jump KUBE-FIREWALL"), "{after}");
    assert!(is_served(&connection), "the connection was lost");
    assert!(world.connect().as_ref().is_ok_and(is_served), "{}", world.log("agent.log"));

    let again = world.migrate("10s");
    assert!(again.exit == Some(0) && !again.stdout.contains("removed"), "{}", again.stdout);
    assert!(agent.end(Duration::from_secs(5)));
}

#[test]
fn services_change_over_from_kube_proxy_with_iptables() {
    changes_over_from(
        "iptables",
        &["KUBE-SERVICES", "KUBE-SVC-", "KUBE-SEP-", "KUBE-POSTROUTING", "KUBE-PROXY-CANARY"],
    );
}

#[test]
fn services_change_over_from_kube_proxy_with_nftables() {
    changes_over_from("nftables", &["table ip kube-proxy"]);
}
