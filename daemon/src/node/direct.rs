//! Which peers are on a link of this node, so that no tunnel is needed to them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_netlink::{RouteKind, RouteSocket};

/// Of these addresses those to which the kernel would send without a router in between, each with the link by which. One that it
/// has no route to, or cannot be asked about, is left to the tunnel.
pub(super) fn direct(socket: &mut RouteSocket, addresses: &[IpAddr], devices: &[u32]) -> BTreeMap<IpAddr, u32> {
    let found = addresses.iter().filter_map(|address| {
        let route = socket.route_to(*address).ok()?;
        let link = route.next_hop.link.filter(|link| !devices.contains(link))?;
        (route.kind == RouteKind::Unicast && route.next_hop.gateway.is_none()).then_some((*address, link))
    });
    found.collect()
}
