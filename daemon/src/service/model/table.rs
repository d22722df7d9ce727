//! All Services as this node serves them: changed Services in, changed ports out.
//!
//! Work and answer are in proportion to what has changed. Each frontend belongs to one port ([`claims`](super::claims));
//! a port that claims another's frontend goes without it, and has it as soon as the other lets go.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::SystemTime;

use super::claims::{Claimant, Claims};
use super::order::urgency;
use super::plan::{HealthPort, PlanOptions, PlannedService, plan};
use super::types::{Frontend, FrontendKey, NodeView, PortKey, PortPlan};
use crate::cluster::services::{Changed, EndpointSlice, ObjectName, Service};
use crate::cluster::{Family, PerFamily};

/// What an update has come to.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Ports that are new or have changed; first those that the rest of the cluster needs to come up (the API server, DNS).
    pub changed: Vec<Arc<PortPlan>>,
    /// Ports that are no more.
    pub removed: Vec<PortKey>,
    /// Claims that were lost to another port just now.
    pub conflicts: Vec<Conflict>,
    /// Services whose health check port or number of local endpoints has changed; `None`: the port is to be closed.
    pub health: Vec<(ObjectName, Option<HealthPort>)>,
    /// For each slice that has changed, when that was caused.
    pub triggers: Vec<Trigger>,
    /// Services that have changed (`sync_proxy_rules_service_changes_total`).
    pub service_changes: usize,
    /// Slices that have changed (`sync_proxy_rules_endpoint_changes_total`).
    pub endpoint_changes: usize,
}

/// A frontend that a port asks for and another one has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The frontend.
    pub frontend: FrontendKey,
    /// Who has it.
    pub winner: PortKey,
    /// Who does not.
    pub loser: PortKey,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { frontend, winner, loser } = self;
        write!(out, "{frontend} of {loser} is not served: {winner} claims it, too, and comes first")
    }
}

/// When a change of endpoints was caused, as the slice tells (`network_programming_duration_seconds` counts from there).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trigger {
    /// The slice's family.
    pub family: Family,
    /// When.
    pub at: SystemTime,
}

/// How many ports have endpoints, but none on this node, and a policy that leads to this node only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoLocal {
    /// By `internalTrafficPolicy`.
    pub internal: usize,
    /// By `externalTrafficPolicy`.
    pub external: usize,
}

/// How much there is of everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Services.
    pub services: usize,
    /// Their ports, of each family.
    pub ports: usize,
    /// Frontends that are served.
    pub frontends: usize,
    /// Backends, once for each port that they answer for.
    pub backends: usize,
    /// Claims of frontends that were lost to another port.
    pub conflicts: usize,
    /// Ports that lack backends on this node.
    pub no_local: PerFamily<NoLocal>,
}

/// All Services.
#[derive(Debug)]
pub struct ServiceTable {
    node: NodeView,
    options: PlanOptions,
    services: HashMap<ObjectName, Served>,
    claims: Claims,
}

#[derive(Debug)]
struct Served {
    service: Arc<Service>,
    slices: Vec<Arc<EndpointSlice>>,
    ports: Vec<Port>,
    health: Option<Box<HealthPort>>,
}

#[derive(Debug)]
struct Port {
    claimant: Arc<Claimant>,
    /// As it was given out.
    published: Published,
}

/// A port's plan, and the frontends that the plan lacks because others have them.
#[derive(Debug, Clone)]
struct Published {
    plan: Arc<PortPlan>,
    lost: Vec<Frontend>,
}

impl Published {
    /// Whether the port claims just these, which are sorted.
    fn wants(&self, frontends: &[Frontend]) -> bool {
        if self.lost.is_empty() { self.plan.frontends == frontends } else { self.wanted() == frontends }
    }

    /// Everything that the port claims, sorted.
    fn wanted(&self) -> Vec<Frontend> {
        let mut all = [self.plan.frontends.as_slice(), &self.lost].concat();
        all.sort_by_key(|frontend| frontend.key);
        all
    }
}

/// How things were before an update, of all that it has touched.
#[derive(Default)]
struct Before {
    ports: HashMap<PortKey, Option<Published>>,
    winners: HashMap<FrontendKey, Option<Arc<Claimant>>>,
    health: HashMap<ObjectName, Option<Box<HealthPort>>>,
}

impl ServiceTable {
    /// An empty table of a node.
    #[must_use]
    pub fn new(node: NodeView, options: PlanOptions) -> Self {
        Self { node, options, services: HashMap::new(), claims: Claims::default() }
    }

    /// Takes in Services that have changed, each whole.
    pub fn update(&mut self, changed: Vec<Changed>) -> Changes {
        let mut changes = Changes::default();
        let mut before = Before::default();
        for change in changed {
            self.put(change, &mut before, &mut changes);
        }
        self.settle(before, &mut changes);
        changes
    }

    /// Takes in what is known of the node, and plans everything anew if that has changed.
    pub fn replan_all(&mut self, node: NodeView) -> Changes {
        if node == self.node {
            return Changes::default();
        }
        self.node = node;
        let all = self.services.iter().map(|(name, served)| Changed {
            name: name.clone(),
            service: Some(Arc::clone(&served.service)),
            slices: served.slices.clone(),
        });
        let all = all.collect();
        self.update(all)
    }

    /// The node that is planned for.
    #[must_use]
    pub const fn node(&self) -> &NodeView {
        &self.node
    }

    /// All ports, those first that the rest of the cluster needs to come up.
    #[must_use]
    pub fn plans(&self) -> Vec<Arc<PortPlan>> {
        let mut all: Vec<_> = self.ports().map(|port| Arc::clone(&port.published.plan)).collect();
        sort(&mut all);
        all
    }

    /// A port.
    #[must_use]
    pub fn plan(&self, key: &PortKey) -> Option<&Arc<PortPlan>> {
        self.port(key).map(|port| &port.published.plan)
    }

    /// The number of Services.
    #[must_use]
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there is no Service.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Counts what there is; looks at every port.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut census = Census {
            services: self.services.len(),
            conflicts: self.claims.lost(),
            no_local: self.no_local(),
            ..Census::default()
        };
        for plan in self.ports().map(|port| &port.published.plan) {
            census.ports += 1;
            census.frontends += plan.frontends.len();
            census.backends += plan.cluster.len();
        }
        census
    }

    /// Counts the ports that nobody on this node answers for although a policy wants it so; looks at every port.
    #[must_use]
    pub fn no_local(&self) -> PerFamily<NoLocal> {
        let mut out = self.options.families.filter_map(|_, ()| Some(NoLocal::default()));
        for plan in self.ports().map(|port| &port.published.plan) {
            let mut counts = out.get(plan.key.family).copied().unwrap_or_default();
            counts.internal += usize::from(plan.lacks_local_internally());
            counts.external += usize::from(plan.lacks_local_externally());
            out.set(plan.key.family, Some(counts));
        }
        out
    }

    fn ports(&self) -> impl Iterator<Item = &Port> {
        self.services.values().flat_map(|served| &served.ports)
    }

    fn port(&self, key: &PortKey) -> Option<&Port> {
        self.services.get(&key.service)?.ports.iter().find(|port| port.claimant.key == *key)
    }

    /// Plans one Service, with all frontends that it claims; who has them is settled afterwards.
    fn put(&mut self, change: Changed, before: &mut Before, changes: &mut Changes) {
        let Changed { name, service, slices } = change;
        let old = self.services.remove(&name);
        let is_same = old.as_ref().map(|old| &old.service) == service.as_ref();
        changes.service_changes += usize::from(!is_same);
        let (old_slices, old_health) = old.as_ref().map_or((&[][..], None), |old| (&old.slices, old.health.clone()));
        if service.is_some() {
            note_slices(old_slices, &slices, changes);
        }
        let planned = service.as_ref().map(|service| plan(service, &slices, &self.node, self.options));
        let PlannedService { ports, health } = planned.unwrap_or_default();
        if old_health.as_deref() != health.as_ref() {
            before.health.entry(name.clone()).or_insert(old_health);
        }
        let mut old_ports = old.map(|old| old.ports).unwrap_or_default();
        let created = service.as_ref().map(|service| &*service.created).unwrap_or_default();
        let ports: Vec<Port> = ports
            .into_iter()
            .map(|plan| {
                let at = old_ports.iter().position(|old| old.claimant.key == plan.key);
                self.put_port(plan, created, at.map(|at| old_ports.swap_remove(at)), before)
            })
            .collect();
        for gone in old_ports {
            self.withdraw(&gone, before);
            before.ports.entry(gone.claimant.key.clone()).or_insert(Some(gone.published));
        }
        if let Some(service) = service {
            let health = health.map(Box::new);
            self.services.insert(name, Served { service, slices, ports, health });
        }
    }

    fn put_port(&mut self, plan: PortPlan, created: &str, old: Option<Port>, before: &mut Before) -> Port {
        let reusable = old.as_ref().filter(|old| old.claimant.created() == created);
        let claimant = match reusable {
            Some(old) => Arc::clone(&old.claimant),
            None => Arc::new(Claimant::new(created, plan.key.clone())),
        };
        let keeps_claims = reusable.is_some_and(|old| old.published.wants(&plan.frontends));
        if !keeps_claims {
            if let Some(old) = &old {
                self.withdraw(old, before);
            }
            for frontend in &plan.frontends {
                note_winner(&self.claims, &frontend.key, before);
                self.claims.claim(frontend.key, frontend.kind, Arc::clone(&claimant));
            }
        }
        before.ports.entry(plan.key.clone()).or_insert_with(|| old.map(|old| old.published));
        Port { claimant, published: Published { plan: Arc::new(plan), lost: Vec::new() } }
    }

    fn withdraw(&mut self, port: &Port, before: &mut Before) {
        for frontend in port.published.wanted() {
            note_winner(&self.claims, &frontend.key, before);
            self.claims.withdraw(&frontend.key, &port.claimant.key);
        }
    }

    /// Gives each frontend to the port that has it, and tells what is different from before.
    fn settle(&mut self, mut before: Before, changes: &mut Changes) {
        for (frontend, had) in std::mem::take(&mut before.winners) {
            let has = self.claims.winner(&frontend);
            if had.as_ref().map(|claimant| &claimant.key) == has.map(|claimant| &claimant.key) {
                continue;
            }
            for touched in [had.as_ref(), has].into_iter().flatten() {
                if let (Some(port), Entry::Vacant(place)) =
                    (self.port(&touched.key), before.ports.entry(touched.key.clone()))
                {
                    place.insert(Some(port.published.clone()));
                }
            }
        }
        for (key, was) in before.ports {
            let served = self.services.get_mut(&key.service);
            let port = served.and_then(|served| served.ports.iter_mut().find(|port| port.claimant.key == key));
            match port {
                Some(port) => settle_port(port, was, &self.claims, changes),
                None if was.is_some() => changes.removed.push(key),
                None => {}
            }
        }
        for (name, was) in before.health {
            let is = self.services.get(&name).and_then(|served| served.health.as_deref());
            if is != was.as_deref() {
                changes.health.push((name, is.cloned()));
            }
        }
        sort(&mut changes.changed);
        changes.removed.sort_unstable();
        changes.conflicts.sort_by(|a, b| (&a.loser, a.frontend).cmp(&(&b.loser, b.frontend)));
    }
}

fn settle_port(port: &mut Port, was: Option<Published>, claims: &Claims, changes: &mut Changes) {
    let key = &port.claimant.key;
    let is_ours = |frontend: &Frontend| claims.winner(&frontend.key).is_some_and(|winner| winner.key == *key);
    let is_settled = port.published.lost.is_empty() && port.published.plan.frontends.iter().all(is_ours);
    if !is_settled {
        let (frontends, lost) = port.published.wanted().into_iter().partition(is_ours);
        Arc::make_mut(&mut port.published.plan).frontends = frontends;
        port.published.lost = lost;
    }
    let lost_before = was.as_ref().map_or(&[][..], |was| &was.lost);
    for lost in port.published.lost.iter().filter(|frontend| !lost_before.contains(frontend)) {
        if let Some(winner) = claims.winner(&lost.key) {
            let (winner, loser) = (winner.key.clone(), key.clone());
            changes.conflicts.push(Conflict { frontend: lost.key, winner, loser });
        }
    }
    match was {
        // The old one is what others hold.
        Some(was) if was.plan == port.published.plan => port.published.plan = was.plan,
        _ => changes.changed.push(Arc::clone(&port.published.plan)),
    }
}

/// Notes, once, who had a frontend before the update.
fn note_winner(claims: &Claims, frontend: &FrontendKey, before: &mut Before) {
    before.winners.entry(*frontend).or_insert_with(|| claims.winner(frontend).cloned());
}

/// Counts the slices that have changed, and when that was caused. One that is gone does not tell when it went.
fn note_slices(old: &[Arc<EndpointSlice>], new: &[Arc<EndpointSlice>], changes: &mut Changes) {
    let find = |name: &ObjectName| old.iter().find(|slice| slice.name == *name);
    let mut kept = 0;
    for slice in new {
        let was = find(&slice.name);
        kept += usize::from(was.is_some());
        if was.is_some_and(|was| Arc::ptr_eq(was, slice) || was == slice) {
            continue;
        }
        changes.endpoint_changes += 1;
        if let Some(at) = slice.triggered.filter(|_| was.is_none_or(|was| was.triggered != slice.triggered)) {
            changes.triggers.push(Trigger { family: slice.family, at });
        }
    }
    changes.endpoint_changes += old.len() - kept;
}

/// Sorts ports: the most urgent first, then by key.
fn sort(plans: &mut [Arc<PortPlan>]) {
    plans.sort_by(|a, b| (urgency(&a.key), &a.key).cmp(&(urgency(&b.key), &b.key)));
}
