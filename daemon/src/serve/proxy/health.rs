//! Whether the kernel follows the cluster's Services, by kube-proxy's rule, and whether load balancers should use this node.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::cluster::{Family, PerFamily};

/// How long a change may wait for the kernel: twice kube-proxy's sync period of 30 s.
const LATE_AFTER: Duration = Duration::from_secs(60);

/// How Services are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServingMode {
    /// IPVS for cluster IPs, nftables for the rest.
    Ipvs,
    /// nftables alone.
    Nftables,
}

impl ServingMode {
    pub(in crate::serve) const ALL: [Self; 2] = [Self::Ipvs, Self::Nftables];

    /// As kube-proxy names it (`/proxyMode`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
        }
    }
}

/// What the cluster says of this node, as far as load balancers care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Nothing: the source has no nodes.
    Unknown,
    /// It is there to stay.
    Present,
    /// It has taint `ToBeDeletedByClusterAutoscaler`, is being deleted, or is gone.
    Leaving,
}

/// A point in time, by the clock that only goes forward and by the wall's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// For differences.
    pub steady: Instant,
    /// For people.
    pub wall: SystemTime,
}

impl Moment {
    /// This one.
    #[must_use]
    pub fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }
}

#[derive(Debug, Clone, Copy)]
struct FamilyState {
    /// Of the changes that wait, when the first came.
    oldest: Option<Instant>,
    updated: SystemTime,
}

#[derive(Debug)]
struct Inner {
    families: PerFamily<FamilyState>,
    node: NodeState,
    mode: ServingMode,
}

/// What is served of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyReport {
    /// When nothing waited last.
    pub updated: SystemTime,
    /// Whether no change has waited for too long.
    pub healthy: bool,
}

/// The state of the proxy at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// When nothing waited last in one of the families; now if all is well.
    pub updated: SystemTime,
    /// That moment.
    pub now: SystemTime,
    /// Whether load balancers should use the node.
    pub node_eligible: bool,
    /// Whether no family is late.
    pub healthy: bool,
    /// Each family that is served.
    pub families: PerFamily<FamilyReport>,
}

/// The proxy's health. Shared: written by the driver, read by the servers.
#[derive(Debug)]
pub struct ProxyHealth(Mutex<Inner>);

impl ProxyHealth {
    /// The health of a proxy that starts now. Until a change has waited for too long it is well.
    #[must_use]
    pub fn new(mode: ServingMode, families: impl IntoIterator<Item = Family>, now: Moment) -> Self {
        let mut states = PerFamily::default();
        for family in families {
            states.set(family, Some(FamilyState { oldest: None, updated: now.wall }));
        }
        Self(Mutex::new(Inner { families: states, node: NodeState::Unknown, mode }))
    }

    /// A change of a family waits for the kernel from now on.
    pub fn queued(&self, family: Family, now: Moment) {
        self.change(family, |state| _ = state.oldest.get_or_insert(now.steady));
    }

    /// The kernel has all changes of a family that were queued.
    pub fn updated(&self, family: Family, now: Moment) {
        self.change(family, |state| *state = FamilyState { oldest: None, updated: now.wall });
    }

    /// Says what the cluster says of this node. Gives back what it said before.
    pub fn set_node(&self, node: NodeState) -> NodeState {
        std::mem::replace(&mut self.lock().node, node)
    }

    /// Says how Services are served from now on.
    pub fn set_mode(&self, mode: ServingMode) {
        self.lock().mode = mode;
    }

    /// How Services are served.
    #[must_use]
    pub fn mode(&self) -> ServingMode {
        self.lock().mode
    }

    /// Whether the kernel follows. That the node is leaving does not matter to it.
    #[must_use]
    pub fn is_healthy(&self, now: Moment) -> bool {
        self.report(now).healthy
    }

    /// Everything, as of now.
    #[must_use]
    pub fn report(&self, now: Moment) -> Report {
        let inner = self.lock();
        let families = inner.families.filter_map(|_, state| {
            let waits = state.oldest.map(|oldest| now.steady.saturating_duration_since(oldest));
            let healthy = waits.is_none_or(|waits| waits < LATE_AFTER);
            Some(FamilyReport { updated: state.updated, healthy })
        });
        let healthy = families.values().all(|family| family.healthy);
        let last = families.values().map(|family| family.updated).max().unwrap_or(now.wall);
        Report {
            updated: if healthy { now.wall } else { last },
            now: now.wall,
            node_eligible: inner.node != NodeState::Leaving,
            healthy,
            families,
        }
    }

    fn change(&self, family: Family, change: impl FnOnce(&mut FamilyState)) {
        let mut inner = self.lock();
        // A family that the node does not serve has nothing to be late with.
        if let Some(mut state) = inner.families.get(family).copied() {
            change(&mut state);
            inner.families.set(family, Some(state));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The state is whole after every statement above, so a panic elsewhere has not broken it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Moment, seconds: u64) -> Moment {
        let time = Duration::from_secs(seconds);
        Moment { steady: start.steady + time, wall: start.wall + time }
    }

    #[test]
    fn a_change_that_waits_for_two_periods_makes_its_family_unhealthy() {
        let start = Moment::now();
        let health = ProxyHealth::new(ServingMode::Nftables, Family::ALL, start);
        assert!(health.is_healthy(after(start, 1000)), "nothing waits");
        health.queued(Family::V6, after(start, 1000));
        health.queued(Family::V6, after(start, 1050));
        assert!(health.is_healthy(after(start, 1059)));
        let report = health.report(after(start, 1060));
        assert!(!report.healthy && report.families.v4.unwrap().healthy && !report.families.v6.unwrap().healthy);
        assert_eq!((report.updated, report.now), (start.wall, after(start, 1060).wall));

        health.updated(Family::V4, after(start, 1061));
        assert_eq!(health.report(after(start, 1062)).updated, after(start, 1061).wall, "the latest of the families");
        health.updated(Family::V6, after(start, 1070));
        let report = health.report(after(start, 1071));
        assert!(report.healthy);
        assert_eq!(report.updated, report.now);
    }

    #[test]
    fn a_family_that_is_not_served_is_not_told_of() {
        let start = Moment::now();
        let health = ProxyHealth::new(ServingMode::Ipvs, [Family::V4], start);
        health.queued(Family::V6, start);
        let report = health.report(after(start, 3600));
        assert!(report.healthy && report.families.v6.is_none());
    }

    #[test]
    fn t081_a_node_that_leaves_takes_no_more_and_works_all_the_same() {
        let start = Moment::now();
        let health = ProxyHealth::new(ServingMode::Nftables, [Family::V4], start);
        assert!(health.report(start).node_eligible, "of nodes nothing may be known");
        health.set_node(NodeState::Leaving);
        let report = health.report(start);
        assert!(!report.node_eligible && report.healthy && health.is_healthy(start));
        health.set_node(NodeState::Present);
        assert!(health.report(start).node_eligible);
    }
}
