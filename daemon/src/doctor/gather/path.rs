//! Asks peers through the overlay and beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::answers::connect;
use super::echo::Echoes;
use super::links::{Behind, Entry, View};
use super::wire::{Seen, What, Wire as Tap};
use crate::cluster::Family;
use crate::doctor::Told;
use crate::doctor::overlay::Carrier;
use crate::doctor::path::{Connect, Peer, Wire};
use crate::serve::document::{NodeStatus, PeerState};

/// How long one round of echoes waits for answers.
const ROUND: Duration = Duration::from_millis(500);

/// Rounds in which who has not answered is asked again.
const ROUNDS: usize = 3;

/// Peers that are asked in one round: what a thousand answer at once would not fit into the socket.
const AT_ONCE: usize = 256;

/// The smallest packet that is tried; every host takes that much (RFC 791, RFC 8200).
const fn smallest(family: Family) -> u32 {
    match family {
        Family::V4 => 576,
        Family::V6 => 1280,
    }
}

/// Whom the kernel's tables lead to.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The peers to ask.
    pub(super) peers: Vec<Peer>,
    /// How many more there are.
    pub(super) skipped: usize,
    /// Those whose packets go nowhere, and why.
    pub(super) broken: Vec<(String, String)>,
    /// Those that the agent has programmed, and that are not there.
    pub(super) absent: Vec<String>,
}

/// The peers to ask, at most so many, and what is wrong with the others.
pub(super) fn peers(view: &View, status: Option<&NodeStatus>, most: usize) -> Told<Found> {
    let behind = view.peers.as_ref().map_err(Clone::clone)?;
    let mut entries: Vec<&Entry> = behind.whole.iter().collect();
    let absent = status.map(|status| absent(status, behind)).unwrap_or_default();
    let skipped = entries.len().saturating_sub(most);
    entries.truncate(most);
    let name = |subnet: IpNetwork| {
        let known = status.and_then(|status| status.peers.iter().find(|peer| peer.subnets.contains(&subnet)));
        let name = known.and_then(|peer| peer.node.clone()).unwrap_or_else(|| subnet.to_string());
        // A node with two families is asked in both.
        let both = known.is_some_and(|peer| peer.subnets.len() > 1);
        if both { format!("{name} ({})", Family::of(subnet.ip())) } else { name }
    };
    let peer = |entry: &Entry| Peer {
        name: name(entry.subnet),
        inner: entry.inner,
        outer: entry.outer,
        echo: false,
        tcp: None,
        underlay: false,
        underlay_tcp: Connect::Silent,
        wire: None,
        untold: None,
        port: entry.port,
        encrypted: entry.carrier == Carrier::Wireguard,
        mtu: entry.mtu,
        added: entry.carrier.overhead(Family::of(entry.outer)),
        largest: None,
    };
    let broken = behind.broken.iter().map(|(subnet, lacks)| (name(*subnet), lacks.clone())).collect();
    Ok(Found { peers: entries.into_iter().map(peer).collect(), skipped, broken, absent })
}

/// The networks that the agent says are in the kernel, of the families that this node has, and that no route leads to.
fn absent(status: &NodeStatus, behind: &Behind) -> Vec<String> {
    let routed: BTreeSet<IpNetwork> =
        behind.whole.iter().map(|entry| entry.subnet).chain(behind.broken.iter().map(|(subnet, _)| *subnet)).collect();
    let own = status.lease.iter().flat_map(|lease| &lease.subnets);
    let families: BTreeSet<Family> = own.map(|subnet| Family::of(subnet.ip())).collect();
    let programmed = status.peers.iter().filter(|peer| peer.state == PeerState::Programmed);
    let subnets = programmed.flat_map(|peer| peer.subnets.iter().map(move |subnet| (peer, *subnet)));
    subnets
        .filter(|(_, subnet)| families.contains(&Family::of(subnet.ip())) && !routed.contains(subnet))
        .map(|(peer, subnet)| match &peer.node {
            Some(node) => format!("{node} ({subnet})"),
            None => subnet.to_string(),
        })
        .collect()
}

/// Asks them. `port` is that of their agents, which all of them have open.
pub(super) async fn ask(mut peers: Vec<Peer>, view: &View, port: u16) -> Vec<Peer> {
    let mut sockets: BTreeMap<Family, Echoes> = BTreeMap::new();
    for family in Family::ALL {
        match Echoes::open(family) {
            Ok(socket) => {
                sockets.insert(family, socket);
            }
            // A machine without IPv6 has no peers by it.
            Err(error) => {
                let deaf = peers.iter_mut().filter(|peer| Family::of(peer.inner) == family);
                deaf.for_each(|peer| peer.untold = Some(format!("echoes cannot be sent: {error}")));
            }
        }
    }
    let identifier = sockets.values().next().map(Echoes::identifier);
    let taps = identifier.map(|identifier| Taps::open(&view.ports(), identifier));
    let taps = match taps.transpose() {
        Ok(taps) => taps,
        Err(error) => {
            // What is silent may have been lost anywhere, this machine included.
            let reason = format!("the wire cannot be looked at: {error}");
            peers.iter_mut().for_each(|peer| peer.untold = peer.untold.take().or_else(|| Some(reason.clone())));
            None
        }
    };
    for chunk in peers.chunks_mut(AT_ONCE) {
        if let Some(taps) = &taps {
            taps.drain();
        }
        echo(chunk, &mut sockets);
        if let Some(taps) = &taps {
            taps.look(chunk);
        }
        underlay(chunk, &mut sockets);
        sizes(chunk, &mut sockets);
    }
    let inner: Vec<IpAddr> = peers.iter().map(|peer| peer.inner).collect();
    let outer: Vec<IpAddr> = peers.iter().map(|peer| peer.outer).collect();
    let (inner, outer) = (connect(&inner, port).await, connect(&outer, port).await);
    for (peer, (inner, outer)) in peers.iter_mut().zip(inner.into_iter().zip(outer)) {
        (peer.tcp, peer.underlay_tcp) = (Some(inner), outer);
    }
    peers
}

/// Asks those of `targets` that are addresses of one family each, again and again; says who has answered.
fn rounds(targets: &[(IpAddr, u32)], sockets: &mut BTreeMap<Family, Echoes>) -> Vec<bool> {
    let mut answered = vec![false; targets.len()];
    for _ in 0..ROUNDS {
        for (family, socket) in sockets.iter_mut() {
            let asked: Vec<usize> = (0..targets.len())
                .filter(|at| !answered.get(*at).copied().unwrap_or(true))
                .filter(|at| targets.get(*at).is_some_and(|(ip, _)| Family::of(*ip) == *family))
                .collect();
            if asked.is_empty() {
                continue;
            }
            let questions: Vec<(IpAddr, u32)> = asked.iter().filter_map(|at| targets.get(*at).copied()).collect();
            for (at, outcome) in asked.into_iter().zip(socket.ask(&questions, ROUND)) {
                if let Some(slot) = answered.get_mut(at) {
                    *slot = matches!(outcome, Ok(true));
                }
            }
        }
    }
    answered
}

fn echo(peers: &mut [Peer], sockets: &mut BTreeMap<Family, Echoes>) {
    let targets: Vec<(IpAddr, u32)> = peers.iter().map(|peer| (peer.inner, 64)).collect();
    for (peer, answered) in peers.iter_mut().zip(rounds(&targets, sockets)) {
        peer.echo = answered;
    }
}

fn underlay(peers: &mut [Peer], sockets: &mut BTreeMap<Family, Echoes>) {
    let targets: Vec<(IpAddr, u32)> = peers.iter().map(|peer| (peer.outer, 64)).collect();
    for (peer, answered) in peers.iter_mut().zip(rounds(&targets, sockets)) {
        peer.underlay = answered;
    }
}

/// What is on the wire while peers are asked; for each port of the overlay two taps.
struct Taps {
    /// Our questions and their answers.
    echoes: Vec<Tap>,
    /// Whatever else comes and goes. Of much traffic it misses some; what it has seen is true.
    all: Vec<Tap>,
}

impl Taps {
    fn open(ports: &[u16], identifier: u16) -> std::io::Result<Self> {
        let tap = |what| ports.iter().map(|port| Tap::open(*port, what)).collect::<Result<_, _>>();
        Ok(Self { echoes: tap(What::Echoes(identifier))?, all: tap(What::All)? })
    }

    /// Forgets what was before.
    fn drain(&self) {
        self.look(&mut []);
    }

    fn look(&self, peers: &mut [Peer]) {
        let take = |taps: &[Tap]| -> Vec<Seen> { taps.iter().flat_map(Tap::take).collect() };
        let echoes = take(&self.echoes);
        see(peers, &echoes, self.echoes.iter().map(Tap::lost).sum(), &take(&self.all));
    }
}

/// What each peer's packets tell: our echoes, of which so many were lost before they could be looked at, and all others.
fn see(peers: &mut [Peer], echoes: &[Seen], lost: u32, others: &[Seen]) {
    let heard: BTreeSet<IpAddr> = others.iter().map(|seen| seen.source).collect();
    let spoken: BTreeSet<IpAddr> = others.iter().map(|seen| seen.destination).collect();
    let is_answer = |seen: &&Seen| seen.echo.is_some_and(|(_, answer)| answer);
    let answered: BTreeSet<IpAddr> = echoes.iter().filter(is_answer).map(|seen| seen.source).collect();
    let sent: BTreeSet<IpAddr> = echoes.iter().filter(|seen| !is_answer(seen)).map(|seen| seen.destination).collect();
    for peer in peers {
        let outer = &peer.outer;
        if peer.encrypted {
            // That something goes there and comes from there is all that can be seen.
            peer.wire = Some(Wire { sent: spoken.contains(outer), answered: false, heard: heard.contains(outer) });
            continue;
        }
        let (sent, answered) = (sent.contains(outer), answered.contains(outer));
        if lost > 0 && !(sent && answered) {
            peer.untold = Some(format!("{lost} packets went by before they could be looked at; --peers asks fewer"));
        }
        peer.wire = Some(Wire { sent, answered, heard: answered || heard.contains(outer) });
    }
}

/// The largest packet that each of them answers: the device's MTU, or found by halving.
fn sizes(peers: &mut [Peer], sockets: &mut BTreeMap<Family, Echoes>) {
    // Between the two, lower answered and upper not.
    let mut bounds: Vec<Option<(u32, u32)>> = Vec::with_capacity(peers.len());
    let whole: Vec<(IpAddr, u32)> = peers.iter().map(|peer| (peer.inner, peer.mtu)).collect();
    let answering: Vec<(IpAddr, u32)> =
        whole.iter().zip(&*peers).filter(|(_, peer)| peer.echo).map(|(target, _)| *target).collect();
    let mut answers = rounds(&answering, sockets).into_iter();
    for peer in &mut *peers {
        if !peer.echo {
            bounds.push(None);
        } else if answers.next() == Some(true) {
            peer.largest = Some(peer.mtu);
            bounds.push(None);
        } else {
            // What was answered before is smaller than what every host takes.
            bounds.push(Some((64, peer.mtu)));
        }
    }
    let mut first = true;
    loop {
        let open: Vec<(usize, IpAddr, u32)> = bounds
            .iter()
            .zip(&*peers)
            .enumerate()
            .filter_map(|(at, (bound, peer))| {
                let (lower, upper) = bound.filter(|(lower, upper)| upper - lower > 1)?;
                let least = smallest(Family::of(peer.inner));
                let middle = if first && lower < least && least < upper { least } else { lower.midpoint(upper) };
                Some((at, peer.inner, middle))
            })
            .collect();
        first = false;
        if open.is_empty() {
            break;
        }
        let targets: Vec<(IpAddr, u32)> = open.iter().map(|(_, ip, size)| (*ip, *size)).collect();
        for ((at, _, size), answered) in open.iter().zip(rounds(&targets, sockets)) {
            if let Some(Some((lower, upper))) = bounds.get_mut(*at) {
                *(if answered { lower } else { upper }) = *size;
            }
        }
    }
    for (peer, bound) in peers.iter_mut().zip(bounds) {
        if let Some((lower, _)) = bound {
            peer.largest = Some(lower);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::document::{LeaseStatus, PeerStatus};

    fn peer(host: u8) -> Peer {
        Peer {
            name: format!("n{host}"),
            inner: IpAddr::from([10, 244, host, 0]),
            outer: IpAddr::from([192, 0, 2, host]),
            echo: false,
            tcp: None,
            underlay: false,
            underlay_tcp: Connect::Silent,
            wire: None,
            untold: None,
            port: 8472,
            encrypted: false,
            mtu: 1450,
            added: 50,
            largest: None,
        }
    }

    #[test]
    fn what_was_seen_is_true_and_what_was_not_is_unknown_once_packets_are_lost() {
        let echo = |from: u8, to: u8, answer| Seen {
            source: IpAddr::from([192, 0, 2, from]),
            destination: IpAddr::from([192, 0, 2, to]),
            echo: Some((1, answer)),
        };
        let echoes = [echo(1, 2, false), echo(2, 1, true), echo(1, 3, false)];
        let others = [Seen { echo: None, ..echo(3, 1, false) }];
        let look = |lost| {
            let mut peers = [peer(2), peer(3), peer(4)];
            see(&mut peers, &echoes, lost, &others);
            peers.map(|peer| (peer.wire.unwrap(), peer.untold.is_some()))
        };
        let wire = |sent, answered, heard| Wire { sent, answered, heard };
        let seen = [wire(true, true, true), wire(true, false, true), wire(false, false, false)];
        assert_eq!(look(0), seen.map(|wire| (wire, false)));
        assert_eq!(look(1), [(seen[0], false), (seen[1], true), (seen[2], true)]);
    }

    #[test]
    fn of_a_sealed_packet_only_the_way_is_seen() {
        let (here, there) = (IpAddr::from([192, 0, 2, 1]), peer(2).outer);
        let out = Seen { source: here, destination: there, echo: None };
        let back = Seen { source: there, destination: here, echo: None };
        let look = |others: &[Seen]| {
            let mut peers = [Peer { encrypted: true, ..peer(2) }];
            see(&mut peers, &[], 9, others);
            assert_eq!(peers[0].untold, None);
            peers[0].wire.unwrap()
        };
        assert_eq!(look(&[out]), Wire { sent: true, answered: false, heard: false });
        assert_eq!(look(&[out, back]), Wire { sent: true, answered: false, heard: true });
        assert_eq!(look(&[]), Wire::default());
    }

    #[test]
    fn what_the_agent_has_programmed_and_the_kernel_lacks_is_named() {
        let subnet = |host: u8| -> IpNetwork { format!("10.244.{host}.0/24").parse().unwrap() };
        let known = |host: u8, state| PeerStatus {
            node: Some(format!("n{host}")),
            // A peer may have a family that this node has not.
            subnets: vec![subnet(host), format!("fd00:244:{host}::/64").parse().unwrap()],
            addresses: Vec::new(),
            state,
            reason: None,
        };
        let status = NodeStatus {
            lease: Some(LeaseStatus { subnets: vec![subnet(1)], networks: vec![], used: 4, total: 256, notice: None }),
            peers: vec![
                known(2, PeerState::Programmed),
                known(3, PeerState::Programmed),
                known(4, PeerState::Programmed),
                known(5, PeerState::Failed),
            ],
            ..NodeStatus::default()
        };
        let (inner, outer) = (peer(2).inner, peer(2).outer);
        let carrier = Carrier::Vxlan { vni: 1 };
        let whole = Entry { subnet: subnet(2), inner, outer, port: 8472, mtu: 1450, carrier };
        let behind = Behind { whole: vec![whole], broken: vec![(subnet(3), "no FDB entry".into())] };
        assert_eq!(absent(&status, &behind), ["n4 (10.244.4.0/24)"]);
    }
}
