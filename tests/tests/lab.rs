//! The lab as a whole: nodes come and go, and a lab leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use serde_json::Value;
use weft_tests::lab::{OwnedLab, Spec, traces};
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

/// Runs `weft-lab` to its end.
fn weft_lab(name: &str, words: &[&str]) -> Output {
    let mut command = tool::command(env!("CARGO_BIN_EXE_weft-lab"));
    command.env("WEFT_BIN_DIR", binaries::folder()).args(["--name", name]).args(words);
    tool::run_with(&mut command, Stdin::Bytes(b"")).unwrap()
}

#[test]
fn the_command_brings_a_lab_up_twice_and_takes_it_down_without_a_trace() {
    let name = unique_name();
    let host =
        || (tool::call("ip", &["-o", "link", "show"]).unwrap(), tool::call("nft", &["list", "ruleset"]).unwrap());
    let before = host();
    assert_eq!(weft_lab(&name, &["status"]).exit, Some(1));
    assert_eq!(traces(&name).unwrap(), [""; 0]);

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
    assert_eq!(traces(&name).unwrap(), [""; 0]);
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
    assert_eq!(traces(&name).unwrap(), [""; 0]);
}
