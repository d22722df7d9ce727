//! What the node's loop has seen last, kept for whoever asks at `/status`.
//!
//! A pass only hands over what it has anyway; what is told is made of it when somebody asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::document::{
    DeviceStatus, LeaseStatus, NodeStatus, PeerState, PeerStatus, RejectedStatus, ServicesStatus, UplinkStatus,
};
use super::{Health, Metrics};
use crate::cluster::key::SubnetKey;
use crate::cluster::model::{Lease, Rejected, Snapshot};

/// The other nodes as a pass has left them.
#[derive(Debug, Clone, Default)]
pub struct PeersSeen {
    /// All leases.
    pub snapshot: Arc<Snapshot>,
    /// The own one.
    pub own: Option<SubnetKey>,
    /// Those that are reached.
    pub reached: BTreeSet<SubnetKey>,
    /// Those of them of which the kernel refuses something, and what it says.
    pub failed: BTreeMap<SubnetKey, String>,
    /// Leases that are ignored.
    pub rejected: Vec<Rejected>,
    /// Nodes that publish this node's public address, in words.
    pub shared: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    lease: Option<LeaseStatus>,
    uplink: Option<UplinkStatus>,
    overlay: Vec<DeviceStatus>,
    peers: PeersSeen,
    notices: Vec<String>,
}

/// The board. Shared: written by the node's loop, read by the server.
#[derive(Debug)]
pub struct Board {
    node: String,
    source: &'static str,
    started: Instant,
    seen: Mutex<Seen>,
}

impl Board {
    /// An empty board of a node whose leases come from `source`.
    #[must_use]
    pub fn new(node: String, source: &'static str) -> Self {
        Self { node, source, started: Instant::now(), seen: Mutex::default() }
    }

    /// The node's lease and its ends of the overlay.
    pub fn node(&self, lease: LeaseStatus, uplink: UplinkStatus, overlay: Vec<DeviceStatus>) {
        let mut seen = self.lock();
        seen.lease = Some(lease);
        seen.uplink = Some(uplink);
        seen.overlay = overlay;
    }

    /// The other nodes.
    pub fn peers(&self, peers: PeersSeen) {
        self.lock().peers = peers;
    }

    /// What is wrong outside of weft, for somebody to mend.
    pub fn notices(&self, notices: Vec<String>) {
        self.lock().notices = notices;
    }

    /// All that is known of the node.
    #[must_use]
    pub fn status(&self, health: &Health, metrics: &Metrics) -> NodeStatus {
        let Seen { lease, uplink, overlay, peers, notices } = self.lock().clone();
        let (components, revision) = health.components();
        let others = peers.snapshot.leases.values().filter(|lease| Some(lease.key) != peers.own);
        let refused: BTreeSet<&str> = peers.rejected.iter().map(|rejected| rejected.key.as_str()).collect();
        let told = others.filter(|lease| !refused.contains(lease.key.to_string().as_str()));
        NodeStatus {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            source: self.source.to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            alive: health.alive(),
            ready: health.readiness().0,
            revision,
            api_server: metrics.api_server(),
            components,
            lease,
            uplink,
            overlay,
            peers: told.map(|lease| peer(lease, &peers)).collect(),
            rejected: peers.rejected.iter().map(rejected).collect(),
            shared: peers.shared.clone(),
            services: services(metrics),
            repairs: metrics.repairs_by_kind(),
            counts: None,
            failed: metrics.failures_by_table(),
            notices,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Each member is replaced as a whole, so a panic elsewhere has not broken it.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn peer(lease: &Lease, peers: &PeersSeen) -> PeerStatus {
    let reason = peers.failed.get(&lease.key).cloned();
    let state = match (&reason, peers.reached.contains(&lease.key)) {
        (Some(_), _) => PeerState::Failed,
        (None, true) => PeerState::Programmed,
        (None, false) => PeerState::Unreached,
    };
    PeerStatus {
        node: lease.node.as_ref().map(ToString::to_string),
        subnets: lease.key.subnets().values().copied().collect(),
        addresses: lease.public_ips.values().copied().collect(),
        state,
        reason,
    }
}

fn rejected(rejected: &Rejected) -> RejectedStatus {
    RejectedStatus { lease: rejected.key.clone(), reason: rejected.reason.clone() }
}

fn services(metrics: &Metrics) -> Option<ServicesStatus> {
    let numbers = &metrics.services;
    Some(ServicesStatus {
        mode: numbers.serving()?.to_owned(),
        count: numbers.services.get(),
        frontends: numbers.frontends.get(),
        backends: numbers.backends.get(),
        conflicts: numbers.conflicts.get(),
        rejected: numbers.rejected.get(),
        draining: numbers.draining.get(),
        revision: numbers.revision.get(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::{Entry, StoreView};

    fn snapshot() -> Arc<Snapshot> {
        let value = |host: u8| {
            format!(
                r#"{{"PublicIP":"192.0.2.{host}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:{host:02x}"}}}}"#
            )
        };
        let entry =
            |host: u8| Entry { value: value(host).into_bytes(), create_revision: 1, mod_revision: 1, etcd_lease: 7 };
        let subnets = (1..=4).map(|host| (format!("10.244.{host}.0-24"), entry(host))).collect();
        Arc::new(Snapshot::of(&StoreView { revision: 9, subnets, ..StoreView::default() }))
    }

    #[test]
    fn a_peer_is_programmed_failed_or_out_of_reach_and_the_own_lease_is_none() {
        let key = |host: u8| -> SubnetKey { format!("10.244.{host}.0-24").parse().unwrap() };
        let board = Board::new("n1".to_owned(), "etcd");
        board.peers(PeersSeen {
            snapshot: snapshot(),
            own: Some(key(1)),
            reached: [key(2), key(3)].into(),
            failed: [(key(3), "no buffer".to_owned())].into(),
            rejected: vec![Rejected { key: "garbage".to_owned(), reason: "not a subnet key".to_owned() }],
            shared: vec!["node n4 publishes 192.0.2.1, too".to_owned()],
        });
        let status = board.status(&Health::default(), &Metrics::default());
        let states: Vec<PeerState> = status.peers.iter().map(|peer| peer.state).collect();
        assert_eq!(states, [PeerState::Programmed, PeerState::Failed, PeerState::Unreached]);
        assert_eq!(status.peers[1].reason.as_deref(), Some("no buffer"));
        assert_eq!((status.rejected.len(), status.shared.len()), (1, 1));
        assert_eq!(status.services, None, "nobody has decided on a mode");
        let brief = status.clone().brief();
        assert_eq!(brief.counts(), status.counts());
        assert_eq!(brief.peers, status.peers[1..], "the one that is as it should be is a number");
        assert!(!status.ready && status.alive);
    }

    #[test]
    fn what_is_told_is_read_back_and_what_is_missing_has_a_default() {
        let status = Board::new("n1".to_owned(), "kube").status(&Health::default(), &Metrics::default());
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<NodeStatus>(&text).unwrap(), status);
        let old: NodeStatus = serde_json::from_str(r#"{"node":"n1","new":{"x":1}}"#).unwrap();
        assert_eq!((old.node.as_str(), old.ready), ("n1", false));
    }
}
