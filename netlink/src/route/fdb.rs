//! Forwarding database entries of a VXLAN device: behind which VTEP an Ethernet address is.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};

use super::neighbour::{destination_and_mac, is_permanent, neighbour_request};
use super::request::{Request, Verb};
use crate::MacAddr;

/// A permanent FDB entry of a VXLAN device itself (`NTF_SELF`), not of a bridge above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbEntry {
    /// Index of the VXLAN device.
    pub link: u32,
    /// The Ethernet address.
    pub mac: MacAddr,
    /// The VTEP behind which it is: the destination of the outer packets.
    pub dst: IpAddr,
}

impl FdbEntry {
    /// The request that sets or deletes it.
    #[must_use]
    pub fn request(&self, verb: Verb) -> Request {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = self.link;
        message.header.state = NeighbourState::Permanent;
        message.header.flags = NeighbourFlags::Own;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(self.mac.0.to_vec()));
        message.attributes.push(NeighbourAttribute::Destination(self.dst.into()));
        neighbour_request(verb, &self, message)
    }

    /// `None` for what is not a permanent entry of a VXLAN device with a remote.
    pub(crate) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        if !is_permanent(message.header.state) {
            return None;
        }
        let (dst, mac) = destination_and_mac(message);
        Some(Self { link: message.header.ifindex, mac: mac?, dst: dst? })
    }
}

impl fmt::Display for FdbEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FDB entry {} behind {} on link {}", self.mac, self.dst, self.link)
    }
}
