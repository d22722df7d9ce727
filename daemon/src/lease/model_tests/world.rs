//! Five nodes and a store, and what may happen to them.

use std::time::Duration;

use proptest::prelude::*;

use super::etcd::Etcd;
use crate::cluster::family::PerFamily;
use crate::cluster::key::SubnetKey;
use crate::cluster::layout::Layout;
use crate::cluster::lease_value::{BackendData, LeaseValue};
use crate::cluster::model::Snapshot;
use crate::cluster::view::{Entry, StoreView};
use crate::lease::machine::{Alive, Input, LeaseState, Machine, Next, Outcome, Sleep};
use crate::lease::sight::contradicts;

/// Machines in the model.
pub(super) const NODES: usize = 5;

/// States of the store that are remembered, for those who see them late.
pub(super) const PAST: usize = 12;

/// Last number of the address that a stranger publishes.
pub(super) const STRANGER: u8 = 99;

/// A node's machine, and the reply that is on its way to it.
pub(super) struct Node {
    pub(super) machine: Machine,
    pub(super) next: Next,
    pub(super) reply: Option<Input>,
    /// Nothing it asks arrives, and its watch shows nothing.
    pub(super) is_cut_off: bool,
}

/// What happens next, to the node of that number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// The store does what the node asked for; the reply is on its way.
    Serve(usize),
    /// The store does what the node asked for; the reply is lost.
    ServeAndLose(usize),
    /// The request never arrives.
    Lose(usize),
    /// The store answers a read with what it was so many changes ago.
    ServeStale(usize, usize),
    /// The reply arrives.
    Reply(usize),
    /// The watch shows the store as it was so many changes ago. What was between two such looks is never told: the watch
    /// may have lost its place to a compaction.
    Show(usize, usize),
    /// The node wakes and looks, for no reason.
    Notice(usize),
    /// The node is cut off from the store.
    Cut(usize),
    /// It no longer is.
    Mend(usize),
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
    /// The process of the first starts again and believes that it ran the subnet of the second: whoever is cut off for
    /// longer than his lease lasts loses it to somebody.
    Covet(usize, usize),
    /// The node's address or back-end data changes.
    Readdress(usize),
    /// The operator changes the length of the subnets.
    Reconfigure,
    /// The store loses everything.
    Wipe,
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let node = 0..NODES;
    let age = 0..PAST;
    prop_oneof![
        30 => node.clone().prop_map(Event::Serve),
        30 => node.clone().prop_map(Event::Reply),
        3 => node.clone().prop_map(Event::ServeAndLose),
        3 => node.clone().prop_map(Event::Lose),
        3 => (node.clone(), age.clone()).prop_map(|(n, age)| Event::ServeStale(n, age)),
        5 => (node.clone(), age).prop_map(|(n, age)| Event::Show(n, age)),
        1 => node.clone().prop_map(Event::Notice),
        2 => node.clone().prop_map(Event::Cut),
        3 => node.clone().prop_map(Event::Mend),
        3 => node.clone().prop_map(Event::Expire),
        2 => node.clone().prop_map(Event::Delete),
        1 => node.clone().prop_map(Event::Overwrite),
        2 => node.clone().prop_map(Event::Restart),
        1 => node.clone().prop_map(Event::Reinstall),
        2 => (node.clone(), node.clone()).prop_map(|(n, of)| Event::Covet(n, of)),
        1 => node.prop_map(Event::Readdress),
        1 => Just(Event::Reconfigure),
        1 => Just(Event::Wipe),
    ]
}

pub(super) struct World {
    pub(super) layout: Layout,
    /// The configuration of the cluster, and what an operator changes it to and back.
    configs: [String; 2],
    pub(super) etcd: Etcd,
    /// What the store was after each of its last changes, the newest last; of this store only, not of one that was wiped.
    past: Vec<StoreView>,
    pub(super) nodes: Vec<Node>,
    addresses: u8,
    /// Number of the etcd lease of the one lease that was written over by a stranger.
    stranger: Option<i64>,
}

pub(super) fn wanted(last: u8) -> LeaseValue {
    let public_ips = PerFamily {
        v4: Some(format!("192.0.2.{last}").parse().unwrap()),
        v6: Some(format!("2001:db8::{last}").parse().unwrap()),
    };
    LeaseValue { public_ips, backend: BackendData::default() }
}

impl World {
    pub(super) fn new(configs: [&str; 2]) -> Self {
        let mut world = Self {
            layout: Layout::default(),
            configs: configs.map(str::to_owned),
            etcd: Etcd { revision: 1, ..Etcd::default() },
            past: Vec::new(),
            nodes: Vec::new(),
            addresses: 100,
            stranger: None,
        };
        world.nodes = (0..NODES).map(|n| world.node(n, None)).collect();
        world
    }

    pub(super) fn node(&self, n: usize, previous: Option<SubnetKey>) -> Node {
        let name = format!("node-{n}").parse().unwrap();
        let last = u8::try_from(n).unwrap() + 1;
        let machine = Machine::new(self.layout.clone(), name, wanted(last), previous, self.configs[0].clone());
        Node { machine, next: Next::Read, reply: None, is_cut_off: false }
    }

    /// A process of the node that has just started. What cuts the machine off still does.
    fn restart(&mut self, n: usize, previous: Option<SubnetKey>) {
        self.nodes[n] = Node { is_cut_off: self.nodes[n].is_cut_off, ..self.node(n, previous) };
    }

    /// The store as it was so many changes ago, or as long ago as is known.
    fn seen(&self, age: usize) -> StoreView {
        let at = self.past.len().saturating_sub(age + 1);
        self.past.get(at).cloned().unwrap_or_else(|| self.etcd.view(&self.layout))
    }

    /// The store's answer to what a node asks; sleeps end by themselves.
    pub(super) fn serve(&mut self, n: usize) -> Input {
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

    pub(super) fn step(&mut self, n: usize, input: Input) {
        let step = self.nodes[n].machine.clone().step(input);
        let is_cut_off = self.nodes[n].is_cut_off;
        self.nodes[n] = Node { machine: step.machine, next: step.next, reply: None, is_cut_off };
    }

    pub(super) fn held(&self, n: usize) -> Option<SubnetKey> {
        self.nodes[n].machine.running().map(|running| running.key)
    }

    /// The key in the store of what a node holds.
    fn entry(&self, n: usize) -> Option<(String, Entry)> {
        let key = self.layout.subnet(&self.held(n)?);
        self.etcd.keys.get(&key).cloned().map(|entry| (key, entry))
    }

    pub(super) fn apply(&mut self, event: Event) {
        let before = self.etcd.revision;
        self.happen(event);
        if matches!(event, Event::Wipe) {
            self.past.clear();
        } else if self.etcd.revision != before {
            self.past.push(self.etcd.view(&self.layout));
            let forgotten = self.past.len().saturating_sub(PAST);
            self.past.drain(..forgotten);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Serve(n) | Event::ServeAndLose(n) | Event::ServeStale(n, _)
                if self.nodes[n].reply.is_none() && self.nodes[n].is_cut_off =>
            {
                let lost = self.lost(n);
                self.nodes[n].reply = Some(lost);
            }
            Event::ServeStale(n, age) if self.nodes[n].reply.is_none() && self.nodes[n].next == Next::Read => {
                let seen = self.seen(age);
                self.nodes[n].reply = Some(Input::View(Ok(seen)));
            }
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
            Event::Show(n, age) if matches!(self.nodes[n].next, Next::Sleep(_)) && !self.nodes[n].is_cut_off => {
                let snapshot = Snapshot::of(&self.seen(age));
                if self.nodes[n].machine.running().is_some_and(|running| contradicts(&snapshot, running)) {
                    self.step(n, Input::Changed);
                }
            }
            Event::Cut(n) => self.nodes[n].is_cut_off = true,
            Event::Mend(n) => self.nodes[n].is_cut_off = false,
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
            Event::Restart(n) => self.restart(n, self.held(n)),
            Event::Reinstall(n) => self.restart(n, None),
            Event::Covet(n, of) => self.restart(n, self.held(of)),
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

    pub(super) fn assert_sound(&self) {
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
    pub(super) fn settle(&mut self) {
        for node in &mut self.nodes {
            node.is_cut_off = false;
        }
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
