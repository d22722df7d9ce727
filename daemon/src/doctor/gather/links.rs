//! Links, addresses, and what leads to peers, read once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_netlink::wireguard::{self, DeviceInfo};
use weft_netlink::{AddressInfo, Link, LinkKind, RouteFilter, RouteSocket};

use super::route_socket;
use crate::cluster::Family;
use crate::doctor::Told;
use crate::doctor::leftovers::Overlay;
use crate::doctor::overlay::{Carrier, Device, OverlayFacts};
use crate::serve::document::NodeStatus;

/// How the names of the overlay's devices begin, of both families (flannel's, so that a node can change over in place).
const DEVICES: &str = "flannel";

/// A peer as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its subnet.
    pub(super) subnet: IpNetwork,
    /// The address on its device.
    pub(super) inner: IpAddr,
    /// The address to which encapsulated packets are sent.
    pub(super) outer: IpAddr,
    /// The port there.
    pub(super) port: u16,
    /// The MTU of the device towards it.
    pub(super) mtu: u32,
    /// What that makes of packets.
    pub(super) carrier: Carrier,
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
        // A WireGuard device does not say by which link it sends; the agent does.
        let uplink = status.and_then(|status| status.uplink.as_ref());
        let uplink = uplink.and_then(|uplink| links.iter().find(|link| link.name == uplink.name));
        let devices: Vec<Device> = links
            .iter()
            .filter(|link| is_ours(&link.name))
            .filter_map(|link| device(link, &links, uplink, &addresses))
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
        self.ports().first().copied()
    }

    /// The UDP ports of all devices, each once, that of IPv4 first.
    pub(super) fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.devices().iter().map(|device| device.port).collect();
        ports.dedup();
        ports
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

fn device(link: &Link, links: &[Link], uplink: Option<&Link>, addresses: &[AddressInfo]) -> Option<Device> {
    let (carrier, port, local, below) = match link.kind {
        LinkKind::Vxlan { vni, port, underlay, local, .. } => {
            let below = links.iter().find(|other| Some(other.index) == underlay);
            (Carrier::Vxlan { vni }, port, local, below)
        }
        LinkKind::Wireguard => {
            let found = wireguard(link.index).ok().flatten()?;
            (Carrier::Wireguard, found.settings.listen_port, None, uplink)
        }
        _ => return None,
    };
    let assigned = |address: &&AddressInfo| {
        let by_kernel = matches!(address.network.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
        address.link == link.index && !by_kernel
    };
    Some(Device {
        name: link.name.clone(),
        outer: local.map_or(if link.name.ends_with("-v6") { Family::V6 } else { Family::V4 }, Family::of),
        index: link.index,
        carrier,
        port,
        mtu: link.mtu,
        up: link.up,
        local,
        uplink: below.map(|below| (below.name.clone(), below.mtu)),
        addresses: addresses.iter().filter(assigned).map(|address| address.network).collect(),
    })
}

fn wireguard(link: u32) -> Result<Option<DeviceInfo>, weft_netlink::Error> {
    wireguard::Socket::open()?.device(link)
}

/// Who is behind the devices, by route, neighbour and FDB entry, or by route and peer in the device: what packets go by, whatever
/// the agent believes.
fn peers(devices: &[Device]) -> Told<Behind> {
    let mut socket = route_socket()?;
    let mut found = Behind::default();
    for device in devices {
        let behind = match device.carrier {
            Carrier::Vxlan { .. } => behind_vxlan,
            Carrier::Wireguard => behind_wireguard,
        };
        behind(&mut socket, device, &mut found).map_err(|error| error.to_string())?;
    }
    Ok(found)
}

fn behind_vxlan(socket: &mut RouteSocket, device: &Device, found: &mut Behind) -> Result<(), weft_netlink::Error> {
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
            Ok(outer) => found.whole.push(Entry {
                subnet: route.dst,
                inner,
                outer: *outer,
                port: device.port,
                mtu: device.mtu,
                carrier: device.carrier,
            }),
            Err(lacks) => {
                found.broken.push((route.dst, format!("{} has a route by {inner}, and {lacks}", route.dst)));
            }
        }
    }
    Ok(())
}

fn behind_wireguard(socket: &mut RouteSocket, device: &Device, found: &mut Behind) -> Result<(), weft_netlink::Error> {
    let routes = socket.routes(RouteFilter { link: Some(device.index), ..RouteFilter::default() })?;
    let name = &device.name;
    for peer in wireguard(device.index)?.into_iter().flat_map(|device| device.peers) {
        let key = peer.peer.public_key;
        for subnet in peer.peer.allowed_ips {
            let inner = subnet.network();
            let leads_there = |dst: &IpNetwork| dst.contains(inner) && dst.prefix() <= subnet.prefix();
            match peer.peer.endpoint {
                _ if !routes.iter().any(|route| leads_there(&route.dst)) => {
                    let lacks = format!(
                        "{name} has peer {key} for {subnet}, and no route leads into it (ip route show dev {name})"
                    );
                    found.broken.push((subnet, lacks));
                }
                None => {
                    let lacks = format!("{name} does not know where peer {key}, who has {subnet}, is (wg show {name})");
                    found.broken.push((subnet, lacks));
                }
                Some(outer) => found.whole.push(Entry {
                    subnet,
                    inner,
                    outer: outer.ip(),
                    port: outer.port(),
                    mtu: device.mtu,
                    carrier: device.carrier,
                }),
            }
        }
    }
    Ok(())
}
