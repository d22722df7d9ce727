//! What gets through: echoes, streams and datagrams between namespaces.
//!
//! Everything here sends real packets from inside a namespace; no address is taken on trust.

mod exchange;
mod icmp;
mod pinger;

pub use exchange::{Transfer, refused_or_accepted, tcp_transfer, udp_echo};
pub use icmp::{Echoes, ping, sweep};
pub use pinger::{Losses, Pinger};
