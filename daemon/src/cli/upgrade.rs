//! `weft upgrade`: another version of Kubernetes.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

use super::bringup::{self, Ended, Speech, usage};
use crate::bootstrap::config::Facts;
use crate::bootstrap::phases::upgrade::{self, APPLY, NODE, Upgrade, UpgradeConfig, UpgradeOptions};
use crate::bootstrap::phases::{Phase, PhaseError, Teller, select};
use crate::bootstrap::resolved::Paths;
use crate::bootstrap::version::Version;

/// Bring a cluster, weft's or kubeadm's, to another version of Kubernetes, one node after the other.
///
/// First `weft upgrade plan`, then `weft upgrade apply VERSION` on one control-plane node, then `weft upgrade node` on each other
/// node. Those of weft's own static pods that a node has become this weft's, too. kubelet itself is a program of the machine:
/// install its new version on each node afterwards. Nothing is looked up in the Internet: images come from where --images and
/// --kubernetes-bin say, else the container runtime pulls what is missing.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft upgrade plan\n  weft upgrade apply v1.36.2 --dry-run\n  weft upgrade apply v1.36.2\n  weft upgrade node"
)]
pub(super) struct UpgradeArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Plan(PlanArgs),
    Apply(Box<ApplyArgs>),
    Node(Box<NodeArgs>),
}

/// Show to which versions the cluster may go, what would change, and what has to be mended first.
///
/// Exit codes: 0 an upgrade can be begun, or there is none to make; 1 something speaks against it, as is said.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft upgrade plan\n  weft upgrade plan v1.36.2 -o json | jq '.availableUpgrades[0].components'"
)]
struct PlanArgs {
    /// A version in particular; all that may be gone to if not given
    #[arg(value_name = "VERSION")]
    target: Option<Version>,

    /// Kubeconfig of an administrator; /etc/kubernetes/admin.conf if not given
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// kubeadm's `UpgradePlan`, with more.
    Json,
}

/// Bring the cluster and the control plane of this node to a version.
///
/// Each static pod gets its new manifest only when the one before is well, etcd first. If one does not get well, all get their
/// old manifests back; these, and a snapshot of etcd, are in /etc/kubernetes/tmp/weft-backup-manifests-*. Run again, it goes on
/// where it was ended, and changes nothing if all is as it should be.
///
/// Exit codes: 0 done; 1 something failed; 2 the cluster is not well, or this is no node for it; 3 a flag is wrong, or the cluster
/// may not go to that version; 4 images could not be had; 5 the control plane did not get well, and is as it was.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft upgrade apply v1.36.2 --dry-run\n  weft upgrade apply v1.36.2 --kubernetes-bin /opt/kubernetes/bin -y"
)]
struct ApplyArgs {
    /// The version
    #[arg(value_name = "VERSION")]
    target: Version,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,

    /// Pass over what speaks against the version, where that is possible
    #[arg(short, long)]
    force: bool,

    #[command(flatten)]
    flags: Flags,
}

/// Bring this node to the version that the cluster has been brought to: its static pods, or kubelet's configuration on a worker.
///
/// Exit codes: as of weft upgrade apply.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft upgrade node")]
struct NodeArgs {
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Args)]
struct Flags {
    /// Show in which lines the manifests would change, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Upgrade etcd, too
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    etcd_upgrade: bool,

    /// Renew the certificates of what is started anew, and those that are due
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    certificate_renewal: bool,

    /// Checks whose failure only warns: health, or all
    #[arg(long, value_delimiter = ',', value_name = "CHECK")]
    ignore_preflight_errors: Vec<String>,

    /// Phases that are not run
    #[arg(long, value_delimiter = ',', value_name = "PHASE")]
    skip_phases: Vec<String>,

    /// Directory with patches of the generated files
    #[arg(long, value_name = "DIR")]
    patches: Option<PathBuf>,

    /// Bundle of images, or directory of bundles, that is loaded before anything is pulled
    #[arg(long, value_delimiter = ',', value_name = "FILE|DIR")]
    images: Vec<PathBuf>,

    /// Directory with the new version's binaries, of which images are made: no registry is needed
    #[arg(long, value_name = "DIR")]
    kubernetes_bin: Option<PathBuf>,

    /// When images are pulled: Always, IfNotPresent or Never
    #[arg(long, value_parser = ["Always", "IfNotPresent", "Never"], hide_possible_values = true, default_value = "IfNotPresent", value_name = "WHEN")]
    image_pull_policy: String,

    /// Socket of the container runtime; the one that kubelet uses if not given
    #[arg(long, value_name = "SOCKET")]
    cri_socket: Option<String>,

    #[command(flatten)]
    speech: Speech,
}

pub(super) fn run(args: &UpgradeArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Plan(args) => plan(args),
        Command::Apply(args) => {
            if !args.yes && !args.flags.dry_run && !confirm(&args.target)? {
                eprintln!("weft upgrade apply: nothing was changed");
                return Ok(ExitCode::FAILURE);
            }
            bring("upgrade apply", APPLY, Some(&args.target), args.force, &args.flags)
        }
        Command::Node(args) => bring("upgrade node", NODE, None, false, &args.flags),
    }
}

/// Asks somebody who sits there; whoever calls it from a script has said which version.
fn confirm(version: &Version) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(true);
    }
    print!("The control plane of this node will be started anew as {version}. Go on? [y/N]: ");
    io::stdout().flush().context("cannot ask")?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("cannot ask; give --yes")?;
    Ok(["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str()))
}

fn plan(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let paths = Paths::under("/");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let plan = runtime.block_on(upgrade::plan(&paths, args.kubeconfig.as_deref(), args.target.as_ref()));
    runtime.shutdown_background();
    let plan = plan.context("no plan can be made")?;
    let text = match args.output {
        Output::Text => plan.text(),
        Output::Json => serde_json::to_string_pretty(&plan)? + "\n",
    };
    io::stdout().lock().write_all(text.as_bytes()).context("cannot write the answer")?;
    Ok(if plan.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bring(
    verb: &'static str,
    tree: &'static [Phase],
    target: Option<&Version>,
    force: bool,
    flags: &Flags,
) -> anyhow::Result<ExitCode> {
    let options = UpgradeOptions {
        target: target.cloned(),
        force,
        etcd: flags.etcd_upgrade,
        renew: flags.certificate_renewal,
        dry_run: flags.dry_run,
    };
    bringup::run(&flags.speech, "upgrade.log", |paths, tell| async move {
        go(verb, tree, &options, flags, &paths, &tell).await
    })
}

async fn go(
    verb: &str,
    tree: &'static [Phase],
    options: &UpgradeOptions,
    flags: &Flags,
    paths: &Paths,
    tell: &Teller,
) -> Result<(), Ended> {
    let failed = |error: PhaseError| (verb.to_owned(), error);
    let phases = select(tree, &flags.skip_phases, None).map_err(|error| usage(verb, error))?;
    let facts = Facts::gather(&paths.root).map_err(|error| usage(verb, error))?;
    let mut config = UpgradeConfig::here(paths, &facts, flags.cri_socket.as_deref()).map_err(failed)?;
    config.weft.images.clone_from(&flags.images);
    config.weft.kubernetes_bin.clone_from(&flags.kubernetes_bin);
    config.patches.clone_from(&flags.patches);
    config.registration.ignore_preflight_errors.clone_from(&flags.ignore_preflight_errors);
    config.registration.image_pull_policy = Some(flags.image_pull_policy.clone());
    let services = bringup::services(paths, &config.weft).map_err(|error| usage(verb, error))?;
    let mut upgrade = Upgrade::new(&config, options, paths, services, tell).map_err(failed)?;
    upgrade.run(&phases).await
}
