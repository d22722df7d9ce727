//! Objects of the Kubernetes API as a cluster without an API server keeps them: JSON in etcd.
//!
//! Services, EndpointSlices and Nodes are built here field by field as a controller would write them, and can be bent by JSON
//! pointer into whatever a test needs. Nothing here knows how weft reads them.

mod allocate;
mod node;
mod service;
mod slice;
mod store;

pub use allocate::{Allocation, SERVICE_CIDR_V4, SERVICE_CIDR_V6, Taken};
pub use node::{LEAVING, Node};
pub use service::{Port, Service};
pub use slice::{Endpoint, slice, slices_of};
pub use store::ApiStore;
