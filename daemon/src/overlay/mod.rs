//! The overlay: this node's devices and bridge, and how each other node is reached through them.
//!
//! `backend` has one file for each way of reaching other nodes. It, `device`, `bridge`, `peers` and most of `attachments` plan
//! without I/O: leases in, kernel objects out. `links` and `table` carry the plans
//! into the kernel through rtnetlink. `uplink` chooses the interface under it all; `shared_ip` finds nodes that publish the
//! same address. Nothing here knows where leases come from.

pub mod attachments;
pub mod backend;
pub mod blackhole;
pub mod bridge;
pub mod device;
pub mod links;
pub mod mac;
pub mod peers;
pub mod shared_ip;
pub mod table;
pub mod tunnel;
pub mod uplink;

/// `rtm_protocol` of every route that weft makes: what carries it is ours, what does not is not.
pub const ROUTE_PROTOCOL: u8 = 0x77;
