//! `weft reset`: takes the machine out of its cluster.

use std::io;
use std::process::ExitCode;

use clap::{Args, Parser};

use super::bringup::{self, Ended, Speech, usage};
use super::cleanup;
use crate::bootstrap::config::{self, Facts, ResetFlags, WeftOptions};
use crate::bootstrap::host::reset::{confirm, unmount_flags};
use crate::bootstrap::phases::reset::Reset;
use crate::bootstrap::phases::{PhaseError, Teller};
use crate::bootstrap::resolved::Paths;
use crate::config::{AgentConfig, AgentFlags};

/// Take back what weft init or weft join has done on this machine.
///
/// Ends kubelet and its pods, takes the node's member out of etcd, removes what the journal says that weft has made, empties what
/// kubeadm empties, gives changed settings their old values, and cleans up the pod network as weft cleanup does. It never goes
/// across a mount or a symbolic link, and a file system below /var/lib/kubelet that is in use ends it before a file is touched.
/// What it leaves it lists.
///
/// Exit codes: 0 done; 1 something is left that should have gone, and its line says why.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  weft reset --dry-run\n  weft reset --force")]
pub(super) struct ResetArgs {
    #[command(flatten)]
    flags: ResetFlags,

    #[command(flatten)]
    speech: Speech,
}

/// The agent's settings as it finds them itself.
#[derive(Debug, Parser)]
struct AsTheAgent {
    #[command(flatten)]
    flags: AgentFlags,
}

pub(super) fn run(args: &ResetArgs) -> anyhow::Result<ExitCode> {
    bringup::run(&args.speech, "reset.log", |paths, tell| async move { reset(&args.flags, paths, &tell).await })
}

async fn reset(flags: &ResetFlags, mut paths: Paths, tell: &Teller) -> Result<(), Ended> {
    let failed = |error: PhaseError| ("reset".to_owned(), error);
    let facts = Facts::gather(&paths.root).map_err(|error| usage("reset", error))?;
    let config = config::reset(flags, &facts).map_err(|error| failed(PhaseError::Config(error)))?.reset;
    if let Some(directory) = &config.certificates_dir {
        paths.pki = paths.root.join(directory.trim_start_matches('/'));
    }
    let services = bringup::services(&paths, &WeftOptions::default()).map_err(|error| usage("reset", error))?;
    let unmount = unmount_flags(&config.unmount_flags).map_err(|error| usage("reset", error))?;
    let socket = config.cri_socket.clone().unwrap_or_default();
    let reset = Reset::new(&paths, services, socket, tell, |options| {
        options.unmount_flags = unmount;
        options.cleanup_tmp_dir = config.cleanup_tmp_dir == Some(true);
    });
    let reset = reset.map_err(failed)?;
    let plan = reset.plan().map_err(failed)?;
    if config.dry_run == Some(true) {
        tell.step("reset", format!("would do:\n{plan}"));
        return Ok(());
    }
    if config.force != Some(true) {
        tell.step("reset", format!("this will be done:\n{plan}"));
        confirm(&mut io::stdin().lock(), &mut io::stdout().lock()).map_err(|error| usage("reset", error))?;
    }
    let agent = AgentConfig::load(&AsTheAgent::parse_from(["weft"]).flags).map_err(|error| usage("reset", error))?;
    let are_ended = reset.end().await;
    // Pods need their network until they have ended, and directories are given back when nothing of it is in them any more.
    let is_clean = cleanup::node(&agent);
    let is_done = reset.give_back().map_err(failed)?;
    match are_ended && is_clean && is_done {
        true => {
            tell.step("reset", "done; logs, kernel modules and images stay");
            Ok(())
        }
        false => Err(failed(PhaseError::Left)),
    }
}
