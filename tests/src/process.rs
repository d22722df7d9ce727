//! Processes that outlive the call which started them: agents and etcd.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::netns::Netns;
use crate::wait;

/// A process by its number and start time, so that a reused number is never mistaken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot (proc(5), `/proc/PID/stat` field 22).
    pub started: u64,
}

impl ProcessId {
    /// The process that has this number now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        stat(pid).map(|(_, started)| Self { pid, started })
    }

    /// Whether it still runs. A zombie does not.
    #[must_use]
    pub fn alive(self) -> bool {
        // Ours to reap if it is our child; refused (ECHILD) if it is not.
        let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
        stat(self.pid).is_some_and(|(state, started)| started == self.started && state != 'Z')
    }

    /// Sends a signal, if it still runs.
    pub fn signal(self, signal: Signal) {
        if self.alive() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Kills it and waits until it is gone.
    pub fn kill(self) {
        self.signal(Signal::SIGKILL);
        // SIGKILL cannot be refused; the limit only bounds a process that is stuck in the kernel.
        let _ = wait::until(Duration::from_secs(10), "a killed process to end", || !self.alive());
    }

    /// Asks it to end, waits up to `limit`, then kills it. Says whether it ended by itself.
    pub fn end(self, limit: Duration) -> bool {
        self.signal(Signal::SIGTERM);
        let ended = wait::until(limit, "a process to end", || !self.alive()).is_ok();
        if !ended {
            self.kill();
        }
        ended
    }
}

/// Starts a program inside `netns`, in a process group of its own, with both outputs appended to `log`.
///
/// # Errors
/// When the log cannot be opened or the program cannot be started.
pub fn spawn(netns: &Netns, command: &mut Command, log: &Path) -> Result<ProcessId> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(log)
        .with_context(|| format!("cannot open {}", log.display()))?;
    // A Ctrl-C at the terminal is for the program in front, not for the lab.
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
    let program = command.get_program().to_string_lossy().into_owned();
    let child = netns.run(|| command.spawn())?.with_context(|| format!("cannot start {program}"))?;
    let pid = i32::try_from(child.id())?;
    ProcessId::of(pid).with_context(|| format!("{program} was gone at once"))
}

/// The state letter and the start time of `/proc/PID/stat`.
fn stat(pid: i32) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<(char, u64)> {
    // The program's name is in parentheses and may hold anything, also parentheses and blanks.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_a_name_with_parentheses() {
        let text = "77 (a) b (c) S 1 77 77 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        assert_eq!(parse_stat(text), Some(('S', 4711)));
    }

    #[test]
    fn a_reused_number_is_another_process() {
        let me = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.alive());
        assert!(!ProcessId { started: me.started + 1, ..me }.alive());
    }
}
