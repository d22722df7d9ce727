//! The balancer of the API, which a later run takes away, wherever it is killed, and brings back.

use std::collections::BTreeMap;
use std::fs;

use weft_tests::cni::injury::{Point, can_injure, parse};
use weft_tests::skip;
use weft_tests::tool::{self, Output, Stdin};

use super::killed::{outline, state};
use super::{NODE, OTHERS, OwnRoot, init, well, write_files};

/// Calls that make a change or make sure of it.
const CHANGES: &str = "trace=?unlink,unlinkat,?rmdir,?mkdir,mkdirat,?rename,?renameat,renameat2,fdatasync";

/// The configuration, on the machine, and what is in it.
const CONFIG: &str = "/etc/weft-init.yaml";
const WITHOUT: &str = "apiVersion: weft.dev/v1\nkind: WeftConfiguration\napiBalancer: false\n";

/// The phases of init that write files, without the balancer.
fn without(root: &OwnRoot) -> Output {
    fs::write(root.at(CONFIG), WITHOUT).unwrap();
    init(root, &["--config", CONFIG, "--skip-phases", OTHERS])
}

/// The phase of the balancer alone, without it, started by these words.
fn phase_without(root: &OwnRoot, by: &[&str]) -> Output {
    fs::write(root.at(CONFIG), WITHOUT).unwrap();
    let weft = [env!("CARGO_BIN_EXE_weft"), "init", "phase", "weft-helpers", "--config", CONFIG];
    let mut command = root.command(&[by, &weft, &NODE].concat());
    tool::run_with(&mut command, Stdin::Bytes(b"")).unwrap()
}

/// What is there of the balancer: its manifest, its folder, its name.
fn parts(root: &OwnRoot) -> [bool; 3] {
    let hosts = fs::read_to_string(root.at("etc/hosts")).unwrap_or_default();
    let is_there = |path: &str| root.at(path).exists();
    let manifest = "etc/kubernetes/manifests/weft-api-balancer.yaml";
    [is_there(manifest), is_there("var/lib/weft/balancer"), hosts.contains("api.weft.internal")]
}

#[test]
fn p0_18_a_balancer_goes_when_it_is_not_wanted_any_more_and_comes_back() {
    let root = own_root!(true);
    well(write_files(&root));
    let before = (outline(&state(&root)), fs::read_to_string(root.at("etc/hosts")).unwrap());
    let said = well(without(&root)).stdout;
    assert!(said.contains("Removing static Pod manifest for \"weft-api-balancer\""), "{said}");
    assert_eq!(parts(&root), [false; 3]);
    assert!(root.at("etc/kubernetes/manifests/weft-cert-renewal.yaml").exists());
    let gone = state(&root);
    let said = well(without(&root)).stdout;
    assert!(state(&root) == gone && !said.contains("weft-helpers"), "nothing to do any more: {said}");
    let said = well(write_files(&root)).stdout;
    assert!(said.contains("Creating static Pod manifest for \"weft-api-balancer\""), "{said}");
    let again = (outline(&state(&root)), fs::read_to_string(root.at("etc/hosts")).unwrap());
    assert!(again == before, "{:?}", again.0.keys());
}

#[test]
fn p0_18_a_run_that_was_killed_while_it_took_the_balancer_away_is_finished_by_the_next() {
    if !can_injure() {
        skip!("needs strace, and leave to trace");
    }
    let root = own_root!(true);
    well(init(&root, &["phase", "weft-helpers"]));
    assert_eq!(parts(&root), [true; 3]);
    let shown = root.at("strace").display().to_string();
    well(phase_without(&root, &["strace", "-f", "-q", "-o", &shown, "-e", CHANGES]));
    let wanted = outline(&state(&root));
    let points = parse(&fs::read_to_string(root.at("strace")).unwrap());
    for name in ["unlink", "rmdir", "fdatasync"] {
        assert!(points.iter().any(|point| point.name == name), "{name}: {points:?}");
    }
    let next = std::sync::Mutex::new(points.iter());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let Some(point) = next.lock().unwrap().next() else { break };
                    kill_at(point, &wanted);
                }
            });
        }
    });
}

fn kill_at(point: &Point, wanted: &BTreeMap<String, (u32, Option<Vec<u8>>)>) {
    let story = format!("killed at {} {}", point.name, point.nth);
    let root = OwnRoot::new(true).unwrap();
    well(init(&root, &["phase", "weft-helpers"]));
    let killed = phase_without(&root, &["strace", "-f", "-q", "-o", "/dev/null", "-e", &point.kill()]);
    assert_ne!(killed.exit, Some(0), "{story}: {}", killed.stdout);
    well(phase_without(&root, &[]));
    assert_eq!(parts(&root), [false; 3], "{story}");
    assert_eq!(outline(&state(&root)), *wanted, "{story}");
    let after = state(&root);
    well(phase_without(&root, &[]));
    assert!(state(&root) == after, "{story}: the third run has changed something");
}
