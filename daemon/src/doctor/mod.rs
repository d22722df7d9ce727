//! `weft doctor`: what is wrong with this node's data plane, why, and which command mends it.
//!
//! One file a group of checks, and each is a pure function from facts to [`Check`]s; [`gather`] brings the facts, one file a
//! group, too, and writes nothing to the kernel. A fact that could not be had makes its checks unknown, never good.

pub mod agent;
pub mod check;
pub mod clock;
pub mod cluster;
pub mod cni;
pub mod disk;
pub mod firewall;
pub mod gather;
pub mod kernel;
pub mod leftovers;
pub mod offload;
pub mod overlay;
pub mod path;
pub mod report;
pub mod rights;
pub mod store;
pub mod sysctls;

pub use check::{Check, Outcome, Told};
pub use report::Report;
