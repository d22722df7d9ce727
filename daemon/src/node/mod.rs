//! The agent's loop: whenever something may have changed, one pass over every table of this node.
//!
//! Leases come in from `lease` and `cluster`, kernel events from `netlink`; a pass plans with `overlay` and `filter`, and
//! publishes when everything stands. What goes out is the kernel's state, the node's files, its lease's content and its
//! health. Every pass is complete, so no event may be missed that a later pass would not make good.

mod blackholes;
mod direct;
mod facts;
mod forward;
mod held;
mod inputs;
mod key_file;
mod news;
mod options;
mod owned;
mod pass;
mod peers;
mod publishing;
mod sysctls;
mod tables;
mod told;

pub use facts::NodeFacts;
pub use inputs::{Inputs, run};
pub use options::NodeOptions;
pub use owned::{NODE_RECORD, Owned, OwnedError};
pub use pass::Node;
pub use tables::TablesWatch;
