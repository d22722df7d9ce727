//! `vxlan`: a VXLAN device for each family, and of each peer the MAC of its device.

use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde::Serialize;
use serde_json::{Map, Value, json};
use weft_netlink::{FdbEntry, MacAddr, Neighbour, NextHop, Route};

use super::{Backend, Device, Kind, Peer, Site, Standpoint};
use crate::cluster::family::{Family, PerFamily};
use crate::cluster::fields::{Fields, NetConfError};
use crate::cluster::json::{Caseless, Json};
use crate::cluster::lease_value::BackendData;
use crate::overlay::ROUTE_PROTOCOL;
use crate::overlay::device;
use crate::overlay::mac::vtep_mac;
use crate::overlay::peers::{PeerObject, metric};

/// Port that the kernel and flannel use when `Port` is 0 or absent.
const DEFAULT_PORT: u16 = 8472;

/// Largest VXLAN network identifier (24 bits, RFC 7348 section 5).
const MAX_VNI: u64 = (1 << 24) - 1;

/// Its name in configurations and leases, and what reads it. `Name` and `MacPrefix` mean something on Windows only, but are
/// flannel's.
pub(super) const KIND: Kind = Kind {
    name: "vxlan",
    keys: &["VNI", "Port", "MTU", "GBP", "Learning", "DirectRouting", "Name", "MacPrefix"],
    parse: |options| Ok(Arc::new(Vxlan::parse(options)?)),
    check: |data| match data {
        Some(data) => VxlanData::read(data).map(|_| ()).ok_or(VxlanData::EXPECTED),
        None => Err(VxlanData::EXPECTED),
    },
};

/// The options of the `vxlan` back end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// `VNI`: VXLAN network identifier.
    pub vni: u32,
    /// `Port`: UDP port, in host order; never 0.
    pub port: u16,
    /// `MTU`: MTU of the underlay, in bytes, when it is not to be taken from the interface.
    pub mtu: Option<u32>,
    /// `GBP`: carry the group policy extension.
    pub gbp: bool,
    /// `Learning`: let the kernel learn peers from traffic.
    pub learning: bool,
    /// `DirectRouting`: plain routes to peers on the same link.
    pub direct_routing: bool,
}

/// What reaching a VXLAN peer takes beside its public address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VxlanData {
    /// VXLAN network identifier; leases of very old flannels do not tell it.
    pub vni: Option<u32>,
    /// MAC address of the peer's device.
    pub vtep_mac: MacAddr,
}

/// The JSON form; the order of the fields is flannel's.
#[derive(Serialize)]
struct Wire {
    #[serde(rename = "VNI", skip_serializing_if = "Option::is_none")]
    vni: Option<u32>,
    #[serde(rename = "VtepMAC")]
    vtep_mac: String,
}

/// Bytes of a packet that VXLAN adds between two nodes of this family: the outer IP header (20, for IPv6 40), UDP (8),
/// VXLAN (8, RFC 7348 section 5) and the inner Ethernet header (14).
#[must_use]
pub const fn overhead(outer: Family) -> u32 {
    match outer {
        Family::V4 => 50,
        Family::V6 => 70,
    }
}

impl Default for Vxlan {
    fn default() -> Self {
        Self { vni: 1, port: DEFAULT_PORT, mtu: None, gbp: false, learning: false, direct_routing: false }
    }
}

impl Vxlan {
    fn parse(options: &Fields<'_>) -> Result<Self, NetConfError> {
        let number = |key, max, expected| {
            options.integer(key, max, expected).map(|found| found.and_then(|number| u32::try_from(number).ok()))
        };
        let port = number("Port", u64::from(u16::MAX), "a UDP port number, 0 for the default of 8472")?;
        let defaults = Self::default();
        Ok(Self {
            vni: number("VNI", MAX_VNI, "a number from 0 to 16777215")?.unwrap_or(defaults.vni),
            port: port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0).unwrap_or(defaults.port),
            mtu: options.mtu()?,
            gbp: options.boolean("GBP")?.unwrap_or_default(),
            learning: options.boolean("Learning")?.unwrap_or_default(),
            direct_routing: options.boolean("DirectRouting")?.unwrap_or_default(),
        })
    }
}

impl VxlanData {
    const EXPECTED: &'static str = "an object with VNI (a number) and VtepMAC (a unicast MAC address)";

    /// The JSON that flannel would write, such as `{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        Json::of(&Wire { vni: self.vni, vtep_mac: self.vtep_mac.to_string() })
    }

    /// What a node has published, if it can be used.
    fn read(value: &Value) -> Option<Self> {
        let data = Caseless::new(value)?;
        let vni = match data.get("VNI") {
            None => None,
            Some(vni) => Some(vni.as_u64().and_then(|vni| u32::try_from(vni).ok())?),
        };
        let vtep_mac: MacAddr = data.get("VtepMAC")?.as_str()?.parse().ok()?;
        (vtep_mac.is_unicast() && vtep_mac != MacAddr([0; 6])).then_some(Self { vni, vtep_mac })
    }

    fn of(said: &Json) -> Result<Self, String> {
        let wrong = || format!("it publishes {said}; expected {}", Self::EXPECTED);
        Self::read(&said.value()).ok_or_else(wrong)
    }
}

/// What a node publishes whose devices are these.
impl From<PerFamily<VxlanData>> for BackendData {
    fn from(devices: PerFamily<VxlanData>) -> Self {
        Self { kind: KIND.name.to_owned(), data: devices.filter_map(|_, data| Some(data.to_json())) }
    }
}

impl Backend for Vxlan {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn options(&self) -> Map<String, Value> {
        let mut out = Map::new();
        out.insert("VNI".into(), json!(self.vni));
        out.insert("Port".into(), json!(self.port));
        if let Some(mtu) = self.mtu {
            out.insert("MTU".into(), json!(mtu));
        }
        for (name, on) in [("GBP", self.gbp), ("Learning", self.learning), ("DirectRouting", self.direct_routing)] {
            if on {
                out.insert(name.into(), json!(true));
            }
        }
        out
    }

    fn underlay_mtu(&self) -> Option<u32> {
        self.mtu
    }

    fn overhead(&self, outer: Family) -> u32 {
        overhead(outer)
    }

    fn device_name(&self, family: Family) -> Option<String> {
        Some(device::name(family, self.vni))
    }

    fn routes_directly(&self) -> bool {
        self.direct_routing
    }

    /// It keeps the MAC that the node has published, as every peer has it; failing that, the one it has; failing that, the one
    /// that the node's name gives.
    fn device(&self, site: &Site<'_>) -> Result<Device, String> {
        let said = site.published.and_then(|data| VxlanData::of(data).ok()).map(|data| data.vtep_mac);
        let identity = site.identity;
        let mac = said.or(site.existing).unwrap_or_else(|| vtep_mac(identity.cluster, identity.node, site.family));
        Ok(Device::Vxlan(weft_netlink::Vxlan {
            name: device::name(site.family, self.vni),
            mac: Some(mac),
            mtu: Some(site.mtu),
            vni: self.vni,
            port: self.port,
            underlay: Some(site.uplink),
            local: Some(site.source),
            learning: self.learning,
            gbp: self.gbp,
            up: true,
        }))
    }

    fn data(&self, device: &Device) -> Option<Json> {
        let Device::Vxlan(device) = device else { return None };
        Some(VxlanData { vni: Some(device.vni), vtep_mac: device.mac? }.to_json())
    }

    fn reach(&self, from: &Standpoint<'_>, peer: &Peer<'_>) -> Result<Vec<PeerObject>, String> {
        let silent = || format!("it says nothing of how to reach it over {}", peer.family);
        let data = VxlanData::of(peer.data.ok_or_else(silent)?)?;
        if let Device::Vxlan(own) = &from.local.end.device
            && own.mac == Some(data.vtep_mac)
        {
            return Err(format!("its VTEP MAC {} is this node's own", data.vtep_mac));
        }
        if let Some(vni) = data.vni.filter(|vni| *vni != self.vni) {
            return Err(format!("its VNI is {vni}; this node's is {}", self.vni));
        }
        Ok(objects(from.local.link, peer, data.vtep_mac).into())
    }
}

fn objects(link: u32, peer: &Peer<'_>, mac: MacAddr) -> [PeerObject; 3] {
    let subnet: IpNetwork = peer.subnet;
    let gateway = subnet.network();
    let route = Route {
        next_hop: NextHop { link: Some(link), gateway: Some(gateway), onlink: true },
        priority: metric(peer.family),
        ..Route::new(subnet, ROUTE_PROTOCOL)
    };
    [
        PeerObject::Neighbour(Neighbour { link, ip: gateway, mac }),
        PeerObject::Fdb(FdbEntry { link, mac, dst: peer.public_ip }),
        PeerObject::Route(route),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::end::testing;
    use super::*;

    fn planned(family: Family, published: Option<&Json>, existing: Option<MacAddr>) -> weft_netlink::Vxlan {
        let vxlan = Vxlan::default();
        let mtu = 1500 - vxlan.overhead(family);
        let site = Site { mtu, published, existing, ..testing::site(family) };
        let Device::Vxlan(device) = vxlan.device(&site).unwrap() else { panic!() };
        device
    }

    #[test]
    fn one_device_a_family_each_with_its_overhead() {
        let (v4, v6) = (planned(Family::V4, None, None), planned(Family::V6, None, None));
        assert_eq!((v4.name.as_str(), v4.mtu), ("flannel.1", Some(1450)));
        assert_eq!((v6.name.as_str(), v6.mtu), ("flannel-v6.1", Some(1430)));
    }

    #[test]
    fn the_published_mac_then_the_devices_then_the_names() {
        let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
        let said = VxlanData { vni: Some(1), vtep_mac: mac(1) }.to_json();
        assert_eq!(planned(Family::V4, Some(&said), Some(mac(2))).mac, Some(mac(1)));
        assert_eq!(planned(Family::V6, None, Some(mac(3))).mac, Some(mac(3)));
        let named = vtep_mac("/coreos.com/network", "node1", Family::V4);
        assert_eq!(planned(Family::V4, None, None).mac, Some(named));
    }
}
