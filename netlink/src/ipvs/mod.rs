//! IPVS, the kernel's layer 4 balancer, over generic netlink: virtual and real servers as values.
//!
//! * A [`VirtualServer`] is what clients talk to, a [`RealServer`] is who answers them.
//! * A [`Batch`] collects changes; [`Socket::run`] sends many at once and gives the verdict on each. It is no transaction:
//!   what is refused does not stop the rest.
//! * [`Socket`] also reads back what the kernel has. Nothing here decides whose servers they are.
//!
//! The tables belong to a network namespace. IPVS has neither generations nor notifications, and the real servers of a
//! virtual server are read by index while others may write: there should be one who writes.
//!
//! Numbers are those of linux/ip_vs.h; needs Linux 4.1 and `CAP_NET_ADMIN`, for reading too.

mod batch;
mod message;
mod module;
mod real_server;
mod scheduler;
mod socket;
mod stats;
mod timeouts;
mod virtual_server;

pub use batch::Batch;
pub use real_server::{Forward, RealServer, RealServerInfo};
pub use scheduler::{InvalidScheduler, Scheduler, SchedulerFlags};
pub use socket::{Info, Socket};
pub use stats::Stats;
pub use timeouts::Timeouts;
pub use virtual_server::{Persistence, Target, VirtualServer, VirtualServerInfo};
