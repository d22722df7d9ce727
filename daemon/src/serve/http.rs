//! The HTTP server for health and metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use super::listen::openmetrics;
use super::{Health, Metrics, Server};

#[derive(Debug, Clone)]
struct Sources {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// Serves `/healthz`, `/livez`, `/readyz` and `/metrics` until it is dropped.
pub async fn serve(address: SocketAddr, health: Arc<Health>, metrics: Arc<Metrics>) {
    let router = Router::new()
        .route("/healthz", get(|| async { "weft agent is running\n" }))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(Sources { health, metrics });
    let server = Server { what: "health and metrics".to_owned(), address, own_family: false, router, on_failure: None };
    server.run(CancellationToken::new()).await;
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
    openmetrics(sources.metrics.render())
}
