//! Upstream's conformance tests of the network, on a cluster with weft. All of them can run on nodes in namespaces, and have
//! to: those that change a whole cluster for others (`[Serial]`, `[Disruptive]`) are the only ones left out.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::path::Path;

use weft_tests::node::cluster::{self, Cluster};
use weft_tests::node::conformance::{self, Choice};
use weft_tests::node::{dns, peers};
use weft_tests::{skip, tool};

const NETWORK: Choice<'_> = Choice { focus: r"\[sig-network\].*\[Conformance\]", skip: r"\[Serial\]|\[Disruptive\]" };

fn obstacle() -> Option<String> {
    cluster::obstacle().or_else(|| peers::check(&[dns::PROGRAM]).err()).or_else(conformance::obstacle)
}

/// Brings up two nodes, and has upstream test them while Services are served in this mode.
fn passes(mode: &str) {
    let cluster = Cluster::start(2).unwrap();
    cluster.install_weft_in("manifests", mode).unwrap();
    cluster.await_ready().unwrap();
    cluster.await_rollout(cluster.nodes().len()).unwrap();
    dns::install(&cluster, &peers::need(dns::PROGRAM).unwrap()).unwrap();
    conformance::install_images(&cluster).unwrap();

    let report = conformance::run(&cluster, NETWORK).unwrap();
    let counts = (report.passed.len(), report.failed.len(), report.skipped.len());
    let seconds = report.took.as_secs();
    eprintln!("{mode}: {} passed, {} failed, {} skipped, in {seconds} s", counts.0, counts.1, counts.2);
    assert!(report.failed.is_empty(), "failed in {mode} mode:\n{}", report.failed.join("\n"));
    // Conformance tests skip themselves nowhere, and a run of none is no success.
    assert!(report.skipped.is_empty(), "skipped in {mode} mode:\n{}", report.skipped.join("\n"));
    assert!(!report.passed.is_empty(), "no test has run");
}

#[test]
fn upstream_conformance_with_services_by_nftables() {
    if let Some(reason) = obstacle() {
        skip!("{reason}");
    }
    passes("nftables");
}

#[test]
fn upstream_conformance_with_services_by_ipvs() {
    if let Some(reason) = obstacle() {
        skip!("{reason}");
    }
    // Where it is a module that nobody has needed yet.
    let _ = tool::call("modprobe", &["--quiet", "ip_vs"]);
    if !Path::new("/proc/net/ip_vs").exists() {
        skip!("needs a kernel with ip_vs");
    }
    passes("ipvs");
}
