//! `weft preflight` on this machine, with a /proc/swaps, a port and a socket of the test's own: it changes nothing, tells all faults
//! at once, and no longer once their cause is gone.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[macro_use]
mod own_root;

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use own_root::{NO_SWAP, OwnRoot};
use serde_json::Value;
use weft_tests::netns::OwnedNetns;
use weft_tests::scratch::unique_name;
use weft_tests::tool::{self, Stdin};

/// What a message may take.
const LIMIT: Duration = Duration::from_secs(10);

struct Answer {
    exit: Option<i32>,
    document: Value,
}

impl Answer {
    /// Calls it on a machine whose /proc/swaps holds that text.
    fn of(root: &OwnRoot, swaps: &str, args: &[&str]) -> Self {
        fs::write(root.at("proc/swaps"), swaps).unwrap();
        let output = root.weft(&[&["preflight", "-o", "json"], args].concat());
        assert!(output.took < LIMIT, "{:?}", output.took);
        let document = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Self { exit: output.exit, document }
    }

    fn finding(&self, name: &str) -> Option<&Value> {
        self.document["findings"].as_array().unwrap().iter().find(|finding| finding["name"] == name)
    }

    fn text(&self, name: &str, field: &str) -> String {
        self.finding(name).unwrap_or_else(|| panic!("{name}: {}", self.document))[field].as_str().unwrap().to_owned()
    }
}

fn with_swap() -> String {
    format!("{NO_SWAP}/dev/swap-of-a-test partition 1048576 0 -2\n")
}

#[test]
fn p01_p02_swap_port_and_socket_are_told_together_and_not_once_they_are_gone() {
    // The port is to be taken, so the network is the test's.
    let root = own_root!(false);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (port_text, port_name) = (port.to_string(), format!("Port-{port}"));
    let base = ["--no-prepare", "--apiserver-bind-port", &port_text, "--cri-socket", "unix:///run/absent.sock"];

    let bad = Answer::of(&root, &with_swap(), &base);
    assert_eq!(bad.exit, Some(1));
    for (name, cause) in [("Swap", "/dev/swap-of-a-test"), ("CRI", "absent.sock")] {
        assert_eq!(bad.text(name, "severity"), "error");
        assert!(bad.text(name, "cause").contains(cause) && !bad.text(name, "fix").is_empty(), "{}", bad.document);
    }
    let cause = bad.text(&port_name, "cause");
    assert!(cause.contains(&format!("process {}", std::process::id())), "{cause}");
    assert!(root.files("var/lib").len() == 1, "nothing is written: {:?}", root.files("var/lib").keys());

    let ignored = format!("swap,CRI,{}", port_name.to_uppercase());
    let ignoring = [&base[..], &["--ignore-preflight-errors", &ignored]].concat();
    let borne = Answer::of(&root, &with_swap(), &ignoring);
    for name in ["Swap", "CRI", &port_name] {
        assert_eq!(borne.text(name, "severity"), "warning");
    }
    assert_eq!(borne.document["kubelet"]["tolerateSwap"], true, "what is ignored works");

    drop(listener);
    let good = Answer::of(&root, NO_SWAP, &base);
    assert!(good.finding(&port_name).is_none() && good.finding("Swap").is_none_or(|swap| swap["severity"] != "error"));
}

#[test]
fn p0_18_the_balancers_port_is_told_like_the_others_and_only_who_is_in_its_way() {
    let root = own_root!(false);
    let machine = OwnedNetns::new(unique_name());
    machine.tool("ip", &["address", "add", "192.0.2.10/32", "dev", "lo"]).unwrap();
    let listen = |address: &str| machine.run(|| TcpListener::bind(address)).unwrap().unwrap();
    let asked = |role: &str| machine.run(|| Answer::of(&root, NO_SWAP, &[role])).unwrap();
    let _elsewhere = listen("192.0.2.10:7443");
    for address in ["127.0.0.1:7443", "[::1]:7443"] {
        let listener = listen(address);
        for role in ["init", "join"] {
            let bad = asked(role);
            assert_eq!((bad.exit, bad.text("Port-7443", "severity").as_str()), (Some(1), "error"));
            let cause = bad.text("Port-7443", "cause");
            assert!(
                cause.contains(&format!("(process {}); weft-api-balancer needs it", std::process::id())),
                "{cause}"
            );
            assert!(bad.text("Port-7443", "fix").contains("apiBalancerPort"), "{}", bad.document);
        }
        drop(listener);
        assert!(asked("init").finding("Port-7443").is_none(), "{address}");
    }
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
        let output =
            tool::run_with(tool::command(env!("CARGO_BIN_EXE_weft")).arg("preflight").args(args), Stdin::Bytes(b""));
        let output = output.unwrap();
        assert!(output.exit != Some(0) && output.stdout.is_empty(), "{args:?}: {}", output.stderr);
    }
}
