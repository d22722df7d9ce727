//! Which elements a port of a Service has.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::class::Class;
use super::entry::{Datum, Endpoint, Entry, Key};
use super::layout::{Entrance, LOCAL_LIST};
use super::{slots, tags};
use crate::cluster::services::TrafficPolicy;
use crate::service::model::{Backend, Frontend, FrontendKey, FrontendKind, PortPlan};

/// A port as the kernel has it: its plan, its number, and the places of its backends. All elements follow from these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    /// Its number, of which [`Entrance::MASK`] is free.
    pub(super) id: u32,
    /// What there is to be.
    pub(super) plan: Arc<PortPlan>,
    /// All backends, in their places; empty if no frontend leads there.
    pub(super) cluster: Box<[Endpoint]>,
    /// The backends on this node, in their places; empty if no frontend leads there.
    pub(super) local: Box<[Endpoint]>,
}

/// The places that the two lists of a port had so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Places<'a> {
    /// Of all backends.
    pub(super) cluster: &'a [Endpoint],
    /// Of the backends on this node.
    pub(super) local: &'a [Endpoint],
}

impl Port {
    /// The port with this number. In ipvs mode (`proxy_cluster_ips` is false) cluster IPs lead to no list.
    #[must_use]
    pub(super) fn new(id: u32, plan: Arc<PortPlan>, before: Places<'_>, proxy_cluster_ips: bool) -> Self {
        let leads_to = |wanted: fn(Entrance) -> bool| {
            let here = |frontend: &&Frontend| proxy_cluster_ips || frontend.kind.is_external();
            plan.frontends.iter().filter(here).any(|frontend| wanted(entrance(&plan, frontend.kind)))
        };
        let place = |needed: bool, before: &[Endpoint], backends: &[Backend]| {
            let mut new: Vec<Endpoint> = Vec::new();
            if needed {
                new.extend(backends.iter().map(Endpoint::from));
                new.sort_unstable();
                new.dedup();
            }
            slots::assign(before, &new)
        };
        // Pods and this node see all backends of an external frontend, whatever its policy.
        let to_cluster = leads_to(|entrance| entrance != Entrance::Local);
        let to_local = leads_to(|entrance| matches!(entrance, Entrance::Local | Entrance::ExternalLocal));
        let cluster = place(to_cluster, before.cluster, &plan.cluster);
        let local = place(to_local, before.local, &plan.local);
        Self { id, plan, cluster, local }
    }

    /// The lists that have backends: number, class, places.
    fn lists(&self) -> impl Iterator<Item = (u32, Class, &[Endpoint])> {
        let affinity =
            self.plan.affinity.map(|time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX).clamp(1, 86_400));
        [(false, &self.cluster), (true, &self.local)].into_iter().filter(|(_, places)| !places.is_empty()).map(
            move |(local, places)| {
                let size = u32::try_from(places.len()).unwrap_or(u32::MAX);
                let class = Class { family: self.plan.key.family, local, size, affinity };
                (if local { self.id | LOCAL_LIST } else { self.id }, class, &**places)
            },
        )
    }

    /// The classes of its lists.
    pub(super) fn classes(&self) -> impl Iterator<Item = Class> {
        self.lists().map(|(_, class, _)| class)
    }

    /// The elements that belong to this port alone, sorted by key.
    #[must_use]
    pub(super) fn entries(&self, proxy_cluster_ips: bool) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut has_frontend = false;
        for Frontend { key, kind } in &self.plan.frontends {
            if *kind == FrontendKind::ClusterIp && !proxy_cluster_ips {
                if self.plan.has_any && self.plan.backends_of(*kind).is_empty() {
                    entries.push((Key::Blocked(*key), Datum::None));
                }
                continue;
            }
            has_frontend = true;
            entries.push((Key::Frontend(*key), Datum::Number(self.id | entrance(&self.plan, *kind).number())));
            if *kind == FrontendKind::LoadBalancer && !self.plan.source_ranges.is_empty() {
                entries.push((Key::Restricted(*key), Datum::None));
                let ranges = super::options::disjoint(self.plan.source_ranges.iter().copied());
                entries.extend(ranges.into_iter().map(|network| (Key::Allowed(*key, network), Datum::None)));
            }
        }
        if has_frontend && !self.plan.has_any {
            entries.push((Key::NoEndpoints(self.id), Datum::None));
        }
        for (list, class, places) in self.lists() {
            entries.push((Key::Size(list), Datum::Class(class)));
            let family = class.family;
            if class.affinity.is_none() {
                let indexed = (0u32..).zip(places);
                entries
                    .extend(indexed.map(|(at, backend)| (Key::Backend(family, list, at), Datum::Endpoint(*backend))));
                continue;
            }
            for ((index, backend), tag) in (0u32..).zip(places).zip(tags::of(places)) {
                entries.push((Key::Tag(list, index), Datum::Number(tag)));
                entries.push((Key::Tagged(family, tag, list), Datum::Endpoint(*backend)));
            }
        }
        entries.sort_unstable();
        entries
    }

    /// The elements that other ports may have as well, each once.
    #[must_use]
    pub(super) fn shared(&self) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for frontend in self.plan.frontends.iter().filter(|frontend| frontend.kind == FrontendKind::ClusterIp) {
            if let FrontendKey::Address { address, .. } = frontend.key {
                keys.insert(Key::ClusterIp(address));
            }
        }
        let backends = self.plan.cluster.iter().chain(&self.plan.local);
        keys.extend(backends.filter(|backend| backend.local).map(|backend| Key::Hairpin(backend.address)));
        keys
    }
}

fn entrance(plan: &PortPlan, kind: FrontendKind) -> Entrance {
    let policy = if kind.is_external() { plan.external } else { plan.internal };
    match (kind.is_external(), policy) {
        (false, TrafficPolicy::Cluster) => Entrance::Cluster,
        (false, TrafficPolicy::Local) => Entrance::Local,
        (true, TrafficPolicy::Cluster) => Entrance::External,
        (true, TrafficPolicy::Local) => Entrance::ExternalLocal,
    }
}
