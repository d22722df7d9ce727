//! Questions to rtnetlink and what is kept of the answers: shared by the blocking socket and the agent's connection.

use netlink_packet_core::NlasIterator;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage, State};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::{AddressInfo, FdbEntry, Link, LinkRef, Neighbour, Route, RouteFilter};
use crate::error::Result;

/// The length of `struct ifinfomsg`, linux/rtnetlink.h.
const LINK_HEADER: usize = 16;
/// linux/if_link.h.
const IFLA_OPERSTATE: u16 = 16;

/// Asks for all links, without their statistics, which are most of a dump.
pub(crate) fn all_links() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// Asks for one link.
pub(crate) fn one_link(link: &LinkRef) -> RouteNetlinkMessage {
    let mut message = link.to_message();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// Asks for all addresses, or those of one link.
pub(crate) fn addresses(link: Option<u32>) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.index = link.unwrap_or_default();
    RouteNetlinkMessage::GetAddress(message)
}

/// Asks for the routes that a filter admits.
pub(crate) fn routes(filter: RouteFilter) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetRoute(filter.message())
}

/// Asks for the neighbours behind a link, or (family bridge) for its FDB entries.
pub(crate) fn neighbours(link: u32, family: AddressFamily) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    // Neighbour dumps are filtered by an attribute, FDB dumps by the header (neigh_dump_info, rtnl_fdb_dump).
    if family == AddressFamily::Bridge {
        message.header.ifindex = link;
    } else {
        message.attributes.push(NeighbourAttribute::IfIndex(link));
    }
    RouteNetlinkMessage::GetNeighbour(message)
}

pub(crate) fn link(message: RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(Link::from_message(link)),
        _ => None,
    }
}

/// Whether a link, told by the payload of its message, is operational. Nothing else of it is read.
pub(crate) fn is_operational(payload: &[u8]) -> bool {
    let attributes = payload.get(LINK_HEADER..).into_iter().flat_map(NlasIterator::new).flatten();
    let state = attributes.into_iter().find(|attribute| attribute.kind() == IFLA_OPERSTATE);
    state.is_some_and(|state| state.value() == [u8::from(State::Up)])
}

/// What a dump of routes has found. A namespace that never had a route of a family has no table of it: no error.
pub(crate) fn found_routes<T: Default>(dumped: Result<T>) -> Result<T> {
    match dumped {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(T::default()),
        dumped => dumped,
    }
}

/// Whether a route, told by the payload of its message, leads everywhere (`rtm_dst_len` of `struct rtmsg`).
pub(crate) fn is_default_route(payload: &[u8]) -> bool {
    payload.get(1) == Some(&0)
}

pub(crate) fn address(message: &RouteNetlinkMessage, link: Option<u32>) -> Option<AddressInfo> {
    match message {
        RouteNetlinkMessage::NewAddress(address) => {
            AddressInfo::from_message(address).filter(|address| link.is_none_or(|link| link == address.link))
        }
        _ => None,
    }
}

pub(crate) fn route(message: &RouteNetlinkMessage, filter: RouteFilter) -> Option<Route> {
    match message {
        RouteNetlinkMessage::NewRoute(route) => Route::from_message(route).filter(|route| filter.admits(route)),
        _ => None,
    }
}

pub(crate) fn neighbour(message: &RouteNetlinkMessage, link: u32) -> Option<Neighbour> {
    match message {
        RouteNetlinkMessage::NewNeighbour(entry) => Neighbour::from_message(entry).filter(|entry| entry.link == link),
        _ => None,
    }
}

pub(crate) fn fdb(message: &RouteNetlinkMessage, link: u32) -> Option<FdbEntry> {
    match message {
        RouteNetlinkMessage::NewNeighbour(entry) => FdbEntry::from_message(entry).filter(|entry| entry.link == link),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;

    fn payload(attributes: Vec<LinkAttribute>) -> Vec<u8> {
        let mut message = LinkMessage::default();
        message.attributes = attributes;
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    #[test]
    fn a_link_is_operational_if_it_says_so() {
        let name = || LinkAttribute::IfName("eth0".to_owned());
        assert!(is_operational(&payload(vec![name(), LinkAttribute::OperState(State::Up)])));
        assert!(!is_operational(&payload(vec![name(), LinkAttribute::OperState(State::LowerLayerDown)])));
        assert!(!is_operational(&payload(vec![name()])));
        assert!(!is_operational(&[]));
    }
}
