//! The lease machine against a model of etcd, under faults in random order: lost replies, late replies, expired leases,
//! deleted keys, overwritten keys, wiped stores, nodes that crash and come back.
//!
//! At every moment no two leases in the store may overlap; and once the faults end, every node holds a lease.

mod etcd;

use std::time::Duration;

use proptest::prelude::*;

use self::etcd::Etcd;
use super::machine::{Alive, Input, LeaseState, Machine, Next, Outcome, Sleep};
use crate::cluster::family::PerFamily;
use crate::cluster::key::SubnetKey;
use crate::cluster::layout::Layout;
use crate::cluster::lease_value::{BackendData, LeaseValue};
use crate::cluster::view::Entry;

/// Machines in the model.
const NODES: usize = 5;

/// Last number of the address that a stranger publishes.
const STRANGER: u8 = 99;

/// A node's machine, and the reply that is on its way to it.
struct Node {
    machine: Machine,
    next: Next,
    reply: Option<Input>,
}

/// What happens next, to the node of that number.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The store does what the node asked for; the reply is on its way.
    Serve(usize),
    /// The store does what the node asked for; the reply is lost.
    ServeAndLose(usize),
    /// The request never arrives.
    Lose(usize),
    /// The reply arrives.
    Reply(usize),
    /// A change of the own lease is noticed.
    Notice(usize),
    /// The node's etcd lease expires.
    Expire(usize),
    /// Someone deletes the node's lease.
    Delete(usize),
    /// Someone else, such as a flannel that was away, writes over the node's lease.
    Overwrite(usize),
    /// The process starts again, knowing the subnet it ran.
    Restart(usize),
    /// The machine is installed anew and knows nothing.
    Reinstall(usize),
    /// The node's address or back-end data changes.
    Readdress(usize),
    /// The operator changes the length of the subnets.
    Reconfigure,
    /// The store loses everything.
    Wipe,
}

fn event() -> impl Strategy<Value = Event> {
    let node = 0..NODES;
    prop_oneof![
        30 => node.clone().prop_map(Event::Serve),
        30 => node.clone().prop_map(Event::Reply),
        3 => node.clone().prop_map(Event::ServeAndLose),
        3 => node.clone().prop_map(Event::Lose),
        4 => node.clone().prop_map(Event::Notice),
        2 => node.clone().prop_map(Event::Expire),
        2 => node.clone().prop_map(Event::Delete),
        1 => node.clone().prop_map(Event::Overwrite),
        2 => node.clone().prop_map(Event::Restart),
        1 => node.clone().prop_map(Event::Reinstall),
        1 => node.prop_map(Event::Readdress),
        1 => Just(Event::Reconfigure),
        1 => Just(Event::Wipe),
    ]
}

struct World {
    layout: Layout,
    /// The configuration of the cluster, and what an operator changes it to and back.
    configs: [String; 2],
    etcd: Etcd,
    nodes: Vec<Node>,
    addresses: u8,
    /// Number of the etcd lease of the one lease that was written over by a stranger.
    stranger: Option<i64>,
}

fn wanted(last: u8) -> LeaseValue {
    let public_ips = PerFamily {
        v4: Some(format!("192.0.2.{last}").parse().unwrap()),
        v6: Some(format!("2001:db8::{last}").parse().unwrap()),
    };
    LeaseValue { public_ips, backend: BackendData::default() }
}

impl World {
    fn new(configs: [&str; 2]) -> Self {
        let mut world = Self {
            layout: Layout::default(),
            configs: configs.map(str::to_owned),
            etcd: Etcd { revision: 1, ..Etcd::default() },
            nodes: Vec::new(),
            addresses: 100,
            stranger: None,
        };
        world.nodes = (0..NODES).map(|n| world.node(n, None)).collect();
        world
    }

    fn node(&self, n: usize, previous: Option<SubnetKey>) -> Node {
        let name = format!("node-{n}").parse().unwrap();
        let last = u8::try_from(n).unwrap() + 1;
        let machine = Machine::new(self.layout.clone(), name, wanted(last), previous, self.configs[0].clone());
        Node { machine, next: Next::Read, reply: None }
    }

    /// The store's answer to what a node asks; sleeps end by themselves.
    fn serve(&mut self, n: usize) -> Input {
        match &self.nodes[n].next {
            Next::Read => Input::View(Ok(self.etcd.view(&self.layout))),
            Next::Grant => Input::Granted(Ok(self.etcd.grant())),
            Next::Commit(transaction) => Input::Committed(self.etcd.commit(&self.layout, transaction)),
            Next::KeepAlive(id) if self.etcd.leases.contains(id) => {
                Input::KeptAlive(Alive::For(Duration::from_secs(9)))
            }
            Next::KeepAlive(_) => Input::KeptAlive(Alive::Gone),
            Next::Sleep(_) => Input::Wake,
        }
    }

    fn lost(&self, n: usize) -> Input {
        let why = || "lost".to_owned();
        match &self.nodes[n].next {
            Next::Read => Input::View(Err(why())),
            Next::Grant => Input::Granted(Err(why())),
            Next::Commit(_) => Input::Committed(Outcome::Unknown(why())),
            Next::KeepAlive(_) => Input::KeptAlive(Alive::Unknown(why())),
            Next::Sleep(_) => Input::Wake,
        }
    }

    fn step(&mut self, n: usize, input: Input) {
        let step = self.nodes[n].machine.clone().step(input);
        self.nodes[n] = Node { machine: step.machine, next: step.next, reply: None };
    }

    fn held(&self, n: usize) -> Option<SubnetKey> {
        self.nodes[n].machine.running().map(|running| running.key)
    }

    /// The key in the store of what a node holds.
    fn entry(&self, n: usize) -> Option<(String, Entry)> {
        let key = self.layout.subnet(&self.held(n)?);
        self.etcd.keys.get(&key).cloned().map(|entry| (key, entry))
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Serve(n) if self.nodes[n].reply.is_none() => {
                let reply = self.serve(n);
                self.nodes[n].reply = Some(reply);
            }
            Event::ServeAndLose(n) if self.nodes[n].reply.is_none() => {
                let lost = self.lost(n);
                self.serve(n);
                self.nodes[n].reply = Some(lost);
            }
            Event::Lose(n) if self.nodes[n].reply.is_none() => {
                let lost = self.lost(n);
                self.nodes[n].reply = Some(lost);
            }
            Event::Reply(n) => {
                if let Some(reply) = self.nodes[n].reply.take() {
                    self.step(n, reply);
                }
            }
            Event::Notice(n) if matches!(self.nodes[n].next, Next::Sleep(_)) => self.step(n, Input::Changed),
            Event::Readdress(n) if matches!(self.nodes[n].next, Next::Sleep(_)) => {
                self.addresses = self.addresses.wrapping_add(1).max(100);
                self.step(n, Input::Wanted(wanted(self.addresses)));
            }
            Event::Expire(n) => {
                if let Some((_, entry)) = self.entry(n) {
                    self.etcd.expire(entry.etcd_lease);
                }
            }
            Event::Delete(n) => {
                if let Some((key, _)) = self.entry(n) {
                    self.etcd.revision += 1;
                    self.etcd.keys.remove(&key);
                }
            }
            // One is enough: there have to be subnets left for all nodes.
            Event::Overwrite(n) if self.stranger.is_none() => {
                if let Some((key, _)) = self.entry(n) {
                    let lease = self.etcd.grant();
                    self.etcd.revision += 1;
                    self.etcd.put(&key, wanted(STRANGER).to_json().into_bytes(), lease);
                    self.stranger = Some(lease);
                }
            }
            Event::Restart(n) => self.nodes[n] = self.node(n, self.held(n)),
            Event::Reinstall(n) => self.nodes[n] = self.node(n, None),
            Event::Reconfigure => {
                self.etcd.revision += 1;
                self.configs.swap(0, 1);
                let config = self.configs[0].clone();
                self.etcd.put(&self.layout.config(), config.into_bytes(), 0);
            }
            Event::Wipe => self.etcd.wipe(),
            _ => {}
        }
    }

    fn assert_sound(&self) {
        let leased = self.etcd.leased(&self.layout);
        for (i, a) in leased.iter().enumerate() {
            for b in &leased[i + 1..] {
                assert!(!a.overlaps(b), "{a} and {b}");
            }
        }
        for entry in self.etcd.keys.values().filter(|entry| Some(entry.etcd_lease) == self.stranger) {
            assert_eq!(LeaseValue::parse(&entry.value).unwrap(), wanted(STRANGER), "a stranger's lease was written to");
        }
    }

    /// No more faults: every node is served in turn, and sees the changes that a watch would show it, until all sleep.
    fn settle(&mut self) {
        for _ in 0..200 {
            let mut quiet = true;
            for n in 0..NODES {
                if let Some(reply) = self.nodes[n].reply.take() {
                    self.step(n, reply);
                }
                let resting = matches!(self.nodes[n].next, Next::Sleep(Sleep::UntilRenewal(_)));
                if resting && self.is_in_order(n) {
                    continue;
                }
                quiet = false;
                let input = if resting { Input::Changed } else { self.serve(n) };
                self.step(n, input);
                self.assert_sound();
            }
            if quiet {
                return;
            }
        }
        let states: Vec<&LeaseState> = self.nodes.iter().map(|node| node.machine.state()).collect();
        panic!("no rest after 200 rounds: {states:?}");
    }

    /// Whether the store agrees with what the node holds.
    fn is_in_order(&self, n: usize) -> bool {
        let Some(running) = self.nodes[n].machine.running() else { return false };
        self.entry(n).is_some_and(|(_, entry)| {
            LeaseValue::parse(&entry.value).unwrap() == running.published
                && self.etcd.leases.contains(&entry.etcd_lease)
        }) && self.etcd.keys.contains_key(&self.layout.config())
    }
}

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
    fn d12_no_two_leases_ever_overlap_and_in_the_end_all_nodes_have_one(
        events in proptest::collection::vec(event(), 0..400),
    ) {
        run(SINGLE, &events);
    }

    #[test]
    fn d12_e53_neither_family_is_ever_shared(events in proptest::collection::vec(event(), 0..400)) {
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
    world.nodes[1] = Node { machine: clone, next: Next::Read, reply: None };
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
            world.nodes[0] = Node { machine: step.machine, next: step.next, reply: None };
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
