//! The HTTP server for health and metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use super::listen::openmetrics;
use super::{Board, Health, Metrics, Server};

#[derive(Debug, Clone)]
struct Sources {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
}

/// Serves `/healthz`, `/livez`, `/readyz`, `/status` and `/metrics` until it is dropped.
pub async fn serve(address: SocketAddr, health: Arc<Health>, metrics: Arc<Metrics>, board: Arc<Board>) {
    let router = Router::new()
        .route("/healthz", get(|| async { "weft agent is running\n" }))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .route("/status", get(status))
        .with_state(Sources { health, metrics, board });
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

/// The state of the node as JSON; see [`NodeStatus`](super::document::NodeStatus).
async fn status(State(sources): State<Sources>) -> impl IntoResponse {
    let status = sources.board.status(&sources.health, &sources.metrics);
    match serde_json::to_string(&status) {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], format!("{error}\n")),
    }
}

async fn render(State(sources): State<Sources>) -> impl IntoResponse {
    openmetrics(sources.metrics.render())
}
