//! The thread that serves Services, beside the node's own loop.
//!
//! To program tens of thousands of Services takes seconds, in which leases and peers must not wait; so they have a thread of
//! their own, with a runtime and a connection to the store of its own.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use weft_netlink::sysctl::Sysctl;

use super::agent::until_good;
use super::cluster::Cluster;
use crate::cluster::kube::Api;
use crate::cluster::services::ServicesHandle;
use crate::cluster::{Events, etcd, kube};
use crate::config::{AgentConfig, ProxyMode, Settings};
use crate::node::{NodeFacts, Owned};
use crate::serve::proxy::{Moment, ProxyHealth, ProxyMetrics, ProxySurface, ServingMode};
use crate::serve::{Component, Health, Metrics};
use crate::service::conntrack_sysctls::{self, ConntrackOptions};
use crate::service::ipvs::{DrainLimits, TimeoutSettings, parse_scheduler};
use crate::service::{Inputs, ProxyOptions, SERVICES_RECORD, Teller, families, retire, run};

/// Services, running.
#[derive(Debug)]
pub(super) struct Services {
    thread: Option<JoinHandle<()>>,
    ended: oneshot::Receiver<()>,
}

impl Services {
    /// Starts to serve Services, unless nobody wants that.
    ///
    /// # Errors
    /// If a key cannot be right, or the machine gives no thread.
    pub(super) fn spawn(
        config: &AgentConfig,
        facts: watch::Receiver<Option<NodeFacts>>,
        cluster: &Cluster,
        health: &Arc<Health>,
        metrics: &Metrics,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let options = proxy_options(&config.settings)?;
        let (end, ended) = oneshot::channel();
        if options.mode == ProxyMode::None {
            match retire(&options.run_dir) {
                Ok(()) => health.good(Component::Services, "left to others (proxy-mode none)"),
                Err(problems) => {
                    let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
                    health.bad(Component::Services, format!("left to others, but not all gone: {}", words.join("; ")));
                }
            }
            return Ok(Self { thread: None, ended });
        }
        let (config, health, services) = (config.clone(), Arc::clone(health), metrics.services.clone());
        let (events, api) = (cluster.events.clone(), cluster.api.clone());
        let stop = stop.clone();
        // A thread is born in the network namespace of the one that makes it.
        let work = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    health.bad(Component::Services, format!("cannot start: {error}"));
                    return;
                }
            };
            let teller = teller(&config.settings, health, services, events);
            runtime.block_on(serve(&config, options, facts, teller, api, stop));
            runtime.shutdown_background();
            // The agent that has stopped waiting does not care.
            let _ = end.send(());
        };
        let thread = std::thread::Builder::new().name("services".to_owned()).spawn(work);
        Ok(Self { thread: Some(thread.context("cannot start the thread for Services")?), ended })
    }

    /// Waits until the thread has ended, which it does when the agent is told to stop.
    pub(super) async fn join(self) {
        if let Some(thread) = self.thread {
            let _ = self.ended.await;
            // It has said its last word; if that was a panic, the agent has gone with it.
            let _ = thread.join();
        }
    }
}

async fn serve(
    config: &AgentConfig,
    options: ProxyOptions,
    facts: watch::Receiver<Option<NodeFacts>>,
    teller: Teller,
    api: Option<Api>,
    stop: CancellationToken,
) {
    let settings = &config.settings;
    let surface = ProxySurface {
        healthz_bind: settings.proxy_healthz_bind,
        metrics_bind: settings.proxy_metrics_bind,
        configz: config.effective().map(|line| (line.key.to_owned(), serde_json::Value::from(line.value))).collect(),
        health: Arc::clone(&teller.proxy),
        metrics: Arc::clone(&teller.metrics),
    };
    tokio::spawn(surface.serve(stop.clone()));
    set_conntrack(settings);
    let source = tokio::select! {
        () = stop.cancelled() => return,
        source = start_source(config, &teller.health, api, &stop) => source,
    };
    let inputs = Inputs { store: Arc::clone(source.store()), source: source.status(), cidrs: source.cidrs(), facts };
    run(options, inputs, teller, stop).await;
}

/// Starts the source that the configuration names, once there is a client. Of the Kubernetes API only the connection is this
/// thread's own; where it leads, both threads decide together.
async fn start_source(
    config: &AgentConfig,
    health: &Health,
    api: Option<Api>,
    stop: &CancellationToken,
) -> ServicesHandle {
    let settings = &config.settings;
    match api {
        None => {
            let store = etcd::Store::new(config.etcd.clone());
            let (layout, relist) = (settings.etcd_prefix.clone(), etcd::services::RELIST_INTERVAL);
            etcd::services::spawn(store, layout, &settings.node_name, relist, stop.clone())
        }
        Some(api) => {
            let servers = api.servers.clone().unwrap_or_default();
            let connect = async || kube::connect_through(&config.kube, &servers).await;
            let client = until_good(health, Component::Services, connect).await;
            kube::services::spawn(&Api { client, ..api }, &settings.node_name, stop.clone())
        }
    }
}

/// Sets up the connection table as kube-proxy does. Services work without: the size of the table, for one, is the machine's,
/// and an agent in a network namespace of its own can only see it.
fn set_conntrack(settings: &Settings) {
    let options = ConntrackOptions {
        max_per_core: settings.conntrack_max_per_core,
        min: settings.conntrack_min,
        tcp_be_liberal: settings.conntrack_tcp_be_liberal,
        tcp_established: settings.conntrack_tcp_timeout_established.if_any(),
        tcp_close_wait: settings.conntrack_tcp_timeout_close_wait.if_any(),
        udp: settings.conntrack_udp_timeout.if_any(),
        udp_stream: settings.conntrack_udp_timeout_stream.if_any(),
    };
    let wanted = conntrack_sysctls::plan(&options, conntrack_sysctls::cores());
    match Owned::load(&settings.run_dir, SERVICES_RECORD) {
        Ok(mut owned) => {
            for problem in conntrack_sysctls::apply(&wanted, &mut owned, &Sysctl::at(&settings.sysctl_dir)) {
                tracing::warn!("{problem}");
            }
        }
        Err(problem) => tracing::warn!("conntrack is left as it is: {problem}"),
    }
}

fn teller(settings: &Settings, health: Arc<Health>, services: crate::serve::ServiceMetrics, events: Events) -> Teller {
    let families: Vec<_> = families().families().collect();
    // Until the kernel has been asked, `auto` is what it most often comes to.
    let mode = if settings.proxy_mode == ProxyMode::Ipvs { ServingMode::Ipvs } else { ServingMode::Nftables };
    let now = Moment::now();
    Teller {
        health,
        proxy: Arc::new(ProxyHealth::new(mode, families.iter().copied(), now)),
        metrics: Arc::new(ProxyMetrics::new(&services, now.wall)),
        services,
        events,
        families,
    }
}

fn proxy_options(settings: &Settings) -> anyhow::Result<ProxyOptions> {
    Ok(ProxyOptions {
        mode: settings.proxy_mode,
        node: settings.node_name.to_string().into(),
        zone: settings.node_zone.as_deref().map(Into::into),
        service_cidrs: settings.service_cidr.clone(),
        detect_local: settings.detect_local.clone(),
        cluster_cidrs: settings.cluster_cidr.clone(),
        node_port_addresses: settings.node_port_addresses.clone(),
        masquerade_all: settings.masquerade_all,
        masquerade_bit: settings.masquerade_bit,
        allow_external_ips: settings.allow_external_ips,
        be_liberal: settings.conntrack_tcp_be_liberal,
        scheduler: parse_scheduler(settings.ipvs_scheduler.as_str()).context("ipvs-scheduler")?,
        drain: DrainLimits { limit: settings.ipvs_drain_limit.duration(), ..DrainLimits::default() },
        timeouts: TimeoutSettings {
            tcp: settings.ipvs_tcp_timeout.if_any(),
            tcp_fin: settings.ipvs_tcpfin_timeout.if_any(),
            udp: settings.ipvs_udp_timeout.if_any(),
        },
        exclude: settings.ipvs_exclude_cidrs.clone(),
        estimation: settings.ipvs_estimation,
        min_sync_period: settings.min_sync_period.duration(),
        repair_interval: settings.repair_interval,
        run_dir: settings.run_dir.clone(),
        sysctl: Sysctl::at(&settings.sysctl_dir),
    })
}
