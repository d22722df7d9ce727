//! What the agent tells the outside: health, readiness with reasons, metrics; `proxy` has what kube-proxy tells.
//!
//! The other rooms write into [`Health`], [`Metrics`] and what `proxy` has of the kind; the HTTP servers only read.

mod health;
mod http;
mod listen;
mod metrics;
pub mod proxy;
mod service_metrics;
#[cfg(test)]
pub(crate) mod testing;

pub use health::{Component, Health};
pub use http::serve;
pub use listen::{OnFailure, Server};
pub use metrics::{Metrics, gauge};
pub use service_metrics::ServiceMetrics;
