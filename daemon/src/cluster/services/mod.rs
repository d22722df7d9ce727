//! Services, EndpointSlices and the own Node: what of the Kubernetes objects weft has a use for, and the store that holds
//! them.
//!
//! A source reads objects (JSON of the Kubernetes API, see [`parse`]) and puts them into a [`ServiceStore`]; whoever plans
//! takes from it the Services that have changed, each whole, never an edge alone. Nothing here decides what a Service
//! means: that is the room `service`.

mod handle;
mod intern;
mod object;
pub mod parse;
pub(in crate::cluster) mod reader;
mod store;

pub use handle::{ServicesHandle, ServicesStatus};
pub use intern::Interner;
pub use object::{
    EndpointSlice, NodeObject, ObjectName, Protocol, Service, ServicePort, SliceEndpoint, SlicePort, TrafficPolicy,
};
pub use store::{Batch, Changed, ServiceStore};
