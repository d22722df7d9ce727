//! What a runtime and a plugin say to each other (CNI specification 1.1.0), without doing anything about it.
//!
//! Bytes and environment variables come in, typed values go out, or a [`CniError`] that names what is wrong. Everything
//! here is pure.

pub mod bandwidth;
pub mod capabilities;
pub mod config;
pub mod env;
mod error;
pub mod flannel;
pub mod ipam_config;
pub mod json;
pub mod previous;
pub mod result;
mod version;

pub use error::{CniError, Code, Result};
pub use version::Version;
