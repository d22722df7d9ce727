//! `wireguard`: an encrypted tunnel to each peer, in one device a family or in one for both.
//!
//! Formats and meanings are flannel's. Each device has one route for the whole cluster network, as with flannel, and the peers'
//! subnets stand in the device alone: what no peer has is refused there, and never leaves the node in the clear by the default
//! route, as it would if only the peers' subnets led into the device.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde::Serialize;
use serde_json::{Map, Value, json};
use weft_netlink::wireguard::{DeviceSettings, PublicKey, SecretKey};
use weft_netlink::{NextHop, Route, RouteScope};

use super::{Backend, Device, Kind, Peer, Site, Standpoint};
use crate::cluster::family::Family;
use crate::cluster::fields::{Fields, NetConfError, shown, wrong};
use crate::cluster::json::{Caseless, Json};
use crate::overlay::ROUTE_PROTOCOL;
use crate::overlay::peers::{PeerObject, metric};
use crate::overlay::tunnel::Tunnel;

/// Ports that flannel uses where none is given.
const DEFAULT_PORT: u16 = 51820;
const DEFAULT_PORT_V6: u16 = 51821;

/// Names of the devices, as flannel has them.
const DEVICE: &str = "flannel-wg";
const DEVICE_V6: &str = "flannel-wg-v6";
/// The names of its devices.
pub(in crate::overlay) const DEVICES: [&str; 2] = [DEVICE, DEVICE_V6];

/// Its name in configurations and leases, and what reads it.
pub(super) const KIND: Kind = Kind {
    name: "wireguard",
    keys: &["ListenPort", "ListenPortV6", "MTU", "PSK", "Mode", "PersistentKeepaliveInterval"],
    parse: |options| Ok(Arc::new(Wireguard::parse(options)?)),
    check: |data| match data {
        Some(data) => WireguardData::read(data).map(|_| ()).ok_or(WireguardData::EXPECTED),
        None => Err(WireguardData::EXPECTED),
    },
};

/// The options of the `wireguard` back end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wireguard {
    /// `ListenPort`: UDP port of the device; of IPv4's, if each family has its own.
    pub listen_port: u16,
    /// `ListenPortV6`: UDP port of IPv6's own device.
    pub listen_port_v6: u16,
    /// `MTU`: MTU of the underlay, in bytes, when it is not to be taken from the interface.
    pub mtu: Option<u32>,
    /// `PSK`: a key that all nodes share beside their own.
    pub psk: Option<SecretKey>,
    /// `Mode`: which devices there are, and over which family peers are reached.
    pub mode: Mode,
    /// `PersistentKeepaliveInterval`: seconds of silence after which an empty packet is sent; 0 for never.
    pub keepalive: u16,
}

/// Which devices there are, and over which family peers are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Each family has a device of its own, over itself.
    Separate,
    /// One device; for each peer the family over which it can sooner be reached.
    Auto,
    /// One device, all peers over this family.
    Over(Family),
}

/// What reaching a peer takes beside its public address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WireguardData {
    public_key: PublicKey,
    /// Leases of older flannels do not tell it.
    port: Option<u16>,
}

/// The JSON form; the order of the fields is flannel's.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    public_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

/// Bytes that WireGuard adds to a packet, at most: the outer IP header (40 for IPv6), UDP (8), its own header (16) and the
/// authentication (16). flannel takes the same for both families, and so must weft, as all nodes have one pod MTU.
#[must_use]
pub const fn overhead() -> u32 {
    80
}

impl Mode {
    const ALL: [Self; 4] = [Self::Separate, Self::Auto, Self::Over(Family::V4), Self::Over(Family::V6)];
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Separate => "separate",
            Self::Auto => "auto",
            Self::Over(Family::V4) => "ipv4",
            Self::Over(Family::V6) => "ipv6",
        })
    }
}

impl Default for Wireguard {
    fn default() -> Self {
        Self {
            listen_port: DEFAULT_PORT,
            listen_port_v6: DEFAULT_PORT_V6,
            mtu: None,
            psk: None,
            mode: Mode::Separate,
            keepalive: 0,
        }
    }
}

impl Wireguard {
    fn parse(options: &Fields<'_>) -> Result<Self, NetConfError> {
        let number = |key, expected| {
            let found = options.integer(key, u64::from(u16::MAX), expected)?;
            Ok(found.and_then(|number| u16::try_from(number).ok()))
        };
        let port = |key| match number(key, "a UDP port number from 1 to 65535")? {
            Some(0) => Err(wrong(key, "0", "a UDP port number from 1 to 65535")),
            port => Ok(port),
        };
        let mode = match options.string("Mode")? {
            None => Mode::Separate,
            Some(text) => {
                let known = Mode::ALL.into_iter().find(|mode| mode.to_string().eq_ignore_ascii_case(text));
                known.ok_or_else(|| wrong("Mode", &shown(&json!(text)), "separate, auto, ipv4 or ipv6"))?
            }
        };
        let (listen_port, listen_port_v6) = (port("ListenPort")?, port("ListenPortV6")?);
        if let (Mode::Separate, Some(v4), Some(v6)) = (mode, listen_port, listen_port_v6)
            && v4 == v6
        {
            return Err(wrong(
                "ListenPortV6",
                &v6.to_string(),
                "another port than ListenPort, as each family has a device",
            ));
        }
        Ok(Self {
            listen_port: listen_port.unwrap_or(DEFAULT_PORT),
            listen_port_v6: listen_port_v6.unwrap_or(DEFAULT_PORT_V6),
            mtu: options.mtu()?,
            psk: options.secret("PSK")?,
            mode,
            keepalive: number("PersistentKeepaliveInterval", "seconds from 0 to 65535")?.unwrap_or_default(),
        })
    }

    /// The port of the device that a family has.
    const fn port(&self, family: Family) -> u16 {
        match (self.mode, family) {
            (Mode::Separate, Family::V6) => self.listen_port_v6,
            _ => self.listen_port,
        }
    }

    /// Over which family to reach a peer of which this is one. flannel's rule for `auto`: IPv4 to a public address, else IPv6 between
    /// two public ones, else IPv4; and whichever there is, where the other is missing.
    fn outer(&self, from: &Standpoint<'_>, peer: &Peer<'_>) -> Family {
        match self.mode {
            Mode::Separate => peer.family,
            Mode::Over(family) => family,
            Mode::Auto => {
                let theirs = peer.lease.public_ips;
                let both = |family| from.public_ips.get(family).is_some() && theirs.get(family).is_some();
                let public = |address: Option<IpAddr>| address.is_some_and(is_public);
                match (both(Family::V4), both(Family::V6)) {
                    (true, true) if public(theirs.v4) => Family::V4,
                    (true, true) if public(theirs.v6) && public(from.public_ips.v6) => Family::V6,
                    (false, true) => Family::V6,
                    _ => Family::V4,
                }
            }
        }
    }
}

impl WireguardData {
    const EXPECTED: &'static str =
        "an object with PublicKey (32 bytes in base64, not all zero) and Port (a UDP port number)";

    fn to_json(self) -> Json {
        Json::of(&Wire { public_key: self.public_key.to_string(), port: self.port })
    }

    /// What a node has published, if it can be used.
    fn read(value: &Value) -> Option<Self> {
        let data = Caseless::new(value)?;
        let port = match data.get("Port") {
            None => None,
            Some(port) => Some(port.as_u64().and_then(|port| u16::try_from(port).ok())?),
        };
        let public_key = data.get("PublicKey")?.as_str()?.parse().ok()?;
        Some(Self { public_key, port: port.filter(|port| *port != 0) })
    }

    fn of(said: &Json) -> Result<Self, String> {
        let wrong = || format!("it publishes {said}; expected {}", Self::EXPECTED);
        Self::read(&said.value()).ok_or_else(wrong)
    }
}

impl Backend for Wireguard {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn options(&self) -> Map<String, Value> {
        let defaults = Self::default();
        let given = |is_default: bool, value: Value| (!is_default).then_some(value);
        let options = [
            ("ListenPort", given(self.listen_port == defaults.listen_port, json!(self.listen_port))),
            ("ListenPortV6", given(self.listen_port_v6 == defaults.listen_port_v6, json!(self.listen_port_v6))),
            ("MTU", self.mtu.map(|mtu| json!(mtu))),
            ("PSK", self.psk.as_ref().map(|psk| json!(psk.to_base64()))),
            ("Mode", given(self.mode == defaults.mode, json!(self.mode.to_string()))),
            ("PersistentKeepaliveInterval", given(self.keepalive == defaults.keepalive, json!(self.keepalive))),
        ];
        options.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    fn underlay_mtu(&self) -> Option<u32> {
        self.mtu
    }

    fn overhead(&self, _outer: Family) -> u32 {
        overhead()
    }

    fn device_name(&self, family: Family) -> Option<String> {
        let name = if (self.mode, family) == (Mode::Separate, Family::V6) { DEVICE_V6 } else { DEVICE };
        Some(name.to_owned())
    }

    fn needs_key(&self) -> bool {
        true
    }

    fn device(&self, site: &Site<'_>) -> Result<Device, String> {
        let key = site.key.ok_or("this node has no private key")?;
        for address in [site.source, site.public_ip] {
            outside(site.cluster, address)?;
        }
        let name = self.device_name(site.family).unwrap_or_default();
        Ok(Device::Wireguard(Tunnel {
            link: weft_netlink::Wireguard { name, mtu: Some(site.mtu) },
            settings: DeviceSettings {
                private_key: Some(key.clamped()),
                listen_port: self.port(site.family),
                fwmark: 0,
            },
            public_key: public_key(key),
        }))
    }

    /// The port at which the device listens. With one device flannel publishes `ListenPortV6` for IPv6, at which it does not.
    fn data(&self, device: &Device) -> Option<Json> {
        let Device::Wireguard(tunnel) = device else { return None };
        let port = Some(tunnel.settings.listen_port);
        Some(WireguardData { public_key: tunnel.public_key, port }.to_json())
    }

    fn common(&self, from: &Standpoint<'_>) -> Vec<PeerObject> {
        let family = Family::of(from.local.end.address);
        let of_family = |network: &&IpNetwork| Family::of(network.ip()) == family;
        let route = |network: &IpNetwork| {
            PeerObject::Route(Route {
                next_hop: NextHop { link: Some(from.local.link), gateway: None, onlink: false },
                scope: if family == Family::V4 { RouteScope::Link } else { RouteScope::Universe },
                priority: metric(family),
                ..Route::new(*network, ROUTE_PROTOCOL)
            })
        };
        from.cluster.iter().filter(of_family).map(route).collect()
    }

    fn reach(&self, from: &Standpoint<'_>, peer: &Peer<'_>) -> Result<Vec<PeerObject>, String> {
        let outer = self.outer(from, peer);
        let silent = || format!("it says nothing of how to reach it over {outer}");
        // With one device, what is said for IPv4 holds for both families (see `data`), and both calls plan the same.
        let said = match self.mode {
            Mode::Separate => peer.data,
            _ => peer.lease.backend.data.values().next(),
        };
        let data = WireguardData::of(said.ok_or_else(silent)?)?;
        if let Device::Wireguard(own) = &from.local.end.device
            && own.public_key == data.public_key
        {
            return Err(format!("its public key {} is this node's own", data.public_key));
        }
        let public_ip = *peer.lease.public_ips.get(outer).ok_or_else(silent)?;
        outside(from.cluster, public_ip)?;
        let allowed_ips = match self.mode {
            Mode::Separate => [peer.subnet].into(),
            _ => peer.lease.key.subnets().values().copied().collect(),
        };
        let tunnel = weft_netlink::wireguard::Peer {
            public_key: data.public_key,
            preshared_key: self.psk.clone(),
            endpoint: Some(SocketAddr::new(public_ip, data.port.unwrap_or_else(|| self.port(outer)))),
            keepalive: self.keepalive,
            allowed_ips,
        };
        Ok(vec![PeerObject::Tunnel { link: from.local.link, peer: tunnel }])
    }
}

/// The key that belongs to a private one (RFC 7748, section 6.1).
fn public_key(key: &SecretKey) -> PublicKey {
    PublicKey(x25519_dalek::x25519(*key.bytes(), x25519_dalek::X25519_BASEPOINT_BYTES))
}

/// Whatever goes to the cluster network goes into the device, and so would the packets that the device itself sends.
fn outside(cluster: &[IpNetwork], address: IpAddr) -> Result<(), String> {
    match cluster.iter().find(|network| network.contains(address)) {
        None => Ok(()),
        Some(network) => Err(format!(
            "the address {address} of a node lies in the cluster network {network}, all of which goes into WireGuard's device"
        )),
    }
}

/// Whether an address is none of those that each site has for itself (RFC 1918, RFC 4193): flannel's notion.
const fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_private(),
        IpAddr::V6(v6) => !v6.is_unique_local(),
    }
}

#[cfg(test)]
#[path = "wireguard_tests.rs"]
mod tests;
