//! `weft status`: what it tells of a lab, and its exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::kube::Port;
use weft_tests::lab::{NETWORK_PREFIX, OwnedLab, PROBE_PORT, ServiceRequest, Spec};
use weft_tests::wait;

/// How long what happened at the store may take to be told.
const SOON: Duration = Duration::from_secs(20);

/// Exit code and document of `weft status`.
fn status(lab: &OwnedLab, node: &str, args: &[&str]) -> (i32, Value) {
    let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
    let output = lab.weft(node, "status", &args).unwrap();
    let document = serde_json::from_str(&output.stdout).unwrap_or(Value::Null);
    (output.exit.unwrap(), document)
}

/// The row of a node.
fn row(document: &Value, node: &str) -> Value {
    let rows = document["nodes"].as_array().unwrap();
    rows.iter().find(|row| row["node"] == node).unwrap_or_else(|| panic!("no {node} in {document}")).clone()
}

fn two_nodes(spec: Spec) -> OwnedLab {
    let lab = OwnedLab::up(spec);
    wait::until(wait::patience(SOON), "each node to know the other", || {
        ["node1", "node2"].iter().all(|node| {
            let (exit, document) = status(&lab, node, &[]);
            exit == 0 && document["nodes"].as_array().is_some_and(|rows| rows.len() == 2)
        })
    })
    .unwrap();
    lab
}

#[test]
fn a_cluster_that_is_well_is_shown_whole_and_gives_zero() {
    let lab = two_nodes(Spec::test(2).services("nftables"));
    let web = ServiceRequest {
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        ports: vec![Port::tcp(80, PROBE_PORT)],
        ..ServiceRequest::default()
    };
    lab.add_service(&web).unwrap();
    let netns = lab.node("node1").unwrap().netns.clone();
    netns.tool("ip", &["route", "flush", "dev", "flannel.1"]).unwrap();
    wait::until(wait::patience(SOON), "Service and repair to be told", || {
        let own = row(&status(&lab, "node1", &[]).1, "node1");
        own["services"]["count"] == 1 && own["repairs"]["peers"].as_u64() > Some(0)
    })
    .unwrap();

    let (exit, document) = status(&lab, "node1", &[]);
    assert_eq!((exit, &document["verdict"]), (0, &json!("well")), "{document}");
    let own = row(&document, "node1");
    assert_eq!(
        (&own["own"], &own["ready"], &own["peers"]),
        (&json!(true), &json!(true), &json!({"programmed": 1, "all": 1})),
        "{own}"
    );
    assert_eq!(own["subnets"], json!(lab.node("node1").unwrap().subnets()));
    assert_eq!(own["services"]["mode"], "nftables");
    assert!(own["services"]["revision"].as_i64() > Some(0), "{own}");
    let peer = row(&document, "node2");
    assert_eq!((&peer["version"], &peer["addresses"]), (&Value::Null, &json!(["192.168.100.12"])), "it was not asked");

    let (exit, document) = status(&lab, "node1", &["--all"]);
    assert_eq!(exit, 0, "{document}");
    for node in ["node1", "node2"] {
        let row = row(&document, node);
        assert_eq!((&row["ready"], &row["version"]), (&json!(true), &json!(env!("CARGO_PKG_VERSION"))), "{row}");
    }

    let text = lab.weft("node1", "status", &["--all", "-o", "wide"]).unwrap().stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(
        lines[0].starts_with("NODE") && lines[1].starts_with("node1 *   yes") && lines[2].starts_with("node2"),
        "{text}"
    );
    assert!(text.contains("flannel.1 mtu 1450 over eth0 mtu 1500") && text.contains("nftables 1 @"), "{text}");
}

#[test]
fn something_wrong_gives_one_and_what_cannot_be_told_two() {
    let mut lab = two_nodes(Spec { pods: 0, ..Spec::test(2) });
    lab.kill_agent("node2").unwrap();
    let (exit, document) = status(&lab, "node1", &["--all"]);
    assert_eq!((exit, &document["verdict"]), (2, &json!("unknown")), "{document}");
    let silent = row(&document, "node2");
    assert!(silent["unknown"].as_str().unwrap().contains("192.168.100.12:8081"), "{silent}");
    assert_eq!(status(&lab, "node1", &[]).0, 0, "a peer's agent is not needed for its packets");
    let (exit, failure) = status(&lab, "node2", &[]);
    assert_eq!((exit, &failure["verdict"]), (2, &json!("unknown")), "its own agent does not run");
    assert!(failure["error"].as_str().unwrap().contains("127.0.0.1:8081"), "{failure}");

    lab.etcd().unwrap().put(&format!("{NETWORK_PREFIX}/subnets/10.244.250.0-24"), "garbage").unwrap();
    wait::until(wait::patience(SOON), "the bad lease to be told", || status(&lab, "node1", &[]).0 == 1).unwrap();
    let (_, document) = status(&lab, "node1", &[]);
    let wrong = row(&document, "node1")["wrong"].to_string();
    assert!(wrong.contains("10.244.250.0-24"), "{wrong}");
    assert_eq!(status(&lab, "node1", &["--all"]).0, 1, "wrong counts more than unknown");

    lab.kill_etcd().unwrap();
    let listing = lab.weft("node1", "status", &["--all"]).unwrap();
    assert_eq!(listing.exit, Some(2), "{}", listing.stderr);
    assert!(listing.stderr.contains("the nodes cannot be listed"), "{}", listing.stderr);
}
