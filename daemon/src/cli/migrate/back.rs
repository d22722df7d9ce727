//! `weft migrate back`: this node goes back to flannel and kube-proxy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use weft_cni::formats::host_local;

use super::super::export::{self, Destination, Exported};
use super::super::settings::places;
use super::super::{TRY_AGAIN, logging};
use super::tell;
use crate::config::{AgentConfig, AgentFlags, ProxyMode, Settings};
use crate::migrate::back::{BackOptions, give_pods_back, let_ports_run_out, release_devices, remove_rules};
use crate::migrate::obstacles::before_going_back;
use crate::migrate::report::Report;
use crate::migrate::{agent, daemons, proxy};

/// Give this node back to flannel and kube-proxy, with its pods running.
///
/// First `--prepare`, while weft still serves: pods are made known to flannel's plugins (as `weft export` does), and weft's
/// plugin does so with each new one, so that flannel's conflist gives no address a second time whenever it comes. Then remove
/// the label weft/agent from the Node. Without `--prepare`, changes nothing (exit code 75) until weft's agent is off this node
/// and flanneld and kube-proxy serve. Then: pods are made known once more (if one cannot be, all else stays), flannel's
/// conflist takes the place of weft's, and weft's rules go. Host ports of pods that weft has made stay while these run; run it again when they
/// are gone. Takes the agent's settings. Do not run `weft cleanup` on the node afterwards: the pods on its bridge are
/// flannel's.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  weft migrate back --prepare\n  weft migrate back")]
pub(super) struct BackArgs {
    #[command(flatten)]
    flags: AgentFlags,

    /// Make all pods known to flannel's plugins, those of now and those to come, and nothing else
    #[arg(long)]
    prepare: bool,

    /// host-local's directory, with a directory for each network
    #[arg(long, value_name = "DIR", default_value = host_local::DATA_DIR)]
    data_dir: PathBuf,

    /// Directory of flannel's notes
    #[arg(long, value_name = "DIR", default_value = host_local::FLANNEL_DIR)]
    flannel_dir: PathBuf,

    /// Where kube-proxy of this node answers /healthz (its healthzBindAddress)
    #[arg(long, value_name = "ADDRESS:PORT", default_value = proxy::HEALTHZ)]
    kube_proxy_healthz: SocketAddr,
}

pub(super) fn run(args: &BackArgs) -> anyhow::Result<ExitCode> {
    let config = AgentConfig::load(&args.flags)?;
    let settings = &config.settings;
    logging::start(settings);
    let mut report = Report::default();
    let destination = Destination { data_dir: args.data_dir.clone(), flannel_dir: args.flannel_dir.clone() };
    if args.prepare {
        hand_over(settings, &destination, &mut report)?;
        return Ok(conclude(&report, &format!("{} may go back: remove its label weft/agent", settings.node_name)));
    }
    let running = daemons::running().context("cannot see this node's processes")?;
    let kube_proxy = (settings.proxy_mode != ProxyMode::None).then(|| proxy::serves(args.kube_proxy_healthz));
    let obstacles = before_going_back(&agent::ask(settings.healthz_bind), &running, kube_proxy);
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
    // Before their conflist is in place: a pod that was born in between would be given an address that is taken.
    if hand_over(settings, &destination, &mut report)? {
        give_pods_back(&options, &mut report);
        remove_rules(&options, &mut report);
        let_ports_run_out(&mut report);
        release_devices(&options, &mut report);
    }
    Ok(conclude(&report, &format!("{} is flannel's", settings.node_name)))
}

/// Makes pods known to flannel's plugins; says whether all are.
fn hand_over(settings: &Settings, destination: &Destination, report: &mut Report) -> anyhow::Result<bool> {
    let Exported { live, refused } = export::all(&settings.cni_state_dir, destination)?;
    if refused > 0 {
        report.failed(
            "attachments",
            &format!("{refused} of {live} not made known; nothing else is done before they are"),
        );
    } else {
        let words = format!("{live} made known to flannel's plugins, in {}", destination.data_dir.display());
        report.done("attachments", &words);
    }
    Ok(refused == 0)
}

fn conclude(report: &Report, done: &str) -> ExitCode {
    if report.failures() == 0 {
        println!("{done}");
        return ExitCode::SUCCESS;
    }
    eprintln!("weft migrate: {} left as told above; run it again when the cause is gone", report.failures());
    ExitCode::FAILURE
}
