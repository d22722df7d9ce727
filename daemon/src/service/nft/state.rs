//! All ports as the kernel has them: numbers, places, and who shares what.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::changes::Changes;
use super::class::Class;
use super::elements::{Places, Port};
use super::entry::{Datum, Entry, Key};
use super::layout::Entrance;
use crate::service::model::{FrontendKey, PortKey, PortPlan};

/// Ids are multiples of this.
const STEP: u32 = Entrance::MASK + 1;

/// All ports.
#[derive(Debug, Default)]
pub(super) struct State {
    /// In ipvs mode cluster IPs lead to no list.
    proxy_cluster_ips: bool,
    /// By id: the port at position p has id `(p + 1) * STEP`.
    ports: Vec<Option<Port>>,
    free: Vec<u32>,
    ids: HashMap<PortKey, u32>,
    owners: HashMap<FrontendKey, u32>,
    shared: HashMap<Key, u32>,
}

/// What was done to the state and can be undone, and what of it the kernel has to be told.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// What the kernel has to be told.
    pub(super) changes: Changes,
    undo: Vec<(u32, Option<Port>)>,
}

/// What a port had in the kernel before this process.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Adopted<'a> {
    /// Its id.
    pub(super) id: u32,
    /// The places of its backends.
    pub(super) places: Places<'a>,
}

impl State {
    /// No ports yet.
    #[must_use]
    pub(super) fn new(proxy_cluster_ips: bool) -> Self {
        Self { proxy_cluster_ips, ..Self::default() }
    }

    /// All ports from a position on, with the position behind each.
    pub(super) fn ports_from(&self, position: usize) -> impl Iterator<Item = (usize, &Port)> {
        let rest = self.ports.get(position..).unwrap_or_default();
        (position + 1..).zip(rest).filter_map(|(behind, port)| port.as_ref().map(|port| (behind, port)))
    }

    /// All elements of a port, those that it shares with others among them.
    #[must_use]
    pub(super) fn entries(&self, port: &Port) -> Vec<Entry> {
        let mut entries = port.entries(self.proxy_cluster_ips);
        entries.extend(port.shared().into_iter().map(|key| (key, Datum::None)));
        entries
    }

    /// The classes of all lists.
    #[must_use]
    pub(super) fn classes(&self) -> BTreeSet<Class> {
        self.ports.iter().flatten().flat_map(Port::classes).collect()
    }

    /// All plans.
    pub(super) fn plans(&self) -> impl Iterator<Item = &Arc<PortPlan>> {
        self.ports.iter().flatten().map(|port| &port.plan)
    }

    /// Puts a plan in the place of a port's, or takes the port out.
    pub(super) fn set(&mut self, key: &PortKey, plan: Option<Arc<PortPlan>>, draft: &mut Draft) {
        self.set_adopted(key, plan, None, draft);
    }

    /// As [`set`](Self::set), for a port that the kernel has already.
    pub(super) fn set_adopted(
        &mut self,
        key: &PortKey,
        plan: Option<Arc<PortPlan>>,
        adopted: Option<Adopted<'_>>,
        draft: &mut Draft,
    ) {
        let known = self.ids.get(key).copied();
        let Some(plan) = plan else {
            if let Some(id) = known {
                self.replace(id, None, draft);
            }
            return;
        };
        for frontend in &plan.frontends {
            self.evict(&frontend.key, known, draft);
        }
        let id = known.or_else(|| adopted.map(|port| port.id).filter(|id| self.adopt(*id)));
        let id = id.unwrap_or_else(|| self.new_id());
        let port = {
            let before = self.port(id).map(|port| Places { cluster: &port.cluster, local: &port.local });
            let before = before.or(adopted.map(|port| port.places)).unwrap_or_default();
            Port::new(id, plan, before, self.proxy_cluster_ips)
        };
        self.replace(id, Some(port), draft);
    }

    /// Takes a frontend away from another port that has it, as two cannot. That one will be told by whoever plans, later in
    /// the same round, or has been planned wrongly.
    fn evict(&mut self, frontend: &FrontendKey, keeper: Option<u32>, draft: &mut Draft) {
        let Some(id) = self.owners.get(frontend).copied().filter(|id| Some(*id) != keeper) else { return };
        let Some(port) = self.port(id) else { return };
        let mut plan = PortPlan::clone(&port.plan);
        plan.frontends.retain(|other| other.key != *frontend);
        let places = Places { cluster: &port.cluster, local: &port.local };
        let port = Port::new(id, Arc::new(plan), places, self.proxy_cluster_ips);
        self.replace(id, Some(port), draft);
    }

    /// Takes everything back that the draft did.
    pub(super) fn undo(&mut self, draft: Draft) {
        let mut told = Draft::default();
        for (id, port) in draft.undo.into_iter().rev() {
            self.replace(id, port, &mut told);
        }
    }

    fn replace(&mut self, id: u32, port: Option<Port>, draft: &mut Draft) {
        let Some(position) = position(id) else { return };
        if self.ports.len() <= position {
            self.ports.resize_with(position + 1, || None);
        }
        let old = self.ports.get_mut(position).and_then(Option::take);
        let entries = |port: &Port| port.entries(self.proxy_cluster_ips);
        let [before, after] = [&old, &port].map(|port| port.as_ref().map(entries).unwrap_or_default());
        draft.changes.replace(&before, &after);
        let [before, after] = [&old, &port].map(|port| port.as_ref().map(Port::shared).unwrap_or_default());
        self.share(&before, &after, &mut draft.changes);
        if let Some(old) = &old {
            for frontend in &old.plan.frontends {
                self.owners.remove(&frontend.key);
            }
            if port.is_none() {
                self.ids.remove(&old.plan.key);
                self.free.push(id);
            }
        }
        if let Some(port) = port {
            self.owners.extend(port.plan.frontends.iter().map(|frontend| (frontend.key, id)));
            self.ids.insert(port.plan.key.clone(), id);
            if let Some(slot) = self.ports.get_mut(position) {
                *slot = Some(port);
            }
        }
        draft.undo.push((id, old));
    }

    /// Counts who has the elements that several ports may have.
    fn share(&mut self, before: &BTreeSet<Key>, after: &BTreeSet<Key>, changes: &mut Changes) {
        for key in after.difference(before) {
            let count = self.shared.entry(*key).or_insert(0);
            *count += 1;
            if *count == 1 {
                changes.change(*key, None, Some(Datum::None));
            }
        }
        for key in before.difference(after) {
            let Some(count) = self.shared.get_mut(key) else { continue };
            *count -= 1;
            if *count == 0 {
                self.shared.remove(key);
                changes.change(*key, Some(Datum::None), None);
            }
        }
    }

    fn port(&self, id: u32) -> Option<&Port> {
        self.ports.get(position(id)?)?.as_ref()
    }

    fn new_id(&mut self) -> u32 {
        while let Some(id) = self.free.pop() {
            if self.port(id).is_none() {
                return id;
            }
        }
        let position = self.ports.len();
        self.ports.push(None);
        u32::try_from(position + 1).unwrap_or(u32::MAX / STEP).saturating_mul(STEP)
    }

    /// Whether the id can be the one of a port that is to come. Those in between stay free until
    /// [`adoption_ends`](Self::adoption_ends): the kernel may have elements of theirs that are to go.
    fn adopt(&mut self, id: u32) -> bool {
        position(id).is_some_and(|position| position < self.ports.len()) && self.port(id).is_none()
    }

    /// Makes place for the ids that the kernel has. Other ports get ids above.
    pub(super) fn adoption_begins(&mut self, highest: u32) {
        if let Some(position) = position(highest) {
            self.ports.resize_with(self.ports.len().max(position + 1), || None);
        }
    }

    /// From now on ids that nobody has adopted are given to new ports.
    pub(super) fn adoption_ends(&mut self) {
        let ids = (1u32..).map(|number| number.saturating_mul(STEP));
        let free = ids.zip(&self.ports).filter(|(_, port)| port.is_none()).map(|(id, _)| id);
        self.free = free.collect();
        // The lowest first.
        self.free.reverse();
    }
}

fn position(id: u32) -> Option<usize> {
    (id / STEP).checked_sub(1).filter(|_| id.is_multiple_of(STEP)).map(|position| position as usize)
}
