//! What ends before anything is written: wrong phases, wrong users, and a reset that nobody has confirmed.

use std::fs;
use std::net::TcpListener;

use weft_tests::skip;
use weft_tests::tool::{self, Stdin};

use super::{failed, init, well, write_files};

#[test]
fn i04_a_phase_that_is_none_and_one_that_lacks_another_end_the_run_before_it_begins() {
    let root = own_root!(true);
    let said = failed(init(&root, &["--skip-phases", "nope"]), 3);
    assert!(said.contains("invalid phase name: nope"), "{said}");
    let said = failed(init(&root, &["phase", "nope"]), 3);
    assert!(said.contains("invalid phase name: nope"), "{said}");
    let said = failed(init(&root, &["--skip-phases", "bootstrap-token"]), 3);
    assert!(said.contains("unresolved dependencies") && said.contains("show-join-command"), "{said}");
    assert!(root.files("etc/kubernetes").is_empty() && !root.at("var/lib/weft/journal.jsonl").exists());
}

#[test]
fn p08_who_is_not_root_learns_only_that() {
    let root = own_root!(true);
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_weft")];
    let mut command = root.command(&[&nobody[..], &["preflight", "-o", "json"]].concat());
    let output = tool::run_with(&mut command, Stdin::Bytes(b"")).unwrap();
    if output.exit == Some(126) || output.exit == Some(127) {
        skip!("needs a path to weft that anybody may go: {}", output.stderr.trim());
    }
    let document: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    let names: Vec<&str> =
        document["findings"].as_array().unwrap().iter().map(|finding| finding["name"].as_str().unwrap()).collect();
    assert_eq!((output.exit, names), (Some(1), vec!["IsPrivilegedUser"]), "{}", output.stdout);
}

#[test]
fn p0_18_the_balancers_port_is_the_configurations_and_nobodys_where_there_is_no_balancer() {
    // The port is to be taken, so the network is the test's.
    let root = own_root!(false);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = |given: &str| {
        let text = format!("apiVersion: weft.dev/v1\nkind: WeftConfiguration\napiBalancerPort: {port}\n{given}");
        fs::write(root.at("etc/weft.yaml"), text).unwrap();
        // There is no runtime either.
        let said = failed(init(&root, &["phase", "preflight", "--config", "/etc/weft.yaml"]), 2);
        assert!(said.contains("[ERROR CRI]"), "{said}");
        said.split("\t[").find(|finding| finding.starts_with(&format!("ERROR Port-{port}]"))).map(str::to_owned)
    };
    let told_of = told("").unwrap();
    for words in [&format!("(process {})", std::process::id()), "weft-api-balancer needs it", "apiBalancerPort"] {
        assert!(told_of.contains(words), "{told_of}");
    }
    assert_eq!(told("apiBalancer: false\n"), None);
    drop(listener);
    assert_eq!(told(""), None);
    assert_eq!(fs::read(root.at("var/lib/weft/journal.jsonl")).unwrap_or_default(), b"", "nothing is to be taken back");
}

#[test]
fn r01_where_nothing_was_there_a_reset_changes_nothing() {
    let root = own_root!(true);
    let before = (root.files("etc"), root.files("var/lib"));
    well(root.weft(&["reset", "--force"]));
    let after = (root.files("etc"), root.files("var/lib"));
    assert!(after == before, "{:?} {:?}", after.0.keys(), after.1.keys());
}

#[test]
fn r03_without_a_yes_nothing_is_removed() {
    let root = own_root!(true);
    well(write_files(&root));
    let before = root.files("etc/kubernetes");
    for answer in [&b"n\n"[..], b"", b"\n", b"yesno\n"] {
        let mut command = root.command(&[env!("CARGO_BIN_EXE_weft"), "reset"]);
        let output = tool::run_with(&mut command, Stdin::Bytes(answer)).unwrap();
        assert!(output.exit.is_some_and(|exit| exit != 0), "{answer:?}: {}", output.stdout);
        assert!(root.files("etc/kubernetes") == before, "{answer:?}");
    }
}

#[test]
fn r06_a_dry_run_tells_what_would_go_and_a_reset_takes_it_away() {
    let root = own_root!(true);
    well(write_files(&root));
    let before = root.files("etc");
    let told = well(root.weft(&["reset", "--dry-run"]));
    assert!(told.stdout.contains("/etc/kubernetes/admin.conf"), "{}", told.stdout);
    assert!(root.files("etc") == before);
    root.weft(&["reset", "--force"]);
    let left = root.files("etc/kubernetes");
    let files: Vec<_> = left.iter().filter(|(_, (_, bytes))| !bytes.is_empty()).map(|(name, _)| name).collect();
    assert!(files.is_empty(), "{files:?}");
}
