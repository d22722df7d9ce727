//! The agent's metrics, in Prometheus' text format.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::ServiceMetrics;
use super::document::ApiServerStatus;
use crate::cluster::kube::ApiMetrics;

/// The tables of the node's loop.
const TABLES: [&str; 6] = ["links", "peers", "filter", "forward", "blackholes", "files"];

/// Which table a number belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabel {
    table: &'static str,
}

/// What the agent counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Peers that should be reached.
    pub peers: Gauge,
    /// Peers of which every kernel object is in place.
    pub peers_programmed: Gauge,
    /// Leases that are ignored because they cannot be right.
    pub leases_rejected: Gauge,
    /// Other nodes that publish this node's public address.
    pub public_ip_conflicts: Gauge,
    /// Subnets of the cluster network that are leased.
    pub subnets_used: Gauge,
    /// Subnets that the cluster network has.
    pub subnets_total: Gauge,
    /// Seconds since the store was last read in whole.
    pub store_age: Gauge<f64, AtomicU64>,
    /// Passes over all tables.
    pub passes: Counter,
    /// How long a pass takes, in seconds.
    pub pass_seconds: Histogram,
    /// What is counted of Services.
    pub services: ServiceMetrics,
    /// What is counted of the API server.
    pub api: ApiMetrics,
    writes: Family<TableLabel, Counter>,
    repairs: Family<TableLabel, Counter>,
    failures: Family<TableLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("weft");
        let metrics = Self {
            peers: Gauge::default(),
            peers_programmed: Gauge::default(),
            leases_rejected: Gauge::default(),
            public_ip_conflicts: Gauge::default(),
            subnets_used: Gauge::default(),
            subnets_total: Gauge::default(),
            store_age: Gauge::default(),
            passes: Counter::default(),
            // A pass over an unchanged node takes a millisecond; one that programs thousands of peers, a second.
            pass_seconds: Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            ]),
            services: ServiceMetrics::default(),
            api: ApiMetrics::default(),
            writes: Family::default(),
            repairs: Family::default(),
            failures: Family::default(),
            registry: Registry::default(),
        };
        registry.register("build", "Version of the agent", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("peers", "Other nodes that should be reached", metrics.peers.clone());
        registry.register(
            "peers_programmed",
            "Other nodes of which every kernel object is in place",
            metrics.peers_programmed.clone(),
        );
        registry.register(
            "leases_rejected",
            "Leases that are ignored because they cannot be right",
            metrics.leases_rejected.clone(),
        );
        registry.register(
            "public_ip_conflicts",
            "Public addresses of this node that another node publishes, too",
            metrics.public_ip_conflicts.clone(),
        );
        registry.register("subnets_used", "Leased subnets of the cluster network", metrics.subnets_used.clone());
        registry.register("subnets", "Subnets that the cluster network has", metrics.subnets_total.clone());
        registry.register(
            "store_age_seconds",
            "Time since the store was last read in whole",
            metrics.store_age.clone(),
        );
        registry.register("passes", "Passes over all tables", metrics.passes.clone());
        registry.register("pass_duration_seconds", "How long a pass takes", metrics.pass_seconds.clone());
        registry.register("kernel_writes", "Kernel objects created, changed or deleted", metrics.writes.clone());
        registry.register(
            "repairs",
            "Kernel objects, settings and files put back that somebody else had changed or deleted",
            metrics.repairs.clone(),
        );
        registry.register("objects_failed", "Kernel objects that are not as they should be", metrics.failures.clone());
        metrics.services.register(registry.sub_registry_with_prefix("service"));
        metrics.api.register(registry.sub_registry_with_prefix("api"));
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts objects written to a table.
    pub fn wrote(&self, table: &'static str, objects: usize) {
        self.writes.get_or_create(&TableLabel { table }).inc_by(count(objects));
    }

    /// Counts objects of a table that were put back.
    pub fn repaired(&self, table: &'static str, objects: usize) {
        self.repairs.get_or_create(&TableLabel { table }).inc_by(count(objects));
    }

    /// Says how many objects of a table are not as they should be.
    pub fn failed(&self, table: &'static str, objects: usize) {
        self.failures.get_or_create(&TableLabel { table }).set(gauge(objects));
    }

    /// How many objects have been put back since the agent's start, by kind: those of the node's tables, and those of the
    /// back ends of Services.
    #[must_use]
    pub fn repairs_by_kind(&self) -> BTreeMap<String, u64> {
        let of = |table: &'static str| {
            let count = self.repairs.get(&TableLabel { table }).map_or(0, |counter| counter.get());
            (table.to_owned(), count)
        };
        TABLES.into_iter().map(of).chain(self.services.repairs_by_kind()).collect()
    }

    /// How many objects of each table are not as they should be; those tables alone that have some.
    #[must_use]
    pub fn failures_by_table(&self) -> BTreeMap<String, i64> {
        let of = |table: &'static str| {
            let count = self.failures.get(&TableLabel { table })?.get();
            (count > 0).then(|| (table.to_owned(), count))
        };
        TABLES.into_iter().filter_map(of).collect()
    }

    /// The API server that is asked; `None` until one has answered, and with another source.
    #[must_use]
    pub fn api_server(&self) -> Option<ApiServerStatus> {
        self.api.server().map(|found| ApiServerStatus { in_use: found.server, configured: found.configured })
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

/// A number of objects as a gauge has it.
#[must_use]
pub fn gauge(objects: usize) -> i64 {
    i64::try_from(objects).unwrap_or(i64::MAX)
}

fn count(objects: usize) -> u64 {
    u64::try_from(objects).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_name() {
        let metrics = Metrics::default();
        metrics.peers.set(3);
        metrics.wrote("peers", 9);
        metrics.repaired("peers", 1);
        metrics.failed("filter", 0);
        let repairs: Vec<_> = metrics.repairs_by_kind().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(repairs, [("peers".to_owned(), 1)]);
        assert!(metrics.failures_by_table().is_empty());
        let text = metrics.render();
        for line in [
            "weft_peers 3",
            "weft_kernel_writes_total{table=\"peers\"} 9",
            "weft_repairs_total{table=\"peers\"} 1",
            "weft_objects_failed{table=\"filter\"} 0",
            "weft_passes_total 0",
            "weft_service_services 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
