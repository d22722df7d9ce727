//! kubeadm's configuration files (v1beta2 to v1beta4), flags, and what the machine says: read, checked, and made into what
//! the other rooms work from.
//!
//! The way of a configuration: `tree` (YAML with places) -> `shape` and `tables` (known fields) -> `old` (today's terms) ->
//! `layers` (flags over file over defaults) -> `check` -> `resolve`. Everything but [`Facts::gather`] and reading the file is pure.

mod address;
mod assemble;
mod check;
mod defaults;
mod detect;
mod documents;
mod facts;
mod finding;
mod flags;
mod layers;
pub mod model;
mod old;
mod outcome;
mod render;
mod resolve;
mod rules;
mod secret;
mod shape;
mod tables;
mod tree;
pub mod versions;
mod weft;

pub use defaults::{API_PORT, CERTIFICATES_DIR, ETCD_DATA_DIR, NODE_TOKEN_GROUP};
pub use facts::{CRI_SOCKETS, Facts, FactsError};
pub use finding::{ConfigError, Finding, Weight};
pub use flags::{InitFlags, JoinFlags, NodeFlags, ResetFlags};
pub use layers::{InEffect, Layers, Origin};
pub use outcome::{
    Defaults, InitConfig, JoinConfig, ResetConfig, UploadedConfig, init, join, migrate, print_defaults, read_uploaded,
    reset, validate,
};
pub use render::uploaded;
pub use secret::Secret;
pub use tree::Position;
pub use weft::{API_VERSION as WEFT_API_VERSION, KIND as WEFT_KIND, ProxyMode, Swap, WeftOptions};

#[cfg(test)]
mod tests;
