//! The way of packets to IPVS: one local route for each service network.
//!
//! IPVS sees only packets that are for this machine, or come from it. kube-proxy makes every cluster IP an address of a
//! device for that, which others then find (sssd, aerospike, autodetection of all kinds). A route of kind `local` does
//! the same for the whole network in one object, and its `src` keeps the machine from taking a cluster IP as its own
//! address when it is a client (cloudnativelabs/kube-router#376).
//!
//! It makes every address of the network local. So the guard has to stand before it comes and until it has gone, and
//! [`super::arp`] as well.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_netlink::{Error, Route, RouteFilter, RouteKind, RouteScope, RouteSocket, Verb};

use crate::cluster::{Family, PerFamily};
use crate::overlay::ROUTE_PROTOCOL;

const LOOPBACK: &str = "lo";
/// Metric of an IPv6 route without one (`IP6_RT_PRIO_USER`, net/ip6_route.h). Said outright, it compares equal.
const IP6_RT_PRIO_USER: u32 = 1024;

/// The local routes of this machine that are weft's.
#[derive(Debug)]
pub struct LocalRoutes {
    socket: RouteSocket,
}

impl LocalRoutes {
    /// Opens the way to the routes in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: RouteSocket::open()? })
    }

    /// Makes the routes those of the service networks, with the node's addresses as source; returns how many had to
    /// change. A network of a family in which the node has no address has none.
    ///
    /// # Errors
    /// [`Error`]; `EINVAL` if one of `addresses` is not this machine's.
    pub fn ensure(&mut self, ranges: &[IpNetwork], addresses: &PerFamily<IpAddr>) -> Result<usize, Error> {
        let link = self.socket.link(LOOPBACK)?.map(|link| link.index);
        let wanted: BTreeMap<IpNetwork, Route> =
            ranges.iter().filter_map(|range| Some((*range, plan(*range, link?, addresses)?))).collect();
        let actual = self.ours()?;
        let mut requests: Vec<_> =
            wanted.values().filter(|route| !actual.contains(route)).map(|route| route.request(Verb::Replace)).collect();
        let stale = actual.iter().filter(|route| wanted.get(&route.dst).is_none_or(|wanted| !replaces(wanted, route)));
        requests.extend(stale.map(|route| route.request(Verb::Delete)));
        let count = requests.len();
        self.socket.all(requests)?;
        Ok(count)
    }

    /// Removes the routes; returns how many there were.
    ///
    /// # Errors
    /// [`Error`].
    pub fn remove(&mut self) -> Result<usize, Error> {
        self.ensure(&[], &PerFamily::default())
    }

    fn ours(&mut self) -> Result<Vec<Route>, Error> {
        let filter =
            RouteFilter { table: Some(Route::LOCAL), protocol: Some(ROUTE_PROTOCOL), ..RouteFilter::default() };
        let mut routes = self.socket.routes(filter)?;
        routes.retain(|route| route.kind == RouteKind::Local);
        Ok(routes)
    }
}

/// The route of a service network, if the node has an address of its family.
fn plan(range: IpNetwork, loopback: u32, addresses: &PerFamily<IpAddr>) -> Option<Route> {
    let family = Family::of(range.ip());
    let source = *addresses.get(family)?;
    let mut route = Route::new(range, ROUTE_PROTOCOL);
    route.kind = RouteKind::Local;
    route.table = Route::LOCAL;
    route.next_hop.link = Some(loopback);
    route.src = Some(source);
    match family {
        Family::V4 => route.scope = RouteScope::Host,
        Family::V6 => route.priority = Some(IP6_RT_PRIO_USER),
    }
    Some(route)
}

/// Whether setting `new` takes the place of `old` (and deleting `old` would delete `new`).
fn replaces(new: &Route, old: &Route) -> bool {
    (new.dst, new.priority) == (old.dst, old.priority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_without_an_address_of_the_node_has_no_route() {
        let addresses = PerFamily { v4: Some("192.0.2.1".parse().unwrap()), v6: None };
        let route = plan("10.96.0.0/12".parse().unwrap(), 1, &addresses).unwrap();
        assert_eq!((route.kind, route.table, route.src), (RouteKind::Local, Route::LOCAL, addresses.v4));
        assert_eq!(plan("fd96::/108".parse().unwrap(), 1, &addresses), None);
    }
}
