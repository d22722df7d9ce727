//! What Services mean on this node: pure functions from objects to frontends, backends and policies.
//!
//! `plan` looks at one Service alone; `table` holds them all, settles who has a frontend that several claim, and tells what
//! has changed; `order` says who comes first.

mod claims;
mod endpoints;
mod order;
mod plan;
#[cfg(test)]
mod plan_tests;
mod table;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod testing;
mod topology;
mod types;

pub use order::{lead, urgency};
pub use plan::{HealthPort, PlanOptions, PlannedService, plan};
pub use table::{Census, Changes, Conflict, NoLocal, ServiceTable, Trigger};
pub use types::{Backend, Frontend, FrontendKey, FrontendKind, NodeView, PortKey, PortPlan};
