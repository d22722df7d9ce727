//! Tells log, health and metrics what a pass has done.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::engine::Engine;
use super::outcome::Outcome;
use crate::cluster::events::{About, Happening};
use crate::cluster::services::NodeObject;
use crate::cluster::{Events, Family};
use crate::serve::proxy::{Moment, NodeState, Pass, ProxyHealth, ProxyMetrics};
use crate::serve::{Component, Health, ServiceMetrics, gauge};

/// Problems that are named in the log at once; of more only the number is told.
const TOLD: usize = 10;

/// Whom passes are told.
#[derive(Debug, Clone)]
pub struct Teller {
    /// The agent's health.
    pub health: Arc<Health>,
    /// kube-proxy's health.
    pub proxy: Arc<ProxyHealth>,
    /// kube-proxy's metrics.
    pub metrics: Arc<ProxyMetrics>,
    /// weft's own.
    pub services: ServiceMetrics,
    /// Where the cluster is told.
    pub events: Events,
    /// The families that Services have on this node.
    pub families: Vec<Family>,
}

impl Teller {
    /// Nothing can be done yet.
    pub(super) fn waiting(&self, reason: &str) {
        self.health.waiting(Component::Services, reason);
    }

    /// The back ends do not stand.
    pub(super) fn bad(&self, reason: &str) {
        self.queued();
        self.health.bad(Component::Services, reason);
    }

    /// What the cluster says of this node, which may be what it said before.
    pub(super) fn node(&self, node: Option<&NodeObject>) {
        let state = match node {
            None => NodeState::Unknown,
            Some(node) if node.is_leaving => NodeState::Leaving,
            Some(_) => NodeState::Present,
        };
        let before = self.proxy.set_node(state);
        match (before, state) {
            (NodeState::Leaving, NodeState::Leaving) => {}
            (_, NodeState::Leaving) => tracing::info!("this node is leaving: /healthz tells load balancers so"),
            (NodeState::Leaving, _) => tracing::info!("this node is not leaving any more"),
            _ => {}
        }
    }

    /// A change has come in.
    pub(super) fn queued(&self) {
        for family in &self.families {
            self.proxy.queued(*family, Moment::now());
            self.metrics.queued(*family, SystemTime::now());
        }
    }

    /// The back ends stand for the first time.
    pub(super) fn started(&self, engine: &Engine, outcome: &Outcome, revision: i64, took: Duration) {
        tracing::info!(mode = engine.mode().name(), because = engine.because(), "serving Services");
        let note = format!("weft serves Services in {} mode: {}", engine.mode().name(), engine.because());
        let about = About::Node;
        self.events.tell(Happening { about, is_warning: false, reason: "Starting", action: "ServeServices", note });
        self.proxy.set_mode(engine.mode());
        self.services.set_mode(engine.mode());
        self.tell(engine, outcome, Pass::Full, revision, true, took);
    }

    /// The oldest change of a pass that has succeeded came in so long ago.
    pub(super) fn arrived(&self, ago: Duration) {
        self.services.change_seconds.observe(ago.as_secs_f64());
    }

    /// A pass has ended.
    pub(super) fn passed(&self, engine: &Engine, outcome: &Outcome, revision: i64, all: bool, took: Duration) {
        self.tell(engine, outcome, Pass::Partial, revision, all, took);
    }

    /// `all` says whether no change waits to be taken.
    fn tell(&self, engine: &Engine, outcome: &Outcome, pass: Pass, revision: i64, all: bool, took: Duration) {
        for (told, problem) in outcome.problems.iter().enumerate() {
            if told == TOLD {
                tracing::warn!("and {} more problems with Services", outcome.problems.len() - TOLD);
                break;
            }
            tracing::warn!("{problem}");
        }
        if outcome.repaired > 0 {
            tracing::warn!(objects = outcome.repaired, "repaired what somebody else had changed of Services");
            self.services.repaired(engine.mode().name(), count(outcome.repaired));
        }
        self.count_writes(outcome);
        if outcome.failed() {
            self.services.failed(engine.mode().name());
            self.queued();
            self.families.iter().for_each(|family| self.metrics.sync_failed(*family));
            let more = outcome.errors.len() - 1;
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            self.health.bad(Component::Services, format!("{}{more}", outcome.errors[0]));
            return;
        }
        let now = SystemTime::now();
        for family in &self.families {
            if all {
                self.proxy.updated(*family, Moment::now());
            }
            if pass == Pass::Full || outcome.service_changes + outcome.endpoint_changes > 0 {
                self.metrics.synced(*family, pass, took, now);
            }
        }
        for trigger in &outcome.triggers {
            self.metrics.programmed(trigger.family, trigger.at, now);
        }
        self.metrics.service_changes.inc_by(count(outcome.service_changes));
        self.metrics.endpoint_changes.inc_by(count(outcome.endpoint_changes));
        self.services.revision.set(revision);
        self.health.good(Component::Services, format!("{} mode ({})", engine.mode().name(), engine.because()));
    }

    /// Counts the objects that cannot be used.
    pub(super) fn rejected(&self, rejected: usize) {
        self.services.rejected.set(gauge(rejected));
    }

    /// Counts what there is. It looks at every port, and so is not for every pass.
    pub(super) fn count(&self, engine: &Engine) {
        let census = engine.table().census();
        self.services.services.set(gauge(census.services));
        self.services.ports.set(gauge(census.ports));
        self.services.frontends.set(gauge(census.frontends));
        self.services.backends.set(gauge(census.backends));
        self.services.conflicts.set(gauge(census.conflicts));
        self.services.draining.set(gauge(engine.draining()));
        for (family, without) in census.no_local.iter() {
            self.metrics.no_local_endpoints(family, without.internal, without.external);
        }
    }

    fn count_writes(&self, outcome: &Outcome) {
        let written = outcome.nft;
        if written.transactions > 0 {
            let numbers = [written.transactions, written.messages, written.elements].map(count);
            self.services.wrote("nftables", numbers[0], numbers[1], numbers[2]);
        }
        if outcome.ipvs_messages > 0 {
            let messages = count(outcome.ipvs_messages);
            self.services.wrote("ipvs", 0, messages, messages);
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
