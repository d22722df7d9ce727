//! `weft init` and `weft join` that are killed in one phase after the other: each next run says where it goes on, and the last one
//! ends well. And what they leave: no secret where others read it, and files that only root reads.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use weft_tests::lab::underlay::Families;
use weft_tests::node::bare::{Bare, LENIENT, PROGRAMS, ROOMY, RUNTIME, join_line};
use weft_tests::node::machines::Machines;
use weft_tests::node::peers;
use weft_tests::{skip, wait};

/// How long a phase may take to come on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// Where init is killed: in which phase, and after which words of its log.
const INIT: [(&str, &str); 7] = [
    ("preflight", "reading images from"),
    ("certs/apiserver", "phase [certs/apiserver] begins"),
    ("kubelet-start", "Starting the kubelet"),
    ("wait-control-plane", "phase [wait-control-plane] begins"),
    ("bootstrap-token", "phase [bootstrap-token] begins"),
    ("addon/weft", "phase [addon/weft] begins"),
    ("await-ready", "phase [await-ready] begins"),
];

/// And join.
const JOIN: [(&str, &str); 3] = [
    ("preflight", "reading images from"),
    ("kubelet-start", "Starting the kubelet"),
    ("kubelet-wait-bootstrap", "phase [kubelet-wait-bootstrap] begins"),
];

const GOES_ON: &str = "going on from there";

/// Runs it again and again, and kills it each time. All but the first say where they go on.
fn kill_in(node: &Bare, verb: &str, args: &[&str], places: &[(&str, &str)]) {
    let log = node.machine.path(&format!("log/weft/{verb}.log"));
    for (number, (phase, words)) in places.iter().enumerate() {
        let before = fs::read(&log).unwrap_or_default().len();
        let name = format!("{verb}-{number}");
        let run = node.start(&name, args).unwrap();
        let said = || fs::read_to_string(node.machine.path(&format!("{name}.log"))).unwrap_or_default();
        let there = || {
            let text = fs::read(&log).unwrap_or_default();
            let new = String::from_utf8_lossy(text.get(before..).unwrap_or_default()).into_owned();
            let came = new.contains(words);
            anyhow::ensure!(came || run.alive(), "it has ended: {}", said());
            anyhow::ensure!(came, "{}", new.lines().next_back().unwrap_or_default());
            Ok(())
        };
        wait::until_ok(LIMIT, &format!("{verb} to come to {phase}"), there).unwrap();
        run.kill();
        eprintln!("{}: weft {verb} is killed in {phase}", node.machine.name());
        let goes_on = said().contains(GOES_ON);
        assert_eq!(goes_on, number > 0, "killed in {phase}: {}", said());
    }
}

fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path(), found),
            Ok(kind) if kind.is_file() => {
                found.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap_or_default()));
            }
            _ => {}
        }
    }
}

/// The beginnings of all private keys of a node, as they are written in files and in kubeconfigs.
fn keys(node: &Bare) -> BTreeSet<String> {
    let script = "cat $(find /etc/kubernetes/pki -name '*.key') < /dev/null; \
                  sed -n 's/.*client-key-data: *//p' /etc/kubernetes/*.conf";
    let text = node.machine.run("sh", &["-c", script]).unwrap();
    // The first line is the same for all keys of a kind.
    let lines = text.lines().filter(|line| line.len() >= 60 && !line.starts_with('-'));
    lines.map(|line| line.chars().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect()).collect()
}

/// Neither logs nor the journal nor a command line that goes on holds one.
fn no_secret_is_told(node: &Bare, secrets: &BTreeSet<String>) {
    let mut found = Vec::new();
    files(&node.machine.path("log"), &mut found);
    files(&node.machine.path("lib/weft"), &mut found);
    let lines = node.machine.run("sh", &["-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).unwrap();
    found.push(("a command line".to_owned(), lines.into_bytes()));
    assert!(found.iter().any(|(path, _)| path.ends_with(".log")), "nothing was logged");
    for (path, text) in &found {
        let text = String::from_utf8_lossy(text);
        for secret in secrets {
            assert!(!text.contains(secret.as_str()), "{path} has {secret}");
        }
    }
}

/// Keys and credentials are root's alone.
fn modes(node: &Bare) {
    let script = "find /etc/kubernetes/pki -type d -printf '%m %p\\n'; \
                  find /etc/kubernetes -name '*.key' -o -name '*.conf' | xargs stat -c '%a %n'; \
                  stat -c '%a %n' /var/log/weft /var/lib/weft /var/log/weft/*.log /var/lib/weft/journal.jsonl; \
                  find /var/lib/kubelet/pki -type f -printf '%m %p\\n'";
    let found = node.machine.run("sh", &["-c", script]).unwrap();
    for line in found.lines() {
        let mode = line.split(' ').next().unwrap();
        let public = line.ends_with(".crt");
        assert!(public || matches!(mode, "700" | "600"), "{line}");
    }
    assert!(found.contains("600 /etc/kubernetes/kubelet.conf") || found.contains("600 /etc/kubernetes/admin.conf"));
}

/// What follows a flag, wherever it is printed.
fn values<'a>(text: &'a str, flag: &str) -> BTreeSet<&'a str> {
    text.split(flag).skip(1).filter_map(|rest| rest.split_whitespace().next()).collect()
}

#[test]
fn i07_killed_in_any_phase_the_next_run_goes_on_and_no_secret_is_left_behind() {
    if let Err(reason) = peers::check(&PROGRAMS).and_then(|()| peers::check(&RUNTIME)) {
        skip!("{reason}");
    }
    let machines = Machines::boot(2, Families::Both, ROOMY).unwrap();
    let (first, second) = machines.pair();

    let endpoint = format!("--control-plane-endpoint={}:6443", first.machine.ip());
    let more = ["--upload-certs", &endpoint];
    let args = first.init_args();
    let args: Vec<&str> = args.iter().map(String::as_str).chain(more).collect();
    kill_in(first, "init", &args, &INIT);
    let init = first.init(&more).unwrap();
    assert_eq!(init.exit, Some(0), "{}", init.stderr);
    assert!(init.stdout.contains(GOES_ON) && init.stdout.contains("node n1 is Ready"), "{}", init.stdout);

    let line = join_line(&init.stdout).unwrap().replace("\\\n", " ");
    let words: Vec<&str> = line.split_whitespace().skip(1).chain([LENIENT]).collect();
    kill_in(second, "join", &words, &JOIN);
    let join = second.weft(&words).unwrap();
    assert_eq!(join.exit, Some(0), "{}", join.stderr);
    assert!(join.stdout.contains(GOES_ON) && join.stdout.contains("node n2 is Ready"), "{}", join.stdout);
    let ready = ["wait", "--for=condition=Ready", "node", "--all", "--timeout=50s"];
    assert_eq!(first.kubectl(&ready).unwrap().matches("condition met").count(), 2);

    let mut secrets = keys(first);
    assert!(secrets.len() > 8, "{} keys", secrets.len());
    let certificate_keys = values(&init.stdout, "--certificate-key ");
    assert_eq!(certificate_keys.len(), 1, "{}", init.stdout);
    let tokens = values(&init.stdout, "--token ");
    secrets.extend(certificate_keys.into_iter().chain(tokens).map(str::to_owned));
    for node in [first, second] {
        no_secret_is_told(node, &secrets);
        modes(node);
    }
}
