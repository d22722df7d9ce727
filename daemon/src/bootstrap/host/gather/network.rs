//! Addresses and routes of the machine, without those that are weft's.

use ipnetwork::IpNetwork;
use weft_netlink::{Link, LinkKind, Route, RouteFilter, RouteSocket};

use crate::bootstrap::host::facts::Told;

/// Links whose addresses and routes are a cluster's: weft's and flannel's own, kube-proxy's, and those of pods.
fn is_clusters(link: &Link) -> bool {
    link.name == "cni0"
        || link.name == "kube-ipvs0"
        || link.name.starts_with("flannel")
        || link.name.starts_with("veth")
        || matches!(link.kind, LinkKind::Vxlan { .. })
}

fn others(socket: &mut RouteSocket) -> Told<Vec<Link>> {
    let links = socket.links().map_err(|error| error.to_string())?;
    Ok(links.into_iter().filter(|link| !is_clusters(link)).collect())
}

fn name_of(links: &[Link], index: u32) -> Option<String> {
    links.iter().find(|link| link.index == index).map(|link| link.name.clone())
}

pub(super) fn addresses() -> Told<Vec<(String, IpNetwork)>> {
    let mut socket = RouteSocket::open().map_err(|error| error.to_string())?;
    let links = others(&mut socket)?;
    let addresses = socket.addresses(None).map_err(|error| error.to_string())?;
    let addresses = addresses.into_iter().filter(|address| !address.network.ip().is_loopback());
    Ok(addresses.filter_map(|address| Some((name_of(&links, address.link)?, address.network))).collect())
}

pub(super) fn routes() -> Told<Vec<(String, IpNetwork)>> {
    let mut socket = RouteSocket::open().map_err(|error| error.to_string())?;
    let links = others(&mut socket)?;
    let filter = RouteFilter { table: Some(Route::MAIN), ..RouteFilter::default() };
    let routes = socket.routes(filter).map_err(|error| error.to_string())?;
    let routes = routes.into_iter().filter(|route| route.dst.prefix() > 0);
    Ok(routes.filter_map(|route| Some((name_of(&links, route.next_hop.link?)?, route.dst))).collect())
}

/// Whether firewalld has its table here.
pub(super) fn has_firewalld() -> bool {
    let tables = weft_netlink::nft::Socket::open().and_then(|mut socket| socket.tables());
    tables.is_ok_and(|tables| tables.iter().any(|table| table.table.name == "firewalld"))
}
