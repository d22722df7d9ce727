//! `weft preflight` on this machine, with a /proc/swaps, a port and a socket of the test's own: it changes nothing, tells all faults
//! at once, and no longer once their cause is gone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "a panic is how a test fails")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a message may take.
const LIMIT: Duration = Duration::from_secs(10);

struct Answer {
    exit: i32,
    document: Value,
}

impl Answer {
    /// Calls it where /proc/swaps holds that text.
    fn of(folder: &Path, swaps: &str, args: &[&str]) -> Self {
        let file = folder.join("swaps");
        fs::write(&file, swaps).unwrap();
        let start = Instant::now();
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", "mount --bind \"$0\" /proc/swaps && exec \"$@\""])
            .arg(&file)
            .args([env!("CARGO_BIN_EXE_weft"), "preflight", "-o", "json"])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
        let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Self { exit: output.status.code().unwrap(), document }
    }

    fn finding(&self, name: &str) -> Option<&Value> {
        self.document["findings"].as_array().unwrap().iter().find(|finding| finding["name"] == name)
    }

    fn text(&self, name: &str, field: &str) -> String {
        self.finding(name).unwrap_or_else(|| panic!("{name}: {}", self.document))[field].as_str().unwrap().to_owned()
    }
}

const NONE: &str = "Filename Type Size Used Priority\n";

fn with_swap() -> String {
    format!("{NONE}/dev/swap-of-a-test partition 1048576 0 -2\n")
}

#[test]
fn p01_p02_swap_port_and_socket_are_told_together_and_not_once_they_are_gone() {
    if !nix::unistd::geteuid().is_root() {
        return weft_tests::skip::record("needs root");
    }
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (port_text, port_name) = (port.to_string(), format!("Port-{port}"));
    let socket = format!("unix://{}", folder.path().join("absent.sock").display());
    let base = ["--no-prepare", "--apiserver-bind-port", &port_text, "--cri-socket", &socket];

    let bad = Answer::of(folder.path(), &with_swap(), &base);
    assert_eq!(bad.exit, 1);
    for (name, cause) in [("Swap", "/dev/swap-of-a-test"), ("CRI", "absent.sock")] {
        assert_eq!(bad.text(name, "severity"), "error");
        assert!(bad.text(name, "cause").contains(cause) && !bad.text(name, "fix").is_empty(), "{}", bad.document);
    }
    let cause = bad.text(&port_name, "cause");
    assert!(cause.contains(&format!("process {}", std::process::id())), "{cause}");
    assert!(!Path::new("/var/lib/weft/journal.jsonl").exists(), "nothing is written");

    let ignored = format!("swap,CRI,{}", port_name.to_uppercase());
    let ignoring = [&base[..], &["--ignore-preflight-errors", &ignored]].concat();
    let borne = Answer::of(folder.path(), &with_swap(), &ignoring);
    for name in ["Swap", "CRI", &port_name] {
        assert_eq!(borne.text(name, "severity"), "warning");
    }
    assert_eq!(borne.document["kubelet"]["tolerateSwap"], true, "what is ignored works");

    drop(listener);
    let good = Answer::of(folder.path(), NONE, &base);
    assert!(good.finding(&port_name).is_none() && good.finding("Swap").is_none_or(|swap| swap["severity"] != "error"));
}

#[test]
fn c05_nonsense_is_refused_before_anything_is_looked_at() {
    for args in [
        &["--apiserver-bind-port", "foobar"][..],
        &["--apiserver-bind-port", "100000"],
        &["--apiserver-bind-port", "-6000"],
        &["--image-mirror", "ftp://x"],
        &["--ignore-preflight-errors", "all,Swap"],
        &["--pod-network-cidr", "10.244.0.0"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_weft")).arg("preflight").args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}: {text}");
    }
}
