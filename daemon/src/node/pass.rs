//! One pass over the node: from lease and peers to kernel and files.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnetwork::IpNetwork;
use tokio::sync::watch;
use weft_cni::formats::subnet_env::SubnetEnv;
use weft_netlink::agent::{Connection, Event};
use weft_netlink::sysctl::Sysctl;
use weft_netlink::{MacAddr, RouteSocket};

use super::facts::NodeFacts;
use super::held::{networks, settle_config, status_of, words_of};
use super::key_file::KeyFile;
use super::news::{News, is_known};
use super::options::NodeOptions;
use super::owned::{NODE_RECORD, Owned};
use super::peers::PeersRest;
use super::sysctls;
use crate::cluster::family::PerFamily;
use crate::cluster::lease_value::LeaseValue;
use crate::cluster::model::Snapshot;
use crate::cluster::netconf::NetConf;
use crate::filter::forward::ForwardTable;
use crate::filter::plan::{FilterConfig, plan as plan_filter};
use crate::filter::table::FilterTable;
use crate::lease::subnet_file;
use crate::lease::{Held, LeaseState};
use crate::overlay::backend::{self, Device, End, Here, Identity, LocalEnd};
use crate::overlay::blackhole::BlackholeTable;
use crate::overlay::bridge::WantedBridge;
use crate::overlay::shared_ip::SharedIp;
use crate::overlay::table::PeerTable;
use crate::overlay::uplink::{self, Uplink};
use crate::overlay::{attachments, links};
use crate::reconcile::Reconciler;
use crate::serve::document::UplinkStatus;
use crate::serve::{Board, Component, Health, Metrics};

/// The node: what it needs for a pass, and what it remembers between passes.
pub struct Node {
    pub(super) options: NodeOptions,
    pub(super) kernel: Connection,
    pub(super) route: RouteSocket,
    pub(super) sysctl: Sysctl,
    pub(super) owned: Owned,
    pub(super) key_file: KeyFile,
    pub(super) peers: Reconciler<PeerTable>,
    pub(super) filter: Reconciler<FilterTable>,
    pub(super) forward: Reconciler<ForwardTable>,
    pub(super) blackholes: Reconciler<BlackholeTable>,
    /// Blackhole routes of an earlier configuration are gone.
    pub(super) without_blackholes: bool,
    /// What has been told of them.
    pub(super) blackhole_trouble: Option<String>,
    pub(super) value: watch::Sender<LeaseValue>,
    pub(super) facts: watch::Sender<Option<NodeFacts>>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) board: Arc<Board>,
    pub(super) uplink: Option<Uplink>,
    /// The lease whose subnets the data plane has. It outlives the loss of the lease.
    pub(super) held: Option<Held>,
    /// The network configuration whose oddities have been told.
    pub(super) config: Option<Vec<u8>>,
    /// What the node's files say, once they have been written: from then on they are kept, whatever else is wrong.
    pub(super) published: Option<SubnetEnv>,
    /// Objects that this pass has put back.
    pub(super) repaired: usize,
    /// The peers were as they should be, and nobody has told of a change since.
    pub(super) peers_rest: Option<PeersRest>,
    /// What the kernel has of the peers is what the last pass has left there: nobody has told of a change since.
    pub(super) peers_known: bool,
    /// When that was last read from the kernel.
    pub(super) peers_read: Option<Instant>,
    /// Nodes that publish this node's public address, which has been told.
    pub(super) shared_ips: BTreeSet<SharedIp>,
    /// Links through which peers are reached past the devices.
    pub(super) direct: Vec<u32>,
    /// The networks that others' chains have been looked at for.
    pub(super) let_through: Option<Vec<IpNetwork>>,
    /// What is wrong outside of weft, and has been told.
    pub(super) notices: Vec<String>,
    /// Links were in place after the last pass, so that whatever had to be done to them is a repair.
    pub(super) settled: Option<Settled>,
}

/// What a pass has come to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    /// When a failed object may be tried again.
    pub(super) retry_at: Option<Instant>,
    /// Objects that somebody else had changed, and that are right again.
    pub(super) repaired: usize,
}

/// What the last pass left behind.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settled {
    pub(super) ends: PerFamily<LocalEnd>,
    bridge: WantedBridge,
    bridge_link: u32,
}

impl Settled {
    /// The overlay's devices.
    pub(super) fn devices(&self) -> Vec<u32> {
        self.devices_that(|device| *device != Device::None)
    }

    /// Those of them that have their peers in themselves.
    pub(super) fn tunnels(&self) -> Vec<u32> {
        self.devices_that(|device| matches!(device, Device::Wireguard(_)))
    }

    fn devices_that(&self, is: impl Fn(&Device) -> bool) -> Vec<u32> {
        // Both families may have one.
        let links: BTreeSet<u32> = self.ends.values().filter(|end| is(&end.end.device)).map(|end| end.link).collect();
        links.into_iter().collect()
    }
}

/// The links whose events matter.
#[derive(Debug, Clone, Default)]
pub(super) struct Watched {
    pub(super) uplink: Option<u32>,
    pub(super) devices: Vec<u32>,
    pub(super) bridge: Option<u32>,
    /// Links through which peers are reached past the devices.
    pub(super) direct: Vec<u32>,
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
        facts: watch::Sender<Option<NodeFacts>>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        board: Arc<Board>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self {
            owned: Owned::load(&options.run_dir, NODE_RECORD)?,
            peers: Reconciler::new(PeerTable::new(kernel.clone())),
            key_file: KeyFile::new(options.key_file.clone()),
            filter: Reconciler::new(FilterTable::open()?),
            forward: Reconciler::new(ForwardTable::open()?),
            blackholes: Reconciler::new(BlackholeTable::new(kernel.clone())),
            without_blackholes: false,
            blackhole_trouble: None,
            route: RouteSocket::open()?,
            sysctl: options.sysctl.clone(),
            kernel,
            value,
            facts,
            health,
            metrics,
            board,
            uplink: None,
            held: None,
            config: None,
            published: None,
            repaired: 0,
            peers_rest: None,
            peers_known: false,
            peers_read: None,
            shared_ips: BTreeSet::new(),
            direct: Vec::new(),
            let_through: None,
            notices: Vec::new(),
            settled: None,
            options,
        })
    }

    /// The links whose events matter.
    pub(super) fn watched(&self) -> Watched {
        Watched {
            uplink: self.uplink.as_ref().map(|uplink| uplink.index),
            devices: self.settled.as_ref().map(Settled::devices).unwrap_or_default(),
            bridge: self.settled.as_ref().map(|settled| settled.bridge_link),
            direct: self.direct.clone(),
        }
    }

    /// Whether an event tells of the peers' objects only what is known.
    pub(super) fn expects(&self, event: &Event) -> bool {
        is_known(self.peers.settled(), event)
    }

    /// One pass.
    pub(super) async fn pass(&mut self, lease: &LeaseState, snapshot: Option<&Arc<Snapshot>>, news: News) -> Passed {
        let started = Instant::now();
        self.repaired = 0;
        self.peers_known &= !news.kernel;
        if news.kernel || news.cluster {
            self.peers_rest = None;
        }
        self.tell_oddities(snapshot);
        let retry_at = self.stages(lease, snapshot, news, started).await;
        self.metrics.passes.inc();
        self.metrics.pass_seconds.observe(started.elapsed().as_secs_f64());
        self.health.passed();
        Passed { retry_at, repaired: self.repaired }
    }

    /// The stages in their order; one that cannot go on leaves what is behind it as it is.
    async fn stages(
        &mut self,
        lease: &LeaseState,
        snapshot: Option<&Arc<Snapshot>>,
        news: News,
        now: Instant,
    ) -> Option<Instant> {
        let uplink = self.select_uplink()?;
        let held = self.take_lease(lease)?;
        let ends = self.plan_ends(&held, &uplink).await?;
        let settled = self.place_links(&held, &ends, &uplink).await?;
        // What the lease says must be true: the devices are there.
        self.value.send_if_modified(|value| {
            let wanted = backend::lease_value(&*held.config.backend, &ends);
            let changed = *value != wanted;
            *value = wanted;
            changed
        });
        self.tell_facts(&held, &uplink);
        let under = UplinkStatus { name: uplink.name.clone(), mtu: uplink.mtu };
        self.board.node(status_of(&held), under, ends.values().filter_map(End::status).collect());
        let filter_retry = self.place_filter(&held, now).await;
        let forward_retry = self.place_forward(&held, now).await;
        let blackhole_retry = self.place_blackholes(&held, now).await;
        let links_are_as_before = self.repaired == 0 && self.settled.as_ref() == Some(&settled);
        self.peers_known &= links_are_as_before;
        let resting = self.peers_rest_until(now);
        let peers_retry = match snapshot {
            Some(_) if links_are_as_before && resting.is_some() => resting,
            Some(_) if links_are_as_before && self.peers_are_as_before() => None,
            // Once in a while all is read anew, whatever has been told.
            Some(snapshot) => {
                let is_known = self.peers_known && news.cluster && self.peers_are_fresh(now);
                self.place_peers(&held, &settled, snapshot, is_known, now).await
            }
            None => {
                self.health.waiting(Component::Peers, "the leases of the other nodes have not been read yet");
                None
            }
        };
        self.settled = Some(settled);
        self.publish(&held, &ends, &uplink);
        filter_retry.into_iter().chain(forward_retry).chain(blackhole_retry).chain(peers_retry).min()
    }

    /// Tells the node's Services what of the node concerns them.
    fn tell_facts(&self, held: &Held, uplink: &Uplink) {
        let facts = NodeFacts {
            addresses: uplink.addresses(),
            pod_networks: networks(held),
            subnets: held.key.subnets().values().copied().collect(),
        };
        self.facts.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&facts);
            if changed {
                *known = Some(facts);
            }
            changed
        });
    }

    /// Logs, once for each configuration, what in it nobody understands: most of it is misspelt.
    fn tell_oddities(&mut self, snapshot: Option<&Arc<Snapshot>>) {
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
                if uplink.up {
                    self.health.good(Component::Uplink, format!("{} ({})", uplink.name, uplink.because));
                } else {
                    self.health.bad(Component::Uplink, format!("{} is down", uplink.name));
                }
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
                self.held = Some(settle_config(held, self.held.as_ref()));
            }
            LeaseState::Acquiring { reason } => self.health.waiting(Component::Lease, reason.clone()),
            LeaseState::Lost { previous, reason } => {
                self.health.bad(Component::Lease, format!("{previous} belongs to another node now: {reason}"));
            }
        }
        self.held.clone()
    }

    async fn plan_ends(&mut self, held: &Held, uplink: &Uplink) -> Option<PerFamily<End>> {
        let back_end = &*held.config.backend;
        let mut existing: PerFamily<MacAddr> = PerFamily::default();
        for family in held.key.subnets().families() {
            let Some(name) = back_end.device_name(family) else { continue };
            match self.kernel.link(name.as_str()).await {
                Ok(link) => existing.set(family, link.and_then(|link| link.mac)),
                Err(error) => {
                    self.health.bad(Component::Links, error.to_string());
                    return None;
                }
            }
        }
        let key = match back_end.needs_key().then(|| self.key_file.ensure(&mut self.owned)).transpose() {
            Ok(ensured) => ensured.map(|(key, done)| {
                done.into_iter().for_each(|what| tracing::info!("{what}"));
                key
            }),
            Err(error) => {
                self.health.bad(Component::Links, error.to_string());
                return None;
            }
        };
        // What we have said last counts before what the device has: that one somebody else may have changed.
        let said = self.value.borrow().backend.clone();
        let here = Here {
            subnets: held.key.subnets(),
            uplink,
            public_ips: &self.options.uplink.public_ips,
            published: if said.is_none() { &held.published.backend } else { &said },
            existing: &existing,
            identity: Identity { cluster: &self.options.cluster, node: self.options.name.as_str() },
            cluster: &networks(held),
            key: key.as_ref(),
        };
        match backend::ends(back_end, &here) {
            Ok(ends) => Some(ends),
            Err(reason) => {
                self.health.bad(Component::Links, reason);
                None
            }
        }
    }

    async fn place_links(&mut self, held: &Held, ends: &PerFamily<End>, uplink: &Uplink) -> Option<Settled> {
        match self.try_place_links(held, ends, uplink).await {
            Ok(settled) => {
                let names: Vec<&str> = ends.values().filter_map(End::device_name).collect();
                let names = names.into_iter().chain([settled.bridge.name.as_str()]).collect::<Vec<_>>().join(" and ");
                self.health.good(Component::Links, names);
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
        wanted: &PerFamily<End>,
        uplink: &Uplink,
    ) -> Result<Settled, String> {
        let cluster = networks(held);
        let mut done = self.remove_stale_devices(wanted).await?;
        let mut ends = PerFamily::default();
        for (family, end) in wanted.iter() {
            if let Some(name) = end.device_name() {
                self.owned.claim_device(name).map_err(|error| error.to_string())?;
            }
            // One that both families have has the addresses of both.
            let sharing = wanted.values().filter(|other| other.device == end.device);
            let addresses: Vec<IpAddr> = sharing.map(|end| end.address).collect();
            let placed = links::device(&self.kernel, &self.sysctl, &end.device, &addresses, &cluster).await;
            let placed = placed.map_err(|error| error.to_string())?;
            let link = placed.as_ref().map_or(uplink.index, |placed| placed.index);
            done.extend(placed.into_iter().flat_map(|placed| placed.done));
            ends.set(family, Some(LocalEnd { end: end.clone(), link }));
        }
        let bridge = WantedBridge {
            name: self.options.bridge.clone(),
            mtu: subnet_file::pod_mtu(&held.config, uplink.mtu),
            gateways: held.key.subnets().values().map(|subnet| subnet_file::gateway(*subnet)).collect(),
        };
        let placed = links::bridge(&self.kernel, &bridge, &cluster).await.map_err(|error| error.to_string())?;
        done.extend(placed.done);
        done.extend(self.replug(&bridge.name, placed.index).await?);
        let families = held.key.subnets().families();
        done.extend(
            sysctls::ensure(&mut self.owned, &self.sysctl, families, &uplink.name)
                .map_err(|error| error.to_string())?,
        );

        let settled = Settled { ends, bridge, bridge_link: placed.index };
        let wanted =
            |settled: &Settled| (settled.ends.filter_map(|_, end| Some(end.end.clone())), settled.bridge.clone());
        let repair = self.settled.as_ref().is_some_and(|before| wanted(before) == wanted(&settled));
        self.metrics.wrote("links", done.len());
        if repair {
            self.note_repairs("links", done.len(), || done.join("; "));
        } else {
            done.iter().for_each(|what| tracing::info!("{what}"));
        }
        Ok(settled)
    }

    /// Devices of an earlier configuration: with their routes they would be in the way of those of this one.
    async fn remove_stale_devices(&mut self, ends: &PerFamily<End>) -> Result<Vec<String>, String> {
        let is_wanted = |name: &&str| ends.values().any(|end| end.device_name() == Some(*name));
        let stale: Vec<String> = self.owned.devices().filter(|name| !is_wanted(name)).map(str::to_owned).collect();
        let mut done = Vec::new();
        for name in stale {
            links::remove_device(&self.kernel, &name).await.map_err(|error| error.to_string())?;
            self.owned.release_device(&name).map_err(|error| error.to_string())?;
            done.push(format!("remove {name}, which is no longer wanted"));
        }
        Ok(done)
    }

    /// Puts the pods' host ends back on the bridge.
    async fn replug(&self, name: &str, bridge: u32) -> Result<Vec<String>, String> {
        let network = &self.options.conflist.name;
        let recorded = attachments::recorded(&self.options.cni_state_dir, network)
            .map_err(|error| format!("the plugin's records cannot be read: {error}"))?;
        if recorded.is_empty() {
            return Ok(Vec::new());
        }
        let links = self.kernel.links().await.map_err(|error| error.to_string())?;
        let requests = attachments::replug(name, bridge, &recorded, &links);
        let words: Vec<String> = requests.iter().map(|request| request.operation().to_owned()).collect();
        for verdict in self.kernel.run(requests).await {
            match verdict {
                // The pod may have gone in between.
                Err(error) if !error.is_absent() => return Err(error.to_string()),
                _ => {}
            }
        }
        Ok(words)
    }

    async fn place_filter(&mut self, held: &Held, now: Instant) -> Option<Instant> {
        let config = FilterConfig {
            cluster: networks(held),
            subnets: held.key.subnets().values().copied().collect(),
            masquerade: self.options.ip_masq,
            no_masquerade: self.options.no_masquerade.clone(),
            random_ports: self.options.random_ports,
            forward: self.options.forward_rules,
        };
        let desired = self.filter.table_mut().plan(plan_filter(&config));
        let outcome = self.filter.pass(&desired, now).await.map_err(|error| error.to_string());
        self.report(Component::Filter, "filter", outcome, |_| {
            format!("masquerade {}", if config.masquerade { "on" } else { "off" })
        })
    }
}
