//! `weft supervise`: keeps kubelet or containerd running where no service manager does.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::bootstrap::kubelet::supervise::{Supervised, run as supervise};
use crate::config::time;

/// Keep a program running in a session of its own: start it again when it ends, keep its log, end it on SIGTERM.
///
/// `weft init` and `weft join` start it on machines without systemd and OpenRC.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  weft supervise --state /run/weft/kubelet.pid --log /var/log/weft/kubelet.log -- kubelet"
)]
pub(super) struct SuperviseArgs {
    /// File that is locked while it runs, with the numbers of the processes
    #[arg(long, value_name = "FILE")]
    state: PathBuf,

    /// File that both outputs of the program are appended to
    #[arg(long, value_name = "FILE")]
    log: PathBuf,

    /// Bytes after which the log is put aside, in place of the one put aside before
    #[arg(long, value_name = "BYTES", default_value_t = 16 * 1024 * 1024)]
    log_limit: u64,

    /// How long the program may take to end before it is killed
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = time)]
    grace: Duration,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<String>,
}

pub(super) fn run(args: SuperviseArgs) -> anyhow::Result<ExitCode> {
    let SuperviseArgs { state, log, log_limit, grace, command } = args;
    supervise(&Supervised { state, log, log_limit, grace, command })?;
    Ok(ExitCode::SUCCESS)
}
