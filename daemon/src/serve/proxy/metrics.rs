//! What kube-proxy counts, by its names: `kubeproxy_…`. Beside them the registry has weft's own counts of Services.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family as Labelled, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets, linear_buckets};
use prometheus_client::registry::Registry;

use super::slis::Slis;
use crate::cluster::Family;
use crate::serve::{ServiceMetrics, gauge};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FamilyLabel {
    ip_family: String,
}

impl FamilyLabel {
    fn of(family: Family) -> Self {
        Self { ip_family: family.to_string() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabel {
    ip_family: String,
    traffic_policy: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: u16,
}

/// The buckets of a histogram, in seconds.
#[derive(Debug, Clone, Copy)]
enum Buckets {
    /// From 1 ms to 16 s, each twice the last.
    Work,
    /// From a quarter of a second to 5 minutes; most of them whole seconds of the first.
    Programming,
}

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        match self {
            Self::Work => Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            Self::Programming => Histogram::new(
                linear_buckets(0.25, 0.25, 2)
                    .chain(linear_buckets(1.0, 1.0, 59))
                    .chain(linear_buckets(60.0, 5.0, 12))
                    .chain(linear_buckets(120.0, 30.0, 7)),
            ),
        }
    }
}

type Times = Labelled<FamilyLabel, Histogram, Buckets>;
type Stamps = Labelled<FamilyLabel, Gauge<f64, AtomicU64>>;
type Counts = Labelled<FamilyLabel, Counter>;

/// Whether a pass concerned everything or only what had changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Everything.
    Full,
    /// What had changed.
    Partial,
}

/// What kube-proxy counts.
#[derive(Debug)]
pub struct ProxyMetrics {
    registry: Registry,
    slis: Slis,
    started: SystemTime,
    /// Endpoint slices that have changed and are not in the kernel yet.
    pub endpoint_changes_pending: Gauge,
    /// Endpoint slices that have changed.
    pub endpoint_changes: Counter,
    /// Services that have changed and are not in the kernel yet.
    pub service_changes_pending: Gauge,
    /// Services that have changed.
    pub service_changes: Counter,
    sync: Times,
    full_sync: Times,
    partial_sync: Times,
    programming: Times,
    conntrack: Times,
    last_queued: Stamps,
    last_synced: Stamps,
    sync_failures: Counts,
    cleanup_failures: Counts,
    conntrack_deleted: Counts,
    no_local_endpoints: Labelled<PolicyLabel, Gauge>,
    healthz: Labelled<CodeLabel, Counter>,
    livez: Labelled<CodeLabel, Counter>,
}

impl ProxyMetrics {
    /// The metrics of a process that started then, and those of `services` with them.
    #[must_use]
    pub fn new(services: &ServiceMetrics, started: SystemTime) -> Self {
        let times = |buckets| Times::new_with_constructor(buckets);
        let metrics = Self {
            registry: Registry::default(),
            slis: Slis::default(),
            started,
            endpoint_changes_pending: Gauge::default(),
            endpoint_changes: Counter::default(),
            service_changes_pending: Gauge::default(),
            service_changes: Counter::default(),
            sync: times(Buckets::Work),
            full_sync: times(Buckets::Work),
            partial_sync: times(Buckets::Work),
            programming: times(Buckets::Programming),
            conntrack: times(Buckets::Work),
            last_queued: Stamps::default(),
            last_synced: Stamps::default(),
            sync_failures: Counts::default(),
            cleanup_failures: Counts::default(),
            conntrack_deleted: Counts::default(),
            no_local_endpoints: Labelled::default(),
            healthz: Labelled::default(),
            livez: Labelled::default(),
        };
        let mut registry = Registry::default();
        metrics.register(registry.sub_registry_with_prefix("kubeproxy"));
        services.register(registry.sub_registry_with_prefix("weft_service"));
        Self { registry, ..metrics }
    }

    /// The health checks.
    #[must_use]
    pub const fn slis(&self) -> &Slis {
        &self.slis
    }

    /// Of a counter's name `_total` is left out: the text format adds it.
    fn register(&self, registry: &mut Registry) {
        for (name, help, times) in [
            ("sync_proxy_rules_duration_seconds", "How long a pass over Services takes", &self.sync),
            ("sync_full_proxy_rules_duration_seconds", "How long a pass over all Services takes", &self.full_sync),
            (
                "sync_partial_proxy_rules_duration_seconds",
                "How long a pass over changed Services takes",
                &self.partial_sync,
            ),
            (
                "network_programming_duration_seconds",
                "From a change in the cluster to the kernel's having it",
                &self.programming,
            ),
            ("conntrack_reconciler_sync_duration_seconds", "How long a search for stale flows takes", &self.conntrack),
        ] {
            registry.register(name, help, times.clone());
        }
        for (name, help, stamps) in [
            ("sync_proxy_rules_last_queued_timestamp_seconds", "When a change last came in", &self.last_queued),
            ("sync_proxy_rules_last_timestamp_seconds", "When a pass last succeeded", &self.last_synced),
        ] {
            registry.register(name, help, stamps.clone());
        }
        for (name, help, counts) in [
            ("sync_proxy_rules_nftables_sync_failures", "Passes that nftables refused", &self.sync_failures),
            (
                "sync_proxy_rules_nftables_cleanup_failures",
                "Removals of what is not needed any more that nftables refused",
                &self.cleanup_failures,
            ),
            ("conntrack_reconciler_deleted_entries", "Stale flows that were deleted", &self.conntrack_deleted),
        ] {
            registry.register(name, help, counts.clone());
        }
        for (name, help, pending) in [
            (
                "sync_proxy_rules_endpoint_changes_pending",
                "Changed endpoint slices that the kernel does not have yet",
                &self.endpoint_changes_pending,
            ),
            (
                "sync_proxy_rules_service_changes_pending",
                "Changed Services that the kernel does not have yet",
                &self.service_changes_pending,
            ),
        ] {
            registry.register(name, help, pending.clone());
        }
        registry.register("sync_proxy_rules_endpoint_changes", "Changed slices", self.endpoint_changes.clone());
        registry.register("sync_proxy_rules_service_changes", "Changed Services", self.service_changes.clone());
        // A gauge, although it is called a total.
        registry.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "Service ports with policy Local that have endpoints, but none on this node",
            self.no_local_endpoints.clone(),
        );
        registry.register("proxy_healthz", "Answers of /healthz", self.healthz.clone());
        registry.register("proxy_livez", "Answers of /livez", self.livez.clone());
    }

    /// A change of a family came in.
    pub fn queued(&self, family: Family, now: SystemTime) {
        self.last_queued.get_or_create(&FamilyLabel::of(family)).set(seconds(now));
    }

    /// A pass has succeeded, and took so long.
    pub fn synced(&self, family: Family, pass: Pass, took: Duration, now: SystemTime) {
        let label = FamilyLabel::of(family);
        let kind = if pass == Pass::Full { &self.full_sync } else { &self.partial_sync };
        for times in [&self.sync, kind] {
            times.get_or_create(&label).observe(took.as_secs_f64());
        }
        self.last_synced.get_or_create(&label).set(seconds(now));
    }

    /// A pass of nftables has failed.
    pub fn sync_failed(&self, family: Family) {
        self.sync_failures.get_or_create(&FamilyLabel::of(family)).inc();
    }

    /// nftables has refused to remove what is not needed any more.
    pub fn cleanup_failed(&self, family: Family) {
        self.cleanup_failures.get_or_create(&FamilyLabel::of(family)).inc();
    }

    /// The kernel has a change of endpoints that was made in the cluster at `triggered`
    /// (`endpoints.kubernetes.io/last-change-trigger-time`). What is older than this process was waiting for it, not for
    /// the network, and does not count.
    pub fn programmed(&self, family: Family, triggered: SystemTime, now: SystemTime) {
        if triggered >= self.started {
            // A clock that is ahead of ours makes no time negative.
            let took = now.duration_since(triggered).unwrap_or_default();
            self.programming.get_or_create(&FamilyLabel::of(family)).observe(took.as_secs_f64());
        }
    }

    /// A search for stale flows has deleted some, and took so long.
    pub fn conntrack_cleaned(&self, family: Family, deleted: u64, took: Duration) {
        let label = FamilyLabel::of(family);
        self.conntrack.get_or_create(&label).observe(took.as_secs_f64());
        self.conntrack_deleted.get_or_create(&label).inc_by(deleted);
    }

    /// How many ports of Services have endpoints but none on this node, though the policy is Local.
    pub fn no_local_endpoints(&self, family: Family, internal: usize, external: usize) {
        for (traffic_policy, ports) in [("internal", internal), ("external", external)] {
            let label = PolicyLabel { ip_family: family.to_string(), traffic_policy };
            self.no_local_endpoints.get_or_create(&label).set(gauge(ports));
        }
    }

    pub(super) fn answered_healthz(&self, code: StatusCode) {
        self.healthz.get_or_create(&CodeLabel { code: code.as_u16() }).inc();
    }

    pub(super) fn answered_livez(&self, code: StatusCode) {
        self.livez.get_or_create(&CodeLabel { code: code.as_u16() }).inc();
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
