//! From what agents and the store tell to rows and problems. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Serialize;

use crate::serve::Condition;
use crate::serve::document::{LeaseStatus, NodeStatus, PeerState, PeerStatus, ServicesStatus};

/// From this part of its subnets on a cluster network is called full, in per cent.
pub const FULL: u64 = 80;

/// What is known of a node's agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Agent {
    /// It was not asked.
    NotAsked,
    /// It has answered.
    Answered(Box<NodeStatus>),
    /// It was asked in vain.
    Silent(String),
}

/// A node as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// Its name; nothing if nobody tells it.
    pub name: Option<String>,
    /// Whether it is the node that was asked first.
    pub own: bool,
    /// Its subnets.
    pub subnets: Vec<IpNetwork>,
    /// The addresses to which encapsulated packets are sent.
    pub addresses: Vec<IpAddr>,
    /// What the store, or another node, says is wrong with it.
    pub wrong: Vec<String>,
    /// Its agent.
    pub agent: Agent,
}

/// How things are. The exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing is wrong.
    Well,
    /// Something could not be asked.
    Unknown,
    /// Something is wrong.
    Wrong,
}

impl Verdict {
    /// 0, 1 for what is wrong, 2 for what cannot be told.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Wrong => 1,
            Self::Unknown => 2,
        }
    }
}

/// The peers of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PeerCount {
    /// Those that are in its kernel as they should be.
    pub programmed: usize,
    /// All.
    pub all: usize,
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Name of the node.
    pub node: Option<String>,
    /// Whether it is the node that was asked first.
    pub own: bool,
    /// How it is; what was not asked is not known to be wrong.
    pub verdict: Verdict,
    /// Whether it takes pods; nothing if its agent did not say.
    pub ready: Option<bool>,
    /// Its subnets.
    pub subnets: Vec<IpNetwork>,
    /// The addresses to which encapsulated packets are sent.
    pub addresses: Vec<IpAddr>,
    /// Its peers; nothing if its agent did not say.
    pub peers: Option<PeerCount>,
    /// Services.
    pub services: Option<ServicesStatus>,
    /// Objects put back, by kind; those kinds alone of which there were some.
    pub repairs: Option<BTreeMap<String, u64>>,
    /// Version of the agent.
    pub version: Option<String>,
    /// Its end of the overlay: device, MTU, and the interface under it.
    pub overlay: Option<String>,
    /// Passes that its agent has made.
    pub revision: Option<u64>,
    /// What is wrong.
    pub wrong: Vec<String>,
    /// Why it cannot be told.
    pub unknown: Option<String>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The worst of all nodes.
    pub verdict: Verdict,
    /// The nodes, by name.
    pub nodes: Vec<Row>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<String>,
}

/// The rows of all nodes.
#[must_use]
pub fn judge(sightings: &[Sighting]) -> Report {
    let mut nodes: Vec<Row> = sightings.iter().map(row).collect();
    nodes.sort_by(|a, b| (&a.node, &a.subnets).cmp(&(&b.node, &b.subnets)));
    let verdict = nodes.iter().map(|row| row.verdict).max().unwrap_or(Verdict::Unknown);
    let versions: BTreeSet<&str> = nodes.iter().filter_map(|row| row.version.as_deref()).collect();
    let mut notes = Vec::new();
    if versions.len() > 1 {
        let versions: Vec<&str> = versions.into_iter().collect();
        notes.push(format!("agents of different versions: {}", versions.join(", ")));
    }
    Report { verdict, nodes, notes }
}

/// The own node and, as it sees them, its peers.
#[must_use]
pub fn seen_by(status: NodeStatus) -> Vec<Sighting> {
    let mut sightings: Vec<Sighting> = status.peers.iter().map(peer_sighting).collect();
    let (subnets, addresses) = (
        status.lease.as_ref().map(|lease| lease.subnets.clone()).unwrap_or_default(),
        status.overlay.iter().map(|device| device.public_ip).collect(),
    );
    let name = Some(status.node.clone());
    let agent = Agent::Answered(Box::new(status));
    sightings.push(Sighting { name, own: true, subnets, addresses, wrong: Vec::new(), agent });
    sightings
}

fn peer_sighting(peer: &PeerStatus) -> Sighting {
    Sighting {
        name: peer.node.clone(),
        own: false,
        subnets: peer.subnets.clone(),
        addresses: peer.addresses.clone(),
        // What is wrong with it is wrong with the node that tells it, and stands there.
        wrong: Vec::new(),
        agent: Agent::NotAsked,
    }
}

fn row(sighting: &Sighting) -> Row {
    let mut row = Row {
        node: sighting.name.clone(),
        own: sighting.own,
        verdict: Verdict::Well,
        ready: None,
        subnets: sighting.subnets.clone(),
        addresses: sighting.addresses.clone(),
        peers: None,
        services: None,
        repairs: None,
        version: None,
        overlay: None,
        revision: None,
        wrong: sighting.wrong.clone(),
        unknown: None,
    };
    match &sighting.agent {
        Agent::NotAsked => {}
        Agent::Silent(reason) => row.unknown = Some(reason.clone()),
        Agent::Answered(status) => {
            row.wrong.extend(wrong(status));
            let programmed = status.peers.iter().filter(|peer| peer.state == PeerState::Programmed).count();
            row.ready = Some(status.ready);
            row.peers = Some(PeerCount { programmed, all: status.peers.len() });
            row.services.clone_from(&status.services);
            row.repairs = Some(status.repairs.iter().filter(|(_, n)| **n > 0).map(|(k, n)| (k.clone(), *n)).collect());
            row.version = Some(status.version.clone());
            row.overlay = overlay(status);
            row.revision = Some(status.revision);
        }
    }
    row.verdict = match (row.wrong.is_empty(), &row.unknown) {
        (false, _) => Verdict::Wrong,
        (true, Some(_)) => Verdict::Unknown,
        (true, None) => Verdict::Well,
    };
    row
}

fn overlay(status: &NodeStatus) -> Option<String> {
    let devices: Vec<String> =
        status.overlay.iter().map(|device| format!("{} mtu {}", device.name, device.mtu)).collect();
    let uplink = status.uplink.as_ref().map(|uplink| format!(" over {} mtu {}", uplink.name, uplink.mtu));
    (!devices.is_empty()).then(|| devices.join(", ") + &uplink.unwrap_or_default())
}

/// What a node's own agent says is wrong, in the order in which it comes about.
#[must_use]
pub fn wrong(status: &NodeStatus) -> Vec<String> {
    let mut wrong = Vec::new();
    if !status.alive {
        wrong.push("the agent's loop hangs; its liveness probe should restart it".to_owned());
    }
    for component in &status.components {
        match component.condition {
            Condition::Good => {}
            Condition::Waiting => wrong.push(format!("{} waits: {}", component.name, component.words)),
            Condition::Bad => wrong.push(format!("{}: {}", component.name, component.words)),
        }
    }
    wrong.extend(status.peers.iter().filter_map(unreached));
    wrong.extend(status.rejected.iter().map(|lease| format!("lease {} is ignored: {}", lease.lease, lease.reason)));
    wrong.extend(status.lease.iter().filter_map(|lease| full(lease).or_else(|| lease.notice.clone())));
    if let Some(services) = &status.services {
        if services.rejected > 0 {
            wrong.push(format!(
                "{} objects of Services cannot be right and are left out; the log names them",
                services.rejected
            ));
        }
        if services.conflicts > 0 {
            wrong
                .push(format!("{} addresses or node ports of Services belong to an older Service", services.conflicts));
        }
    }
    wrong
}

fn unreached(peer: &PeerStatus) -> Option<String> {
    let name = peer.node.as_deref().map(|name| format!("{name} ")).unwrap_or_default();
    let subnets: Vec<String> = peer.subnets.iter().map(ToString::to_string).collect();
    let reason = match (peer.state, &peer.reason) {
        (PeerState::Programmed, _) => return None,
        (_, Some(reason)) => reason.as_str(),
        (_, None) => "it publishes nothing that this node could reach it by (another back end or VNI?)",
    };
    Some(format!("peer {name}({}): {reason}", subnets.join(", ")))
}

/// Whether the cluster network is nearly used up, in words.
#[must_use]
pub fn full(lease: &LeaseStatus) -> Option<String> {
    let LeaseStatus { used, total, .. } = lease;
    let high = *total > 0 && used.saturating_mul(100) >= total.saturating_mul(FULL);
    high.then(|| format!("{used} of {total} subnets of the cluster network are taken"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::ComponentStatus;
    use crate::serve::document::RejectedStatus;

    fn healthy(name: &str) -> NodeStatus {
        let component =
            |name: &str| ComponentStatus { name: name.into(), condition: Condition::Good, words: "fine".into() };
        NodeStatus {
            node: name.into(),
            version: "1.0.0".into(),
            alive: true,
            ready: true,
            components: vec![component("store"), component("peers")],
            lease: Some(LeaseStatus {
                subnets: vec!["10.244.1.0/24".parse().unwrap()],
                networks: vec!["10.244.0.0/16".parse().unwrap()],
                used: 2,
                total: 256,
                notice: None,
            }),
            peers: vec![peer(PeerState::Programmed)],
            repairs: [("peers".to_owned(), 3), ("links".to_owned(), 0)].into(),
            ..NodeStatus::default()
        }
    }

    fn peer(state: PeerState) -> PeerStatus {
        PeerStatus {
            node: Some("n2".into()),
            subnets: vec!["10.244.2.0/24".parse().unwrap()],
            addresses: vec!["192.0.2.2".parse().unwrap()],
            state,
            reason: None,
        }
    }

    #[test]
    fn a_healthy_node_has_a_row_for_itself_and_one_for_each_peer() {
        let report = judge(&seen_by(healthy("n1")));
        assert_eq!(report.verdict, Verdict::Well);
        let names: Vec<_> = report.nodes.iter().map(|row| (row.node.as_deref().unwrap(), row.own)).collect();
        assert_eq!(names, [("n1", true), ("n2", false)]);
        assert_eq!(report.nodes[0].peers, Some(PeerCount { programmed: 1, all: 1 }));
        assert_eq!(report.nodes[0].repairs, Some([("peers".to_owned(), 3)].into()));
        assert_eq!(report.nodes[1].version, None);
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        let mut status = healthy("n1");
        status.components[0] =
            ComponentStatus { name: "store".into(), condition: Condition::Bad, words: "refused".into() };
        status.components[1].condition = Condition::Waiting;
        status.peers = vec![peer(PeerState::Failed), peer(PeerState::Unreached)];
        status.peers[0].reason = Some("route 10.244.2.0/24: no buffer".into());
        status.rejected = vec![RejectedStatus { lease: "10.244.3.0-24".into(), reason: "overlaps".into() }];
        if let Some(lease) = &mut status.lease {
            lease.used = 205;
        }
        status.services = Some(ServicesStatus { rejected: 1, conflicts: 2, ..ServicesStatus::default() });
        let wrong = wrong(&status);
        for expected in [
            "store: refused",
            "peers waits: fine",
            "peer n2 (10.244.2.0/24): route 10.244.2.0/24: no buffer",
            "publishes nothing",
            "lease 10.244.3.0-24 is ignored: overlaps",
            "205 of 256 subnets",
            "1 objects of Services",
            "2 addresses or node ports",
        ] {
            assert!(wrong.iter().any(|words| words.contains(expected)), "{expected}: {wrong:?}");
        }
        assert_eq!(judge(&seen_by(status)).verdict.exit_code(), 1);
    }

    #[test]
    fn a_silent_agent_is_unknown_and_something_wrong_elsewhere_counts_more() {
        let silent = |wrong: &[&str]| Sighting {
            name: Some("n3".into()),
            own: false,
            subnets: Vec::new(),
            addresses: Vec::new(),
            wrong: wrong.iter().map(|words| (*words).to_owned()).collect(),
            agent: Agent::Silent("no answer".into()),
        };
        let mut sightings = seen_by(healthy("n1"));
        sightings.push(silent(&[]));
        assert_eq!(judge(&sightings).verdict.exit_code(), 2);
        sightings.push(silent(&["NetworkUnavailable"]));
        assert_eq!(judge(&sightings).verdict.exit_code(), 1);
        assert_eq!(judge(&[]).verdict.exit_code(), 2, "nobody was found");
    }

    #[test]
    fn versions_that_differ_are_noted() {
        let mut newer = healthy("n2");
        newer.version = "1.1.0".into();
        let sightings: Vec<_> = [seen_by(healthy("n1")), seen_by(newer)].concat();
        let report = judge(&sightings);
        assert_eq!((report.verdict, report.notes.len()), (Verdict::Well, 1));
        assert!(report.notes[0].contains("1.0.0, 1.1.0"), "{:?}", report.notes);
    }

    #[test]
    fn eighty_per_cent_is_full() {
        let lease = |used, total| LeaseStatus { subnets: vec![], networks: vec![], used, total, notice: None };
        assert_eq!(full(&lease(79, 100)), None);
        assert!(full(&lease(80, 100)).is_some());
        assert_eq!(full(&lease(0, 0)), None);
    }
}
