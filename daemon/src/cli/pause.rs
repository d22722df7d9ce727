//! `weft pause`: the process that holds a pod's namespaces, so that weft's image serves as a runtime's pause image too.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Wait for SIGTERM or SIGINT, and bury processes that nobody else waits for.
///
/// A container runtime starts it as the first process of a pod's sandbox; weft's image does so without arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example, for containerd's config.toml:\n  sandbox_image = \"localhost/weft:0.1.0\"")]
pub(super) struct PauseArgs {}

pub(super) fn run() -> anyhow::Result<ExitCode> {
    // Blocked and waited for, not caught: the kernel drops signals that the first process of a namespace does neither
    // block nor catch, and nothing is lost that comes before the wait.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block().context("cannot block signals")?;
    loop {
        // First, too: what ended before the signals were blocked sends none any more.
        reap()?;
        match signals.wait() {
            Ok(Signal::SIGCHLD) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(ExitCode::SUCCESS),
            Err(error) => bail!("cannot wait for signals: {error}"),
        }
    }
}

/// Reaps every process that has ended: one SIGCHLD may stand for several.
fn reap() -> anyhow::Result<()> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => bail!("cannot reap: {error}"),
        }
    }
}
