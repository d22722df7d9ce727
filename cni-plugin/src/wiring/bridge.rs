//! The bridge: there, up, with the gateway's addresses.

use std::net::{IpAddr, UdpSocket};

use ipnetwork::IpNetwork;
use weft_netlink::sysctl::Sysctl;
use weft_netlink::{Address, Bridge, Errno, Link, LinkChange, LinkKind, LinkProbe, RouteSocket, Verb};

use super::plan::bridge_mac;
use crate::ipam::pool::KnownBridge;
use crate::protocol::config::BridgeConfig;
use crate::protocol::{CniError, Code, Result};

/// What the kernel keeps with a bridge that weft has made (`IFLA_IFALIAS`).
pub const ALIAS: &str = "weft";

/// What the bridge has to be.
#[derive(Debug, Clone, Copy)]
pub struct BridgeWish<'a> {
    /// Its configuration.
    pub config: &'a BridgeConfig,
    /// Its addresses as gateway.
    pub gateways: &'a [IpNetwork],
    /// MTU in bytes of one that is made now.
    pub mtu: Option<u32>,
    /// The cluster's networks: an address out of them that is not the gateway's is from an old life.
    pub networks: &'a [IpNetwork],
}

/// Whether the bridge is as it was when it was last looked at, without taking the kernel's RTNL lock: the same link, up,
/// and the gateway's addresses local. An address can be bound to exactly if it is.
#[must_use]
pub fn is_as_known(wish: BridgeWish<'_>, known: Option<&KnownBridge>, probe: &LinkProbe) -> bool {
    let name = &wish.config.name;
    let same = known
        .is_some_and(|known| known.name == *name && probe.index(name).is_ok_and(|index| index == Some(known.index)));
    same && probe.flags(name).is_ok_and(|flags| flags.is_some_and(|flags| flags.up))
        && (!wish.config.is_gateway || wish.gateways.iter().all(|gateway| is_local(gateway.ip())))
}

fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Makes the bridge what it has to be. What is right already is not touched.
///
/// # Errors
/// Code 7 if the name belongs to something else, 999 if it bears an address that must not give way or the kernel refuses.
pub fn ensure(wish: BridgeWish<'_>, socket: &mut RouteSocket) -> Result<KnownBridge> {
    let name = wish.config.name.as_str();
    let (link, made) = match socket.link(name)? {
        Some(link) => (link, false),
        None => (create(wish, socket)?, true),
    };
    if link.kind != LinkKind::Bridge {
        return Err(CniError::new(Code::InvalidConfig, format!("bridge: {name:?} already exists but is not a bridge")));
    }
    let mut changes = Vec::new();
    if made {
        changes.push(LinkChange::new(link.index).alias(ALIAS).request());
    }
    if !link.up {
        changes.push(LinkChange::new(link.index).up().request());
    }
    if wish.config.promiscuous && link.promiscuity == 0 {
        changes.push(LinkChange::new(link.index).promisc(true).request());
    }
    if !changes.is_empty() {
        socket.all(changes)?;
    }
    if wish.config.is_gateway {
        let force = wish.config.force_address.unwrap_or(made || link.alias.as_deref() == Some(ALIAS));
        ensure_addresses(wish, &link, force, socket)?;
        ensure_forwarding(wish.gateways)?;
    }
    Ok(KnownBridge { name: name.to_owned(), index: link.index })
}

fn create(wish: BridgeWish<'_>, socket: &mut RouteSocket) -> Result<Link> {
    let name = wish.config.name.as_str();
    let mac = bridge_mac(name, wish.gateways);
    let bridge = Bridge { name: name.to_owned(), mac: Some(mac), mtu: wish.mtu, up: true };
    match socket.one(bridge.create()) {
        // Another network's ADD made it meanwhile.
        Err(error) if !error.is_present() => return Err(error.into()),
        _ => {}
    }
    // Router advertisements of a pod must not configure the host. Absent where the kernel has no IPv6.
    let _ = Sysctl::default().write(&format!("net/ipv6/conf/{name}/accept_ra"), "0");
    let gone = || CniError::later(format!("bridge: {name:?} vanished while it was set up"));
    socket.link(name)?.ok_or_else(gone)
}

fn ensure_addresses(wish: BridgeWish<'_>, link: &Link, force: bool, socket: &mut RouteSocket) -> Result<()> {
    let present = socket.addresses(Some(link.index))?;
    let mut requests = Vec::new();
    for address in present.iter().filter(|address| address.global && !wish.gateways.contains(&address.network)) {
        let old = address.network;
        // Several IPv6 networks may live beside each other as long as they do not overlap.
        let overlaps = |gateway: &&IpNetwork| {
            gateway.is_ipv4() == old.is_ipv4()
                && (old.is_ipv4() || old.contains(gateway.ip()) || gateway.contains(old.ip()))
        };
        let Some(gateway) = wish.gateways.iter().find(overlaps) else { continue };
        let old_life =
            wish.config.force_address.is_none() && wish.networks.iter().any(|network| network.contains(old.ip()));
        if !force && !old_life {
            return Err(CniError::internal(format!(
                "failed to set bridge addr: {:?} already has an IP address different from {gateway}: {old}; forceAddress: true would replace it",
                link.name
            )));
        }
        requests.push(Address::new(link.index, old).request(Verb::Delete));
    }
    let missing = wish.gateways.iter().filter(|gateway| !present.iter().any(|address| address.network == **gateway));
    requests.extend(missing.map(|gateway| Address::new(link.index, *gateway).request(Verb::Create)));
    if requests.is_empty() {
        return Ok(());
    }
    for verdict in socket.run(requests)? {
        match verdict {
            Err(error) if error.errno != Errno::EEXIST && !error.is_absent() => {
                return Err(CniError::internal(format!("failed to set bridge addr: {error}")));
            }
            _ => {}
        }
    }
    Ok(())
}

fn ensure_forwarding(gateways: &[IpNetwork]) -> Result<()> {
    let sysctl = Sysctl::default();
    for (v6, name) in [(false, "net/ipv4/ip_forward"), (true, "net/ipv6/conf/all/forwarding")] {
        if gateways.iter().any(|gateway| gateway.is_ipv6() == v6) {
            sysctl.ensure(name, "1")?;
        }
    }
    Ok(())
}
