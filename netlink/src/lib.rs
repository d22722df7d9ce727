//! The kernel as values.
//!
//! What weft puts into a kernel is described here as plain values ([`Veth`], [`Route`], [`nft::Rule`] …) and spoken in
//! batches over netlink. There is no policy in this crate and no Kubernetes: it knows what a VXLAN device *is*, not
//! which ones weft wants.
//!
//! Two ways lead to the kernel, and both carry the same [`Request`]s:
//!
//! * [`RouteSocket`], [`nft::Socket`], [`ipvs::Socket`], [`wireguard::Socket`] and [`conntrack::Socket`] block and batch: many requests in one
//!   `sendmsg`, each answer matched to its request. The CNI plugin lives on them, as it has neither threads nor time.
//! * [`agent`] (feature `agent`) is rtnetlink's multiplexed connection with the same values, and the multicast
//!   subscription, for a process that stays.
//!
//! All `unsafe` code of the project is in this crate.

#[cfg(feature = "agent")]
pub mod agent;
mod announce;
mod arena;
mod codec;
pub mod conntrack;
mod detach;
pub mod diagnose;
mod error;
mod frames;
mod generic;
mod ifreq;
mod ip_version;
pub mod ipset;
pub mod ipvs;
mod legacy;
mod mac;
pub mod netns;
pub mod nft;
pub mod priority;
pub mod protocol;
mod route;
mod socket;
pub mod sysctl;
pub mod wireguard;

pub use announce::announce;
pub use arena::Arena;
pub use detach::{Detached, detach, hold};
pub use error::{Error, KernelError, Result};
pub use ifreq::{LinkFlags, LinkProbe};
pub use ip_version::IpVersion;
pub use legacy::LegacyFilter;
pub use mac::{MacAddr, ParseMacError};
pub use nix::errno::Errno;
pub use route::{
    Address, AddressInfo, Bridge, BridgePort, FdbEntry, Ifb, Link, LinkChange, LinkKind, LinkRef, Neighbour, NextHop,
    Redirect, Request, Route, RouteFilter, RouteKind, RouteScope, RouteSocket, TokenBucket, Verb, Veth, VethPeer,
    Vxlan, Wireguard, delete_group, delete_link, set_group,
};
pub use socket::{Batch, Family, Socket};
