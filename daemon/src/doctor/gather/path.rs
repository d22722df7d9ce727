//! Asks peers through the overlay and beside it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::answers::connect;
use super::echo::Echoes;
use super::links::{Entry, View};
use super::wire::Wire as Tap;
use crate::cluster::Family;
use crate::doctor::Told;
use crate::doctor::path::{Connect, Peer, Wire};
use crate::serve::document::NodeStatus;

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

/// The peers to ask, at most so many, and how many more there are.
pub(super) fn peers(view: &View, status: Option<&NodeStatus>, most: usize) -> Told<(Vec<Peer>, usize)> {
    let mut entries: Vec<&Entry> = view.peers.as_ref().map_err(Clone::clone)?.iter().collect();
    let skipped = entries.len().saturating_sub(most);
    entries.truncate(most);
    let name = |entry: &Entry| {
        let known = status.and_then(|status| status.peers.iter().find(|peer| peer.subnets.contains(&entry.subnet)));
        let name = known.and_then(|peer| peer.node.clone()).unwrap_or_else(|| entry.subnet.to_string());
        // A node with two families is asked in both.
        let both = known.is_some_and(|peer| peer.subnets.len() > 1);
        if both { format!("{name} ({})", Family::of(entry.inner)) } else { name }
    };
    let peer = |entry: &Entry| Peer {
        name: name(entry),
        inner: entry.inner,
        outer: entry.outer,
        echo: false,
        tcp: None,
        underlay: false,
        underlay_tcp: Connect::Silent,
        wire: None,
        mtu: entry.mtu,
        largest: None,
    };
    Ok((entries.into_iter().map(peer).collect(), skipped))
}

/// Asks them. `port` is that of their agents, which all of them have open.
pub(super) async fn ask(mut peers: Vec<Peer>, view: &View, port: u16) -> Vec<Peer> {
    let mut sockets: BTreeMap<Family, Echoes> = BTreeMap::new();
    for family in Family::ALL {
        if let Ok(socket) = Echoes::open(family) {
            sockets.insert(family, socket);
        }
    }
    let tap = view.port().and_then(|port| Some((Tap::open(port).ok()?, port)));
    for chunk in peers.chunks_mut(AT_ONCE) {
        echo(chunk, &mut sockets);
        if let Some((tap, port)) = &tap {
            look(chunk, tap, *port, &sockets);
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

/// What was on the wire while they were asked.
fn look(peers: &mut [Peer], tap: &Tap, port: u16, sockets: &BTreeMap<Family, Echoes>) {
    let seen = tap.take(port);
    for peer in peers {
        let identifier = sockets.get(&Family::of(peer.inner)).map(Echoes::identifier);
        let mut wire = Wire::default();
        for seen in &seen {
            let ours = seen.echo.is_some_and(|(found, _)| Some(found) == identifier);
            let answer = seen.echo.is_some_and(|(_, answer)| answer);
            wire.sent |= seen.destination == peer.outer && ours && !answer;
            wire.heard |= seen.source == peer.outer;
            wire.answered |= seen.source == peer.outer && ours && answer;
        }
        peer.wire = Some(wire);
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
