//! The etcd source: a connection, reads that are whole or fail, and a supervised list-and-watch.
//!
//! Every removal rests on a complete read or on a delete event; a failed read removes nothing.

pub mod connect;
pub mod explain;
mod objects;
mod pages;
pub mod read;
pub mod services;
pub mod source;
mod store;
mod watching;

pub use connect::{ConnectError, EtcdOptions, connect};
pub use explain::explain;
pub use store::Store;
