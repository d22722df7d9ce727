//! Where the agent's leases come from: starting the source that the configuration names, and the lease that goes with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::network::follow;
use crate::cluster::Events;
use crate::cluster::SourceHandle;
use crate::cluster::etcd::{self, Store};
use crate::cluster::key::SubnetKey;
use crate::cluster::kube::Api;
use crate::cluster::kube::nodes::{self, NodesRequest};
use crate::cluster::last_known::{FILE, LastKnown};
use crate::cluster::lease_value::LeaseValue;
use crate::config::{AgentConfig, Settings};
use crate::lease::kube::{KubeLeaseRequest, spawn as spawn_kube_lease};
use crate::lease::subnet_file::subnets_in;
use crate::lease::{LEASE_TTL, LeaseHandle, LeaseRequest, spawn as spawn_lease};
use crate::serve::{Component, Health};

/// How often it is looked whether the node has become ready.
const LOOK: Duration = Duration::from_millis(250);

/// All leases, and the own one.
pub(super) struct Leases {
    pub(super) source: SourceHandle,
    pub(super) own: LeaseHandle,
}

impl Leases {
    /// Starts them; they reach the store when they can. `value` is what the own lease is to say.
    pub(super) fn start(
        config: &AgentConfig,
        value: watch::Receiver<LeaseValue>,
        cluster: &Cluster,
        health: &Arc<Health>,
        stop: &CancellationToken,
    ) -> Self {
        match &cluster.api {
            None => from_etcd(config, value, stop),
            Some(api) => from_kube(config, value, api, &cluster.events, health, stop),
        }
    }
}

fn from_etcd(config: &AgentConfig, value: watch::Receiver<LeaseValue>, stop: &CancellationToken) -> Leases {
    let settings = &config.settings;
    let store = Store::new(config.etcd.clone());
    let layout = settings.etcd_prefix.clone();
    let source = etcd::source::spawn(store.clone(), layout, etcd::source::RELIST_INTERVAL, stop.clone());
    let request = LeaseRequest {
        layout: settings.etcd_prefix.clone(),
        node: settings.node_name.clone(),
        network: config.network.clone(),
        previous: previous(settings),
        ttl: LEASE_TTL,
        renew_margin: settings.subnet_lease_renew_margin.duration(),
        value,
        snapshots: Some(source.snapshots()),
    };
    Leases { own: spawn_lease(store, request), source }
}

/// The subnets that the node ran in an earlier life: those of its pods, which a reboot has ended, or else those that the data
/// plane goes by until the store answers. However long ago that was, they are only taken where they are free.
fn previous(settings: &Settings) -> Option<SubnetKey> {
    let of_pods = subnets_in(&settings.subnet_file).map(|(_, key)| key);
    of_pods.or_else(|| Some(LastKnown::read(&settings.state_dir.join(FILE), &settings.node_name).ok()?.key))
}

fn from_kube(
    config: &AgentConfig,
    value: watch::Receiver<LeaseValue>,
    api: &Api,
    events: &Events,
    health: &Arc<Health>,
    stop: &CancellationToken,
) -> Leases {
    let settings = &config.settings;
    let network = follow(config);
    let request = NodesRequest {
        node: settings.node_name.clone(),
        annotations: settings.kube_annotation_prefix.clone(),
        network: Arc::clone(&network.borrow()),
        events: events.clone(),
    };
    let source = nodes::spawn(api, request, stop.clone());
    let request = KubeLeaseRequest {
        node: settings.node_name.clone(),
        annotations: settings.kube_annotation_prefix.clone(),
        network,
        value,
        own: source.own,
        snapshots: source.leases.snapshots(),
        ready: settings.set_node_network_unavailable.then(|| when_ready(Arc::clone(health))),
        events: events.clone(),
    };
    Leases { own: spawn_kube_lease(api.clone(), request), source: source.leases }
}

/// Becomes true when the node is ready for pods for the first time.
fn when_ready(health: Arc<Health>) -> watch::Receiver<bool> {
    let (ready, told) = watch::channel(false);
    tokio::spawn(async move {
        while !health.good_before(Component::Services) {
            tokio::select! {
                () = sleep(LOOK) => {}
                () = ready.closed() => return,
            }
        }
        ready.send_replace(true);
    });
    told
}
