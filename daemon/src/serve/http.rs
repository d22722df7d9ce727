//! The HTTP server for health and metrics.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use super::listen::openmetrics;
use super::{Board, Health, Metrics, Server};

/// For so long an answer of `/status` is given again: of thousands of peers it takes milliseconds of the agent's only thread.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
struct Sources {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    whole: Arc<Rendered>,
    brief: Arc<Rendered>,
}

/// A document as text, and when it was written.
#[derive(Debug, Default)]
struct Rendered(Mutex<Option<(Instant, Bytes)>>);

impl Rendered {
    /// The text, written anew if it is older than [`FRESH`].
    fn get(&self, now: Instant, render: impl FnOnce() -> serde_json::Result<Vec<u8>>) -> serde_json::Result<Bytes> {
        // It is replaced as a whole, so a panic elsewhere has not broken it.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, text)) = kept.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < FRESH) {
            return Ok(text.clone());
        }
        let text = Bytes::from(render()?);
        *kept = Some((now, text.clone()));
        Ok(text)
    }
}

/// Serves `/healthz`, `/livez`, `/readyz`, `/status` and `/metrics` until it is dropped.
pub async fn serve(address: SocketAddr, health: Arc<Health>, metrics: Arc<Metrics>, board: Arc<Board>) {
    let router = Router::new()
        .route("/healthz", get(|| async { "weft agent is running\n" }))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .route("/status", get(status))
        .with_state(Sources { health, metrics, board, whole: Arc::default(), brief: Arc::default() });
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

/// The state of the node as JSON; see [`NodeStatus`](super::document::NodeStatus). With `?brief` without what grows with the
/// cluster.
async fn status(State(sources): State<Sources>, uri: Uri) -> impl IntoResponse {
    let brief = uri.query().is_some_and(|query| query.split('&').any(|word| word == "brief"));
    let status = || sources.board.status(&sources.health, &sources.metrics);
    let now = Instant::now();
    let text = if brief {
        sources.brief.get(now, || serde_json::to_vec(&status().brief()))
    } else {
        sources.whole.get(now, || serde_json::to_vec(&status()))
    };
    match text {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], text),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], format!("{error}\n").into())
        }
    }
}

async fn render(State(sources): State<Sources>) -> impl IntoResponse {
    openmetrics(sources.metrics.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_written_once_a_second_at_most() {
        let rendered = Rendered::default();
        let begin = Instant::now();
        let at = |milliseconds: u64, text: &str| {
            let now = begin + Duration::from_millis(milliseconds);
            rendered.get(now, || Ok(text.as_bytes().to_vec())).unwrap()
        };
        assert_eq!(at(0, "first"), "first");
        assert_eq!(at(999, "second"), "first");
        assert_eq!(at(1000, "third"), "third");
    }
}
