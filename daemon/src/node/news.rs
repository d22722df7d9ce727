//! What has happened since the last pass.

use std::collections::BTreeMap;

use weft_netlink::agent::Event;

use crate::overlay::peers::{PeerKey, PeerObject};

/// Why there is a pass; with nothing of it, because time has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct News {
    /// The cluster has changed, or this node's lease.
    pub(super) cluster: bool,
    /// Somebody has changed links, addresses, routes or neighbours, or it cannot be told that nobody has.
    pub(super) kernel: bool,
    /// Somebody has changed something in nf_tables.
    pub(super) tables: bool,
}

impl News {
    /// At the start everything is news.
    pub(super) const ALL: Self = Self { cluster: true, kernel: true, tables: true };

    pub(super) fn add(&mut self, more: Self) {
        self.cluster |= more.cluster;
        self.kernel |= more.kernel;
        self.tables |= more.tables;
    }
}

/// Whether an event tells of the peers' objects only what is known: most often it is weft's own doing that comes back.
pub(super) fn is_known(peers: &BTreeMap<PeerKey, PeerObject>, event: &Event) -> bool {
    match event {
        Event::Neighbour { link, ip: Some(ip), now } => {
            let known = peers.get(&PeerKey::Neighbour { link: *link, ip: *ip });
            known == now.map(PeerObject::Neighbour).as_ref()
        }
        Event::Fdb { entry: Some(entry), is_there, .. } => is_as_known(peers, &PeerObject::Fdb(*entry), *is_there),
        Event::Route { route: Some(route), is_there, .. } => {
            is_as_known(peers, &PeerObject::Route(Box::as_ref(route).clone()), *is_there)
        }
        _ => false,
    }
}

fn is_as_known(peers: &BTreeMap<PeerKey, PeerObject>, object: &PeerObject, is_there: bool) -> bool {
    (peers.get(&object.key()) == Some(object)) == is_there
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use weft_netlink::{FdbEntry, MacAddr, Neighbour, NextHop, Route};

    use super::*;
    use crate::overlay::ROUTE_PROTOCOL;

    #[test]
    fn what_is_told_of_weft_s_own_doing_is_known_and_what_others_do_is_not() {
        let (link, ip) = (4, "10.244.2.0".parse::<IpAddr>().unwrap());
        let neighbour = Neighbour { link, ip, mac: MacAddr([2, 0, 0, 0, 0, 2]) };
        let entry = FdbEntry { link, mac: neighbour.mac, dst: "192.0.2.2".parse().unwrap() };
        let mut route = Route::new("10.244.2.0/24".parse().unwrap(), ROUTE_PROTOCOL);
        route.next_hop = NextHop { link: Some(link), gateway: Some(ip), onlink: true };
        let objects = [PeerObject::Neighbour(neighbour), PeerObject::Fdb(entry), PeerObject::Route(route.clone())];
        let peers = objects.into_iter().map(|object| (object.key(), object)).collect();
        let neighbour_event = |ip, now| Event::Neighbour { link, ip: Some(ip), now };
        let entry_event = |entry, is_there| Event::Fdb { link, entry: Some(entry), is_there };
        let route_event =
            |route: &Route, is_there| Event::Route { link, route: Some(Box::new(route.clone())), is_there };

        for known in [
            neighbour_event(ip, Some(neighbour)),
            entry_event(entry, true),
            route_event(&route, true),
            // What has been deleted, or what the kernel looks for by itself.
            neighbour_event("10.244.3.0".parse().unwrap(), None),
            entry_event(FdbEntry { mac: MacAddr([2, 0, 0, 0, 0, 3]), ..entry }, false),
            route_event(&Route { protocol: 4, ..route.clone() }, false),
        ] {
            assert!(is_known(&peers, &known), "{known:?}");
        }
        for news in [
            neighbour_event(ip, None),
            neighbour_event(ip, Some(Neighbour { mac: MacAddr([2, 0, 0, 0, 0, 9]), ..neighbour })),
            entry_event(entry, false),
            entry_event(FdbEntry { dst: "192.0.2.9".parse().unwrap(), ..entry }, true),
            route_event(&route, false),
            route_event(&Route { protocol: 4, ..route }, true),
            Event::Route { link, route: None, is_there: false },
            Event::Fdb { link, entry: None, is_there: true },
            Event::Link { index: link },
            Event::Overrun,
        ] {
            assert!(!is_known(&peers, &news), "{news:?}");
        }
    }
}
