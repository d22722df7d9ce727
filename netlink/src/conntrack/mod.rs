//! Connection tracking over nfnetlink: which flows the kernel remembers, and how it forgets them.
//!
//! A flow keeps the translation that its first packet met. TCP ends some time; a UDP client that goes on sending from the
//! same port goes on meeting the backend that is gone, until somebody deletes its flow.
//!
//! Flows are those of the socket's network namespace, and only of protocols that have ports. Numbers are those of
//! linux/netfilter/nfnetlink_conntrack.h; needs Linux 5.8 and `CAP_NET_ADMIN`.

mod flow;
mod message;
mod socket;

pub use flow::{Flow, FlowKey, Tuple};
pub use socket::{Count, Filter, Socket};

pub use crate::nft::expr::CtStatus as Status;
