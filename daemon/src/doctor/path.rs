//! The way to each peer: whether packets of the overlay come and go, and how large they may be.

use std::net::IpAddr;

use super::check::Group;
use super::{Check, Told};

const GROUP: Group = Group("path");

/// What an attempt to connect told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connect {
    /// It was answered: taken, or refused by the peer itself.
    Answered,
    /// Nothing came.
    Silent,
}

/// What was seen of a peer's packets on the wire while it was asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wire {
    /// Our question left this machine, encapsulated.
    pub sent: bool,
    /// Its answer came in, encapsulated.
    pub answered: bool,
    /// Something of the overlay came in from it.
    pub heard: bool,
}

/// What a peer was asked, and what came of it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its name, or its subnet.
    pub name: String,
    /// The address on its device.
    pub inner: IpAddr,
    /// The address to which encapsulated packets are sent.
    pub outer: IpAddr,
    /// Whether it answers echoes through the overlay.
    pub echo: bool,
    /// Whether it answers a TCP connection through the overlay; `None` if that was not tried.
    pub tcp: Option<Connect>,
    /// Whether it answers echoes at its node's address.
    pub underlay: bool,
    /// The same of a TCP connection to its agent.
    pub underlay_tcp: Connect,
    /// What was seen on the wire; `None` if nothing could be looked at.
    pub wire: Option<Wire>,
    /// Why it says nothing that no answer was heard, if so: echoes may not be sent, or some packets were not seen.
    pub untold: Option<String>,
    /// The UDP port to which they are sent.
    pub port: u16,
    /// Whether nobody can look into them.
    pub encrypted: bool,
    /// The MTU of the device towards it.
    pub mtu: u32,
    /// Bytes that are added to a packet on the way.
    pub added: u32,
    /// The largest packet through the overlay that it answers; `None` if it answers none at all.
    pub largest: Option<u32>,
}

impl Peer {
    /// Whether the overlay reaches it in both directions.
    #[must_use]
    pub fn reached(&self) -> bool {
        self.echo || self.tcp == Some(Connect::Answered)
    }
}

/// What is asked of the ways.
#[derive(Debug, Clone)]
pub struct PathFacts {
    /// The peers in the kernel.
    pub peers: Told<Vec<Peer>>,
    /// Peers with a route whose packets go nowhere: the peer, and what is missing.
    pub broken: Vec<(String, String)>,
    /// Peers that the agent has put into the kernel, and that are not there.
    pub absent: Vec<String>,
    /// Peers that were not asked, as there are too many.
    pub skipped: usize,
}

/// The checks.
#[must_use]
pub fn judge(facts: &PathFacts) -> Vec<Check> {
    let peers = match &facts.peers {
        Ok(peers) => peers,
        Err(reason) => return vec![GROUP.unknown("peers", reason.clone())],
    };
    let mut checks: Vec<Check> = facts.broken.iter().map(|(name, words)| broken(name, words)).collect();
    checks.extend(absent(&facts.absent));
    if peers.is_empty() && checks.is_empty() {
        return vec![GROUP.moot("peers", "there are no other nodes in the kernel's tables")];
    }
    checks.extend(peers.iter().flat_map(|peer| [reach(peer), mtu(peer)]));
    if facts.skipped > 0 {
        checks.push(
            GROUP.note("peers", format!("{} further peers were not asked; --peers raises the number", facts.skipped)),
        );
    }
    checks
}

const MENDS_ITSELF: &str = "a running agent puts it back within seconds; if it does not, see what it says of peers, and who else changes routes, neighbours and FDB entries: ip monitor all";

fn broken(name: &str, words: &str) -> Check {
    GROUP.problem(name, words, MENDS_ITSELF)
}

/// So many peers are named.
const NAMED: usize = 10;

fn absent(peers: &[String]) -> Option<Check> {
    let named = peers.get(..NAMED.min(peers.len())).filter(|named| !named.is_empty())?;
    let more = if peers.len() > named.len() { ", …" } else { "" };
    let words = format!(
        "{} networks of peers have no route on the overlay's devices, though the agent has put them there: {}{more}",
        peers.len(),
        named.join(", ")
    );
    Some(GROUP.problem("routes", words, MENDS_ITSELF))
}

fn reach(peer: &Peer) -> Check {
    let Peer { name, inner, outer, port, .. } = peer;
    if peer.reached() {
        return GROUP.good(name, format!("answers at {inner} through the overlay (UDP {port} to {outer} and back)"));
    }
    if let Some(reason) = &peer.untold {
        return GROUP.unknown(name, format!("no answer was heard from {inner}, which says nothing: {reason}"));
    }
    let rule_at = |chain: &str| {
        format!(
            "nft list ruleset | grep -n -B3 {port} shows the rule; iptables -I {chain} -p udp --dport {port} -j ACCEPT, or firewall-cmd --permanent --add-port={port}/udp && firewall-cmd --reload"
        )
    };
    let underlay = peer.underlay || peer.underlay_tcp == Connect::Answered;
    let (cause, remedy) = match peer.wire {
        Some(Wire { sent: false, .. }) => (
            format!(
                "packets for {outer} do not leave this machine: a rule at OUTPUT drops UDP {port}, or there is no way to {outer}"
            ),
            format!("{}; ip route get {outer}", rule_at("OUTPUT")),
        ),
        Some(Wire { answered: true, .. }) => (
            format!("its answers come in here, and a rule at INPUT of this machine drops UDP {port}"),
            rule_at("INPUT"),
        ),
        Some(Wire { heard: true, .. }) if peer.encrypted => (
            format!(
                "we send and it does not answer, though packets of its tunnel come in: its keys are not those that it has published, its PSK is another, or a rule here or there drops UDP {port} in one direction"
            ),
            format!("wg show on both nodes (latest handshake, public key, endpoint); {}", rule_at("INPUT")),
        ),
        Some(Wire { heard: true, .. }) => (
            format!(
                "we send and it does not answer, though other packets of its overlay come in: ours are lost on the way there, or a firewall on {name} drops UDP {port} from this node"
            ),
            format!("on {name}: weft doctor, and {}", rule_at("INPUT")),
        ),
        _ if underlay => (
            format!(
                "we send UDP {port} to {outer}, nothing comes back, and the node itself does answer: a firewall or security group between drops UDP {port}"
            ),
            format!(
                "allow UDP {port} between all nodes, both ways (security group, NSX, host firewall on {name}: {}); on {name}, tcpdump -ni any udp port {port} and host {outer} shows whether ours arrive, and weft doctor its side of it",
                rule_at("INPUT")
            ),
        ),
        _ => (
            format!(
                "nothing answers at {outer}, not even the node itself: it is down, unreachable, or that is not its address"
            ),
            format!(
                "ping {outer}; ip route get {outer}; on {name}: weft status, and --public-ip if it publishes the wrong address"
            ),
        ),
    };
    GROUP.problem(name, cause, remedy)
}

fn mtu(peer: &Peer) -> Check {
    let (name, added) = (format!("{} mtu", peer.name), peer.added);
    match peer.largest {
        Some(largest) if largest >= peer.mtu => {
            GROUP.good(name, format!("{} bytes go through whole ({} outside)", peer.mtu, peer.mtu + added))
        }
        Some(largest) => GROUP.problem(
            name,
            format!(
                "packets of up to {largest} bytes go through and larger ones are lost, though the overlay's MTU is {}: something between takes only {} bytes of outer packet, not {}",
                peer.mtu,
                largest + added,
                peer.mtu + added
            ),
            format!(
                "raise the MTU between the nodes to {} (ip link show on {}, switches, the cloud's network), or set Backend.MTU to {} in the network configuration",
                peer.mtu + added,
                peer.name,
                largest + added
            ),
        ),
        None if peer.untold.is_some() => GROUP.unknown(name, "sizes could not be tried"),
        None if peer.reached() => GROUP.unknown(name, "it answers no echo through the overlay, only TCP, so sizes cannot be tried"),
        None => GROUP.moot(name, "it does not answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    fn peer() -> Peer {
        Peer {
            name: "n2".into(),
            inner: "10.244.2.0".parse().unwrap(),
            outer: "192.0.2.2".parse().unwrap(),
            echo: true,
            tcp: Some(Connect::Answered),
            underlay: true,
            underlay_tcp: Connect::Answered,
            wire: Some(Wire { sent: true, answered: true, heard: true }),
            untold: None,
            port: 8472,
            encrypted: false,
            mtu: 1450,
            added: 50,
            largest: Some(1450),
        }
    }

    fn silent(wire: Wire) -> Peer {
        Peer { echo: false, tcp: Some(Connect::Silent), wire: Some(wire), largest: None, ..peer() }
    }

    fn facts(peers: Told<Vec<Peer>>) -> PathFacts {
        PathFacts { peers, broken: Vec::new(), absent: Vec::new(), skipped: 0 }
    }

    fn judged(peer: Peer) -> (Check, Check) {
        let mut checks = judge(&facts(Ok(vec![peer])));
        let mtu = checks.remove(1);
        (checks.remove(0), mtu)
    }

    #[test]
    fn a_peer_that_answers_in_full_is_good() {
        let (reach, mtu) = judged(peer());
        assert_eq!((reach.outcome, mtu.outcome), (Outcome::Good, Outcome::Good));
        // A firewall that takes no echoes is none of the overlay's faults.
        let (reach, mtu) = judged(Peer { echo: false, largest: None, ..peer() });
        assert_eq!((reach.outcome, mtu.outcome), (Outcome::Good, Outcome::Unknown));
    }

    #[test]
    fn where_packets_are_lost_is_told_apart() {
        let wire = |sent, answered, heard| judged(silent(Wire { sent, answered, heard })).0.words;
        assert!(wire(false, false, false).contains("OUTPUT"));
        assert!(wire(true, true, true).contains("INPUT of this machine"));
        assert!(wire(true, false, true).contains("ours are lost on the way there"));
        assert!(wire(true, false, false).contains("nothing comes back"));
        let gone =
            Peer { underlay: false, underlay_tcp: Connect::Silent, ..silent(Wire { sent: true, ..Wire::default() }) };
        assert!(judged(gone).0.words.contains("not even the node itself"));
        // Without a look at the wire the node's own answers tell.
        assert!(judged(Peer { wire: None, ..silent(Wire::default()) }).0.words.contains("nothing comes back"));
        assert_eq!(judged(silent(Wire::default())).1.outcome, Outcome::Moot);
        let heard = Wire { sent: true, answered: false, heard: true };
        let sealed = judged(Peer { encrypted: true, port: 51820, ..silent(heard) }).0;
        assert!(sealed.words.contains("keys") && sealed.words.contains("51820"), "{}", sealed.words);
    }

    #[test]
    fn who_could_not_listen_knows_nothing_of_silence() {
        let deaf = Peer { untold: Some("Operation not permitted".into()), ..silent(Wire::default()) };
        let (reach, mtu) = judged(deaf);
        assert_eq!((reach.outcome, mtu.outcome), (Outcome::Unknown, Outcome::Unknown));
        assert!(reach.words.contains("not permitted"), "{}", reach.words);
        let heard = Peer { untold: Some("Operation not permitted".into()), echo: false, largest: None, ..peer() };
        assert_eq!(judged(heard).0.outcome, Outcome::Good, "TCP has answered");
    }

    #[test]
    fn peers_whose_packets_go_nowhere_are_no_silence() {
        let facts = PathFacts {
            broken: vec![("n3".into(), "no neighbour entry".into())],
            absent: (1..=12).map(|number| format!("n4 (10.244.{number}.0/24)")).collect(),
            ..facts(Ok(Vec::new()))
        };
        let checks = judge(&facts);
        let found: Vec<(&str, Outcome)> = checks.iter().map(|check| (check.name.as_str(), check.outcome)).collect();
        assert_eq!(found, [("n3", Outcome::Problem), ("routes", Outcome::Problem)]);
        assert!(checks[1].words.starts_with("12 networks") && checks[1].words.ends_with('…'), "{}", checks[1].words);
    }

    #[test]
    fn a_narrow_way_is_told_inside_and_outside() {
        let (_, mtu) = judged(Peer { largest: Some(1350), ..peer() });
        assert_eq!(mtu.outcome, Outcome::Problem);
        for number in ["1350", "1450", "1400", "1500"] {
            assert!(mtu.words.contains(number), "{number}: {}", mtu.words);
        }
        assert!(mtu.remedy.unwrap().contains("Backend.MTU to 1400"));
    }

    #[test]
    fn nobody_to_ask_is_moot_and_a_kernel_that_does_not_answer_unknown() {
        let none = judge(&facts(Ok(Vec::new())));
        assert_eq!(none[0].outcome, Outcome::Moot);
        let dark = judge(&facts(Err("denied".into())));
        assert_eq!(dark[0].outcome, Outcome::Unknown);
    }
}
