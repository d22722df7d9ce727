//! `weft doctor`: what is wrong with this node's data plane, and what mends it.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::print::{self, Output};
use crate::config::{AgentConfig, AgentFlags};
use crate::doctor::{Report, gather};

/// Find what is wrong with this node's data plane, and say for each fault the cause and the command that mends it.
///
/// Examines agent, kernel features, settings, the overlay's devices, the way to each peer (both directions of the overlay's UDP
/// port, and the largest packet that gets through), checksum offload, firewalls, what other agents have left, CNI files,
/// disks, store, token and clocks. Nothing is written to the kernel, and it runs as root with NET_ADMIN and NET_RAW on a read-only
/// file system: on the host, or in the agent's pod, which has the agent's settings. Elsewhere give it those that are not the
/// defaults; where its node or its source is not the agent's, what rests on settings is unknown.
///
/// Shown are problems, what is unknown because it could not be examined, and notes; -o wide shows what is good, too.
///
/// Exit codes: 0 nothing is wrong; 1 something is; 2 nothing is known to be, and something could not be examined.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  weft doctor\n  kubectl -n kube-system exec ds/weft -- /weft doctor -o wide\n  \
                  weft doctor -o json | jq '.checks[] | select(.outcome == \"problem\")'")]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    flags: AgentFlags,

    /// How many peers are asked at most
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    peers: usize,

    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &DoctorArgs) -> ExitCode {
    match examine(args) {
        Ok(report) => print::whole(args.output, &report, |wide| report.text(wide), report.exit_code()),
        Err(error) => print::failure("weft doctor", args.output, &error),
    }
}

fn examine(args: &DoctorArgs) -> anyhow::Result<Report> {
    let config = AgentConfig::load(&args.flags)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let report = runtime.block_on(gather::examine(&config, args.peers));
    // Without waiting for whoever still looks up a name.
    runtime.shutdown_background();
    Ok(report)
}
