//! `weft agent`: the daemon of every node.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_cni::formats::conflist::Conflist;
use weft_netlink::RouteSocket;
use weft_netlink::agent::{Connection, Monitor};
use weft_netlink::sysctl::Sysctl;

use super::cluster::Cluster;
use super::known::keep;
use super::logging;
use super::services::Services;
use super::settings::{places, public_ips, uplink_spec};
use super::source::Leases;
use crate::cluster::Events;
use crate::cluster::lease_value::{BackendData, LeaseValue};
use crate::config::{AgentConfig, AgentFlags, Settings};
use crate::node::{Inputs, Node, NodeOptions, TablesWatch, run as run_node};
use crate::overlay::uplink::{self, Uplink};
use crate::serve::{Board, Component, Health, Metrics, serve};

/// The wait before something that the agent cannot start without is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long what is under way at SIGTERM may take: a pass that the kernel makes wait. Whatever it is, the next start does it.
const GRACE: Duration = Duration::from_millis(1500);

/// Run this node's agent: keep its subnet lease, its overlay and its rules, until SIGTERM.
///
/// Whatever goes wrong after the configuration has been read is reported by /readyz and tried again; the agent does not
/// exit for it, unless no interface matches what iface, iface-regex and iface-can-reach ask for at the start. SIGTERM leaves the data plane as it is: pods go on talking. `weft cleanup` takes it down.
#[derive(Debug, Args)]
#[command(
    after_help = "flanneld's flags, with one dash or two, and its variables FLANNELD_… are understood, too: below weft's own names of the same kind, \
                  with a warning where one has no effect. weft config effective agent shows what is in effect.\n\nExamples:\n  weft agent --etcd-endpoints http://192.0.2.10:2379 --cni-bin-source /usr/local/bin/weft-cni\n  \
                  weft agent --source kube --kube-api-server https://192.0.2.10:6443 --kubeconfig /etc/weft/kubeconfig"
)]
pub(super) struct AgentArgs {
    #[command(flatten)]
    flags: AgentFlags,
}

pub(super) fn run(args: &AgentArgs) -> anyhow::Result<ExitCode> {
    let config = AgentConfig::load(&args.flags)?;
    logging::start(&config.settings);
    // One thread: an agent waits most of the time, and everything it opens must be in the namespace it was started in.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(agent(&config))?;
    // Without waiting for whoever still looks up a name: what the agent leaves behind is in the kernel and in the store.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

async fn agent(config: &AgentConfig) -> anyhow::Result<()> {
    let settings = &config.settings;
    tracing::info!(node = %settings.node_name, version = env!("CARGO_PKG_VERSION"), "weft agent starts");
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let stop = stop_on_signal()?;
    let health = Arc::new(Health::default());
    let metrics = Arc::new(Metrics::default());
    let board = Arc::new(Board::new(settings.node_name.to_string(), settings.source.name()));
    tokio::spawn(serve(settings.healthz_bind, Arc::clone(&health), Arc::clone(&metrics), Arc::clone(&board)));
    tokio::select! {
        result = keep_node(config, &health, &metrics, board, &stop) => result?,
        () = overdue(&stop) => tracing::warn!("what is under way has not ended within {GRACE:?}"),
    }
    tracing::info!("weft agent stops; the data plane stays");
    Ok(())
}

/// Comes true when the agent has been told to stop, and has not for [`GRACE`].
async fn overdue(stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(GRACE).await;
}

/// Looks after the node until `stop`, and ends when nothing is under way any more.
async fn keep_node(
    config: &AgentConfig,
    health: &Arc<Health>,
    metrics: &Arc<Metrics>,
    board: Arc<Board>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    // Before the first look at the kernel, so that nothing that happens after it is missed.
    let monitor = Monitor::open()?;
    let kernel = Connection::open()?;
    let found = async {
        let cluster = Cluster::start(config, health, metrics, stop).await;
        let config = cluster.chosen(config).await;
        let select = async || match select_uplink(&config.settings) {
            Err(error) if error.ends_start() => Ok(Err(error)),
            selected => selected.map(Ok),
        };
        let uplink = until_good(health, Component::Uplink, select).await;
        (cluster, config, uplink)
    };
    let Some((cluster, config, uplink)) = stop.run_until_cancelled(found).await else { return Ok(()) };
    let uplink = uplink?;
    let (config, settings) = (&config, &config.settings);
    // Of the devices nothing is known yet: the lease keeps what it says of them until the first pass has seen them.
    let (value, values) =
        watch::channel(LeaseValue { public_ips: public_ips(settings, &uplink), backend: BackendData::default() });
    let leases = Leases::start(config, values, &cluster, health, stop);
    let known = keep(config, &leases, stop.clone());

    let (facts, node_facts) = watch::channel(None);
    let services = Services::spawn(config, node_facts, &cluster, health, metrics, stop)?;
    let node = Node::new(
        node_options(settings, &cluster.events),
        kernel,
        value,
        facts,
        Arc::clone(health),
        Arc::clone(metrics),
        board,
    )
    .map_err(|error| anyhow!("cannot reach the kernel: {error}"))?;
    let inputs = Inputs {
        lease: known.lease,
        snapshots: known.snapshots,
        stands_in: known.stands_in,
        source: leases.source.status(),
        monitor,
        tables: TablesWatch::open()?,
        repair_interval: settings.repair_interval,
    };
    run_node(node, inputs, Arc::clone(health), Arc::clone(metrics), stop.clone()).await;
    leases.own.stop().await;
    services.join().await;
    Ok(())
}

fn node_options(settings: &Settings, events: &Events) -> NodeOptions {
    NodeOptions {
        name: settings.node_name.clone(),
        cluster: settings.etcd_prefix.to_string(),
        uplink: uplink_spec(settings),
        bridge: settings.bridge.to_string(),
        ip_masq: settings.ip_masq,
        no_masquerade: settings.no_masquerade.clone(),
        random_ports: !settings.ip_masq_fully_random_disable,
        blackhole_route: settings.ip_blackhole_route,
        forward_rules: settings.iptables_forward_rules,
        places: places(settings),
        conflist: Conflist {
            name: settings.network_name.to_string(),
            bridge: settings.bridge.to_string(),
            subnet_file: settings.subnet_file.clone(),
            state_dir: settings.cni_state_dir.clone(),
            ..Conflist::default()
        },
        cni_state_dir: settings.cni_state_dir.clone(),
        key_file: settings.wireguard_key_file.clone(),
        run_dir: settings.run_dir.clone(),
        repair_interval: settings.repair_interval,
        sysctl: Sysctl::at(&settings.sysctl_dir),
        events: events.clone(),
    }
}

fn select_uplink(settings: &Settings) -> Result<Uplink, uplink::UplinkError> {
    let mut socket = RouteSocket::open()?;
    uplink::select(&mut socket, &uplink_spec(settings))
}

/// Tries until it succeeds, and says in the meantime why it does not.
pub(super) async fn until_good<T, E, F>(health: &Health, component: Component, mut attempt: impl FnMut() -> F) -> T
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => health.bad(component, error.to_string()),
        }
        // The loop turns, although there is no node to look after yet.
        health.passed();
        sleep(AGAIN).await;
    }
}

/// A token that SIGTERM and SIGINT cancel.
fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}
