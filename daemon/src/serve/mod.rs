//! What the agent tells the outside: health, readiness with reasons, metrics.
//!
//! The other rooms write into [`Health`] and [`Metrics`]; the HTTP server only reads.

mod health;
mod http;
mod metrics;

pub use health::{Component, Health};
pub use http::serve;
pub use metrics::{Metrics, gauge};
