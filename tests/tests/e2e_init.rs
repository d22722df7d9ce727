//! `weft init`, `weft join` and `weft reset` on machines that reach no image registry: two commands, and a cluster is there;
//! two more, and the machines are what they were.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs;
use std::time::Duration;

use anyhow::ensure;
use weft_tests::lab::underlay::Families;
use weft_tests::node::bare::{Bare, LENIENT, PROGRAMS, ROOMY, RUNTIME, join_line};
use weft_tests::node::machines::Machines;
use weft_tests::node::{peers, served};
use weft_tests::{skip, wait};

/// How long kubelet may take to take a static pod away on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The second node gives up its balancer of the API, and gets it back; kubelet goes on meanwhile.
fn without_its_balancer(first: &Bare, second: &Bare, line: &str) {
    let file = second.machine.path("without.yaml");
    let text = "apiVersion: weft.dev/v1\nkind: WeftConfiguration\napiBalancer: false\n";
    fs::write(&file, text).unwrap();
    let config = format!("--config={}", file.display());
    let kubelet = || fs::read_to_string(second.machine.inside("/etc/kubernetes/kubelet.conf").unwrap()).unwrap();
    assert!(kubelet().contains("server: https://127.0.0.1:7443"), "{}", kubelet());
    let join = second.follow(line, &[LENIENT, &config]).unwrap();
    assert_eq!(join.exit, Some(0), "{}", join.stderr);
    assert!(kubelet().contains(&format!("server: https://{}:6443", first.machine.ip())), "{}", kubelet());
    wait::until_ok(LIMIT, "the balancer to be gone", || {
        let pods = first.kubectl(&["get", "pods", "--namespace=kube-system", "--output=name"])?;
        ensure!(!pods.contains("weft-api-balancer-n2") && pods.contains("weft-api-balancer-n1"), "{pods}");
        Ok(())
    })
    .unwrap();
    let join = second.follow(line, &[LENIENT]).unwrap();
    assert_eq!(join.exit, Some(0), "{}", join.stderr);
    assert!(kubelet().contains("server: https://127.0.0.1:7443"), "{}", kubelet());
    served::helpers(&[first, second], &[first]).unwrap();
}

#[test]
fn two_commands_make_a_cluster_and_two_take_it_back() {
    if let Err(reason) = peers::check(&PROGRAMS).and_then(|()| peers::check(&RUNTIME)) {
        skip!("{reason}");
    }
    let machines = Machines::boot(2, Families::Both, ROOMY).unwrap();
    let (first, second) = machines.pair();
    let before = [first.snapshot().unwrap(), second.snapshot().unwrap()];

    let init = first.init(&[]).unwrap();
    assert_eq!(init.exit, Some(0), "{}", init.stderr);
    assert!(init.stdout.contains("node n1 is Ready\n[init] CoreDNS serves"), "{}", init.stdout);
    first.init_again(&[]).unwrap();

    let line = join_line(&init.stdout).unwrap();
    let join = second.follow(&line, &[LENIENT]).unwrap();
    assert_eq!(join.exit, Some(0), "{}", join.stderr);
    assert!(join.stdout.contains("node n2 is Ready"), "{}", join.stdout);
    served::helpers(&[first, second], &[first]).unwrap();
    without_its_balancer(first, second, &line);

    served::check(&[first, second], &["10.244."]).unwrap();
    second.reset_to(&before[1]).unwrap();
    first.reset_to(&before[0]).unwrap();
}
