//! The peers as a table of the kernel: neighbours and FDB entries of the VXLAN devices, peers of the WireGuard devices, and routes.

use std::collections::BTreeMap;

use weft_netlink::agent::Connection;
use weft_netlink::wireguard::Change;
use weft_netlink::{Error, Request, Route, RouteFilter, RouteKind, Verb};

use super::ROUTE_PROTOCOL;
use super::peers::{PeerKey, PeerObject};
use super::tunnel::Tunnels;
use crate::reconcile::{Table, Update};

/// The kernel's part of [`super::peers`].
#[derive(Debug)]
pub struct PeerTable {
    kernel: Connection,
    /// The overlay's devices that are there, by index.
    devices: Vec<u32>,
    /// Those of them that have their peers in themselves.
    tunnels: Tunnels,
}

/// How an object is written.
enum Write {
    /// By rtnetlink.
    Request(Request),
    /// Into the WireGuard device of this index.
    Tunnel(u32, Change),
}

impl PeerTable {
    /// A table without devices.
    #[must_use]
    pub fn new(kernel: Connection) -> Self {
        Self { kernel, devices: Vec::new(), tunnels: Tunnels::default() }
    }

    /// Says which devices are the overlay's.
    pub fn set_devices(&mut self, devices: Vec<u32>) {
        self.devices = devices;
    }

    /// Says which of them have their peers in themselves, and how these should be, before a pass over them.
    pub fn set_tunnels(&mut self, links: Vec<u32>, objects: &BTreeMap<PeerKey, PeerObject>) {
        self.tunnels.expect(links, objects);
    }

    /// A number that stands for what rtnetlink does not show: the peers in devices.
    ///
    /// # Errors
    /// [`Error`] if a device cannot be read.
    pub fn digest(&mut self) -> Result<u64, Error> {
        self.tunnels.digest()
    }

    /// Whether a peer is elsewhere than it has published, which only another look can judge again.
    pub fn is_any_roaming(&self) -> bool {
        self.tunnels.is_any_roaming()
    }

    /// Whether a route of somebody else's is the same but for its protocol: flannel's, with host-gw or `DirectRouting`. It is taken
    /// over, as nobody can tell the difference.
    async fn leads_there_already(&self, route: &Route) -> bool {
        let filter = RouteFilter { link: route.next_hop.link, table: Some(Route::MAIN), ..RouteFilter::default() };
        let found = self.kernel.routes(filter).await.unwrap_or_default();
        found
            .iter()
            .any(|found| (found.dst, found.next_hop, found.priority) == (route.dst, route.next_hop, route.priority))
    }

    /// In this order, by whatever way; one result each.
    async fn carry_out(&mut self, writes: Vec<Write>) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(writes.len());
        let mut writes = writes.into_iter().peekable();
        while let Some(first) = writes.next() {
            match first {
                Write::Request(request) => {
                    let mut requests = vec![request];
                    while let Some(Write::Request(next)) = writes.next_if(|next| matches!(next, Write::Request(_))) {
                        requests.push(next);
                    }
                    results.extend(self.kernel.run(requests).await);
                }
                Write::Tunnel(link, change) => {
                    let mut changes = vec![change];
                    let same = |next: &Write| matches!(next, Write::Tunnel(other, _) if *other == link);
                    while let Some(Write::Tunnel(_, next)) = writes.next_if(same) {
                        changes.push(next);
                    }
                    results.extend(self.tunnels.run(link, &changes));
                }
            }
        }
        results
    }
}

impl Table for PeerTable {
    type Key = PeerKey;
    type Value = PeerObject;
    type Error = Error;

    async fn dump(&mut self) -> Result<BTreeMap<PeerKey, PeerObject>, Error> {
        let mut objects = BTreeMap::new();
        let mut add = |object: PeerObject| objects.insert(object.key(), object);
        for &link in &self.devices {
            for neighbour in self.kernel.neighbours(link).await? {
                add(PeerObject::Neighbour(neighbour));
            }
            for entry in self.kernel.fdb(link).await? {
                add(PeerObject::Fdb(entry));
            }
            let filter = RouteFilter { link: Some(link), table: Some(Route::MAIN), ..RouteFilter::default() };
            for route in self.kernel.routes(filter).await?.into_iter().filter(is_ours) {
                add(PeerObject::Route(route));
            }
        }
        self.tunnels.dump()?.into_iter().for_each(|object| {
            add(object);
        });
        // By whatever link: a peer that is reached past the device may have moved to another, or behind a router.
        let own = RouteFilter {
            protocol: Some(ROUTE_PROTOCOL),
            table: Some(Route::MAIN),
            kind: Some(RouteKind::Unicast),
            ..RouteFilter::default()
        };
        for route in self.kernel.routes(own).await? {
            add(PeerObject::Route(route));
        }
        Ok(objects)
    }

    async fn update(&mut self, objects: &[Update<PeerKey, PeerObject>]) -> Vec<Result<(), Error>> {
        let write = |update: &Update<PeerKey, PeerObject>| match &update.value {
            PeerObject::Neighbour(neighbour) => Write::Request(neighbour.request(Verb::Replace)),
            PeerObject::Fdb(entry) => Write::Request(entry.request(Verb::Replace)),
            PeerObject::Tunnel { link, peer } => Write::Tunnel(*link, self.tunnels.set(*link, peer)),
            // Replacing would also replace a foreign route to the same place: only what we have seen to be ours is.
            PeerObject::Route(route) if update.before.is_some() => Write::Request(route.request(Verb::Replace)),
            PeerObject::Route(route) => Write::Request(route.request(Verb::Create)),
        };
        let writes = objects.iter().map(write).collect();
        let mut results = self.carry_out(writes).await;
        for (update, result) in objects.iter().zip(&mut results) {
            if let (PeerObject::Route(route), Err(error)) = (&update.value, &*result)
                && error.is_present()
                && self.leads_there_already(route).await
            {
                *result = self.kernel.one(route.request(Verb::Replace)).await;
            }
        }
        results
    }

    async fn delete(&mut self, objects: &[(PeerKey, PeerObject)]) -> Vec<Result<(), Error>> {
        let write = |(_, object): &(PeerKey, PeerObject)| match object {
            PeerObject::Neighbour(neighbour) => Write::Request(neighbour.request(Verb::Delete)),
            PeerObject::Fdb(entry) => Write::Request(entry.request(Verb::Delete)),
            PeerObject::Tunnel { link, peer } => Write::Tunnel(*link, Change::Remove(peer.public_key)),
            PeerObject::Route(route) => Write::Request(route.request(Verb::Delete)),
        };
        let results = self.carry_out(objects.iter().map(write).collect()).await;
        // What is gone already is what we wanted.
        results.into_iter().map(|result| result.or_else(|e| if e.is_absent() { Ok(()) } else { Err(e) })).collect()
    }
}

/// What carries our mark, and what flannel left on the device: an on-link route through the subnet's own first address.
/// Everything else an administrator put there.
fn is_ours(route: &Route) -> bool {
    route.protocol == ROUTE_PROTOCOL || (route.next_hop.onlink && route.next_hop.gateway == Some(route.dst.network()))
}
