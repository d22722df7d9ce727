//! Waiting for the control plane so that it can be told what happens: who is well and since when, who is not and why.
//!
//! [`targets`] says whom to ask, [`probe`] asks, [`poll`] does so for all at once and reports; when something takes long,
//! [`evidence`] of the host and of the runtime goes to [`diagnosis`], which is pure and names the cause and what to do.

pub mod diagnosis;
pub mod evidence;
pub mod poll;
pub mod probe;
mod rules;
pub mod targets;
