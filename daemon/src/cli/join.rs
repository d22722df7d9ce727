//! `weft join`: a further node of a cluster, kubeadm's way.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::bringup::{self, Ended, Speech, usage};
use crate::bootstrap::config::{self, Facts, JoinFlags};
use crate::bootstrap::phases::join::Join;
use crate::bootstrap::phases::{JOIN, PhaseError, Teller, select};
use crate::bootstrap::resolved::Paths;

/// Make this machine a further node of a cluster that weft init or kubeadm has made.
///
/// Run again, it goes on where it was ended, and mends what is not as it should be. weft reset takes everything back.
///
/// Exit codes: 0 done; 1 something failed; 2 the machine cannot become a node as it is; 3 a flag or the configuration is
/// wrong; 4 images could not be had; 5 kubelet or the control plane did not get well; 6 the cluster could not be found, or is
/// not the one that was meant.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  weft join 192.0.2.10:6443 --token abcdef.0123456789abcdef \\\n    \
                  --discovery-token-ca-cert-hash sha256:…\n  weft join phase kubelet-start --config join.yaml"
)]
pub(super) struct JoinArgs {
    #[command(subcommand)]
    part: Option<Part>,

    #[command(flatten)]
    whole: Flags,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Run one phase with all of its parts
    #[command(after_help = "Example:\n  weft join phase control-plane-prepare certs --config join.yaml")]
    Phase {
        /// The phase, with its part behind a slash: control-plane-prepare/certs
        #[arg(long = "name", required = true, value_name = "PHASE")]
        name: String,

        #[command(flatten)]
        flags: Box<Flags>,
    },
}

#[derive(Debug, Args)]
struct Flags {
    #[command(flatten)]
    join: JoinFlags,

    #[command(flatten)]
    speech: Speech,
}

pub(super) fn run(args: &JoinArgs) -> anyhow::Result<ExitCode> {
    let (flags, only) = match &args.part {
        Some(Part::Phase { name, flags }) => (flags.as_ref(), Some(name.as_str())),
        None => (&args.whole, None),
    };
    bringup::run(&flags.speech, "join.log", |paths, tell| async move { join(&flags.join, only, paths, &tell).await })
}

async fn join(flags: &JoinFlags, only: Option<&str>, mut paths: Paths, tell: &Teller) -> Result<(), Ended> {
    let facts = Facts::gather(&paths.root).map_err(|error| usage("join", error))?;
    let config = config::join(flags, &facts).map_err(|error| ("join".to_owned(), PhaseError::Config(error)))?;
    let is_dry = config.join.dry_run == Some(true);
    bringup::begin(tell, "join", is_dry, &config.notices);
    let phases = select(JOIN, &config.join.skip_phases, only).map_err(|error| usage("join", error))?;
    let services = bringup::services(&paths, &config.weft).map_err(|error| usage("join", error))?;
    let dry_run_on = if is_dry { Some(bringup::elsewhere(&mut paths, "join")?) } else { None };
    let join = Join::new(&config, dry_run_on.as_ref(), &paths, services, tell);
    join.map_err(|error| bringup::not_begun("join", error))?.run(&phases).await
}
