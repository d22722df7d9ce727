//! What gets through: echoes, streams and datagrams between namespaces, and questions to servers that tell who they are.
//!
//! Everything here sends real packets from inside a namespace; no address is taken on trust.

mod asker;
mod dialogue;
mod exchange;
mod icmp;
mod outcome;
mod pinger;
mod server;
mod transport;

pub use asker::Asker;
pub use dialogue::{Answer, Dialogue, Question};
pub use exchange::{Transfer, refused_or_accepted, tcp_transfer, udp_echo};
pub use icmp::{Echoes, ping, sweep};
pub use outcome::{Outcome, Tally, ask};
pub use pinger::{Losses, Pinger};
pub use server::{Listeners, ProbeServer};
pub use transport::Transport;
