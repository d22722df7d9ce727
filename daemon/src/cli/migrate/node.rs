//! `weft migrate node`: this node changes over.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use weft_cni::formats::host_local;

use super::super::{TRY_AGAIN, logging};
use super::tell;
use crate::config::{AgentConfig, AgentFlags, time};
use crate::migrate::agent::Services;
use crate::migrate::cache;
use crate::migrate::node::{NodeOptions, change_over, readiness};
use crate::migrate::report::Report;

/// The time between two looks while it is too early.
const LOOK: Duration = Duration::from_secs(1);

/// Change this node over: remove what flannel, its plugins and kube-proxy have left, with pods and their host ports kept.
///
/// Changes nothing (exit code 75) until weft's agent serves on this node and neither flanneld nor kube-proxy runs. Then: their
/// conflist steps aside, host ports of running pods go from portmap's chains to weft's table, and the chains, tables, IP sets
/// and virtual servers of portmap, flannel and kube-proxy go. In a pod it needs the host's network and processes. Takes the
/// agent's settings.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft migrate node --wait 10m")]
pub(super) struct ChangeArgs {
    #[command(flatten)]
    node: NodeArgs,

    /// How long to wait while it is too early, as 30s or 10m; not at all if not given
    #[arg(long, value_name = "TIME", value_parser = time)]
    wait: Option<Duration>,
}

/// Where things are on this node.
#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    #[command(flatten)]
    pub(super) flags: AgentFlags,

    /// Directory in which the runtime remembers results of plugins
    #[arg(long, value_name = "DIR", default_value = cache::DIRECTORY)]
    cni_cache_dir: PathBuf,

    /// host-local's directory, with a directory for each network
    #[arg(long, value_name = "DIR", default_value = host_local::DATA_DIR)]
    data_dir: PathBuf,

    /// k3s runs on this node without flannel, kube-proxy and network policies in it
    #[arg(long)]
    k3s_bare: bool,

    /// The tables of iptables-legacy have been cleaned, or are nobody's whom weft replaces
    #[arg(long)]
    legacy_cleaned: bool,
}

pub(super) fn run(args: &ChangeArgs) -> anyhow::Result<ExitCode> {
    let config = AgentConfig::load(&args.node.flags)?;
    logging::start(&config.settings);
    let options = options(&args.node, &config);
    let Some(services) = await_readiness(&options, args.wait.unwrap_or_default())? else {
        return Ok(ExitCode::from(TRY_AGAIN));
    };
    let mut report = Report::default();
    change_over(&options, services, &mut report);
    if report.failures() == 0 {
        println!("{} is weft's", config.settings.node_name);
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("weft migrate: {} left as told above; run it again when the cause is gone", report.failures());
    Ok(ExitCode::FAILURE)
}

pub(super) fn options(args: &NodeArgs, config: &AgentConfig) -> NodeOptions {
    let settings = &config.settings;
    NodeOptions {
        healthz: settings.healthz_bind,
        conf_dir: settings.cni_conf_dir.clone(),
        network: settings.network_name.to_string(),
        bridge: settings.bridge.to_string(),
        cache_dir: args.cni_cache_dir.clone(),
        data_dir: args.data_dir.clone(),
        service_cidrs: settings.service_cidr.clone(),
        k3s_bare: args.k3s_bare,
        legacy_cleaned: args.legacy_cleaned,
    }
}

/// Waits until the node may change over; `None` if it may not in time, which has been told then.
fn await_readiness(options: &NodeOptions, limit: Duration) -> anyhow::Result<Option<Services>> {
    let begun = Instant::now();
    let mut told = Vec::new();
    loop {
        let obstacles = match readiness(options).context("cannot see this node's processes")? {
            Ok(services) => return Ok(Some(services)),
            Err(obstacles) => obstacles,
        };
        if obstacles != told {
            tell(&obstacles);
            told = obstacles;
        }
        if begun.elapsed() >= limit {
            return Ok(None);
        }
        pause(LOOK);
    }
}

#[expect(clippy::disallowed_methods, reason = "a command waits for others' work, with a limit and nothing else to do")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
