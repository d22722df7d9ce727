//! `weft pause` as the first process of a namespace of processes, as a runtime starts it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "a panic is how a test fails")]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(20);

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The children of a process.
fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// A sandbox: `weft pause`, the first process of its namespace, which ends with this value.
struct Sandbox {
    unshare: Child,
    pause: i32,
}

impl Sandbox {
    /// Runs `script` in the namespace, which then becomes `weft pause`.
    fn start(script: &str) -> Self {
        let unshare = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "sh", "-c", &format!("{script} exec \"$0\" pause")])
            .arg(env!("CARGO_BIN_EXE_weft"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let parent = i32::try_from(unshare.id()).unwrap();
        let mut pause = 0;
        until("weft pause starts", || {
            let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            pause = children(parent).first().copied().unwrap_or_default();
            name(pause).trim() == "weft"
        });
        Self { unshare, pause }
    }

    /// Sends a signal as the runtime does, from outside, and returns the exit code.
    fn end(mut self, signal: Signal) -> Option<i32> {
        // Again and again: the kernel drops what comes before it has blocked signals.
        until("weft pause ends", || {
            let _ = kill(Pid::from_raw(self.pause), signal);
            self.unshare.try_wait().unwrap().is_some()
        });
        self.unshare.wait().unwrap().code()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

#[test]
fn each_of_the_two_signals_ends_it() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        assert_eq!(Sandbox::start("").end(signal), Some(0), "{signal}");
    }
}

#[test]
fn orphans_are_reaped() {
    // A subshell that ends before its child: the child becomes the first process's, which waits for it.
    let script = "for i in 1 2 3; do (sleep 0.2 & sleep 0.3 &) ; done; (sleep 1000 &);";
    let sandbox = Sandbox::start(script);
    until("all orphans but one are gone", || children(sandbox.pause).len() == 1);
    assert_eq!(sandbox.end(Signal::SIGTERM), Some(0));
}
