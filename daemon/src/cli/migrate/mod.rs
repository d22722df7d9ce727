//! `weft migrate`: the way from flannel and kube-proxy to weft, node by node, and back.

mod back;
mod cluster;
mod node;
mod unfinish;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::migrate::obstacles::Obstacle;

/// Move a cluster from flannel and kube-proxy to weft, node by node, with its pods running; and back.
///
/// manifests/MIGRATION.md has the whole way. Every command looks at what there is and finishes what an earlier run has left,
/// and says in a line a step what it did. Exit codes: 0 all is done (plan: nothing is in the way), 1 something is left that
/// its line names, 2 wrong arguments, 75 it is too early (try again later).
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft migrate plan\n  weft migrate node --wait 10m\n  weft migrate finish --dry-run\n  weft migrate back"
)]
pub(super) struct MigrateArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Plan(cluster::PlanArgs),
    Node(node::ChangeArgs),
    Back(back::BackArgs),
    Finish(cluster::FinishArgs),
    Unfinish(unfinish::UnfinishArgs),
}

pub(super) fn run(args: &MigrateArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Plan(args) => cluster::run_plan(args),
        Command::Node(args) => node::run(args),
        Command::Back(args) => back::run(args),
        Command::Finish(args) => cluster::run_finish(args),
        Command::Unfinish(args) => unfinish::run(args),
    }
}

/// Says what is in the way.
fn tell(obstacles: &[Obstacle]) {
    for Obstacle { what, mend } in obstacles {
        eprintln!("weft migrate: {what}; to mend it: {mend}");
    }
}
