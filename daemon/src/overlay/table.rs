//! The peers as a table of the kernel: neighbours and FDB entries of the VXLAN devices, and routes.

use std::collections::BTreeMap;

use weft_netlink::agent::Connection;
use weft_netlink::{Error, Request, Route, RouteFilter, RouteKind, Verb};

use super::ROUTE_PROTOCOL;
use super::peers::{PeerKey, PeerObject};
use crate::reconcile::{Table, Update};

/// The kernel's part of [`super::peers`].
#[derive(Debug)]
pub struct PeerTable {
    kernel: Connection,
    /// The VXLAN devices that are there, by index.
    devices: Vec<u32>,
}

impl PeerTable {
    /// A table without devices.
    #[must_use]
    pub fn new(kernel: Connection) -> Self {
        Self { kernel, devices: Vec::new() }
    }

    /// Says which devices are the overlay's.
    pub fn set_devices(&mut self, devices: Vec<u32>) {
        self.devices = devices;
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

    async fn carry_out(&self, requests: Vec<Request>) -> Vec<Result<(), Error>> {
        self.kernel.run(requests).await
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
        let request = |update: &Update<PeerKey, PeerObject>| match &update.value {
            PeerObject::Neighbour(neighbour) => neighbour.request(Verb::Replace),
            PeerObject::Fdb(entry) => entry.request(Verb::Replace),
            // Replacing would also replace a foreign route to the same place: only what we have seen to be ours is.
            PeerObject::Route(route) if update.before.is_some() => route.request(Verb::Replace),
            PeerObject::Route(route) => route.request(Verb::Create),
        };
        let mut results = self.carry_out(objects.iter().map(request).collect()).await;
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
        let request = |(_, object): &(PeerKey, PeerObject)| match object {
            PeerObject::Neighbour(neighbour) => neighbour.request(Verb::Delete),
            PeerObject::Fdb(entry) => entry.request(Verb::Delete),
            PeerObject::Route(route) => route.request(Verb::Delete),
        };
        let results = self.carry_out(objects.iter().map(request).collect()).await;
        // What is gone already is what we wanted.
        results.into_iter().map(|result| result.or_else(|e| if e.is_absent() { Ok(()) } else { Err(e) })).collect()
    }
}

/// What carries our mark, and what flannel left on the device: an on-link route through the subnet's own first address.
/// Everything else an administrator put there.
fn is_ours(route: &Route) -> bool {
    route.protocol == ROUTE_PROTOCOL || (route.next_hop.onlink && route.next_hop.gateway == Some(route.dst.network()))
}
