//! Runs that are killed where they change something, and what the next one makes of it.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use weft_tests::cni::injury::{Point, can_injure, parse};
use weft_tests::skip;
use weft_tests::tool::{self, Output, Stdin};

use super::{NODE, OTHERS, OwnRoot, well, write_files};
use crate::own_root::Files;

/// Calls that make a change or make sure of it: a file takes its place, a line of the journal is on the disk.
const CHANGES: &str = "trace=?mkdir,mkdirat,?rename,?renameat,renameat2,fdatasync";

/// Threads that kill: each point is two or three short runs, and the runs of others go on meanwhile.
const AT_ONCE: usize = 3;

fn traced(root: &OwnRoot, words: &[&str]) -> Output {
    let weft = [env!("CARGO_BIN_EXE_weft"), "init", "--skip-phases", OTHERS];
    let strace = ["strace", "-f", "-q"];
    let mut command = root.command(&[&strace[..], words, &weft, &NODE].concat());
    tool::run_with(command.env("HTTPS_PROXY", "http://proxy.example:3128"), Stdin::Bytes(b"")).unwrap()
}

/// All that the phases leave, but the log.
pub(super) fn state(root: &OwnRoot) -> Files {
    let mut files = root.files("etc/kubernetes");
    files.extend(root.files("var/lib"));
    files
}

/// The same whoever makes it: certificates and the journal's times aside.
pub(super) fn outline(state: &Files) -> BTreeMap<String, (u32, Option<Vec<u8>>)> {
    let is_same = |name: &str| name.ends_with(".yaml");
    state.iter().map(|(name, (mode, bytes))| (name.clone(), (*mode, is_same(name).then(|| bytes.clone())))).collect()
}

/// Whether the journal has a phase that was begun and not ended.
fn is_in_a_phase(state: &Files) -> bool {
    let Some((_, journal)) = state.get("var/lib/weft/journal.jsonl") else { return false };
    let lines = String::from_utf8_lossy(journal);
    let events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let (begun, done): (Vec<_>, Vec<_>) = events.partition(|event| event["event"] == "begin");
    begun.len() > done.len()
}

#[test]
fn i07_a_run_that_was_killed_anywhere_says_where_it_goes_on_and_ends_as_an_undisturbed_one() {
    if !can_injure() {
        skip!("needs strace, and leave to trace");
    }
    let root = own_root!(true);
    let shown = root.at("strace").display().to_string();
    well(traced(&root, &["-o", &shown, "-e", CHANGES]));
    let undisturbed = state(&root);
    assert!(undisturbed.len() > 35, "{:?}", undisturbed.keys());
    let outline = outline(&undisturbed);
    let points = parse(&fs::read_to_string(root.at("strace")).unwrap());
    assert!(points.len() > 60, "{points:?}");
    assert!(points.iter().any(|point| point.name == "fdatasync"), "{points:?}");

    // I15: a proxy of the caller's is the caller's.
    let manifests = undisturbed.iter().filter(|(name, _)| name.starts_with("etc/kubernetes/manifests/"));
    assert_eq!(manifests.clone().count(), 6, "four of Kubernetes' and two of weft's");
    for (name, (_, bytes)) in manifests {
        assert!(!String::from_utf8_lossy(bytes).contains("proxy.example"), "{name}");
    }

    let next = std::sync::Mutex::new(points.iter());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(point) = next.lock().unwrap().next() else { break };
                    kill_at(point, &outline);
                }
            });
        }
    });
}

#[test]
fn a_full_disk_is_named_with_the_file_and_the_next_run_succeeds() {
    if !can_injure() {
        skip!("needs strace, and leave to trace");
    }
    let root = own_root!(true);
    let shown = root.at("strace").display().to_string();
    // Where room is needed: a directory, a file's bytes, a line of the journal.
    let needs_room = "trace=?mkdir,mkdirat,fsync,fdatasync";
    well(traced(&root, &["-o", &shown, "-e", needs_room]));
    let outline = outline(&state(&root));
    let points = parse(&fs::read_to_string(root.at("strace")).unwrap());
    // One in five, of all kinds.
    for point in points.iter().step_by(5) {
        let story = format!("no room at {} {}", point.name, point.nth);
        let root = own_root!(true);
        let full = traced(&root, &["-o", "/dev/null", "-e", &point.fail("ENOSPC")]);
        if full.exit == Some(0) {
            // The log of the run: what cannot be said is no reason to stop.
            assert!(point.name.starts_with("mkdir"), "{story}");
        } else {
            let names_file = full.stderr.contains(" /etc/") || full.stderr.contains(" /var/lib/");
            assert!(full.stderr.contains("No space left on device") && names_file, "{story}: {}", full.stderr);
        }
        well(write_files(&root));
        assert_eq!(self::outline(&state(&root)), outline, "{story}");
    }
}

fn kill_at(point: &Point, wanted: &BTreeMap<String, (u32, Option<Vec<u8>>)>) {
    let story = format!("killed at {} {}", point.name, point.nth);
    let root = OwnRoot::new(true).unwrap();
    let killed = traced(&root, &["-o", "/dev/null", "-e", &point.kill()]);
    assert_ne!(killed.exit, Some(0), "{story}: {}", killed.stdout);
    let left = state(&root);
    let again = well(write_files(&root));
    let says = again.stdout.contains("an earlier run was ended in phase");
    assert_eq!(says, is_in_a_phase(&left), "{story}: {}", again.stdout);
    let after = state(&root);
    assert_eq!(outline(&after), *wanted, "{story}");
    // What was done before stays as it was.
    for (name, file) in left.iter().filter(|(name, _)| name.ends_with(".crt") || name.ends_with(".conf")) {
        assert_eq!(after.get(name), Some(file), "{story}: {name}");
    }
    let third = well(write_files(&root));
    assert!(third.stdout.contains("done already by an earlier run"), "{story}: {}", third.stdout);
    assert!(state(&root) == after, "{story}: the third run has changed something: {}", third.stdout);
}
