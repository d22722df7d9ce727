//! Which address an attachment gets, and the memory of it.
//!
//! `range`, `bitmap`, `pool` and `allocator` are pure; `store` keeps them in files that any number of processes share
//! and that survive each of them being killed at any instruction, one `record` an attachment; `reclaim` finds what the dead have
//! left; `foreign` and `takeover` are about what host-local gave out before us, `handover` about what it
//! has to know when it comes back.

pub mod allocator;
mod bitmap;
mod boot;
mod error;
pub mod foreign;
pub mod handover;
pub(crate) mod lock;
pub mod pool;
pub mod range;
pub mod reclaim;
pub mod record;
pub mod search;
pub mod store;
mod takeover;
