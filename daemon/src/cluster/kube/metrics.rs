//! What is counted of the API server. The names begin with `weft_api_`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
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

/// Which server is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabel {
    server: String,
}

/// The API server that is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInUse {
    /// Where it is: `192.0.2.10:6443`.
    pub server: String,
    /// Where the one is that the configuration names.
    pub configured: String,
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
    server: Family<ServerLabel, Gauge>,
    server_changes: Counter,
    in_use: Arc<Mutex<Option<ServerInUse>>>,
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
            server: Family::default(),
            server_changes: Counter::default(),
            in_use: Arc::default(),
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
        registry.register("server", "1 for the API server that is asked", self.server.clone());
        registry.register(
            "server_changes",
            "How often another API server was gone over to",
            self.server_changes.clone(),
        );
    }

    /// The API is asked here now, and at another server before if it `is_change`.
    pub(super) fn asks(&self, in_use: ServerInUse, is_change: bool) {
        self.server.clear();
        self.server.get_or_create(&ServerLabel { server: in_use.server.clone() }).set(1);
        if is_change {
            self.server_changes.inc();
        }
        *self.in_use.lock().unwrap_or_else(PoisonError::into_inner) = Some(in_use);
    }

    /// The API server that is asked; `None` until one has answered.
    #[must_use]
    pub fn server(&self) -> Option<ServerInUse> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
