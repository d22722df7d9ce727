//! What Services mean on this node: pure functions from objects to frontends, backends and policies.
//!
//! `plan` looks at one Service alone.

mod endpoints;
mod plan;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod testing;
mod topology;
mod types;

pub use plan::{HealthPort, PlanOptions, PlannedService, plan};
pub use types::{Backend, Frontend, FrontendKey, FrontendKind, NodeView, PortKey, PortPlan};
