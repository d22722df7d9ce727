//! JSON of the Kubernetes API to objects.
//!
//! What another proxy or nobody serves is told apart from what is wrong: the first is no object, the second an error that
//! names the object, the field, what stands there and what was expected. A small fault (one address of a list) costs only
//! its part, and is a warning in the same words.

mod address;
mod fault;
mod node;
#[cfg(test)]
mod node_tests;
mod raw;
mod service;
#[cfg(test)]
mod service_tests;
mod slice;
#[cfg(test)]
mod slice_tests;
pub(in crate::cluster) mod time;

pub use address::{address, network};
pub use fault::ParseError;
pub use node::node;
pub use service::service;
pub use slice::{MAX_ENDPOINTS, slice};

use super::ObjectName;

/// What an object's JSON says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<T> {
    /// Its name.
    pub name: ObjectName,
    /// The object; `None` if it is deliberately none of ours (headless, ExternalName, another proxy's, names instead of
    /// addresses).
    pub object: Option<T>,
    /// Parts that were left out, each a sentence that names the object and the field.
    pub warnings: Vec<String>,
}
