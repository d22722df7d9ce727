//! Permanent neighbours: which Ethernet address has an IP address.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteType;

use super::address::family;
use super::request::{Request, Verb};
use crate::MacAddr;

/// Which Ethernet address has an IP address. In dumps always one that the kernel takes as given (`NUD_PERMANENT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// Index of the link behind which it is.
    pub link: u32,
    /// Its IP address.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: MacAddr,
}

impl Neighbour {
    /// The request that sets or deletes it.
    #[must_use]
    pub fn request(&self, verb: Verb) -> Request {
        neighbour_request(verb, &self, self.message(NeighbourState::Permanent))
    }

    /// The request that says what ARP or neighbour discovery would find out, in the place of what the kernel believes. It
    /// ages like what they have found (`NUD_REACHABLE`).
    #[must_use]
    pub fn confirm(&self) -> Request {
        neighbour_request(Verb::Replace, &self, self.message(NeighbourState::Reachable))
    }

    fn message(&self, state: NeighbourState) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = family(self.ip);
        message.header.ifindex = self.link;
        message.header.state = state;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(NeighbourAttribute::Destination(self.ip.into()));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(self.mac.0.to_vec()));
        message
    }

    /// Whose neighbour a message speaks of, permanent or not.
    #[cfg(feature = "agent")]
    pub(crate) fn ip_of(message: &NeighbourMessage) -> Option<IpAddr> {
        destination_and_mac(message).0
    }

    /// `None` for what is not a permanent neighbour with an Ethernet address.
    pub(crate) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        let header = &message.header;
        if !is_permanent(header.state) || header.flags.contains(NeighbourFlags::Proxy) {
            return None;
        }
        let (ip, mac) = destination_and_mac(message);
        Some(Self { link: header.ifindex, ip: ip?, mac: mac? })
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "neighbour {} at {} on link {}", self.ip, self.mac, self.link)
    }
}

/// Whether an entry stays for good. The state is a set of bits: what bridge(8) adds is `NUD_NOARP|NUD_PERMANENT`.
pub(super) fn is_permanent(state: NeighbourState) -> bool {
    u16::from(state) & u16::from(NeighbourState::Permanent) != 0
}

/// The part that neighbours and FDB entries share.
pub(super) fn neighbour_request(verb: Verb, what: &impl fmt::Display, message: NeighbourMessage) -> Request {
    let operation = format!("{verb} {what}");
    let message = match verb {
        Verb::Delete => RouteNetlinkMessage::DelNeighbour(message),
        _ => RouteNetlinkMessage::NewNeighbour(message),
    };
    Request::new(operation, verb.flags(), message)
}

/// The IP address and Ethernet address that a neighbour message speaks of.
pub(super) fn destination_and_mac(message: &NeighbourMessage) -> (Option<IpAddr>, Option<MacAddr>) {
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::V6(*v6)),
            // In FDB messages the family is AF_BRIDGE, so the destination's own is told by its length.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                ip = <[u8; 4]>::try_from(bytes.as_slice())
                    .map(IpAddr::from)
                    .or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from))
                    .ok();
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = MacAddr::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    (ip, mac)
}
