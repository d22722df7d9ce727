//! Questions to rtnetlink and what is kept of the answers: shared by the blocking socket and the agent's connection.

use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{AddressInfo, FdbEntry, Link, LinkRef, Neighbour, Route, RouteFilter};

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
