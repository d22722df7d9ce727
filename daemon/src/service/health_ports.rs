//! Where load balancers ask whether this node has endpoints of a Service (`healthCheckNodePort`).
//!
//! A server for each address family and port, kept from one change of the Service to the next: only what it answers changes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, StatusCode};
use axum::response::IntoResponse;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster::events::{About, Happening};
use crate::cluster::services::ObjectName;
use crate::cluster::{Events, Family};
use crate::serve::proxy::{Moment, ProxyHealth};
use crate::serve::{OnFailure, Server};
use crate::service::model::HealthPort;

/// The share of this node in a Service's endpoints, which some load balancers weigh nodes by.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// What a server answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Share {
    service: ObjectName,
    local_endpoints: usize,
}

#[derive(Debug)]
struct Running {
    share: watch::Sender<Share>,
    /// Dropped, it stops the server.
    _stop: DropGuard,
}

/// The servers of all Services.
#[derive(Debug)]
pub struct HealthPorts {
    health: Arc<ProxyHealth>,
    events: Events,
    running: BTreeMap<SocketAddr, Running>,
}

impl HealthPorts {
    /// No server yet. `health` is the proxy's: a node that does not follow the cluster must not be sent anything. `events`
    /// are told of servers that do not come up.
    #[must_use]
    pub fn new(health: Arc<ProxyHealth>, events: Events) -> Self {
        Self { health, events, running: BTreeMap::new() }
    }

    /// Makes the servers those of `ports`, at `addresses`: those that take node ports, or `0.0.0.0` and `::` for all.
    ///
    /// Servers that are there stay; the others are closed, and new ones open as soon as their address can be had. Of two
    /// Services with one port, which the API does not let happen, the first has it. Needs a tokio runtime.
    pub fn set<'a>(&mut self, ports: impl IntoIterator<Item = &'a HealthPort>, addresses: &[IpAddr]) {
        let mut wanted = BTreeMap::new();
        for port in ports {
            for address in addresses {
                if let Some(count) = port.local_endpoints.get(Family::of(*address)) {
                    let share = Share { service: port.service.clone(), local_endpoints: *count };
                    wanted.entry(SocketAddr::new(*address, port.port)).or_insert(share);
                }
            }
        }
        self.running.retain(|address, _| wanted.contains_key(address));
        for (address, share) in wanted {
            match self.running.get(&address) {
                Some(running) => _ = running.share.send_replace(share),
                None => _ = self.running.insert(address, start(address, share, Arc::clone(&self.health), &self.events)),
            }
        }
    }
}

fn start(address: SocketAddr, share: Share, health: Arc<ProxyHealth>, events: &Events) -> Running {
    let on_failure = Some(tells(events.clone(), share.service.clone()));
    let what = format!("the health check of {}", share.service);
    let (sender, shares) = watch::channel(share);
    let router = Router::new().fallback(answer).with_state((shares, health));
    let stop = CancellationToken::new();
    // Of each family its own, as the counts are.
    tokio::spawn(Server { what, address, own_family: true, router, on_failure }.run(stop.clone()));
    Running { share: sender, _stop: stop.drop_guard() }
}

/// Tells the cluster, as kube-proxy does, that a health check cannot be served.
fn tells(events: Events, service: ObjectName) -> OnFailure {
    OnFailure::new(move |failure| {
        events.tell(Happening {
            about: About::Service(service.clone()),
            is_warning: true,
            reason: "FailedToStartServiceHealthcheck",
            action: "Listen",
            note: failure.to_owned(),
        });
    })
}

async fn answer(State((shares, health)): State<(watch::Receiver<Share>, Arc<ProxyHealth>)>) -> impl IntoResponse {
    let Share { service, local_endpoints } = shares.borrow().clone();
    let healthy = health.is_healthy(Moment::now());
    let code = if local_endpoints > 0 && healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (WEIGHT, local_endpoints.to_string()),
    ];
    (code, headers, body(&service, local_endpoints, healthy))
}

/// As kube-proxy lays it out: there are health checks that compare texts. Names in the API need no escapes.
fn body(service: &ObjectName, local_endpoints: usize, healthy: bool) -> String {
    let ObjectName { namespace, name } = service;
    let service = format!("{{\n\t\t\"namespace\": {namespace:?},\n\t\t\"name\": {name:?}\n\t}}");
    format!(
        "{{\n\t\"service\": {service},\n\t\"localEndpoints\": {local_endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    )
}

#[cfg(test)]
#[path = "health_ports_tests.rs"]
mod tests;
