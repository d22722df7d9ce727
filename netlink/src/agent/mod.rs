//! The kernel for a process that stays: rtnetlink's multiplexed connection and the multicast subscription.
//!
//! The values are those of the blocking sockets; only the way to the kernel differs.

mod connection;
mod monitor;

pub use connection::Connection;
pub use monitor::{Event, Monitor};
