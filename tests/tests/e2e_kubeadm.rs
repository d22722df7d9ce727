//! weft and upstream's kubeadm on one cluster: either joins what the other has made, and kubeadm's commands understand a cluster of
//! weft's. And how long either takes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::str::FromStr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_tests::lab::underlay::Families;
use weft_tests::node::bare::{Bare, LENIENT, PROGRAMS, RUNTIME, join_line};
use weft_tests::node::machines::Machines;
use weft_tests::node::{flannel_addon, kubeadm, peers};
use weft_tests::{skip, wait};

/// How long something may take that follows by itself.
const LIMIT: Duration = Duration::from_secs(120);

/// weft's chain of plugins, which its agent writes once a node has its network.
const CONFLIST: &str = "/etc/cni/net.d/10-weft.conflist";

/// Why kubeadm and a cluster cannot be had here.
fn obstacle() -> Option<String> {
    [&PROGRAMS[..], &RUNTIME, &kubeadm::PROGRAMS].iter().find_map(|programs| peers::check(programs).err())
}

/// Machines with a runtime, what packages bring along, and the images of a node.
fn lab(count: u8) -> Machines {
    let machines = Machines::boot(count, Families::Both, &kubeadm::kubelet_config()).unwrap();
    for node in &machines.nodes {
        kubeadm::furnish(node).unwrap();
        kubeadm::preload(node).unwrap();
    }
    // Else the first who has a file synced waits until the images are on the disk, too.
    nix::unistd::sync();
    machines
}

fn init(node: &Bare, more: &[&str]) -> String {
    let init = node.init(more).unwrap();
    assert_eq!(init.exit, Some(0), "{}\n{}", init.stderr, kubeadm::kubelet_log(node));
    assert!(init.stdout.contains("[init] CoreDNS serves"), "{}", init.stdout);
    init.stdout
}

fn reset(node: &Bare) {
    let reset = node.weft(&["reset", "--force"]).unwrap();
    assert_eq!(reset.exit, Some(0), "{}", reset.stderr);
}

/// A node is Ready by weft's network, and not by another one.
fn has_wefts_network(first: &Bare, node: &Bare) {
    kubeadm::await_ready(first, node.machine.name()).unwrap();
    let conflist = node.machine.inside(CONFLIST).unwrap();
    assert!(conflist.is_file(), "{}", conflist.display());
}

/// Every certificate of a control plane, as kubeadm calls them.
const CERTIFICATES: [&str; 11] = [
    "admin.conf",
    "apiserver",
    "apiserver-etcd-client",
    "apiserver-kubelet-client",
    "controller-manager.conf",
    "etcd-healthcheck-client",
    "etcd-peer",
    "etcd-server",
    "front-proxy-client",
    "scheduler.conf",
    "super-admin.conf",
];

fn certificates_are_known(node: &Bare) {
    let text = kubeadm::must(node, &["certs", "check-expiration"]).unwrap().stdout;
    assert!(!text.to_uppercase().contains("MISSING"), "{text}");
    let json = kubeadm::must(node, &["certs", "check-expiration", "--output=json"]).unwrap().stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    let names = |list: &str| -> Vec<String> {
        let all = json[list].as_array().unwrap();
        for certificate in all {
            assert_ne!(certificate["missing"], json!(true), "{certificate}");
            assert_ne!(certificate["externallyManaged"], json!(true), "{certificate}");
        }
        let mut names: Vec<String> = all.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names("certificates"), CERTIFICATES);
    assert_eq!(names("certificateAuthorities"), ["ca", "etcd-ca", "front-proxy-ca"]);
}

#[test]
fn k01_kubeadm_knows_its_way_in_a_cluster_of_wefts() {
    if let Some(reason) = obstacle() {
        skip!("{reason}");
    }
    let machines = lab(2);
    let (first, second) = machines.pair();
    let printed = init(first, &[]);

    certificates_are_known(first);

    let line = join_line(&printed).unwrap();
    let token = line.split_whitespace().skip_while(|word| *word != "--token").nth(1).unwrap();
    let tokens = kubeadm::must(first, &["token", "list"]).unwrap().stdout;
    assert!(tokens.contains(token) && tokens.contains("authentication,signing"), "{tokens}");

    // What is said of newer versions would come from the network; the rest comes from the cluster.
    let plan = kubeadm::must(first, &["upgrade", "plan", kubeadm::VERSION, kubeadm::LENIENT]).unwrap();
    let plan = format!("{}{}", plan.stdout, plan.stderr);
    assert!(plan.contains("Reading configuration from the \"kubeadm-config\" ConfigMap"), "{plan}");
    assert!(!plan.contains("[ERROR"), "{plan}");

    let line = kubeadm::join_line(first, &[]).unwrap();
    kubeadm::join(second, &line, &[]).unwrap();
    has_wefts_network(first, second);

    // kubeadm leaves what it does not know: weft's journal among it.
    kubeadm::must(second, &["reset", "--force"]).unwrap();
    kubeadm::must(first, &["reset", "--force"]).unwrap();
    let printed = init(first, &[]);
    has_wefts_network(first, first);
    let join = second.follow(&join_line(&printed).unwrap(), &[LENIENT]).unwrap();
    assert_eq!(join.exit, Some(0), "{}", join.stderr);
    has_wefts_network(first, second);
}

#[test]
fn k02_weft_joins_a_cluster_of_kubeadms_and_gives_it_a_network() {
    if let Some(reason) = obstacle() {
        skip!("{reason}");
    }
    let machines = lab(2);
    let (first, second) = machines.pair();
    kubeadm::init(first).unwrap();
    let config = format!("--config={}", first.machine.path("kubeadm.yaml").display());
    let addon = first.weft(&["init", "phase", "addon", "weft", &config, LENIENT]).unwrap();
    assert_eq!(addon.exit, Some(0), "{}", addon.stderr);
    has_wefts_network(first, first);

    let line = kubeadm::join_line(first, &[]).unwrap();
    let join = second.follow(&line, &[LENIENT]).unwrap();
    assert_eq!(join.exit, Some(0), "{}", join.stderr);
    has_wefts_network(first, second);
    let available = ["wait", "--for=condition=Available", "deployment/coredns", "--namespace=kube-system"];
    wait::until_ok(LIMIT, "CoreDNS of kubeadm's", || first.kubectl(&available)).unwrap();
    reset(second);
}

/// The names of etcd's members, as the one on this machine knows them; all of them vote.
fn members(node: &Bare) -> Vec<String> {
    let pki = |file: &str| format!("/etc/kubernetes/pki/etcd/{file}");
    let (ca, cert, key) = (pki("ca.crt"), pki("healthcheck-client.crt"), pki("healthcheck-client.key"));
    let url = "https://127.0.0.1:2379/v3/cluster/member/list";
    let args = ["--silent", "--fail", "--cacert", &ca, "--cert", &cert, "--key", &key, "--data", "{}", url];
    let list: Value = serde_json::from_str(&node.machine.run("curl", &args).unwrap()).unwrap();
    let members = list["members"].as_array().unwrap();
    assert!(members.iter().all(|member| member["isLearner"] != json!(true)), "{list}");
    let mut names: Vec<String> = members.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// The API server on a machine answers, with what is in etcd.
fn serves(node: &Bare) {
    let server = format!("--server=https://{}:6443", node.machine.ip());
    let nodes = wait::until_ok(LIMIT, &server, || node.kubectl(&["get", "nodes", "--output=name", &server])).unwrap();
    assert!(nodes.contains("node/n1"), "{nodes}");
}

/// What a control plane of two is.
fn is_a_pair(first: &Bare, second: &Bare) {
    assert_eq!(members(first), ["n1", "n2"]);
    serves(first);
    serves(second);
    has_wefts_network(first, second);
    let labels = first.get(&["node", "n2"]).unwrap()["metadata"]["labels"].clone();
    assert!(labels.get("node-role.kubernetes.io/control-plane").is_some(), "{labels}");
}

/// The second has gone, and the first serves on: etcd by itself takes a write.
fn is_alone(first: &Bare) {
    assert_eq!(members(first), ["n1"]);
    serves(first);
    first.kubectl(&["create", "configmap", "written", "--from-literal=by=one"]).unwrap();
    first.kubectl(&["delete", "configmap", "written"]).unwrap();
    first.kubectl(&["delete", "node", "n2", "--ignore-not-found"]).unwrap();
}

#[test]
fn k03_a_second_control_plane_comes_by_weft_and_by_kubeadm_and_goes() {
    if let Some(reason) = obstacle().or_else(|| peers::check(&["curl"]).err()) {
        skip!("{reason}");
    }
    let machines = lab(2);
    let (first, second) = machines.pair();
    let endpoint = format!("--control-plane-endpoint={}:6443", first.machine.ip());
    let printed = init(first, &[&endpoint, "--upload-certs"]);
    let (_, line) = printed.split_once("A control-plane node joins with:").unwrap();
    let line = join_line(line).unwrap();
    let join = second.follow(&line, &[LENIENT]).unwrap();
    assert_eq!(join.exit, Some(0), "{}\n{}", join.stderr, kubeadm::kubelet_log(second));
    is_a_pair(first, second);
    reset(second);
    is_alone(first);

    // kubeadm fetches the same certificates, and is known to etcd as the same node.
    let key = line.split_whitespace().skip_while(|word| *word != "--certificate-key").nth(1).unwrap();
    let line = kubeadm::join_line(first, &["--certificate-key", key]).unwrap();
    let patches = kubeadm::patches(second, kubeadm::Etcd::Further).unwrap();
    kubeadm::join(second, &line, &[&format!("--patches={}", patches.display())]).unwrap();
    is_a_pair(first, second);
    reset(second);
    is_alone(first);
}

/// How long things took, in the order in which they happened.
#[derive(Default)]
struct Times(Vec<(&'static str, Duration)>);

impl Times {
    fn take<T>(&mut self, what: &'static str, work: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let result = work();
        self.0.push((what, begin.elapsed()));
        eprintln!("{what}: {:.1} s", begin.elapsed().as_secs_f64());
        result
    }

    /// In seconds, shortest first.
    fn all(&self, wanted: &str) -> Vec<f64> {
        let mut all: Vec<f64> =
            self.0.iter().filter(|(what, _)| *what == wanted).map(|(_, took)| took.as_secs_f64()).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    fn median(&self, wanted: &str) -> f64 {
        let all = self.all(wanted);
        all[all.len() / 2]
    }

    fn print(&self) {
        for what in
            [KUBEADM_INIT, WEFT_INIT, WEFT_INIT_DNS, WEFT_AGAIN, KUBEADM_JOIN, WEFT_JOIN, KUBEADM_READY, WEFT_READY]
        {
            eprintln!("| {what:<60} | {:>6.2} s | {:.2?}", self.median(what), self.all(what));
        }
    }
}

/// `weft init` and `weft join` as kubeadm is called: the images are there, and nothing is made of programs.
fn weft_with_images(node: &Bare, words: &[&str], etcd: kubeadm::Etcd) -> String {
    let patches = format!("--patches={}", kubeadm::patches(node, etcd).unwrap().display());
    let output = node.weft(&[words, &[&patches, LENIENT]].concat()).unwrap();
    assert_eq!(output.exit, Some(0), "{}\n{}", output.stderr, kubeadm::kubelet_log(node));
    output.stdout
}

const KUBEADM_INIT: &str = "kubeadm init, flannel, node Ready";
const WEFT_INIT: &str = "weft init, node Ready";
const WEFT_INIT_DNS: &str = "weft init, CoreDNS Available";
const WEFT_AGAIN: &str = "weft init once more, nothing to do";
const KUBEADM_JOIN: &str = "kubeadm join: kubelet runs and has its certificate";
const WEFT_JOIN: &str = "weft join, until kubelet runs and has its certificate";
const KUBEADM_READY: &str = "kubeadm join, flannel, node Ready";
const WEFT_READY: &str = "weft join, node Ready";

/// What upstream's words tell an operator to do, one after the other with fast hands. A node with flannel is Ready once flannel's
/// configuration of the runtime is there, a moment before it can run pods.
fn time_kubeadm(times: &mut Times) {
    let lab = lab(3);
    let [first, second, third] = &lab.nodes[..] else { unreachable!("as many as were asked for") };
    for node in &lab.nodes {
        flannel_addon::preload(node).unwrap();
    }
    times.take(KUBEADM_INIT, || {
        kubeadm::init(first).unwrap();
        flannel_addon::apply(first).unwrap();
        kubeadm::await_ready(first, "n1").unwrap();
    });
    let line = kubeadm::join_line(first, &[]).unwrap();
    // kubeadm waits five seconds if the cluster's public information is not signed yet; an operator is not that fast.
    wait::until(LIMIT, "cluster-info to be signed", || {
        let signed = first.kubectl(&["-n", "kube-public", "get", "configmap", "cluster-info", "--output=json"]);
        signed.is_ok_and(|text| text.matches("jws-kubeconfig-").count() >= 2)
    })
    .unwrap();
    for (node, name) in [(second, "n2"), (third, "n3")] {
        let begin = Instant::now();
        times.take(KUBEADM_JOIN, || kubeadm::join(node, &line, &[]).unwrap());
        kubeadm::await_ready(first, name).unwrap();
        times.0.push((KUBEADM_READY, begin.elapsed()));
    }
}

fn time_weft(times: &mut Times) {
    let lab = lab(3);
    let [first, second, third] = &lab.nodes[..] else { unreachable!("as many as were asked for") };
    let config = format!("--config={}", first.folder().join("config.yaml").display());
    let address = format!("--apiserver-advertise-address={}", first.machine.ip());
    let words = ["init", &config, &address];
    let printed = times.take(WEFT_INIT_DNS, || weft_with_images(first, &words, kubeadm::Etcd::First));
    times.0.push((WEFT_INIT, logged(first, "init.log", "node n1 is Ready")));
    for _ in 0..3 {
        times.take(WEFT_AGAIN, || weft_with_images(first, &words, kubeadm::Etcd::First));
    }
    let line = join_line(&printed).unwrap().replace("\\\n", " ");
    let line: Vec<&str> = line.split_whitespace().skip(1).collect();
    for node in [second, third] {
        times.take(WEFT_READY, || weft_with_images(node, &line, kubeadm::Etcd::Further));
        times.0.push((WEFT_JOIN, logged(node, "join.log", "phase [kubelet-finalize] begins")));
    }
}

/// From the first line of a run's log to the one that ends like this.
fn logged(node: &Bare, log: &str, end: &str) -> Duration {
    let log = std::fs::read_to_string(node.machine.path("log/weft").join(log)).unwrap();
    eprintln!("{log}");
    let time = |line: &str| jiff::Timestamp::from_str(line.split_whitespace().next().unwrap()).unwrap();
    let found = log.lines().find(|line| line.ends_with(end)).unwrap();
    time(found).duration_since(time(log.lines().next().unwrap())).unsigned_abs()
}

/// By turns, so that what else the machine does meanwhile meets both. `WEFT_E2E_ROUNDS` says how often.
#[test]
fn k04_weft_takes_no_longer_than_kubeadm_with_flannel() {
    if let Some(reason) = obstacle().or_else(|| peers::check(&flannel_addon::PROGRAMS).err()) {
        skip!("{reason}");
    }
    let rounds = std::env::var("WEFT_E2E_ROUNDS").map_or(3, |text| text.parse().unwrap());
    let mut times = Times::default();
    for _ in 0..rounds {
        time_kubeadm(&mut times);
        time_weft(&mut times);
    }
    times.print();
    assert!(times.median(WEFT_INIT) < times.median(KUBEADM_INIT));
    assert!(times.median(WEFT_AGAIN) <= 1.0);
    assert!(times.median(WEFT_JOIN) <= times.median(KUBEADM_JOIN));
    assert!(times.median(WEFT_READY) <= times.median(KUBEADM_READY));
}
