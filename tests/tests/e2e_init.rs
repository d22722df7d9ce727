//! `weft init`, `weft join` and `weft reset` on machines that reach no image registry: two commands, and a cluster is there;
//! two more, and the machines are what they were.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::lab::underlay;
use weft_tests::netns::OwnedNetns;
use weft_tests::node::bare::{Bare, LENIENT, PROGRAMS, RUNTIME, join_line, programs};
use weft_tests::node::cluster::PROBE;
use weft_tests::node::workload::{PORT, container, pod_on, service};
use weft_tests::node::{dns, peers};
use weft_tests::probe::{Question, ask};
use weft_tests::scratch::{Scratch, unique_name};
use weft_tests::{binaries, skip, wait};

/// How long pods may take to come on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Asks from a machine until one of these has answered.
fn reaches(from: &Bare, target: SocketAddr, names: &[&str]) {
    let what = format!("{} to reach one of {names:?} at {target}", from.machine.name());
    wait::until_ok(LIMIT, &what, || {
        let outcome = ask(from.machine.netns(), &Question::new(target), 1, 1).unwrap();
        if names.iter().any(|name| outcome.by.contains_key(*name)) { Ok(()) } else { Err(format!("{outcome:?}")) }
    })
    .unwrap();
}

fn object(node: &Bare, args: &[&str]) -> Value {
    serde_json::from_str(&node.kubectl(&[&["get", "--output=json"], args].concat()).unwrap()).unwrap()
}

fn apply(node: &Bare, objects: &[Value]) {
    let file = node.machine.path("objects.json");
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).unwrap();
    node.kubectl(&["apply", "--filename", file.to_str().unwrap()]).unwrap();
}

/// A pod on each node, and a Service over them: each node reaches both pods, the Service by its address and by its name.
fn serve(nodes: [&Bare; 2]) {
    let [first, _] = nodes;
    let mut objects = vec![service("probe", "ClusterIP", "probe")];
    for node in nodes {
        node.import(PROBE, &binaries::folder().join("../debug/weft-probe")).unwrap();
        let name = node.machine.name();
        let mut pod = pod_on(name, &format!("on-{name}"), &container());
        pod["metadata"]["labels"]["app"] = json!("probe");
        objects.push(pod);
    }
    apply(first, &objects);
    let ready = ["wait", "--for=condition=Ready", "pod", "--selector=app=probe", "--timeout=55s"];
    wait::until_ok(LIMIT, "the pods", || first.kubectl(&ready)).unwrap();
    let pods = object(first, &["pods", "--selector=app=probe"]);
    let cluster_ip = object(first, &["service", "probe"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    for node in nodes {
        for pod in pods["items"].as_array().unwrap() {
            let ip = pod["status"]["podIP"].as_str().unwrap();
            assert!(ip.starts_with("10.244."), "a pod has {ip}, none of weft's addresses");
            reaches(node, SocketAddr::new(ip.parse().unwrap(), PORT), &[pod["metadata"]["name"].as_str().unwrap()]);
        }
        reaches(node, SocketAddr::new(cluster_ip.parse().unwrap(), 80), &["on-n1", "on-n2"]);
        let named = || dns::lookup(node.machine.netns(), "probe.default.svc.cluster.local");
        let found = wait::until_ok(LIMIT, "CoreDNS to answer", named).unwrap();
        assert_eq!(found.to_string(), cluster_ip);
    }
}

/// The balancers have learnt from the cluster who its API servers are, and no helper lacks a right.
fn helpers_work(nodes: [&Bare; 2]) {
    for node in nodes {
        let known = node.machine.inside("/var/lib/weft/balancer/known").unwrap();
        wait::until(LIMIT, "the balancer to know the API servers", || {
            std::fs::read_to_string(&known).is_ok_and(|list| list.trim() == format!("{}:6443", nodes[0].machine.ip()))
        })
        .unwrap();
        let logs = node.machine.run("sh", &["-c", "cat /var/log/pods/kube-system_weft-*-n*/*/*.log"]).unwrap();
        assert!(!logs.contains("denied"), "{logs}");
    }
}

#[test]
fn two_commands_make_a_cluster_and_two_take_it_back() {
    if let Err(reason) = peers::check(&PROGRAMS).and_then(|()| peers::check(&RUNTIME)) {
        skip!("{reason}");
    }
    let scratch = Scratch::new();
    let underlay = OwnedNetns::new(format!("{}-underlay", unique_name()));
    underlay::ensure(&underlay).unwrap();
    let folder = programs(scratch.path()).unwrap();
    let boot = |number: u8| Bare::boot(&underlay, number, &scratch.join(format!("n{number}")), &folder).unwrap();
    let (first, second) = (boot(1), boot(2));
    let before = [first.snapshot().unwrap(), second.snapshot().unwrap()];

    let init = first.init(&[]).unwrap();
    assert_eq!(init.exit, Some(0), "{}", init.stderr);
    assert!(init.stdout.contains("node n1 is Ready\n[init] CoreDNS serves"), "{}", init.stdout);

    let again = first.init(&[]).unwrap();
    assert_eq!(again.exit, Some(0), "{}", again.stderr);
    for word in ["Generating", "Created", "Creating", "Updated", "Applied", "Starting", "Changing"] {
        assert!(!again.stdout.contains(word), "a second run has something to do:\n{}", again.stdout);
    }
    // At most 1 s on a machine that does nothing else.
    assert!(again.took < Duration::from_secs(3), "a second run took {:?}", again.took);

    let line = join_line(&init.stdout).unwrap();
    let join = second.follow(&line, &[LENIENT]).unwrap();
    assert_eq!(join.exit, Some(0), "{}", join.stderr);
    assert!(join.stdout.contains("node n2 is Ready"), "{}", join.stdout);
    helpers_work([&first, &second]);

    serve([&first, &second]);

    for (node, before) in [&second, &first].into_iter().zip(before.iter().rev()) {
        let reset = node.weft(&["reset", "--force"]).unwrap();
        assert_eq!(reset.exit, Some(0), "{}", reset.stderr);
        let after = node.snapshot().unwrap();
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        let (before, after) = (lines(before), lines(&after));
        let gone: Vec<_> = before.difference(&after).collect();
        let left: Vec<_> = after.difference(&before).collect();
        assert!(gone.is_empty() && left.is_empty(), "{}: gone {gone:#?}, left {left:#?}", node.machine.name());
    }
}
