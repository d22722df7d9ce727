//! Addresses of links.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};

use super::request::{Request, Verb};

/// An address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// The address with its prefix length, host bits kept: `10.244.1.1/24`.
    pub network: IpNetwork,
    /// Whether IPv6 duplicate address detection is skipped (`IFA_F_NODAD`), so that the address works at once: right
    /// where nobody else can have it. No meaning for IPv4.
    pub no_dad: bool,
}

impl Address {
    /// An address that works at once.
    #[must_use]
    pub fn new(link: u32, network: IpNetwork) -> Self {
        Self { link, network, no_dad: true }
    }

    /// The request that creates, replaces or deletes it.
    #[must_use]
    pub fn request(&self, verb: Verb) -> Request {
        let mut message = AddressMessage::default();
        message.header.family = family(self.network.ip());
        message.header.prefix_len = self.network.prefix();
        message.header.index = self.link;
        message.header.scope = AddressScope::Universe;
        message.attributes.push(AddressAttribute::Local(self.network.ip()));
        message.attributes.push(AddressAttribute::Address(self.network.ip()));
        // The kernel derives no broadcast address by itself; every other tool sets one on IPv4 networks.
        if let IpNetwork::V4(v4) = self.network
            && v4.prefix() < 31
        {
            message.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
        }
        if self.no_dad && self.network.is_ipv6() {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let operation = format!("{verb} address {} on link {}", self.network, self.link);
        let message = match verb {
            Verb::Delete => RouteNetlinkMessage::DelAddress(message),
            _ => RouteNetlinkMessage::NewAddress(message),
        };
        Request::new(operation, verb.flags(), message)
    }
}

/// An address as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressInfo {
    /// Index of the link.
    pub link: u32,
    /// The address with its prefix length.
    pub network: IpNetwork,
    /// Duplicate address detection is not done yet.
    pub tentative: bool,
    /// Duplicate address detection found another owner.
    pub dad_failed: bool,
    /// No longer to be used for new connections.
    pub deprecated: bool,
    /// Configured, not learned for a time.
    pub permanent: bool,
    /// A temporary IPv6 address (RFC 8981), or an IPv4 secondary.
    pub secondary: bool,
    /// Valid beyond its link.
    pub global: bool,
}

impl AddressInfo {
    /// `None` for an address without an IP (which the protocol allows and the kernel does not send).
    pub(crate) fn from_message(message: &AddressMessage) -> Option<Self> {
        let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
        let (mut local, mut peer) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                // On a point-to-point link LOCAL is ours and ADDRESS the other end's; IPv6 has mostly ADDRESS alone.
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => peer = Some(*ip),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        Some(Self {
            link: message.header.index,
            network: IpNetwork::new(local.or(peer)?, message.header.prefix_len).ok()?,
            tentative: flags.contains(AddressFlags::Tentative),
            dad_failed: flags.contains(AddressFlags::Dadfailed),
            deprecated: flags.contains(AddressFlags::Deprecated),
            permanent: flags.contains(AddressFlags::Permanent),
            secondary: flags.contains(AddressFlags::Secondary),
            global: message.header.scope == AddressScope::Universe,
        })
    }
}

/// The address family of an IP address.
pub(crate) fn family(ip: IpAddr) -> netlink_packet_route::AddressFamily {
    match ip {
        IpAddr::V4(_) => netlink_packet_route::AddressFamily::Inet,
        IpAddr::V6(_) => netlink_packet_route::AddressFamily::Inet6,
    }
}
