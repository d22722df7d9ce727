//! The lease machine against a model of etcd, under faults in random order: lost replies, late replies, stale reads, nodes
//! that are cut off for long, expired leases that somebody else takes, deleted keys, overwritten keys, wiped stores, watches
//! that are behind or have lost what happened in between (compaction), nodes that crash and come back.
//!
//! At every moment no two leases in the store may overlap; and once the faults end, every node holds a lease.

mod etcd;
mod world;

use proptest::prelude::*;

use self::world::{Event, NODES, Node, World, event, wanted};
use super::machine::{Input, LeaseState, Machine, Next, Sleep};
use crate::cluster::family::PerFamily;
use crate::cluster::key::SubnetKey;
use crate::cluster::lease_value::{BackendData, LeaseValue};

fn run(configs: [&str; 2], events: &[Event]) {
    let mut world = World::new(configs);
    for event in events {
        world.apply(*event);
        world.assert_sound();
    }
    world.settle();
    let held: Vec<SubnetKey> = (0..NODES).map(|n| world.held(n).expect("every node holds a lease")).collect();
    for (i, a) in held.iter().enumerate() {
        assert!(held[i + 1..].iter().all(|b| !a.overlaps(b)), "{held:?}");
    }
    for node in &world.nodes {
        assert!(matches!(node.machine.state(), LeaseState::Held(_)));
    }
}

/// Seven subnets, or fifteen, for five nodes and a stranger: contention all the time.
const SINGLE: [&str; 2] =
    [r#"{"Network": "10.0.0.0/24", "SubnetLen": 27}"#, r#"{"Network": "10.0.0.0/24", "SubnetLen": 28}"#];

/// Twice as many IPv4 subnets as IPv6 ones: keys that differ may share an IPv6 subnet.
const DUAL: [&str; 2] = [
    r#"{"Network": "10.0.0.0/24", "SubnetLen": 28, "EnableIPv6": true, "IPv6Network": "fd00::/60", "IPv6SubnetLen": 63}"#,
    r#"{"Network": "10.0.0.0/24", "SubnetLen": 28, "EnableIPv6": true, "IPv6Network": "fd00::/60", "IPv6SubnetLen": 64}"#,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn d53_d57_no_two_leases_ever_overlap_and_in_the_end_all_nodes_have_one(
        events in proptest::collection::vec(event(), 0..400),
    ) {
        run(SINGLE, &events);
    }

    #[test]
    fn d53_neither_family_is_ever_shared(events in proptest::collection::vec(event(), 0..400)) {
        run(DUAL, &events);
    }
}

#[test]
fn a_node_that_runs_a_subnet_takes_it_again_after_a_wipe() {
    let mut world = World::new(SINGLE);
    world.settle();
    let before: Vec<_> = (0..NODES).map(|n| world.held(n)).collect();
    world.etcd.wipe();
    world.settle();
    assert_eq!(before, (0..NODES).map(|n| world.held(n)).collect::<Vec<_>>());
}

/// Revisions of a wiped store start over, so what was read before the wipe can look as if nothing had changed since. Two
/// nodes that want the same IPv6 subnet, one of which read the store before the wipe and got its etcd lease after it.
#[test]
fn what_was_read_before_a_wipe_is_not_acted_on_after_it() {
    let mut world = World::new(DUAL);
    world.etcd.put(&world.layout.config(), DUAL[0].into(), 0);
    world.etcd.revision += 10;
    world.nodes[0] = world.node(0, Some("10.0.0.16-28&fd00:0:0:2::-63".parse().unwrap()));
    world.nodes[1] = world.node(1, Some("10.0.0.32-28&fd00:0:0:2::-63".parse().unwrap()));
    let view = world.serve(0);
    world.step(0, view);
    assert_eq!(world.nodes[0].next, Next::Grant);
    world.etcd.wipe();
    world.etcd.put(&world.layout.config(), DUAL[0].into(), 0);
    while world.held(1).is_none() {
        let reply = world.serve(1);
        world.step(1, reply);
    }
    world.settle();
    assert_eq!(world.held(1).unwrap().to_string(), "10.0.0.32-28&fd00:0:0:2::-63");
}

/// Serves a node until it sleeps (but for the grace); says how often it wrote.
fn writes_until_sleep(world: &mut World, n: usize) -> usize {
    let mut writes = 0;
    for _ in 0..20 {
        if matches!(world.nodes[n].next, Next::Sleep(sleep) if sleep != Sleep::Grace) {
            return writes;
        }
        writes += usize::from(matches!(world.nodes[n].next, Next::Commit(_)));
        let reply = world.serve(n);
        world.step(n, reply);
    }
    panic!("no rest: {:?}", world.nodes[n].machine.state());
}

/// `127.0.0.1` is nothing that a lease may say, so what was written never reads back.
#[test]
fn a_lease_that_does_not_read_back_is_not_written_without_end() {
    let mut world = World::new(SINGLE);
    world.etcd.put(&world.layout.config(), SINGLE[0].into(), 0);
    let loopback = PerFamily { v4: Some("127.0.0.1".parse().unwrap()), v6: None };
    let said = LeaseValue { public_ips: loopback, backend: BackendData::default() };
    let mut lost = world.node(0, None);
    lost.machine = Machine::new(world.layout.clone(), "node-0".parse().unwrap(), said.clone(), None, SINGLE[0].into());
    world.nodes[0] = lost;
    for expected in [2, 1, 1] {
        assert_eq!(writes_until_sleep(&mut world, 0), expected);
        assert_eq!(world.nodes[0].next, Next::Sleep(Sleep::Retry));
        let LeaseState::Acquiring { reason } = world.nodes[0].machine.state() else { panic!() };
        assert!(reason.contains("does not read back as wanted"), "{reason}");
        world.step(0, Input::Wake);
    }
    // The same of a lease that is held: it stays held, and says what is wrong. A better value ends it.
    writes_until_sleep(&mut world, 0);
    world.step(0, Input::Wanted(wanted(1)));
    assert_eq!(writes_until_sleep(&mut world, 0), 1);
    world.step(0, Input::Wanted(said));
    assert_eq!(writes_until_sleep(&mut world, 0), 2);
    let LeaseState::Held(held) = world.nodes[0].machine.state() else { panic!() };
    assert!(held.notice.as_ref().unwrap().contains("does not read back as wanted"));
}

#[test]
fn two_nodes_of_one_name_take_the_lease_from_each_other_slowly_and_say_so() {
    let mut world = World::new(SINGLE);
    writes_until_sleep(&mut world, 0);
    let key = world.held(0).unwrap();
    let clone = Machine::new(world.layout.clone(), "node-0".parse().unwrap(), wanted(50), None, SINGLE[0].into());
    world.nodes[1] = Node { machine: clone, next: Next::Read, reply: None, is_cut_off: false };
    // A node that starts cannot tell a namesake from itself under an address that it had before.
    assert_eq!(writes_until_sleep(&mut world, 1), 1);
    assert_eq!(world.held(1), Some(key));
    for (loser, at) in [(0, "192.0.2.50"), (1, "192.0.2.1"), (0, "192.0.2.50")] {
        for _ in 0..3 {
            world.step(loser, Input::Changed);
            assert_eq!(writes_until_sleep(&mut world, loser), 0);
            assert_eq!(world.nodes[loser].next, Next::Sleep(Sleep::Contested));
            let LeaseState::Held(held) = world.nodes[loser].machine.state() else { panic!() };
            assert_eq!(held.notice, Some(format!("node name node-0 is also used by the node at {at}")));
        }
        world.step(loser, Input::Wake);
        assert_eq!(writes_until_sleep(&mut world, loser), 1);
        let LeaseState::Held(held) = world.nodes[loser].machine.state() else { panic!() };
        assert_eq!((held.key, &held.notice), (key, &None));
    }
}

#[test]
fn an_address_that_changes_is_no_namesake() {
    let mut world = World::new(SINGLE);
    writes_until_sleep(&mut world, 0);
    world.step(0, Input::Wanted(wanted(101)));
    let read = world.serve(0);
    world.step(0, read);
    // The write is done, but its reply is lost, and the address has changed again.
    world.apply(Event::ServeAndLose(0));
    world.apply(Event::Reply(0));
    world.step(0, Input::Wanted(wanted(102)));
    assert_eq!(writes_until_sleep(&mut world, 0), 1);
    assert!(matches!(world.nodes[0].next, Next::Sleep(Sleep::UntilRenewal(_))));
}

#[test]
fn a_lease_or_record_that_was_deleted_is_made_again_with_one_warning() {
    let mut world = World::new(SINGLE);
    writes_until_sleep(&mut world, 0);
    let held = world.held(0).unwrap();
    for (key, what) in [
        (world.layout.subnet(&held), "the lease"),
        (world.layout.node(&"node-0".parse().unwrap()), "the node's record of its lease"),
    ] {
        world.etcd.revision += 1;
        world.etcd.keys.remove(&key).unwrap();
        let mut input = Input::Changed;
        let mut warnings = Vec::new();
        for _ in 0..10 {
            let step = world.nodes[0].machine.clone().step(input);
            warnings.extend(step.warning);
            world.nodes[0] = Node { machine: step.machine, next: step.next, reply: None, is_cut_off: false };
            input = world.serve(0);
        }
        assert!(world.etcd.keys.contains_key(&key));
        assert_eq!(
            warnings,
            [format!("{what} {held} was deleted from the store, or had expired; claimed again")],
            "{key}"
        );
    }
}
