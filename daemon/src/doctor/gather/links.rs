//! Links, addresses, and what leads to peers, read once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_netlink::{AddressInfo, Link, LinkKind, RouteFilter, RouteSocket};

use super::route_socket;
use crate::cluster::Family;
use crate::doctor::Told;
use crate::doctor::leftovers::Overlay;
use crate::doctor::overlay::{Device, OverlayFacts};
use crate::serve::document::NodeStatus;

/// How the names of the overlay's devices begin, of both families (flannel's, so that a node can change over in place).
const DEVICES: &str = "flannel";

/// A peer as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its subnet.
    pub(super) subnet: IpNetwork,
    /// The address on its VXLAN device.
    pub(super) inner: IpAddr,
    /// The address to which encapsulated packets are sent.
    pub(super) outer: IpAddr,
    /// The MTU of the device towards it.
    pub(super) mtu: u32,
}

/// What the kernel says of links.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The devices of the overlay, and the bridge.
    pub(super) overlay: OverlayFacts,
    /// All links.
    pub(super) links: Told<Vec<Link>>,
    /// The peers behind the devices.
    pub(super) peers: Told<Behind>,
    /// The addresses of the node, by their links' names.
    pub(super) addresses: Vec<(String, IpAddr)>,
}

/// Who is behind the devices.
#[derive(Debug, Clone, Default)]
pub(super) struct Behind {
    /// Those with all that a packet needs.
    pub(super) whole: Vec<Entry>,
    /// Subnets with a route, and what is missing for the packets that it leads.
    pub(super) broken: Vec<(IpNetwork, String)>,
}

impl View {
    /// Reads it. What the agent tells says which devices and addresses are its own; without it their names do.
    pub(super) fn read(bridge: &str, status: Option<&NodeStatus>) -> Self {
        let read = || -> Told<(Vec<Link>, Vec<AddressInfo>)> {
            let mut socket = route_socket()?;
            let links = socket.links().map_err(|error| error.to_string())?;
            Ok((links, socket.addresses(None).map_err(|error| error.to_string())?))
        };
        // With a lease it has told of its devices, too, if only that it needs none.
        let told = status.filter(|status| status.lease.is_some());
        let own = told.map(|status| status.overlay.iter().map(|device| device.address).collect());
        let (links, addresses) = match read() {
            Ok(read) => read,
            Err(reason) => {
                let overlay = OverlayFacts { devices: Err(reason.clone()), own, bridge: Err(reason.clone()) };
                return Self { overlay, links: Err(reason.clone()), peers: Err(reason), addresses: Vec::new() };
            }
        };
        let is_ours = |name: &str| match status.filter(|status| !status.overlay.is_empty()) {
            Some(status) => status.overlay.iter().any(|device| device.name == name),
            None => name.starts_with(DEVICES),
        };
        let devices: Vec<Device> = links
            .iter()
            .filter(|link| is_ours(&link.name))
            .filter_map(|link| device(link, &links, &addresses))
            .collect();
        let found = links.iter().find(|link| link.name == bridge && link.kind == LinkKind::Bridge);
        let bridge = Ok(found.map(|link| (link.name.clone(), link.mtu, link.up)));
        let peers = peers(&devices);
        let named = |address: &AddressInfo| {
            let link = links.iter().find(|link| link.index == address.link)?;
            Some((link.name.clone(), address.network.ip()))
        };
        let addresses = addresses.iter().filter_map(named).collect();
        Self { overlay: OverlayFacts { devices: Ok(devices), own, bridge }, links: Ok(links), peers, addresses }
    }

    /// The devices; none if they cannot be read.
    pub(super) fn devices(&self) -> &[Device] {
        self.overlay.devices.as_deref().unwrap_or_default()
    }

    /// The UDP port of the overlay, if there is a device.
    pub(super) fn port(&self) -> Option<u16> {
        self.devices().first().map(|device| device.port)
    }

    /// VXLAN devices that are not the overlay's.
    pub(super) fn others(&self) -> Told<Vec<Overlay>> {
        let links = self.links.as_ref().map_err(Clone::clone)?;
        let other = |link: &Link| match link.kind {
            LinkKind::Vxlan { vni, port, .. } if !self.devices().iter().any(|device| device.name == link.name) => {
                Some(Overlay { name: link.name.clone(), vni, port })
            }
            _ => None,
        };
        Ok(links.iter().filter_map(other).collect())
    }
}

fn device(link: &Link, links: &[Link], addresses: &[AddressInfo]) -> Option<Device> {
    let LinkKind::Vxlan { vni, port, underlay, local, .. } = link.kind else { return None };
    let below = links.iter().find(|other| Some(other.index) == underlay);
    let assigned = |address: &&AddressInfo| {
        let by_kernel = matches!(address.network.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
        address.link == link.index && !by_kernel
    };
    Some(Device {
        name: link.name.clone(),
        outer: local.map_or(Family::V4, Family::of),
        index: link.index,
        vni,
        port,
        mtu: link.mtu,
        up: link.up,
        local,
        uplink: below.map(|below| (below.name.clone(), below.mtu)),
        addresses: addresses.iter().filter(assigned).map(|address| address.network).collect(),
    })
}

/// Who is behind the devices, by route, neighbour and FDB entry: what packets go by, whatever the agent believes.
fn peers(devices: &[Device]) -> Told<Behind> {
    let mut socket = route_socket()?;
    let mut found = Behind::default();
    for device in devices {
        behind(&mut socket, device, &mut found).map_err(|error| error.to_string())?;
    }
    Ok(found)
}

fn behind(socket: &mut RouteSocket, device: &Device, found: &mut Behind) -> Result<(), weft_netlink::Error> {
    let routes = socket.routes(RouteFilter { link: Some(device.index), ..RouteFilter::default() })?;
    let macs: BTreeMap<IpAddr, _> =
        socket.neighbours(device.index)?.into_iter().map(|neighbour| (neighbour.ip, neighbour.mac)).collect();
    let remotes: BTreeMap<_, IpAddr> =
        socket.fdb(device.index)?.into_iter().map(|entry| (entry.mac, entry.dst)).collect();
    let name = &device.name;
    for route in &routes {
        // What leads to nobody is the device's own.
        let Some(inner) = route.next_hop.gateway else { continue };
        let outer = match macs.get(&inner) {
            None => Err(format!("no neighbour entry says which MAC {inner} has (ip neigh show dev {name})")),
            Some(mac) => remotes
                .get(mac)
                .ok_or_else(|| format!("no FDB entry says where MAC {mac} of {inner} is (bridge fdb show dev {name})")),
        };
        match outer {
            Ok(outer) => found.whole.push(Entry { subnet: route.dst, inner, outer: *outer, mtu: device.mtu }),
            Err(lacks) => {
                found.broken.push((route.dst, format!("{} has a route by {inner}, and {lacks}", route.dst)));
            }
        }
    }
    Ok(())
}
