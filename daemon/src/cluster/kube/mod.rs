//! The Kubernetes source: a client for the API server, and lists and watches of Services, EndpointSlices and Nodes.
//!
//! Objects come in as their JSON text, one at a time, and are reduced at once to what weft uses; nothing else of them is
//! kept. As everywhere, every removal rests on a whole list or on a deletion; an API server that is lost removes nothing.
//!
//! An agent knows all API servers of its cluster (`servers`, by EndpointSlice `default/kubernetes`), and goes on with another when
//! the configured one is away (`failover`, pure; `transport` sends each request to the one that is chosen).

pub mod annotations;
pub mod api;
pub mod connect;
pub mod events;
pub mod explain;
mod failover;
pub mod metrics;
pub mod node;
pub mod nodes;
pub mod patch;
pub mod place;
pub mod servers;
pub mod service_cidrs;
pub mod services;
mod transport;
mod watch;

pub use annotations::Annotations;
pub use api::Api;
pub use connect::{ConnectError, KubeOptions, connect, connect_as, connect_through};
pub use explain::explain;
pub use metrics::ApiMetrics;
pub use patch::node_path;
pub use servers::Servers;
