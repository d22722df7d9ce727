//! Two nodes that publish one public address: as after a clone of a machine, or with the NAT address that Vagrant gives all.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use weft_tests::lab::{OwnedLab, Spec};
use weft_tests::wait;

/// How long it may take.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn d22_two_nodes_with_one_public_address_name_each_other() {
    let mut lab = OwnedLab::bare(Spec { pods: 0, ..Spec::test(2) });
    let names = [lab.new_node().unwrap(), lab.new_node().unwrap()];
    let address = lab.node(&names[0]).unwrap().v4().to_string();
    lab.set_agent_args(&names[1], &["--public-ip", &address]).unwrap();
    for name in &names {
        lab.start_agent(name).unwrap();
    }
    for (name, other) in [(&names[0], &names[1]), (&names[1], &names[0])] {
        let told = format!("node {other} with lease ");
        let says = || {
            let log = lab.log(name).unwrap();
            let lines = || log.lines().filter(|line| line.contains("WARN") && line.contains(&told));
            if lines().any(|line| line.contains(&format!("publishes {address},"))) { Ok(()) } else { Err(log.clone()) }
        };
        wait::until_ok(SOON, &format!("{name} to name {other}"), says).unwrap();
        let counts = || lab.metrics(name).is_ok_and(|answer| answer.body.contains("weft_public_ip_conflicts 1"));
        wait::until(SOON, "the metric", counts).unwrap();
    }

    // With an address of its own the other is reached, and nothing is left of the conflict.
    lab.set_agent_args(&names[1], &[]).unwrap();
    assert!(lab.stop_agent(&names[1]).unwrap());
    lab.start_agent(&names[1]).unwrap();
    for name in &names {
        let over = || lab.metrics(name).is_ok_and(|answer| answer.body.contains("weft_public_ip_conflicts 0"));
        wait::until(SOON, &format!("{name} to reach the other"), over).unwrap();
        lab.await_ready(name).unwrap();
    }
    let log = lab.log(&names[0]).unwrap();
    assert!(log.contains(&format!("no longer publishes {address}")), "{log}");
}
