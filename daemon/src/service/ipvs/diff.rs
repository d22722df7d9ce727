//! What has to change at one virtual server, in the order in which it has to.
//!
//! Backends come before others go, so that there is always somebody. A virtual server that nobody wants is only emptied
//! here: it goes when the packets' way to it is closed, which is not known here.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_netlink::ipvs::{RealServer, Target, VirtualServer};
use weft_netlink::protocol;

use super::drain::{Input, State, step};
use super::kernel::Op;
use super::plan::Desired;

/// A virtual server as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// Itself.
    pub(super) server: VirtualServer,
    /// Its real servers, sorted by address and port.
    pub(super) reals: Vec<RealServer>,
}

/// The real servers that drain, and until when (see [`State::Draining`]).
pub(super) type Draining = BTreeMap<SocketAddr, Option<Instant>>;

/// What is known of a virtual server.
pub(super) struct Situation<'a> {
    /// Its identity.
    pub(super) target: Target,
    /// What it should be; `None` if it should not.
    pub(super) desired: Option<&'a Desired>,
    /// What it is; `None` if it is not.
    pub(super) image: Option<&'a Image>,
    /// Which of its real servers drain.
    pub(super) draining: &'a Draining,
    /// Those who still serve their connections, sorted, whether they get new ones or not.
    pub(super) serving: &'a [SocketAddr],
}

/// What does not depend on the virtual server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The time.
    pub(super) now: Instant,
    /// How long a real server drains at most.
    pub(super) limit: Duration,
    /// Differs from node to node.
    pub(super) seed: u64,
}

/// What has to change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Diff {
    /// The changes, in order.
    pub(super) ops: Vec<Op>,
    /// The real servers that drain afterwards.
    pub(super) draining: Draining,
    /// The virtual server is there, nobody wants it, and nothing drains at it.
    pub(super) idle: bool,
}

/// Compares a virtual server with what it should be.
pub(super) fn diff(situation: &Situation<'_>, rules: &Rules) -> Diff {
    let Situation { target, desired, image, .. } = *situation;
    let mut diff = Diff::default();
    match (desired, image) {
        (Some(desired), None) => diff.ops.push(Op::AddVirtual(desired.server.clone())),
        (Some(desired), Some(image)) if desired.server != image.server => {
            diff.ops.push(Op::SetVirtual(desired.server.clone()));
        }
        _ => {}
    }
    let wanted = desired.map_or(&[][..], |desired| &desired.backends[..]);
    let reals = image.map_or(&[][..], |image| &image.reals[..]);

    let mut new: Vec<SocketAddr> = wanted.iter().copied().filter(|address| find(reals, address).is_none()).collect();
    // The kernel's round robin starts at the same end on every node. In the same order everywhere, the first backend
    // would get the first connection of all nodes (kubernetes/kubernetes#121591).
    new.sort_by_cached_key(|address| rank(rules.seed, &target, address));
    diff.ops.extend(new.iter().map(|address| Op::AddReal(target, real(address, 1))));

    let mut leave = Vec::new();
    for current in reals {
        let address = current.socket_address();
        let state = situation.draining.get(&address).map_or(State::Serving, |until| State::Draining { until: *until });
        let input = if wanted.binary_search(&address).is_ok() {
            Input::Wanted
        } else {
            Input::Unwanted { lasting: lasts(&target), serves: situation.serving.binary_search(&address).is_ok() }
        };
        let state = step(state, input, rules.now, rules.limit);
        if let State::Draining { until } = state {
            diff.draining.insert(address, until);
        }
        // What somebody else has set is set right, too.
        match state.weight().map(|weight| real(&address, weight)) {
            None => leave.push(Op::DeleteReal(target, address)),
            Some(right) if *current == right => {}
            Some(right) if right.weight == 0 => leave.push(Op::SetReal(target, right)),
            Some(right) => diff.ops.push(Op::SetReal(target, right)),
        }
    }
    if desired.is_some() || !diff.draining.is_empty() {
        diff.ops.append(&mut leave);
    } else {
        // They go with their virtual server, as soon as no packet can miss it.
        diff.idle = image.is_some();
    }
    diff
}

/// Makes an image what the kernel made of itself.
pub(super) fn apply(image: &mut Option<Image>, op: &Op) {
    match op {
        Op::AddVirtual(server) => *image = Some(Image { server: server.clone(), reals: Vec::new() }),
        Op::DeleteVirtual(_) => *image = None,
        Op::SetVirtual(server) => {
            if let Some(image) = image {
                image.server = server.clone();
            }
        }
        Op::AddReal(_, server) | Op::SetReal(_, server) => {
            if let Some(image) = image {
                match position(&image.reals, &server.socket_address()) {
                    Ok(at) => image.reals[at] = *server,
                    Err(at) => image.reals.insert(at, *server),
                }
            }
        }
        Op::DeleteReal(_, address) => {
            if let Some(image) = image
                && let Ok(at) = position(&image.reals, address)
            {
                image.reals.remove(at);
            }
        }
    }
}

/// A real server as weft makes them.
fn real(address: &SocketAddr, weight: u32) -> RealServer {
    RealServer::new(address.ip(), address.port(), weight)
}

/// Whether a connection through the virtual server is worth waiting for. UDP and SCTP move at once: the one has no
/// connections that could end, the other finds another way by itself.
fn lasts(target: &Target) -> bool {
    matches!(target, Target::Address { protocol: protocol::TCP, .. })
}

fn find<'a>(reals: &'a [RealServer], address: &SocketAddr) -> Option<&'a RealServer> {
    position(reals, address).ok().map(|at| &reals[at])
}

fn position(reals: &[RealServer], address: &SocketAddr) -> Result<usize, usize> {
    reals.binary_search_by_key(address, RealServer::socket_address)
}

fn rank(seed: u64, target: &Target, address: &SocketAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, target, address).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_netlink::ipvs::{Persistence, Scheduler};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(120);

    fn target(protocol: u8) -> Target {
        Target::Address { address: "10.96.0.1".parse().unwrap(), port: 80, protocol }
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    fn desired(target: Target, backends: &[u8]) -> Desired {
        let backends = backends.iter().map(|last| address(*last)).collect();
        Desired { server: VirtualServer::new(target, Scheduler::ROUND_ROBIN), backends, fallback: None }
    }

    fn image(target: Target, reals: &[(u8, u32)]) -> Image {
        let reals = reals.iter().map(|(last, weight)| real(&address(*last), *weight)).collect();
        Image { server: VirtualServer::new(target, Scheduler::ROUND_ROBIN), reals }
    }

    fn compare(target: Target, desired: Option<&Desired>, image: Option<&Image>, seed: u64) -> Diff {
        let situation = Situation { target, desired, image, draining: &Draining::new(), serving: &[] };
        diff(&situation, &Rules { now: Instant::now(), limit: LIMIT, seed })
    }

    #[test]
    fn a_new_one_is_filled_in_an_order_of_the_nodes_own() {
        let target = target(protocol::TCP);
        let desired = desired(target, &[1, 2, 3, 4, 5, 6, 7, 8]);
        let orders: Vec<Vec<Op>> = (0..16).map(|seed| compare(target, Some(&desired), None, seed).ops).collect();
        assert!(orders.iter().all(|ops| ops.len() == 9 && ops[0] == Op::AddVirtual(desired.server.clone())));
        assert_eq!(orders[0], compare(target, Some(&desired), None, 0).ops, "and always the same");
        let first = |ops: &Vec<Op>| ops[1].clone();
        assert!(orders.iter().any(|ops| first(ops) != first(&orders[0])));
    }

    #[test]
    fn backends_come_before_others_go() {
        let target = target(protocol::UDP);
        let (desired, image) = (desired(target, &[2, 3]), image(target, &[(1, 1), (2, 1)]));
        let diff = compare(target, Some(&desired), Some(&image), 0);
        assert_eq!(diff.ops, [Op::AddReal(target, real(&address(3), 1)), Op::DeleteReal(target, address(1))]);
        assert!(diff.draining.is_empty());
    }

    #[test]
    fn p10_a_wanted_one_at_weight_0_gets_its_weight_back_and_an_unwanted_one_drains() {
        let target = target(protocol::TCP);
        let (desired, image) = (desired(target, &[1]), image(target, &[(1, 0), (2, 0), (3, 1)]));
        let diff = compare(target, Some(&desired), Some(&image), 0);
        let expected = [Op::SetReal(target, real(&address(1), 1)), Op::SetReal(target, real(&address(3), 0))];
        assert_eq!(diff.ops, expected);
        assert_eq!(diff.draining.keys().copied().collect::<Vec<_>>(), [address(2), address(3)]);
    }

    #[test]
    fn another_persistence_is_set_and_nothing_else() {
        let target = target(protocol::TCP);
        let (mut desired, image) = (desired(target, &[1]), image(target, &[(1, 1)]));
        assert_eq!(compare(target, Some(&desired), Some(&image), 0), Diff::default());
        desired.server.persistence = Some(Persistence { timeout: Duration::from_secs(5), prefix: None });
        let diff = compare(target, Some(&desired), Some(&image), 0);
        assert_eq!(diff.ops, [Op::SetVirtual(desired.server)]);
    }

    #[test]
    fn one_that_nobody_wants_is_emptied_if_it_may_have_connections_and_else_left_for_deletion() {
        let image_of = |protocol| image(target(protocol), &[(1, 1)]);
        let tcp = compare(target(protocol::TCP), None, Some(&image_of(protocol::TCP)), 0);
        assert_eq!(tcp.ops, [Op::SetReal(target(protocol::TCP), real(&address(1), 0))]);
        assert!(!tcp.idle && tcp.draining.len() == 1);
        let udp = compare(target(protocol::UDP), None, Some(&image_of(protocol::UDP)), 0);
        assert!(udp.ops.is_empty() && udp.idle);
        assert_eq!(compare(target(protocol::UDP), None, None, 0), Diff::default());
    }

    proptest! {
        #[test]
        fn applying_the_changes_leaves_the_wanted_and_the_draining(
            protocol in prop_oneof![Just(protocol::TCP), Just(protocol::UDP)],
            wanted in proptest::collection::btree_set(0u8..8, 1..6),
            there in proptest::option::of(proptest::collection::btree_map(0u8..8, 0u32..3, 0..6)),
        ) {
            let target = target(protocol);
            let wanted: Vec<u8> = wanted.into_iter().collect();
            let desired = desired(target, &wanted);
            let before = there.map(|reals| image(target, &reals.into_iter().collect::<Vec<_>>()));
            let changes = compare(target, Some(&desired), before.as_ref(), 1);
            let mut after = before.clone();
            changes.ops.iter().for_each(|op| apply(&mut after, op));
            let after = after.unwrap();
            prop_assert!(after.reals.is_sorted_by_key(RealServer::socket_address));
            for real in &after.reals {
                let expected = u32::from(wanted.contains(&match real.address {
                    std::net::IpAddr::V4(v4) => v4.octets()[3],
                    std::net::IpAddr::V6(_) => unreachable!(),
                }));
                prop_assert_eq!(real.weight, expected);
                prop_assert_eq!(expected == 0, changes.draining.contains_key(&real.socket_address()));
            }
            prop_assert_eq!(after.reals.len(), wanted.len() + changes.draining.len());
            prop_assert!(changes.draining.is_empty() || protocol == protocol::TCP);
            let situation = Situation {
                target, desired: Some(&desired), image: Some(&after), draining: &changes.draining, serving: &[],
            };
            let again = diff(&situation, &Rules { now: Instant::now(), limit: LIMIT, seed: 1 });
            prop_assert!(again.ops.is_empty());
        }
    }
}
