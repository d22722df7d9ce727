//! weft's CNI plugin: a pod's veth, bridge port, address, routes and host ports (CNI specification 1.1.0).
//!
//! One call of the plugin is one process: [`run`] reads the environment and standard input, does what [`verbs`] says, and
//! writes one JSON object to standard output. There are no threads and there is no async runtime: starting a process is
//! most of what an ADD costs.
//!
//! * [`protocol`]: what is said, typed and checked. Pure.
//! * [`ipam`]: which address, and the memory of it.
//! * [`wiring`]: the kernel side.
//! * [`verbs`]: one file a verb; they alone know all of the above.
//! * [`formats`]: the files shared with the agent, the only part that the agent uses.

pub mod formats;
pub mod ipam;
mod lease;
mod node;
pub mod protocol;
mod run;
pub mod verbs;
pub mod wiring;

pub use run::{Invocation, run};
