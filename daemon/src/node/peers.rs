//! The peers' part of a pass.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_netlink::RouteSocket;

use super::direct::direct;
use super::held::networks;
use super::pass::{Node, Settled};
use crate::cluster::events::Happening;
use crate::cluster::family::PerFamily;
use crate::cluster::model::{Lease, Rejected, Snapshot};
use crate::lease::Held;
use crate::overlay::backend::LocalEnd;
use crate::overlay::peers::{self, Bounds, Local};
use crate::overlay::shared_ip;
use crate::overlay::table::PeerTable;
use crate::serve::{Component, PeersSeen, gauge};

/// How many times as long as summing up took nothing is summed up again, if nobody tells of a change: with thousands of
/// peers, watching for what the kernel's events do not tell of would else cost more than everything else.
const REST: u32 = 400;

/// Ignored leases that are named; of more only the number is told.
const TOLD: usize = 3;

/// Sums of what rtnetlink shows, and of the peers in devices.
type Digest = (u64, u64);

/// What the kernel had when the peers were last as they should be.
#[derive(Debug)]
pub(super) struct PeersRest {
    digest: Digest,
    devices: Vec<u32>,
    links: Vec<u32>,
    /// The peers that may be on a link of this node, and those that were.
    asked: Vec<IpAddr>,
    direct: BTreeMap<IpAddr, u32>,
    /// It is not summed up again before this.
    until: Instant,
}

impl Node {
    /// Whether what the kernel has of the peers was read not long ago. However fast the cluster changes, it is not taken to be
    /// known for longer than half the time within which everything is repaired.
    pub(super) fn peers_are_fresh(&self, now: Instant) -> bool {
        self.peers_read.is_some_and(|read| now.duration_since(read) < self.options.repair_interval / 2)
    }

    /// Until when the peers, which were as they should be, are not looked at unless somebody tells of a change.
    pub(super) fn peers_rest_until(&self, now: Instant) -> Option<Instant> {
        self.peers_rest.as_ref().map(|rest| rest.until).filter(|until| now < *until)
    }

    /// Whether nothing can have changed since the peers were as they should be. Only to be asked if nobody has told of a
    /// change, and the links are as they were.
    pub(super) fn peers_are_as_before(&mut self) -> bool {
        let Some(rest) = self.peers_rest.as_mut() else { return false };
        let began = Instant::now();
        let is_as_it_was = digest(&mut self.route, self.peers.table_mut(), &rest.links) == Some(rest.digest)
            && direct(&mut self.route, &rest.asked, &rest.devices) == rest.direct;
        rest.until = rest_after(began.elapsed(), self.options.repair_interval);
        is_as_it_was
    }

    /// Brings neighbours, FDB entries, tunnels and routes of the other nodes up to date. `is_known`: they are as the last pass has left
    /// them, so that they need not be read.
    pub(super) async fn place_peers(
        &mut self,
        held: &Held,
        settled: &Settled,
        snapshot: &Arc<Snapshot>,
        is_known: bool,
        now: Instant,
    ) -> Option<Instant> {
        let (others, overlapping) = snapshot.peers_of(&held.key, &self.options.name);
        self.tell_shared_ips(&settled.ends, &others);
        let bounds = Bounds { cluster: networks(held) };
        let devices = settled.devices();
        let asked: Vec<IpAddr> = match held.config.backend.routes_directly() {
            true => others.iter().flat_map(|peer| peer.public_ips.values().copied()).collect(),
            false => Vec::new(),
        };
        let direct = direct(&mut self.route, &asked, &devices);
        let local = Local { backend: &*held.config.backend, ends: &settled.ends, direct: &direct };
        let plan = peers::plan(local, &bounds, &others);
        let rejected: Vec<_> = snapshot.rejected.iter().chain(&overlapping).chain(&plan.rejected).collect();
        self.metrics.leases_rejected.set(gauge(rejected.len()));
        self.metrics.peers.set(gauge(plan.reached.len()));
        self.direct = plan.direct_links(&devices);
        self.peers.table_mut().set_devices(devices.clone());
        self.peers.table_mut().set_tunnels(settled.tunnels(), &plan.objects);
        let watched: Vec<u32> = devices.iter().chain(&self.direct).copied().collect();
        // A pass that fails must not leave the rest of an earlier one, or its error would stand until the next change.
        self.peers_rest = None;
        let outcome = if is_known {
            Ok(self.peers.follow(&plan.objects, now).await)
        } else {
            // Summed up before it is read: what changes in between is seen to have changed.
            let began = Instant::now();
            let digest = digest(&mut self.route, self.peers.table_mut(), &watched);
            let cost = began.elapsed();
            let outcome = self.peers.pass(&plan.objects, now).await.map_err(|error| error.to_string());
            if let Ok(pass) = &outcome {
                let is_quiet = pass.writes() == 0 && pass.failed.is_empty() && !self.peers.table_mut().is_any_roaming();
                let until = rest_after(cost, self.options.repair_interval);
                let rest = |digest| PeersRest { digest, devices, links: watched, asked, direct, until };
                self.peers_rest = digest.filter(|_| is_quiet).map(rest);
            }
            self.peers_read = outcome.is_ok().then_some(now).or(self.peers_read);
            outcome
        };
        self.peers_known = outcome.as_ref().is_ok_and(|pass| pass.failed.is_empty());
        let reached = plan.reached.len();
        if let Ok(pass) = &outcome {
            let told = |(key, reason): &(_, String)| Some((plan.owner(key)?, format!("{key}: {reason}")));
            let failed: BTreeMap<_, _> = pass.failed.iter().filter_map(told).collect();
            self.metrics.peers_programmed.set(gauge(reached - failed.len()));
            let (snapshot, own) = (Arc::clone(snapshot), Some(held.key));
            let rejected = rejected.iter().copied().cloned().collect();
            let shared = self.shared_ips.iter().map(ToString::to_string).collect();
            self.board.peers(PeersSeen { snapshot, own, reached: plan.reached.clone(), failed, rejected, shared });
        }
        self.report(Component::Peers, "peers", outcome, |_| {
            let words = |rejected: &&&Rejected| format!("; ignored {}: {}", rejected.key, rejected.reason);
            let refused: Vec<String> = rejected.iter().take(TOLD).map(|rejected| words(&rejected)).collect();
            let more = rejected.len().saturating_sub(TOLD);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            format!("{reached} reached{}{more}", refused.concat())
        })
    }

    /// Tells of other nodes with this node's public address, each once, and when that is over.
    fn tell_shared_ips(&mut self, ends: &PerFamily<LocalEnd>, others: &[&Lease]) {
        let own = ends.values().map(|local| local.end.public_ip).collect();
        let now = shared_ip::shared(&own, others);
        for news in now.difference(&self.shared_ips) {
            tracing::warn!("{news}");
            self.options.events.tell(Happening::warning("PublicIPConflict", "Publish", news.to_string()));
        }
        for gone in self.shared_ips.difference(&now) {
            tracing::info!(lease = %gone.lease, "no longer publishes {}, the public address of this node", gone.address);
        }
        self.metrics.public_ip_conflicts.set(gauge(now.len()));
        self.shared_ips = now;
    }
}

/// `None` if the kernel does not say: then nothing rests.
fn digest(socket: &mut RouteSocket, table: &mut PeerTable, links: &[u32]) -> Option<Digest> {
    Some((socket.digest(links).ok()?, table.digest().ok()?))
}

/// The end of a rest after summing up took so long: no later than leaves room for a repair within the promised time.
fn rest_after(cost: Duration, repair_interval: Duration) -> Instant {
    Instant::now() + (cost * REST).min(repair_interval * 4 / 5)
}
