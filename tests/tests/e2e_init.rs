//! `weft init`, `weft join` and `weft reset` on machines that reach no image registry: two commands, and a cluster is there;
//! two more, and the machines are what they were.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use weft_tests::lab::underlay::Families;
use weft_tests::node::bare::{LENIENT, PROGRAMS, ROOMY, RUNTIME, join_line};
use weft_tests::node::machines::Machines;
use weft_tests::node::{peers, served};
use weft_tests::skip;

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

    served::check(&[first, second], &["10.244."]).unwrap();
    second.reset_to(&before[1]).unwrap();
    first.reset_to(&before[0]).unwrap();
}
