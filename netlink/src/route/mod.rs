//! rtnetlink (rtnetlink(7)): links, addresses, routes, neighbours and FDB entries as values.
//!
//! A value knows how to become a [`Request`]; a [`RouteSocket`] or the agent's connection carries requests to the kernel
//! and reads tables back into the same values, so that what was wanted can be compared with what is there.

mod address;
mod bridge_port;
mod digest;
mod fdb;
mod group;
mod link;
mod link_info;
mod neighbour;
mod redirect;
mod request;
#[expect(clippy::module_inception, reason = "a route is what rtnetlink's routing module is about")]
mod route;
mod socket;
mod token_bucket;
pub(crate) mod wire;

pub use address::{Address, AddressInfo};
pub use bridge_port::BridgePort;
pub use fdb::FdbEntry;
pub use group::{delete_group, set_group};
pub use link::{Bridge, Ifb, LinkChange, LinkRef, Veth, VethPeer, Vxlan, Wireguard, delete_link};
pub use link_info::{Link, LinkKind};
pub use neighbour::Neighbour;
pub use redirect::Redirect;
pub use request::{Request, Verb};
pub use route::{NextHop, Route, RouteFilter, RouteKind, RouteScope};
pub use socket::RouteSocket;
pub use token_bucket::TokenBucket;
