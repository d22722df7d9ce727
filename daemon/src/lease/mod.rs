//! The node's own lease: acquiring, keeping, losing and giving back a subnet.
//!
//! What to do is decided by pure code: [`plan`] turns one view of the store into the one transaction that is needed (or
//! none), [`machine`] turns what happened into the next thing to do. [`driver`] does it. Every write is a transaction
//! conditioned on what was read, so that no two leases ever overlap, whatever is lost, repeated or late on the way.
//!
//! In Kubernetes the subnet is the Node's podCIDR, which others hand out: [`kube`] only waits for it, and publishes.

pub mod allocate;
pub mod driver;
pub mod kube;
mod kube_plan;
pub mod machine;
pub mod plan;
mod sight;
pub mod subnet_file;
pub mod transaction;

#[cfg(test)]
mod model_tests;

pub use driver::{AcquireError, LEASE_TTL, LeaseHandle, LeaseRequest, ReleaseError, acquire_once, release, spawn};
pub use machine::{Held, LeaseState};
