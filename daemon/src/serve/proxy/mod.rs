//! What kube-proxy tells the outside, told by weft while it serves Services: whoever watched kube-proxy goes on watching.
//!
//! The Service driver writes into [`ProxyHealth`] and [`ProxyMetrics`]; [`ProxySurface`] serves them.

mod health;
mod http;
mod metrics;
mod slis;
mod time;

pub use health::{FamilyReport, Moment, NodeState, ProxyHealth, Report, ServingMode};
pub use http::ProxySurface;
pub use metrics::{Pass, ProxyMetrics};
