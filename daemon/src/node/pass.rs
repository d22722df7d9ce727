//! One pass over the node: from lease and peers to kernel and files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ipnetwork::IpNetwork;
use tokio::sync::watch;
use weft_cni::formats::conflist::Conflist;
use weft_netlink::agent::Connection;
use weft_netlink::sysctl::Sysctl;
use weft_netlink::{MacAddr, RouteSocket};

use super::owned::Owned;
use super::{sysctls, vtep};
use crate::cluster::family::PerFamily;
use crate::cluster::lease_value::LeaseValue;
use crate::cluster::model::Snapshot;
use crate::cluster::netconf::{Backend, NetConf};
use crate::cluster::pool::Pool;
use crate::filter::plan::{FilterConfig, plan as plan_filter};
use crate::filter::table::FilterTable;
use crate::lease::subnet_file::{self, subnet_env};
use crate::lease::{Held, LeaseState};
use crate::overlay::bridge::WantedBridge;
use crate::overlay::peers::{self, LocalVtep};
use crate::overlay::table::PeerTable;
use crate::overlay::uplink::{self, Uplink, UplinkSpec};
use crate::overlay::{device, links};
use crate::publish::Places;
use crate::reconcile::{Pass, Reconciler};
use crate::serve::{Component, Health, Metrics, gauge};

/// How this node is to be.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The node's name.
    pub name: String,
    /// Identifies the cluster in the VTEPs' MACs: the prefix in its store.
    pub cluster: String,
    /// How the interface under the overlay is chosen.
    pub uplink: UplinkSpec,
    /// The bridge.
    pub bridge: String,
    /// Whether pods that leave the cluster network take on the node's address.
    pub ip_masq: bool,
    /// Where the node's files go.
    pub places: Places,
    /// The conflist to install.
    pub conflist: Conflist,
    /// Where the record of changed settings is.
    pub run_dir: PathBuf,
}

/// The node: what it needs for a pass, and what it remembers between passes.
pub struct Node {
    options: NodeOptions,
    kernel: Connection,
    route: RouteSocket,
    sysctl: Sysctl,
    owned: Owned,
    peers: Reconciler<PeerTable>,
    filter: Reconciler<FilterTable>,
    value: watch::Sender<LeaseValue>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    uplink: Option<Uplink>,
    /// The lease whose subnets the data plane has. It outlives the loss of the lease.
    held: Option<Held>,
    /// The network configuration whose oddities have been told.
    config: Option<Vec<u8>>,
    /// The node's files have been written once: from then on they are kept, whatever else is wrong.
    published: bool,
    /// Links were in place after the last pass, so that whatever had to be done to them is a repair.
    settled: Option<Settled>,
}

/// What the last pass left behind.
#[derive(Debug, Clone, PartialEq)]
struct Settled {
    vteps: PerFamily<vtep::Vtep>,
    bridge: WantedBridge,
    links: Vec<u32>,
}

impl Node {
    /// A node that has not had its first pass.
    ///
    /// # Errors
    /// In words, if netlink or the record of changed settings cannot be opened.
    pub fn new(
        options: NodeOptions,
        kernel: Connection,
        value: watch::Sender<LeaseValue>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self {
            owned: Owned::load(&options.run_dir)?,
            peers: Reconciler::new(PeerTable::new(kernel.clone())),
            filter: Reconciler::new(FilterTable::open()?),
            route: RouteSocket::open()?,
            sysctl: Sysctl::default(),
            kernel,
            value,
            health,
            metrics,
            uplink: None,
            held: None,
            config: None,
            published: false,
            settled: None,
            options,
        })
    }

    /// The links whose events matter: uplink, VXLAN devices, bridge.
    pub(super) fn watched(&self) -> (Option<u32>, &[u32]) {
        (self.uplink.as_ref().map(|uplink| uplink.index), self.settled.as_ref().map_or(&[], |settled| &settled.links))
    }

    /// One pass. Returns when a failed object may be tried again.
    pub(super) async fn pass(&mut self, lease: &LeaseState, snapshot: Option<&Snapshot>) -> Option<Instant> {
        let started = Instant::now();
        self.tell_oddities(snapshot);
        let retry = self.stages(lease, snapshot, started).await;
        self.metrics.passes.inc();
        self.metrics.pass_seconds.observe(started.elapsed().as_secs_f64());
        self.health.passed();
        retry
    }

    /// The stages in their order; one that cannot go on leaves what is behind it as it is.
    async fn stages(&mut self, lease: &LeaseState, snapshot: Option<&Snapshot>, now: Instant) -> Option<Instant> {
        let uplink = self.select_uplink()?;
        let held = self.take_lease(lease)?;
        let vteps = self.plan_vteps(&held, &uplink).await?;
        let settled = self.place_links(&held, &vteps, &uplink).await?;
        // What the lease says must be true: the devices are there.
        self.value.send_if_modified(|value| {
            let wanted = vtep::lease_value(&vteps);
            let changed = *value != wanted;
            *value = wanted;
            changed
        });
        let filter_retry = self.place_filter(&held, now).await;
        let peers_retry = match snapshot {
            Some(snapshot) => self.place_peers(&held, &vteps, &settled, snapshot, now).await,
            None => {
                self.health.waiting(Component::Peers, "the leases of the other nodes have not been read yet");
                None
            }
        };
        self.settled = Some(settled);
        self.publish(&held, &uplink);
        filter_retry.into_iter().chain(peers_retry).min()
    }

    /// Logs, once for each configuration, what in it nobody understands: most of it is misspelt.
    fn tell_oddities(&mut self, snapshot: Option<&Snapshot>) {
        let Some(config) = snapshot.and_then(|snapshot| snapshot.config.as_ref()) else { return };
        if self.config.as_ref() == Some(config) {
            return;
        }
        // One that cannot be used at all is the lease's to report.
        for warning in NetConf::parse(config).map(|(_, warnings)| warnings).unwrap_or_default() {
            tracing::warn!("network configuration: {warning}");
        }
        self.config = Some(config.clone());
    }

    fn select_uplink(&mut self) -> Option<Uplink> {
        match uplink::select(&mut self.route, &self.options.uplink) {
            Ok(uplink) => {
                self.health.good(Component::Uplink, format!("{} ({})", uplink.name, uplink.because));
                self.uplink = Some(uplink);
            }
            // An uplink that is away for a moment is no reason to take anything down.
            Err(error) => self.health.bad(Component::Uplink, error.to_string()),
        }
        self.uplink.clone()
    }

    fn take_lease(&mut self, lease: &LeaseState) -> Option<Held> {
        match lease {
            LeaseState::Held(held) => {
                self.health.good(Component::Lease, words_of(held));
                self.metrics.subnets_used.set(i64::try_from(held.usage.used).unwrap_or(i64::MAX));
                self.metrics.subnets_total.set(i64::try_from(held.usage.total).unwrap_or(i64::MAX));
                self.held = Some(held.clone());
            }
            LeaseState::Acquiring { reason } => self.health.waiting(Component::Lease, reason.clone()),
            LeaseState::Lost { previous, reason } => {
                self.health.bad(Component::Lease, format!("{previous} belongs to another node now: {reason}"));
            }
        }
        self.held.clone()
    }

    async fn plan_vteps(&mut self, held: &Held, uplink: &Uplink) -> Option<PerFamily<vtep::Vtep>> {
        let Backend::Vxlan(settings) = &held.config.backend;
        let mut existing: PerFamily<MacAddr> = PerFamily::default();
        for family in held.key.subnets().families() {
            match self.kernel.link(device::name(family, settings.vni).as_str()).await {
                Ok(link) => existing.set(family, link.and_then(|link| link.mac)),
                Err(error) => {
                    self.health.bad(Component::Links, error.to_string());
                    return None;
                }
            }
        }
        // What we have said last counts before what the device has: that one somebody else may have changed.
        let said = self.value.borrow().backend.clone();
        let published =
            if said == crate::cluster::lease_value::BackendData::None { &held.published.backend } else { &said };
        let identity = vtep::Identity { cluster: &self.options.cluster, node: &self.options.name };
        let public_ips = &self.options.uplink.public_ips;
        match vtep::plan(held.key.subnets(), settings, uplink, public_ips, published, &existing, identity) {
            Ok(vteps) => Some(vteps),
            Err(reason) => {
                self.health.bad(Component::Links, reason);
                None
            }
        }
    }

    async fn place_links(&mut self, held: &Held, vteps: &PerFamily<vtep::Vtep>, uplink: &Uplink) -> Option<Settled> {
        match self.try_place_links(held, vteps, uplink).await {
            Ok(settled) => {
                let names: Vec<&str> = vteps.values().map(|vtep| vtep.device.name.as_str()).collect();
                self.health.good(Component::Links, format!("{} and {}", names.join(", "), settled.bridge.name));
                self.metrics.failed("links", 0);
                Some(settled)
            }
            Err(reason) => {
                self.health.bad(Component::Links, reason);
                self.metrics.failed("links", 1);
                None
            }
        }
    }

    async fn try_place_links(
        &mut self,
        held: &Held,
        vteps: &PerFamily<vtep::Vtep>,
        uplink: &Uplink,
    ) -> Result<Settled, String> {
        let cluster = networks(held);
        let mut done = Vec::new();
        let mut links = Vec::new();
        for vtep in vteps.values() {
            let placed = links::vxlan(&self.kernel, &self.sysctl, &vtep.device, vtep.address, &cluster)
                .await
                .map_err(|error| error.to_string())?;
            links.push(placed.index);
            done.extend(placed.done);
        }
        let bridge = WantedBridge {
            name: self.options.bridge.clone(),
            mtu: subnet_file::pod_mtu(&held.config, uplink.mtu),
            gateways: held.key.subnets().values().map(|subnet| subnet_file::gateway(*subnet)).collect(),
        };
        let placed = links::bridge(&self.kernel, &bridge, &cluster).await.map_err(|error| error.to_string())?;
        links.push(placed.index);
        done.extend(placed.done);
        let families = held.key.subnets().families();
        done.extend(
            sysctls::ensure(&mut self.owned, &self.sysctl, families, &uplink.name)
                .map_err(|error| error.to_string())?,
        );

        let settled = Settled { vteps: vteps.clone(), bridge, links };
        let before = self.settled.as_ref().map(|before| (&before.vteps, &before.bridge));
        let repair = before == Some((&settled.vteps, &settled.bridge));
        for what in &done {
            if repair {
                tracing::warn!("repaired: {what}");
            } else {
                tracing::info!("{what}");
            }
        }
        self.metrics.wrote("links", done.len());
        self.metrics.repaired("links", if repair { done.len() } else { 0 });
        Ok(settled)
    }

    async fn place_filter(&mut self, held: &Held, now: Instant) -> Option<Instant> {
        let config = FilterConfig {
            cluster: networks(held),
            subnets: held.key.subnets().values().copied().collect(),
            masquerade: self.options.ip_masq,
        };
        let desired = self.filter.table_mut().plan(plan_filter(&config));
        let outcome = self.filter.pass(&desired, now).await.map_err(|error| error.to_string());
        self.report(Component::Filter, "filter", outcome, |_| {
            format!("masquerade {}", if config.masquerade { "on" } else { "off" })
        })
    }

    async fn place_peers(
        &mut self,
        held: &Held,
        vteps: &PerFamily<vtep::Vtep>,
        settled: &Settled,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Option<Instant> {
        let mut local = PerFamily::default();
        for ((family, vtep), link) in vteps.iter().zip(&settled.links) {
            let end = LocalVtep { link: *link, mac: vtep.mac, vni: vtep.device.vni, public_ip: vtep.public_ip };
            local.set(family, Some(end));
        }
        let (others, overlapping) = snapshot.peers_of(&held.key);
        let plan = peers::plan(&local, &others);
        let rejected: Vec<_> = snapshot.rejected.iter().chain(&overlapping).chain(&plan.rejected).collect();
        self.metrics.leases_rejected.set(gauge(rejected.len()));
        self.metrics.peers.set(gauge(plan.reached.len()));
        let devices = vteps.iter().zip(&settled.links).map(|(_, link)| *link).collect();
        self.peers.table_mut().set_devices(devices);
        let outcome = self.peers.pass(&plan.objects, now).await.map_err(|error| error.to_string());
        if let Ok(pass) = &outcome {
            // An object is named after its peer's address, so at most one failed peer stands for each failed object.
            let failed = pass.failed.len().min(plan.reached.len());
            self.metrics.peers_programmed.set(gauge(plan.reached.len() - failed));
        }
        let reached = plan.reached.len();
        self.report(Component::Peers, "peers", outcome, |_| {
            let refused: Vec<String> =
                rejected.iter().map(|rejected| format!("; ignored {}: {}", rejected.key, rejected.reason)).collect();
            format!("{reached} reached{}", refused.concat())
        })
    }

    /// Tells log, metrics and health of a table's pass.
    fn report(
        &self,
        component: Component,
        table: &'static str,
        outcome: Result<Pass, String>,
        words: impl FnOnce(&Pass) -> String,
    ) -> Option<Instant> {
        match outcome {
            Ok(pass) => {
                if pass.repaired > 0 {
                    tracing::warn!(table, objects = pass.repaired, "repaired what somebody else had changed");
                }
                if pass.updated + pass.deleted > 0 {
                    tracing::info!(table, updated = pass.updated, deleted = pass.deleted, "brought up to date");
                }
                self.metrics.wrote(table, pass.writes());
                self.metrics.repaired(table, pass.repaired);
                self.metrics.failed(table, pass.failed.len());
                match pass.failed.first() {
                    None => self.health.good(component, words(&pass)),
                    Some((object, reason)) => {
                        let others = pass.failed.len() - 1;
                        let more = if others > 0 { format!(" (and {others} more)") } else { String::new() };
                        self.health.bad(component, format!("{object}: {reason}{more}"));
                    }
                }
                pass.retry_at
            }
            Err(reason) => {
                self.health.bad(component, reason);
                self.metrics.failed(table, 1);
                None
            }
        }
    }

    /// Subnet file, plugin and conflist, once everything before them stands.
    fn publish(&mut self, held: &Held, uplink: &Uplink) {
        if !self.published && !self.health.good_before(Component::Publish) {
            self.health.waiting(Component::Publish, "the node is not ready for pods yet");
            return;
        }
        let subnet = subnet_env(&held.key, &held.config, uplink.mtu, self.options.ip_masq);
        match self.options.places.publish(&subnet, &self.options.conflist) {
            Ok(written) => {
                for path in written {
                    tracing::info!(path = %path.display(), "wrote");
                }
                self.published = true;
                self.health.good(Component::Publish, self.options.places.conflist().display().to_string());
            }
            Err(error) => self.health.bad(Component::Publish, error.to_string()),
        }
    }
}

/// The cluster's pod networks, IPv4 first.
fn networks(held: &Held) -> Vec<IpNetwork> {
    held.config.pools.values().map(Pool::network).collect()
}

fn words_of(held: &Held) -> String {
    let subnets: Vec<String> = held.key.subnets().values().map(ToString::to_string).collect();
    let notice = held.notice.as_ref().map(|notice| format!(" ({notice})")).unwrap_or_default();
    format!("{}{notice}", subnets.join(" and "))
}
