//! What the agent tells the outside: health, readiness with reasons, metrics, the state of the node; `proxy` has what kube-proxy tells.
//!
//! The other rooms write into [`Health`], [`Metrics`] and what `proxy` has of the kind; the HTTP servers only read.

mod board;
pub mod document;
mod health;
mod http;
mod listen;
mod metrics;
pub mod proxy;
mod service_metrics;
#[cfg(test)]
pub(crate) mod testing;

pub use board::{Board, PeersSeen};
pub use health::{Component, ComponentStatus, Condition, Health};
pub use http::serve;
pub use listen::{OnFailure, Server};
pub use metrics::{Metrics, gauge};
pub use service_metrics::ServiceMetrics;
