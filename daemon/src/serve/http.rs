//! The HTTP server for health and metrics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::{Health, Metrics};

/// The wait before an address that is in use is tried again.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
struct Sources {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// Serves `/healthz`, `/livez`, `/readyz` and `/metrics` until it is dropped.
///
/// An address that cannot be had is tried again for ever: the data plane does not depend on it.
pub async fn serve(address: SocketAddr, health: Arc<Health>, metrics: Arc<Metrics>) {
    let router = Router::new()
        .route("/healthz", get(|| async { "weft agent is running\n" }))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(Sources { health, metrics });
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "serving health and metrics");
                if let Err(error) = axum::serve(listener, router.clone()).await {
                    tracing::warn!(%address, "health and metrics stopped: {error}");
                }
            }
            Err(error) => tracing::warn!(%address, "health and metrics cannot be served yet: {error}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn livez(State(sources): State<Sources>) -> impl IntoResponse {
    if sources.health.alive() {
        (StatusCode::OK, "the agent's loop turns\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the agent's loop hangs\n")
    }
}

async fn readyz(State(sources): State<Sources>) -> impl IntoResponse {
    let (ready, text) = sources.health.readiness();
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

async fn render(State(sources): State<Sources>) -> impl IntoResponse {
    // The version of the format that prometheus-client writes.
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], sources.metrics.render())
}
