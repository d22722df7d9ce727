//! The lab as a whole: what a running network survives, and that a lab leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use weft_tests::lab::{Lab, OwnedLab, Spec, root};
use weft_tests::netns::Netns;
use weft_tests::probe::Pinger;
use weft_tests::scratch::unique_name;
use weft_tests::tool::{self, Output, Stdin};
use weft_tests::{binaries, wait};

/// The promise for every repair.
const REPAIR: Duration = Duration::from_secs(10);
/// How long pods may take to find each other at first.
const AT_FIRST: Duration = Duration::from_secs(10);

fn two_nodes() -> OwnedLab {
    let lab = OwnedLab::up(Spec::test(2));
    let matrix = lab.matrix(AT_FIRST).unwrap();
    assert!(matrix.complete(), "{:?}", matrix.broken());
    lab
}

/// Pings from the pod of node 1 to that of node 2.
fn pinger(lab: &Lab) -> Pinger {
    let [from, to] = ["node1", "node2"].map(|node| lab.node(node).unwrap().pod("pod1").unwrap());
    Pinger::start(&from.netns, to.v4().unwrap())
}

/// Everything weft has put into a node's kernel, without what counts by itself.
fn kernel(node: &Netns) -> Vec<String> {
    let links = node.objects("ip", &["-d", "link", "show"]).unwrap();
    let vxlan = links.iter().filter(|link| link["ifname"].as_str().is_some_and(|name| name.starts_with("flannel")));
    let device = |link: &Value| format!("{} {} {} {}", link["ifindex"], link["ifname"], link["address"], link["mtu"]);
    let mut found: Vec<String> = vxlan.map(device).collect();
    for (program, words) in [
        ("ip", &["route", "show", "table", "all"][..]),
        ("ip", &["-6", "route", "show", "table", "all"]),
        ("ip", &["neigh", "show", "nud", "permanent"]),
        ("bridge", &["fdb", "show"]),
        ("ip", &["addr", "show", "dev", "cni0"]),
        ("nft", &["-s", "list", "ruleset"]),
    ] {
        let mut lines: Vec<String> = node.tool(program, words).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        // Routes learnt from router advertisements, and lifetimes, come and go.
        lines.retain(|line| !line.contains("valid_lft") && !line.contains("proto ra"));
        found.extend(lines);
    }
    found
}

#[test]
fn a_killed_agent_loses_no_packet_and_its_restart_changes_nothing() {
    let mut lab = two_nodes();
    let node = lab.node("node1").unwrap().netns.clone();
    let before = kernel(&node);
    let pinger = pinger(&lab);
    pinger.let_pass(100).unwrap();
    lab.kill_agent("node1").unwrap();
    lab.kill_agent("node2").unwrap();
    pinger.let_pass(300).unwrap();
    assert_eq!(kernel(&node), before);
    lab.start_agent("node1").unwrap();
    lab.start_agent("node2").unwrap();
    lab.await_ready("node1").unwrap();
    lab.await_ready("node2").unwrap();
    pinger.let_pass(300).unwrap();
    let losses = pinger.finish().unwrap();
    assert_eq!(losses.count(), 0, "{losses:?}");
    assert_eq!(kernel(&node), before);
}

#[test]
fn an_agent_that_is_asked_to_end_leaves_the_network_as_it_is() {
    let mut lab = two_nodes();
    let node = lab.node("node1").unwrap().netns.clone();
    let before = kernel(&node);
    let pinger = pinger(&lab);
    pinger.let_pass(50).unwrap();
    assert!(lab.stop_agent("node1").unwrap(), "SIGTERM was not enough");
    pinger.let_pass(200).unwrap();
    assert_eq!(pinger.finish().unwrap().count(), 0);
    assert_eq!(kernel(&node), before);
}

/// Breaks node 1 and waits until pods reach each other again, and the kernel is as before, by the same agent.
fn heals(lab: &Lab, device_stays: bool, sabotage: &[&str]) {
    let node = lab.node("node1").unwrap();
    let before = kernel(&node.netns);
    node.netns.tool(sabotage[0], &sabotage[1..]).unwrap();
    let without_index = |lines: &[String]| {
        let word =
            |line: &String| line.split_once(" \"flannel").map_or_else(|| line.clone(), |(_, rest)| rest.to_owned());
        lines.iter().map(word).collect::<Vec<_>>()
    };
    wait::until_ok(REPAIR, &format!("repair after {sabotage:?}"), || {
        let now = kernel(&node.netns);
        let same = if device_stays { now == before } else { without_index(&now) == without_index(&before) };
        if same { Ok(()) } else { Err(missing(&before, &now)) }
    })
    .unwrap();
    assert!(lab.matrix(Duration::from_secs(2)).unwrap().complete());
    assert!(node.agent.unwrap().alive(), "healed by a restart");
}

fn missing(before: &[String], now: &[String]) -> String {
    let now: BTreeSet<&String> = now.iter().collect();
    before.iter().filter(|line| !now.contains(line)).cloned().collect::<Vec<_>>().join(" | ")
}

#[test]
fn what_somebody_deletes_is_back_within_ten_seconds_without_a_restart() {
    let lab = two_nodes();
    heals(&lab, false, &["ip", "link", "delete", "flannel.1"]);
    heals(&lab, true, &["ip", "route", "flush", "dev", "flannel.1"]);
    heals(&lab, true, &["ip", "neigh", "flush", "dev", "flannel.1", "nud", "permanent"]);
    heals(&lab, true, &["nft", "flush", "ruleset"]);
    heals(&lab, true, &["ip", "link", "set", "flannel.1", "down"]);
    heals(&lab, false, &["sh", "-c", "ip link set flannel.1 down; ip link set flannel.1 name renamed up"]);
}

#[test]
fn pods_are_back_on_the_bridge_within_ten_seconds() {
    let lab = two_nodes();
    let node = lab.node("node1").unwrap();
    let [first] = &node.subnets()[..] else { panic!("one family") };
    let subnet = first.clone();
    // Their own node's pods are reached by the route that came with the bridge's address.
    for sabotage in [
        vec!["ip", "link", "delete", "cni0"],
        vec!["ip", "route", "delete", &subnet, "dev", "cni0"],
        vec![
            "sh",
            "-c",
            "ip -br link show master cni0 | while read name rest; do ip link set ${name%@*} nomaster; done",
        ],
    ] {
        node.netns.tool(sabotage[0], &sabotage[1..]).unwrap();
        let reached = || lab.matrix(Duration::from_millis(300)).unwrap().complete();
        wait::until(REPAIR, &format!("all pods to reach each other after {sabotage:?}"), reached).unwrap();
    }
}

#[test]
fn d50_a_lease_over_the_nodes_or_beside_the_network_is_ignored() {
    let lab = two_nodes();
    let value = r#"{"PublicIP":"192.168.100.79","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:47"}}"#;
    let node = lab.node("node1").unwrap().netns.clone();
    let before = kernel(&node);
    for key in ["192.168.100.12-30", "10.99.0.0-24", "0.0.0.0-1"] {
        lab.etcd().unwrap().put(&format!("/coreos.com/network/subnets/{key}"), value).unwrap();
    }
    // A lease that is right comes after them: once it is there, they have been seen.
    let good = value.replace("192.168.100.79", "192.168.100.80").replace(":47", ":48");
    lab.etcd().unwrap().put("/coreos.com/network/subnets/10.244.77.0-24", &good).unwrap();
    let seen = || kernel(&node).iter().any(|line| line.contains("10.244.77.0/24"));
    wait::until(REPAIR, "the good lease's route", seen).unwrap();
    let news: Vec<String> = kernel(&node).into_iter().filter(|line| !before.contains(line)).collect();
    assert!(news.iter().all(|line| line.contains("10.244.77.0") || line.contains(":48")), "{news:?}");
}

#[test]
fn a_partition_removes_nothing_and_heals() {
    let mut lab = two_nodes();
    let node = lab.node("node1").unwrap().netns.clone();
    let before = kernel(&node);
    lab.cut("node2").unwrap();
    assert!(!lab.matrix(Duration::from_millis(200)).unwrap().complete());
    lab.kill_etcd().unwrap();
    wait::throughout(Duration::from_secs(3), || {
        if kernel(&node) == before { Ok(()) } else { Err(missing(&before, &kernel(&node))) }
    })
    .unwrap();
    lab.start_etcd().unwrap();
    lab.heal(None).unwrap();
    let matrix = lab.matrix(AT_FIRST).unwrap();
    assert!(matrix.complete(), "{:?}", matrix.broken());
    assert_eq!(kernel(&node), before);
}

#[test]
fn nodes_come_and_go() {
    let mut lab = two_nodes();
    assert_eq!(lab.add_node().unwrap(), "node3");
    assert!(lab.matrix(AT_FIRST).unwrap().complete());
    let node = lab.node("node1").unwrap().netns.clone();
    let gone = lab.node("node2").unwrap().subnets()[0].clone();
    lab.remove_node("node2").unwrap();
    wait::until(Duration::from_secs(2), "the removed node's route to go", || {
        !node.tool("ip", &["route", "show", "dev", "flannel.1"]).unwrap().contains(&gone)
    })
    .unwrap();
    assert!(lab.matrix(AT_FIRST).unwrap().complete());
}

#[test]
fn cleanup_leaves_a_node_as_it_was_before() {
    let mut lab = OwnedLab::bare(Spec { pods: 0, ..Spec::test(1) });
    let name = lab.new_node().unwrap();
    let snapshot = |lab: &Lab| {
        let node = lab.node(&name).unwrap();
        let links = node.netns.tool("ip", &["-o", "link", "show"]).unwrap();
        let routes = node.netns.tool("ip", &["route", "show", "table", "all"]).unwrap();
        (links, routes, node.netns.tool("nft", &["list", "ruleset"]).unwrap())
    };
    let before = snapshot(&lab);
    lab.start_agent(&name).unwrap();
    lab.await_ready(&name).unwrap();
    lab.stop_agent(&name).unwrap();
    assert_ne!(snapshot(&lab), before);
    let output = lab.weft(&name, "cleanup", &[]).unwrap();
    assert_eq!(output.exit, Some(0), "{output:?}");
    assert_eq!(snapshot(&lab), before);
    let node = lab.node(&name).unwrap();
    assert!(!node.conflist().exists() && !node.path("subnet.env").exists());
    let leases = lab.etcd().unwrap().get("/coreos.com/network/subnets/").unwrap();
    assert_eq!(leases, [], "the lease was not given back");
}

/// Runs `weft-lab` to its end.
fn weft_lab(name: &str, words: &[&str]) -> Output {
    let mut command = tool::command(env!("CARGO_BIN_EXE_weft-lab"));
    command.env("WEFT_BIN_DIR", binaries::folder()).args(["--name", name]).args(words);
    tool::run_with(&mut command, Stdin::Bytes(b"")).unwrap()
}

/// What of this machine's belongs to a lab: namespaces, files, processes.
fn traces(name: &str) -> Vec<String> {
    let mut found: Vec<String> =
        Netns::matching(|netns| netns.starts_with(name)).unwrap().iter().map(|netns| netns.name().to_owned()).collect();
    found.extend(Path::new(&root().join(name)).exists().then(|| "its folder".to_owned()));
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let needle = format!("/{name}/");
    found.extend(lines.map(|line| String::from_utf8_lossy(&line).into_owned()).filter(|line| line.contains(&needle)));
    found
}

#[test]
fn the_command_brings_a_lab_up_twice_and_takes_it_down_without_a_trace() {
    let name = unique_name();
    let host =
        || (tool::call("ip", &["-o", "link", "show"]).unwrap(), tool::call("nft", &["list", "ruleset"]).unwrap());
    let before = host();
    assert_eq!(weft_lab(&name, &["status"]).exit, Some(1));
    assert_eq!(traces(&name), [""; 0]);

    let up = ["--output", "json", "up", "--nodes", "2"];
    let first = weft_lab(&name, &up);
    let second = weft_lab(&name, &up);
    let table = weft_lab(&name, &["ping"]);
    let inside = weft_lab(&name, &["exec", "node1-pod1", "ip", "-br", "addr"]);
    let nowhere = weft_lab(&name, &["exec", "node9", "true"]);
    let down = weft_lab(&name, &["down"]);
    let again = weft_lab(&name, &["down"]);

    for output in [&first, &second] {
        assert_eq!(output.exit, Some(0), "{output:?}");
        let shown: Value = serde_json::from_str(&output.stdout).expect("JSON and nothing else on stdout");
        assert_eq!((&shown["reachable"], &shown["total"]), (&Value::from(12), &Value::from(12)));
        assert_eq!(shown["lab"]["nodes"].as_array().unwrap().len(), 2);
        // The cluster IP from inside, the node port from outside; each reached every pod.
        let ways = shown["service"]["ways"].as_array().unwrap();
        assert_eq!(ways.len(), 2, "{shown}");
        for way in ways {
            assert_eq!(way["outcome"]["by"].as_object().unwrap().len(), 4, "{way}");
            assert_eq!((&way["outcome"]["refused"], &way["outcome"]["timed_out"]), (&Value::from(0), &Value::from(0)));
        }
    }
    assert!(second.stderr.contains("up already"), "{second:?}");
    assert!(table.stdout.ends_with("12 of 12 pod pairs reachable\n"), "{table:?}");
    assert!(inside.stdout.contains("eth0"), "{inside:?}");
    assert_eq!(nowhere.exit, Some(1));
    assert!(nowhere.stderr.contains("node1-pod1"), "{nowhere:?}");
    assert_eq!((down.exit, again.exit), (Some(0), Some(0)));
    assert_eq!(traces(&name), [""; 0]);
    assert_eq!(host(), before);
}

#[test]
fn the_command_writes_services_and_tells_who_answers() {
    let name = unique_name();
    let up = weft_lab(&name, &["up", "--nodes", "2", "--pods", "1"]);
    let add = ["service", "add", "shop/web", "--port", "80", "--port", "53/udp", "--type", "NodePort", "--node-port"];
    let added = weft_lab(&name, &[&add[..], &["31080,31053", "--output", "json"]].concat());
    let again = weft_lab(&name, &["service", "add", "shop/web", "--pods", "node2-pod1", "--output", "json"]);
    let list = weft_lab(&name, &["service", "list"]);
    let object: Value = serde_json::from_str(&added.stdout).expect("JSON and nothing else on stdout");
    let ip = object[0]["service"]["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let target = format!("{ip}:80");
    let settled = || weft_lab(&name, &["ask", "node1-pod1", &target, "--count", "1"]).stdout.contains("node2-pod1");
    let served = wait::until(REPAIR, "the Service to lead to node 2 alone", settled);
    let asked = weft_lab(&name, &["ask", "node1-pod1", &target, "--output", "json"]);
    let outside = weft_lab(&name, &["ask", "outside", "192.168.100.11:31080", "--count", "4"]);
    let gone = weft_lab(&name, &["service", "rm", "shop/web"]);
    let twice = weft_lab(&name, &["service", "rm", "shop/web"]);
    let down = weft_lab(&name, &["down"]);

    assert_eq!((up.exit, added.exit, again.exit), (Some(0), Some(0), Some(0)), "{up:?} {added:?} {again:?}");
    assert!(up.stdout.ends_with("2 of 2 pod pairs reachable\n"), "{up:?}");
    assert!(list.stdout.contains("shop/web") && list.stdout.contains("default/lab"), "{list:?}");
    served.unwrap();
    let answers: Value = serde_json::from_str(&asked.stdout).unwrap();
    assert_eq!((&answers["by"]["node2-pod1"]["count"], asked.exit), (&Value::from(100), Some(0)), "{asked:?}");
    // Made a ClusterIP Service by the second call, so nobody is at its node port any more.
    assert_eq!(outside.exit, Some(1), "{outside:?}");
    assert_eq!((gone.exit, twice.exit, down.exit), (Some(0), Some(1), Some(0)));
    assert!(twice.stderr.contains("default/lab"), "{twice:?}");
    assert_eq!(traces(&name), [""; 0]);
}
