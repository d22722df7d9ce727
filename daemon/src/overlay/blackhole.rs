//! Blackhole routes for the node's own subnets (`ip-blackhole-route`).
//!
//! While the bridge is up its own route is better, and packets to an address that no pod has end there. Without it they would
//! take the default route, and a router that knows the subnet to be this node's would send them back, until their time is over.

use std::collections::BTreeMap;
use std::fmt;

use ipnetwork::IpNetwork;
use weft_netlink::agent::Connection;
use weft_netlink::{Error, Route, RouteFilter, RouteKind, Verb};

use super::ROUTE_PROTOCOL;
use crate::reconcile::{Table, Update};

/// Any other route to the subnet or a part of it is better.
const METRIC: u32 = u32::MAX;

/// A blackhole route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blackhole {
    subnet: IpNetwork,
    /// Two routes to one subnet differ by it.
    metric: u32,
}

impl fmt::Display for Blackhole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} metric {}", self.subnet, self.metric)
    }
}

/// The blackhole routes of the node.
#[derive(Debug)]
pub struct BlackholeTable(Connection);

impl BlackholeTable {
    /// The kernel's part of them.
    #[must_use]
    pub fn new(kernel: Connection) -> Self {
        Self(kernel)
    }

    async fn run(&self, verb: Verb, routes: impl Iterator<Item = Blackhole>) -> Vec<Result<(), Error>> {
        let results = self.0.run(routes.map(|it| route(it).request(verb)).collect()).await;
        // What is gone already is what we wanted.
        let is_done = |error: &Error| verb == Verb::Delete && error.is_absent();
        results.into_iter().map(|result| result.or_else(|e| if is_done(&e) { Ok(()) } else { Err(e) })).collect()
    }
}

/// The desired state for these subnets.
#[must_use]
pub fn plan(subnets: impl IntoIterator<Item = IpNetwork>) -> BTreeMap<Blackhole, ()> {
    subnets.into_iter().map(|subnet| (Blackhole { subnet, metric: METRIC }, ())).collect()
}

fn route(Blackhole { subnet, metric }: Blackhole) -> Route {
    Route { kind: RouteKind::Blackhole, priority: Some(metric), ..Route::new(subnet, ROUTE_PROTOCOL) }
}

impl Table for BlackholeTable {
    type Key = Blackhole;
    type Value = ();
    type Error = Error;

    async fn dump(&mut self) -> Result<BTreeMap<Blackhole, ()>, Error> {
        let filter = RouteFilter {
            table: Some(Route::MAIN),
            protocol: Some(ROUTE_PROTOCOL),
            kind: Some(RouteKind::Blackhole),
            ..RouteFilter::default()
        };
        let found = self.0.routes(filter).await?;
        let blackhole = |route: Route| Blackhole { subnet: route.dst, metric: route.priority.unwrap_or_default() };
        Ok(found.into_iter().map(|route| (blackhole(route), ())).collect())
    }

    async fn update(&mut self, objects: &[Update<Blackhole, ()>]) -> Vec<Result<(), Error>> {
        self.run(Verb::Create, objects.iter().map(|update| update.key)).await
    }

    async fn delete(&mut self, objects: &[(Blackhole, ())]) -> Vec<Result<(), Error>> {
        self.run(Verb::Delete, objects.iter().map(|(blackhole, ())| *blackhole)).await
    }
}
