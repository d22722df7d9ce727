//! Messages of our own making: attributes written and read as bytes, for nf_tables, conntrack, IPVS and
//! WireGuard.
//!
//! All of them have a header of four bytes between the netlink header and the attributes (`struct nfgenmsg`,
//! `struct genlmsghdr`).

mod attributes;
mod message;
mod writer;

pub(crate) use attributes::Attributes;
pub(crate) use message::{Message, read_all};
pub(crate) use writer::{MESSAGE_HEADER, Writer};
