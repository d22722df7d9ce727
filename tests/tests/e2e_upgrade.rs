//! `weft upgrade` on real nodes, and upstream's `kubeadm upgrade` on a cluster of weft's. There are programs of one version only: what
//! an upgrade changes here is what the cluster's configuration asks for beyond it, as when an administrator has edited it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::lab::underlay::Families;
use weft_tests::node::bare::{Bare, LENIENT, PROGRAMS, RUNTIME, join_line};
use weft_tests::node::cluster::items;
use weft_tests::node::machines::Machines;
use weft_tests::node::{kubeadm, peers, served};
use weft_tests::tool::Output;
use weft_tests::{skip, wait};

/// How long something may take that follows by itself.
const LIMIT: Duration = Duration::from_secs(120);

/// Exit codes of `weft upgrade apply --help`.
const REFUSED: i32 = 3;
const UNWELL: i32 = 5;

/// What an edit adds to the API server's command line, and what no API server knows.
const GOOD: &str = "--event-ttl=30m";
const BAD: &str = "--no-such-flag=1";

fn must(node: &Bare, args: &[&str]) -> Output {
    let output = node.weft(args).unwrap();
    assert_eq!(output.exit, Some(0), "{}\n{}", output.stdout, output.stderr);
    output
}

/// Ends with this code, and says all of this.
fn refused(node: &Bare, args: &[&str], exit: i32, words: &[&str]) {
    let output = node.weft(args).unwrap();
    assert_eq!(output.exit, Some(exit), "{}\n{}", output.stdout, output.stderr);
    let said = format!("{}{}", output.stdout, output.stderr);
    for word in words {
        assert!(said.contains(word), "no word of {word:?} in {said}");
    }
}

/// The manifests of a machine, weft's own helpers among them.
fn manifests(node: &Bare) -> BTreeMap<String, String> {
    let folder = node.machine.inside("/etc/kubernetes/manifests").unwrap();
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &std::path::Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
}

/// Those that differ.
fn changed<'a>(before: &'a BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<&'a str> {
    assert!(before.keys().eq(after.keys()), "{:?} and {:?}", before.keys(), after.keys());
    before.iter().filter(|(name, text)| after[*name] != **text).map(|(name, _)| name.as_str()).collect()
}

/// Edits a text in a ConfigMap of kube-system, as an administrator does.
fn edit(node: &Bare, map: &str, key: &str, from: &str, to: &str) {
    let mut object = node.get(&["configmap", map, "--namespace=kube-system"]).unwrap();
    let text = object["data"][key].as_str().unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from:?} in {text}");
    object["data"][key] = json!(text.replace(from, to));
    let file = node.machine.path("edited.json");
    fs::write(&file, object.to_string()).unwrap();
    node.kubectl(&["replace", "--filename", file.to_str().unwrap()]).unwrap();
}

/// What is in the place of `from` after it says that the API server has this flag.
fn api_server_with(flag: &str) -> String {
    let (name, value) = flag.trim_start_matches("--").split_once('=').unwrap();
    format!("apiServer:\n  extraArgs:\n  - {{name: {name}, value: \"{value}\"}}\n")
}

/// The command line by which the API server of a node runs, as its mirror pod has it.
fn command_line(node: &Bare, of: &str) -> Vec<String> {
    let pod = node.get(&["pod", &format!("kube-apiserver-{of}"), "--namespace=kube-system"]).unwrap();
    let words = pod["spec"]["containers"][0]["command"].as_array().unwrap();
    words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// What a node's kubelet runs with.
fn max_pods(first: &Bare, node: &Bare) -> Value {
    let path = format!("/api/v1/nodes/{}/proxy/configz", node.machine.name());
    let read = || first.kubectl(&["get", "--raw", &path]);
    let text = wait::until_ok(LIMIT, "kubelet's configuration", read).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    config["kubeletconfig"]["maxPods"].clone()
}

/// All nodes are Ready, and each pod of kube-system is.
fn is_well(first: &Bare, nodes: usize) {
    let ready = ["wait", "--for=condition=Ready", "node", "--all", "--timeout=50s"];
    let said = wait::until_ok(LIMIT, "the nodes", || first.kubectl(&ready)).unwrap();
    assert_eq!(said.matches("condition met").count(), nodes, "{said}");
    wait::until_ok(LIMIT, "the pods of kube-system", || {
        let pods = first.get(&["pods", "--namespace=kube-system"])?;
        let is_ready = |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
        };
        // A job's pod has done its work.
        let open = |pod: &&Value| pod["status"]["phase"] != "Succeeded" && !is_ready(pod);
        let waits: Vec<&str> = items(&pods).filter(open).filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
        anyhow::ensure!(waits.is_empty(), "{waits:?}");
        Ok::<_, anyhow::Error>(())
    })
    .unwrap();
}

/// Asks the API server of a node again and again while something is done, and counts the answers that do not come.
fn asked_meanwhile<T>(node: &Bare, work: impl FnOnce() -> T) -> (T, u32, u32) {
    let (is_over, asked, lost) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let server = format!("--server=https://{}:6443", node.machine.ip());
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let answer =
                    node.kubectl(&["get", "--raw", "/api/v1/namespaces/default", "--request-timeout=5s", &server]);
                asked.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = answer {
                    eprintln!("{server}: {error:#}");
                    lost.fetch_add(1, Ordering::Relaxed);
                }
                // It may go on for a while.
                let _ = wait::until(Duration::from_millis(500), "the end", || is_over.load(Ordering::Relaxed));
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_over.store(true, Ordering::Relaxed);
        done
    });
    let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    (done, asked.into_inner(), lost.into_inner())
}

fn plans(first: &Bare, worker: &Bare) {
    let plan = must(first, &["upgrade", "plan"]).stdout;
    assert!(plan.contains("v1.36.2 is the newest version that this weft knows"), "{plan}");
    let plan = must(first, &["upgrade", "plan", kubeadm::VERSION, "--output=json"]).stdout;
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let parts = plan["availableUpgrades"][0]["components"].as_array().unwrap();
    let of = |name: &str| parts.iter().filter(|part| part["name"] == name).count();
    assert_eq!(["kube-apiserver", "etcd", "CoreDNS", "kubelet"].map(of), [2, 2, 1, 3], "{plan:#}");
    refused(first, &["upgrade", "plan", "v1.37.0"], 1, &["newer than what this weft can bring up"]);
    refused(worker, &["upgrade", "plan"], 1, &["admin.conf"]);
}

/// What may not be is refused before anything is changed.
fn refusals(first: &Bare, worker: &Bare) {
    let before = manifests(first);
    refused(first, &["upgrade", "apply", "v1.37.0", "--yes"], REFUSED, &["take a newer weft"]);
    refused(first, &["upgrade", "apply", "v1.36.1", "--yes"], REFUSED, &["going back is no upgrade", "--force"]);
    refused(first, &["upgrade", "apply", "1.36", "--yes"], REFUSED, &["expected such as v1.36.2"]);
    refused(first, &["upgrade", "apply", kubeadm::VERSION, "--yse"], REFUSED, &["--yse"]);
    refused(worker, &["upgrade", "apply", kubeadm::VERSION, "--yes"], 2, &["no control plane", "weft upgrade node"]);
    assert_eq!(changed(&before, &manifests(first)), [""; 0]);
}

/// The same version and the same configuration.
fn nothing_to_do(node: &Bare, args: &[&str]) {
    let before = manifests(node);
    let said = must(node, args).stdout;
    assert!(said.contains("the manifests are as they should be"), "{said}");
    assert_eq!(changed(&before, &manifests(node)), [""; 0]);
}

/// An API server that does not start gets its old manifest back.
fn is_rolled_back(first: &Bare) {
    let before = manifests(first);
    edit(first, "kubeadm-config", "ClusterConfiguration", "apiServer:\n", &api_server_with(BAD));
    let dry = must(first, &["upgrade", "apply", kubeadm::VERSION, "--dry-run"]).stdout;
    assert!(dry.contains("kube-apiserver.yaml would be changed") && dry.contains(&format!("+     - {BAD}")), "{dry}");
    let words = ["kube-apiserver did not get well", "all manifests are as they were", "unknown flag: --no-such-flag"];
    refused(first, &["upgrade", "apply", kubeadm::VERSION, "--yes"], UNWELL, &words);
    assert_eq!(changed(&before, &manifests(first)), [""; 0]);
    is_well(first, 3);
}

#[test]
fn u03_weft_upgrades_one_node_after_the_other() {
    if let Err(reason) = peers::check(&PROGRAMS).and_then(|()| peers::check(&RUNTIME)) {
        skip!("{reason}");
    }
    let machines = Machines::boot(3, Families::Both, &kubeadm::kubelet_config()).unwrap();
    let [first, second, worker] = machines.nodes.as_slice() else { panic!("three were booted") };
    let printed = must(first, &as_words(&first.init_args(), &["--upload-certs"])).stdout;
    let (workers, control_planes) = printed.split_once("A control-plane node joins with:").unwrap();
    for (node, printed) in [(second, control_planes), (worker, workers)] {
        let join = node.follow(&join_line(printed).unwrap(), &[LENIENT]).unwrap();
        assert_eq!(join.exit, Some(0), "{}", join.stderr);
    }
    is_well(first, 3);
    served::helpers(&[first, second, worker], &[first, second]).unwrap();

    plans(first, worker);
    refusals(first, worker);
    nothing_to_do(first, &["upgrade", "apply", kubeadm::VERSION, "--yes"]);
    is_rolled_back(first);

    edit(first, "kubeadm-config", "ClusterConfiguration", &api_server_with(BAD), &api_server_with(GOOD));
    edit(first, "kubelet-config", "kubelet", "failCgroupV1: false\n", "failCgroupV1: false\nmaxPods: 77\n");
    let before = [first, second, worker].map(manifests);
    let apply = ["upgrade", "apply", kubeadm::VERSION, "--yes"];
    let (said, asked, lost) = asked_meanwhile(second, || must(first, &apply).stdout);
    assert!(said.contains("a snapshot of etcd is in"), "{said}");
    assert!(asked > 0 && lost == 0, "{lost} of {asked} questions to the other API server had no answer");
    assert_eq!(changed(&before[0], &manifests(first)), ["kube-apiserver"]);
    assert!(command_line(first, "n1").contains(&GOOD.to_owned()));
    assert_eq!(changed(&before[1], &manifests(second)), [""; 0], "each node is upgraded by itself");
    assert_eq!([max_pods(first, first), max_pods(first, second)], [json!(77), json!(110)]);

    let (said, asked, lost) = asked_meanwhile(first, || must(second, &["upgrade", "node"]).stdout);
    assert!(said.contains("kube-apiserver is well with its new manifest"), "{said}");
    assert!(asked > 0 && lost == 0, "{lost} of {asked} questions to the first API server had no answer");
    assert_eq!(changed(&before[1], &manifests(second)), ["kube-apiserver"]);
    assert!(command_line(first, "n2").contains(&GOOD.to_owned()));

    must(worker, &["upgrade", "node"]);
    assert_eq!(changed(&before[2], &manifests(worker)), [""; 0]);
    assert_eq!([max_pods(first, second), max_pods(first, worker)], [json!(77), json!(77)]);
    is_well(first, 3);
    nothing_to_do(first, &apply);
    nothing_to_do(second, &["upgrade", "node"]);
}

fn as_words<'a>(words: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    words.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

/// Why kubeadm and a cluster cannot be had here.
fn obstacle() -> Option<String> {
    [&PROGRAMS[..], &RUNTIME, &kubeadm::PROGRAMS].iter().find_map(|programs| peers::check(programs).err())
}

#[test]
fn u04_kubeadm_upgrades_a_cluster_of_wefts() {
    if let Some(reason) = obstacle() {
        skip!("{reason}");
    }
    let machines = Machines::boot(2, Families::Both, &kubeadm::kubelet_config()).unwrap();
    let (first, second) = machines.pair();
    for node in [first, second] {
        kubeadm::furnish(node).unwrap();
        kubeadm::preload(node).unwrap();
    }
    let printed = must(first, &as_words(&first.init_args(), &[])).stdout;
    let join = second.follow(&join_line(&printed).unwrap(), &[LENIENT]).unwrap();
    assert_eq!(join.exit, Some(0), "{}", join.stderr);
    is_well(first, 2);

    let plan = kubeadm::must(first, &["upgrade", "plan", kubeadm::VERSION, kubeadm::LENIENT]).unwrap();
    assert!(!format!("{}{}", plan.stdout, plan.stderr).contains("[ERROR"), "{}", plan.stderr);

    edit(first, "kubeadm-config", "ClusterConfiguration", "apiServer:\n", &api_server_with(GOOD));
    edit(first, "kubelet-config", "kubelet", "failCgroupV1: false\n", "failCgroupV1: false\nmaxPods: 77\n");
    let before = [first, second].map(manifests);
    let patches = format!("--patches={}", kubeadm::patches(first, kubeadm::Etcd::First).unwrap().display());
    let apply = ["upgrade", "apply", kubeadm::VERSION, "--yes", "--force", kubeadm::LENIENT, &patches];
    let said = kubeadm::must(first, &apply).unwrap().stdout;
    assert!(said.contains("SUCCESS"), "{said}");
    assert!(command_line(first, "n1").contains(&GOOD.to_owned()));
    // What kubeadm does not know of is still there: the helpers, and weft in the place of kube-proxy.
    let helpers = ["weft-api-balancer", "weft-cert-renewal"];
    let after = manifests(first);
    assert!(helpers.iter().all(|helper| after[*helper] == before[0][*helper]));
    let sets = first.kubectl(&["get", "daemonset", "--namespace=kube-system", "--output=name"]).unwrap();
    assert_eq!(sets.trim(), "daemonset.apps/weft");
    kubeadm::must(second, &["upgrade", "node", kubeadm::LENIENT]).unwrap();
    assert_eq!(changed(&before[1], &manifests(second)), [""; 0]);
    for node in [first, second] {
        // kubeadm writes kubelet's configuration and leaves the restart to the administrator.
        node.machine.run("systemctl", &["restart", "kubelet"]).unwrap();
        wait::until(LIMIT, "kubelet's new configuration", || max_pods(first, node) == json!(77)).unwrap();
    }
    is_well(first, 2);

    // And weft finds a cluster that it need not change, and that joins on.
    nothing_to_do(first, &["upgrade", "apply", kubeadm::VERSION, "--yes", &patches]);
    must(second, &["upgrade", "node"]);
    must(second, &["reset", "--force"]);
    // Who is Ready would be another machine of that name.
    first.kubectl(&["delete", "node", "n2"]).unwrap();
    let line = must(first, &["token", "create", "--print-join-command"]).stdout;
    let folder = format!("--kubernetes-bin={}", second.folder().display());
    let join = second.follow(line.trim(), &[LENIENT, &folder]).unwrap();
    assert_eq!(join.exit, Some(0), "{}", join.stderr);
    is_well(first, 2);
}
