//! From what agents and the store tell to rows and problems. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Serialize;

use super::control_plane::ControlPlane;
use crate::serve::Condition;
use crate::serve::document::{
    ApiServerStatus, LISTED, LeaseStatus, NodeStatus, PeerState, PeerStatus, RejectedStatus, ServicesStatus,
};

/// From this part of its subnets on a cluster network is called full, in per cent.
pub const FULL: u64 = 80;

/// A cluster network of so few subnets was made for a number of nodes, and to use them is no fault.
const SMALL: u64 = 32;

/// What is known of a node's agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Agent {
    /// It was not asked.
    NotAsked,
    /// It has answered.
    Answered(Box<Answer>),
    /// It was asked in vain.
    Silent(String),
}

/// What is kept of an agent's document: of thousands of them each lists thousands of peers.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The name that it answers by.
    pub node: String,
    ready: bool,
    peers: PeerCount,
    services: Option<ServicesStatus>,
    repairs: BTreeMap<String, u64>,
    version: String,
    overlay: Option<String>,
    revision: u64,
    wrong: Vec<String>,
    notes: Vec<String>,
}

impl From<&NodeStatus> for Answer {
    fn from(status: &NodeStatus) -> Self {
        let counts = status.counts();
        let capacity = status.lease.as_ref().and_then(capacity);
        Self {
            node: status.node.clone(),
            ready: status.ready,
            peers: PeerCount { programmed: counts.programmed, all: counts.peers },
            services: status.services.clone(),
            repairs: status.repairs.iter().filter(|(_, n)| **n > 0).map(|(k, n)| (k.clone(), *n)).collect(),
            version: status.version.clone(),
            overlay: overlay(status),
            revision: status.revision,
            wrong: wrong(status),
            notes: capacity
                .filter(|capacity| !capacity.wrong)
                .map(|capacity| capacity.words)
                .into_iter()
                .chain(status.api_server.as_ref().and_then(ApiServerStatus::notice))
                .collect(),
        }
    }
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
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The worst of all nodes.
    pub verdict: Verdict,
    /// The nodes, by name.
    pub nodes: Vec<Row>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<String>,
    /// The control plane, where there is one to be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlane>,
}

impl Report {
    /// The same with the control plane, which counts as the nodes do.
    #[must_use]
    pub fn with_control_plane(mut self, plane: Option<ControlPlane>) -> Self {
        if let Some(plane) = &plane {
            self.verdict = self.verdict.max(plane.verdict);
        }
        self.control_plane = plane;
        self
    }
}

/// The rows of all nodes.
#[must_use]
pub fn judge(sightings: &[Sighting]) -> Report {
    let mut nodes: Vec<Row> = sightings.iter().map(row).collect();
    nodes.sort_by(|a, b| (&a.node, &a.subnets).cmp(&(&b.node, &b.subnets)));
    let verdict = nodes.iter().map(|row| row.verdict).max().unwrap_or(Verdict::Unknown);
    let versions: BTreeSet<&str> = nodes.iter().filter_map(|row| row.version.as_deref()).collect();
    // All nodes of a cluster have the same network, and most of them the same API server.
    let told = sightings.iter().filter_map(|sighting| match &sighting.agent {
        Agent::Answered(answer) => Some(&answer.notes),
        _ => None,
    });
    let mut notes: Vec<String> = told.flatten().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    if versions.len() > 1 {
        let versions: Vec<&str> = versions.into_iter().collect();
        notes.push(format!("agents of different versions: {}", versions.join(", ")));
    }
    Report { verdict, nodes, notes, control_plane: None }
}

/// The own node and, as it sees them, its peers.
#[must_use]
pub fn seen_by(status: &NodeStatus) -> Vec<Sighting> {
    let mut sightings: Vec<Sighting> = status.peers.iter().map(peer_sighting).collect();
    let (subnets, addresses) = (
        status.lease.as_ref().map(|lease| lease.subnets.clone()).unwrap_or_default(),
        status.overlay.iter().map(|device| device.public_ip).collect(),
    );
    let name = Some(status.node.clone());
    let agent = Agent::Answered(Box::new(Answer::from(status)));
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
        Agent::Answered(answer) => {
            row.wrong.extend(answer.wrong.iter().cloned());
            row.ready = Some(answer.ready);
            row.peers = Some(answer.peers);
            row.services.clone_from(&answer.services);
            row.repairs = Some(answer.repairs.clone());
            row.version = Some(answer.version.clone());
            row.overlay.clone_from(&answer.overlay);
            row.revision = Some(answer.revision);
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
    let counts = status.counts();
    wrong.extend(first(
        status.peers.iter().filter_map(unreached),
        counts.peers.saturating_sub(counts.programmed),
        "peers are not in the kernel as they should be",
    ));
    let ignored = |lease: &RejectedStatus| format!("lease {} is ignored: {}", lease.lease, lease.reason);
    wrong.extend(first(status.rejected.iter().map(ignored), counts.rejected, "leases are ignored"));
    wrong.extend(status.shared.iter().take(LISTED).cloned());
    wrong.extend(status.failed.iter().filter_map(|(table, count)| failed(status, table, *count)));
    if let Some(lease) = &status.lease {
        wrong.extend(capacity(lease).filter(|capacity| capacity.wrong).map(|capacity| capacity.words));
        wrong.extend(lease.notice.clone());
    }
    wrong.extend(status.notices.iter().cloned());
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

/// The first few, and how many there are beside them.
fn first(words: impl Iterator<Item = String>, all: usize, what: &str) -> Vec<String> {
    let mut listed: Vec<String> = words.take(LISTED).collect();
    if let Some(more) = all.checked_sub(listed.len()).filter(|more| *more > 0) {
        listed.push(format!("{more} further {what}"));
    }
    listed
}

/// Objects of a table that the kernel does not have as the agent wants them; nothing where the table's component says why.
#[must_use]
pub fn failed(status: &NodeStatus, table: &str, count: i64) -> Option<String> {
    let said =
        status.components.iter().any(|component| component.name == table && component.condition != Condition::Good);
    (count > 0 && !said).then(|| format!("{count} objects of table {table} are not in the kernel as they should be"))
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

/// That the cluster network is nearly used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// How far.
    pub words: String,
    /// Whether that is wrong; in a network of few subnets it is not.
    pub wrong: bool,
}

/// Whether the cluster network is nearly used up.
#[must_use]
pub fn capacity(lease: &LeaseStatus) -> Option<Capacity> {
    let LeaseStatus { used, total, .. } = lease;
    let high = *total > 0 && used.saturating_mul(100) >= total.saturating_mul(FULL);
    high.then(|| Capacity {
        words: format!("{used} of {total} subnets of the cluster network are taken"),
        wrong: *total > SMALL,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::ComponentStatus;

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
        let report = judge(&seen_by(&healthy("n1")));
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
        status.shared = vec!["node n4 publishes 192.0.2.1, too".into()];
        if let Some(lease) = &mut status.lease {
            lease.used = 205;
            lease.notice = Some("cannot write to Node n1: forbidden".into());
        }
        status.failed = [("filter".to_owned(), 3), ("peers".to_owned(), 1)].into();
        status.services = Some(ServicesStatus { rejected: 1, conflicts: 2, ..ServicesStatus::default() });
        let wrong = wrong(&status);
        for expected in [
            "store: refused",
            "peers waits: fine",
            "peer n2 (10.244.2.0/24): route 10.244.2.0/24: no buffer",
            "publishes nothing",
            "lease 10.244.3.0-24 is ignored: overlaps",
            "node n4 publishes 192.0.2.1, too",
            "205 of 256 subnets",
            "cannot write to Node n1: forbidden",
            "3 objects of table filter",
            "1 objects of Services",
            "2 addresses or node ports",
        ] {
            assert!(wrong.iter().any(|words| words.contains(expected)), "{expected}: {wrong:?}");
        }
        assert!(!wrong.iter().any(|words| words.contains("table peers")), "its component has said it: {wrong:?}");
        assert_eq!(judge(&seen_by(&status)).verdict.exit_code(), 1);
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
        let mut sightings = seen_by(&healthy("n1"));
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
        let sightings: Vec<_> = [seen_by(&healthy("n1")), seen_by(&newer)].concat();
        let report = judge(&sightings);
        assert_eq!((report.verdict, report.notes.len()), (Verdict::Well, 1));
        assert!(report.notes[0].contains("1.0.0, 1.1.0"), "{:?}", report.notes);
    }

    #[test]
    fn another_api_server_than_the_configured_one_is_noted_once() {
        let asks = |node: &str, server: &str| {
            let api_server = ApiServerStatus { in_use: server.into(), configured: "192.0.2.1:6443".into() };
            seen_by(&NodeStatus { api_server: Some(api_server), ..healthy(node) })
        };
        let report = judge(&[asks("n1", "192.0.2.2:6443"), asks("n2", "192.0.2.2:6443")].concat());
        assert_eq!(report.verdict, Verdict::Well);
        assert_eq!(report.notes, ["the configured API server 192.0.2.1:6443 is away, 192.0.2.2:6443 is asked"]);
        assert!(judge(&asks("n1", "192.0.2.1:6443")).notes.is_empty());
    }

    #[test]
    fn eighty_per_cent_is_full_and_no_fault_in_a_small_network() {
        let lease = |used, total| LeaseStatus { subnets: vec![], networks: vec![], used, total, notice: None };
        assert_eq!(capacity(&lease(79, 100)), None);
        assert!(capacity(&lease(80, 100)).unwrap().wrong);
        assert!(!capacity(&lease(4, 4)).unwrap().wrong);
        assert_eq!(capacity(&lease(0, 0)), None);

        let (mut one, mut two) = (healthy("n1"), healthy("n2"));
        (one.lease, two.lease) = (Some(lease(4, 4)), Some(lease(4, 4)));
        let report = judge(&[seen_by(&one), seen_by(&two)].concat());
        assert_eq!((report.verdict, report.notes.len()), (Verdict::Well, 1), "{:?}", report.notes);
    }

    #[test]
    fn what_is_kept_of_an_answer_does_not_grow_with_the_cluster() {
        let mut status = healthy("n1");
        status.peers = vec![peer(PeerState::Failed); 5000];
        status.rejected = vec![RejectedStatus { lease: "10.244.3.0-24".into(), reason: "overlaps".into() }; 5000];
        let whole = Answer::from(&status);
        assert_eq!((whole.peers.programmed, whole.peers.all), (0, 5000));
        assert_eq!(whole.wrong.len(), 2 * (LISTED + 1), "{:?}", whole.wrong);
        assert!(whole.wrong[LISTED].starts_with("4990 further peers"), "{:?}", whole.wrong);
        assert_eq!(Answer::from(&status.brief()), whole);
    }
}
