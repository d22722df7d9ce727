//! The two servers of kube-proxy: its health, for load balancers, and its metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::health::{FamilyReport, Moment, ProxyHealth, Report};
use super::metrics::ProxyMetrics;
use super::time::rfc3339;
use crate::serve::Server;
use crate::serve::listen::openmetrics;

/// What is served, and where.
#[derive(Debug, Clone)]
pub struct ProxySurface {
    /// Address of `/healthz` and `/livez` (`proxy-healthz-bind`); `None`: they are not served.
    pub healthz_bind: Option<SocketAddr>,
    /// Address of `/metrics`, `/metrics/slis`, `/healthz`, `/proxyMode` and `/configz` (`proxy-metrics-bind`); `None`: they are not served.
    pub metrics_bind: Option<SocketAddr>,
    /// The configuration in effect, without secrets.
    pub configz: Value,
    /// Health and mode.
    pub health: Arc<ProxyHealth>,
    /// What is counted.
    pub metrics: Arc<ProxyMetrics>,
}

impl ProxySurface {
    /// Serves until `stop`.
    pub async fn serve(self, stop: CancellationToken) {
        let health = Router::new().route("/healthz", get(healthz)).route("/livez", get(livez)).with_state(self.clone());
        let metrics = Router::new()
            .route("/healthz", get(ping))
            .route("/metrics", get(|State(this): State<Self>| async move { openmetrics(this.metrics.render()) }))
            .route(
                "/metrics/slis",
                get(|State(this): State<Self>| async move { openmetrics(this.metrics.slis().render()) }),
            )
            .route("/proxyMode", get(|State(this): State<Self>| async move { ([NO_SNIFF], this.health.mode().name()) }))
            .route("/configz", get(|State(this): State<Self>| async move { json_answer(&this.configz) }))
            .with_state(self.clone());
        let run = |what: &str, address: Option<SocketAddr>, router: Router| {
            let server = address.map(|address| Server {
                what: what.to_owned(),
                address,
                own_family: false,
                router,
                on_failure: None,
            });
            let stop = stop.clone();
            async move {
                if let Some(server) = server {
                    server.run(stop).await;
                }
            }
        };
        tokio::join!(
            run("the Service proxy's health", self.healthz_bind, health),
            run("the Service proxy's metrics", self.metrics_bind, metrics),
        );
    }
}

const NO_SNIFF: (HeaderName, &str) = (X_CONTENT_TYPE_OPTIONS, "nosniff");

async fn ping(State(this): State<ProxySurface>) -> impl IntoResponse {
    this.metrics.slis().pinged();
    ([NO_SNIFF], "ok")
}

async fn healthz(State(this): State<ProxySurface>) -> impl IntoResponse {
    let report = this.health.report(Moment::now());
    let code = code(report.healthy && report.node_eligible);
    this.metrics.answered_healthz(code);
    (code, json_answer(&Body::of(&report, Some(report.node_eligible))))
}

async fn livez(State(this): State<ProxySurface>) -> impl IntoResponse {
    let report = this.health.report(Moment::now());
    let code = code(report.healthy);
    this.metrics.answered_livez(code);
    (code, json_answer(&Body::of(&report, None)))
}

const fn code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn json_answer<T: Serialize>(body: &T) -> impl IntoResponse + use<T> {
    // Only maps whose keys are no text cannot be written as JSON.
    ([(CONTENT_TYPE, "application/json"), NO_SNIFF], serde_json::to_string(body).unwrap_or_default())
}

/// kube-proxy's document, its keys in the same order; `/livez` does not tell of the node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    status: BTreeMap<String, FamilyBody>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyBody {
    last_updated: String,
    healthy: bool,
}

impl Body {
    fn of(report: &Report, node_eligible: Option<bool>) -> Self {
        let family =
            |family: &FamilyReport| FamilyBody { last_updated: rfc3339(family.updated), healthy: family.healthy };
        Self {
            last_updated: rfc3339(report.updated),
            current_time: rfc3339(report.now),
            node_eligible,
            healthy: report.healthy,
            status: report.families.iter().map(|(name, state)| (name.to_string(), family(state))).collect(),
        }
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
