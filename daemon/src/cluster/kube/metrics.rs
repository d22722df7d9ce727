//! What is counted of the API server. The names begin with `weft_api_`.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabel {
    resource: &'static str,
}

/// What was asked for, and what the answer was.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabel {
    resource: &'static str,
    /// The HTTP status; 0 if there was no answer.
    code: u32,
}

/// Counters of the API server.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    requests: Family<AnswerLabel, Counter>,
    seconds: Family<ResourceLabel, Histogram, fn() -> Histogram>,
    lists: Family<ResourceLabel, Counter>,
    watches: Family<ResourceLabel, Counter>,
    losses: Family<ResourceLabel, Counter>,
    objects: Family<ResourceLabel, Counter>,
}

impl Default for ApiMetrics {
    fn default() -> Self {
        // A healthy API server answers within milliseconds; ten seconds are as long as anything waits.
        let histogram: fn() -> Histogram =
            || Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]);
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            lists: Family::default(),
            watches: Family::default(),
            losses: Family::default(),
            objects: Family::default(),
        }
    }
}

impl ApiMetrics {
    /// Registers all numbers.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("requests", "Requests to the API server, by their answer", self.requests.clone());
        registry.register("request_duration_seconds", "How long an answer takes to begin", self.seconds.clone());
        registry.register("lists", "Lists that were read to their end", self.lists.clone());
        registry.register("watches", "Watches that were opened", self.watches.clone());
        registry.register("watch_losses", "Watches that ended before their time", self.losses.clone());
        registry.register("objects", "Objects that lists and watches have told of", self.objects.clone());
    }

    /// A request was answered with this status, 0 for none.
    pub(super) fn asked(&self, resource: &'static str, code: u16, took: Duration) {
        self.requests.get_or_create(&AnswerLabel { resource, code: code.into() }).inc();
        self.seconds.get_or_create(&ResourceLabel { resource }).observe(took.as_secs_f64());
    }

    /// A list is whole.
    pub(super) fn listed(&self, resource: &'static str) {
        self.lists.get_or_create(&ResourceLabel { resource }).inc();
    }

    /// A watch is open.
    pub(super) fn watched(&self, resource: &'static str) {
        self.watches.get_or_create(&ResourceLabel { resource }).inc();
    }

    /// A watch was lost.
    pub(super) fn lost(&self, resource: &'static str) {
        self.losses.get_or_create(&ResourceLabel { resource }).inc();
    }

    /// An object came.
    pub(super) fn came(&self, resource: &'static str) {
        self.objects.get_or_create(&ResourceLabel { resource }).inc();
    }
}
