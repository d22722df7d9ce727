//! What Services mean on this node: pure functions from objects to frontends, backends and policies.

mod types;

pub use types::{Backend, Frontend, FrontendKey, FrontendKind, NodeView, PortKey, PortPlan};
