//! The nftables back end of Services.
//!
//! In come [`PortPlan`](super::model::PortPlan)s; out go elements of a few named sets in the agent's table, whose chains do
//! not depend on how many Services there are.
//!
//! * `layout` names sets and chains, `class` the chains that choose backends; `skeleton` and `chains` plan the rules.
//! * `elements` says which elements a port has, `entry` how the kernel writes them, `slots` where in a list a
//!   backend stands, `tags` by what clients that stay remember it.
//! * `state` is what the kernel has, as far as it goes by us; `changes` makes transactions of differences.
//! * `structure` and `image` are what the kernel really has; `job` compares. `backend` is the room's door.
//! * `preflight` asks before all of it whether the kernel has what the rules are made of.

mod backend;
mod chains;
mod changes;
mod class;
mod elements;
mod entry;
mod image;
mod job;
mod lane;
mod layout;
mod options;
mod preflight;
mod skeleton;
mod slots;
mod state;
#[cfg(test)]
mod state_tests;
mod structure;
mod tags;

pub use backend::{Applied, NftError, NftServices};
pub use options::{DetectLocal, NodePortAddresses, Options};
pub use preflight::{Missing, Part, preflight};
