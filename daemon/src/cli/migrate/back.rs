//! `weft migrate back`: this node goes back to flannel and kube-proxy.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use weft_cni::formats::host_local;

use super::super::export::{self, Destination};
use super::super::settings::places;
use super::super::{TRY_AGAIN, logging};
use super::tell;
use crate::config::{AgentConfig, AgentFlags, ProxyMode};
use crate::migrate::back::{BackOptions, give_pods_back, let_ports_run_out, release_devices, remove_rules};
use crate::migrate::obstacles::before_going_back;
use crate::migrate::report::Report;
use crate::migrate::{agent, daemons};

/// Give this node back to flannel and kube-proxy, with its pods running.
///
/// Changes nothing (exit code 75) until weft's agent is off this node and flanneld and kube-proxy run on it: remove the label
/// weft/agent from the Node. Then: pods are made known to flannel's plugins (as `weft export` does), their conflist takes the
/// place of weft's, and weft's rules go. Host ports of pods that weft has made stay while these run; run it again when they
/// are gone. Takes the agent's settings. Do not run `weft cleanup` on the node afterwards: the pods on its bridge are
/// flannel's.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft migrate back")]
pub(super) struct BackArgs {
    #[command(flatten)]
    flags: AgentFlags,

    /// host-local's directory, with a directory for each network
    #[arg(long, value_name = "DIR", default_value = host_local::DATA_DIR)]
    data_dir: PathBuf,

    /// Directory of flannel's notes
    #[arg(long, value_name = "DIR", default_value = host_local::FLANNEL_DIR)]
    flannel_dir: PathBuf,
}

pub(super) fn run(args: &BackArgs) -> anyhow::Result<ExitCode> {
    let config = AgentConfig::load(&args.flags)?;
    let settings = &config.settings;
    logging::start(settings);
    let running = daemons::running().context("cannot see this node's processes")?;
    let kube_proxy_wanted = settings.proxy_mode != ProxyMode::None;
    let obstacles = before_going_back(&agent::ask(settings.healthz_bind), &running, kube_proxy_wanted);
    if !obstacles.is_empty() {
        tell(&obstacles);
        return Ok(ExitCode::from(TRY_AGAIN));
    }
    let options = BackOptions {
        places: places(settings),
        network: settings.network_name.to_string(),
        bridge: settings.bridge.to_string(),
        run_dir: settings.run_dir.clone(),
    };
    let mut report = Report::default();
    let destination = Destination { data_dir: args.data_dir.clone(), flannel_dir: args.flannel_dir.clone() };
    // Before their conflist is in place: a pod that was born in between would be given an address that is taken.
    let exported = export::all(&settings.cni_state_dir, &destination)?;
    if exported.refused > 0 {
        report.failed("attachments", &format!("{} of {} not made known", exported.refused, exported.live));
    } else {
        let words = format!("{} made known to flannel's plugins, in {}", exported.live, args.data_dir.display());
        report.done("attachments", &words);
        give_pods_back(&options, &mut report);
    }
    remove_rules(&options, &mut report);
    let_ports_run_out(&mut report);
    release_devices(&options, &mut report);
    if report.failures() == 0 {
        println!("{} is flannel's", settings.node_name);
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("weft migrate: {} left as told above; run it again when the cause is gone", report.failures());
    Ok(ExitCode::FAILURE)
}
