//! The Kubernetes source: a client for the API server, and lists and watches of Services, EndpointSlices and Nodes.
//!
//! Objects come in as their JSON text, one at a time, and are reduced at once to what weft uses; nothing else of them is
//! kept. As everywhere, every removal rests on a whole list or on a deletion; an API server that is lost removes nothing.

pub mod annotations;
pub mod connect;
pub mod explain;
pub mod node;
pub mod nodes;
pub mod patch;
pub mod services;
mod transport;
mod watch;

pub use annotations::Annotations;
pub use connect::{ConnectError, KubeOptions, connect};
pub use explain::explain;
