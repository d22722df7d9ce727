//! `weft init`, `weft reset` and `weft preflight` on a machine whose /etc and /var/lib are the test's: the phases that only
//! write files, killed between any two steps and run again, and what is refused before anything is written.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[macro_use]
mod own_root;

#[path = "bootstrap_files/balancer.rs"]
mod balancer;
#[path = "bootstrap_files/certificates.rs"]
mod certificates;
#[path = "bootstrap_files/dry_run.rs"]
mod dry_run;
#[path = "bootstrap_files/killed.rs"]
mod killed;
#[path = "bootstrap_files/refused.rs"]
mod refused;

use own_root::OwnRoot;
use weft_tests::tool::Output;

/// All phases of init but those that write nothing but files below /etc/kubernetes.
const OTHERS: &str = "preflight,kubelet-start,wait-control-plane,upload-config,upload-certs,mark-control-plane,\
    bootstrap-token,kubelet-finalize,addon,await-ready,show-join-command";

/// The node, whatever machine this is.
const NODE: [&str; 4] = ["--node-name", "n1", "--apiserver-advertise-address", "192.0.2.10"];

/// Runs init with further arguments.
fn init(root: &OwnRoot, words: &[&str]) -> Output {
    root.weft(&[&["init"][..], words, &NODE].concat())
}

/// The phases that write files.
fn write_files(root: &OwnRoot) -> Output {
    init(root, &["--skip-phases", OTHERS])
}

/// One phase with all of its parts.
fn phase(root: &OwnRoot, name: &str) -> Output {
    init(root, &["phase", name, "all"])
}

fn well(output: Output) -> Output {
    assert_eq!(output.exit, Some(0), "{}{}", output.stdout, output.stderr);
    output
}

/// What a run that fails has said; it has ended with this code.
fn failed(output: Output, exit: i32) -> String {
    assert_eq!(output.exit, Some(exit), "{}{}", output.stdout, output.stderr);
    output.stderr
}
