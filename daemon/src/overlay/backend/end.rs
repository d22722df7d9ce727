//! This node's end of the overlay: what is the same for every back end.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_netlink::MacAddr;
use weft_netlink::wireguard::SecretKey;

use super::Backend;
use crate::cluster::family::{Family, PerFamily};
use crate::cluster::json::Json;
use crate::cluster::lease_value::{BackendData, LeaseValue};
use crate::cluster::model::Lease;
use crate::overlay::tunnel::Tunnel;
use crate::overlay::uplink::Uplink;
use crate::serve::document::DeviceStatus;

/// Smallest MTU that pods can live with: that of an IPv6 link (RFC 8200), and what every IPv4 host takes (RFC 791).
const fn smallest_mtu(family: Family) -> u32 {
    match family {
        Family::V4 => 576,
        Family::V6 => 1280,
    }
}

/// What is known of this node.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// The node's subnets.
    pub subnets: &'a PerFamily<IpNetwork>,
    /// The interface under the overlay.
    pub uplink: &'a Uplink,
    /// Addresses to publish instead of the uplink's own.
    pub public_ips: &'a PerFamily<IpAddr>,
    /// What the node has published last.
    pub published: &'a BackendData,
    /// The MACs of the devices that are there already.
    pub existing: &'a PerFamily<MacAddr>,
    /// What to make the MAC of.
    pub identity: Identity<'a>,
    /// The cluster's networks.
    pub cluster: &'a [IpNetwork],
    /// The node's private key, for a back end that needs one.
    pub key: Option<&'a SecretKey>,
}

/// What to make a MAC of.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Identifies the cluster: the prefix in its store.
    pub cluster: &'a str,
    /// The node's name.
    pub node: &'a str,
}

/// What a back end's device for one family is planned from.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The family, outside and inside.
    pub family: Family,
    /// Index of the interface under it.
    pub uplink: u32,
    /// The address of that interface.
    pub source: IpAddr,
    /// Where the other nodes send to.
    pub public_ip: IpAddr,
    /// The device's MTU, in bytes; the pods', too.
    pub mtu: u32,
    /// What the node has published of this back end last.
    pub published: Option<&'a Json>,
    /// The MAC of the device that is there already.
    pub existing: Option<MacAddr>,
    /// What to make a MAC of.
    pub identity: Identity<'a>,
    /// The cluster's networks.
    pub cluster: &'a [IpNetwork],
    /// The node's private key, for a back end that needs one.
    pub key: Option<&'a SecretKey>,
}

/// The device of a back end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// None: packets leave by the uplink as they are.
    None,
    /// A VXLAN device.
    Vxlan(weft_netlink::Vxlan),
    /// A WireGuard device, which has its peers in itself.
    Wireguard(Tunnel),
}

impl Device {
    /// Its name; `None` without one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Vxlan(vxlan) => Some(&vxlan.name),
            Self::Wireguard(tunnel) => Some(&tunnel.link.name),
        }
    }
}

/// One family's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The device.
    pub device: Device,
    /// The address on it: the first of the subnet.
    pub address: IpAddr,
    /// Where the other nodes send to.
    pub public_ip: IpAddr,
    /// The device's MTU, in bytes; the pods', too.
    pub mtu: u32,
}

/// One family's end in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalEnd {
    /// The end.
    pub end: End,
    /// Index of the device; of the uplink, where there is none.
    pub link: u32,
}

/// What is known of this node when a peer is planned.
#[derive(Debug, Clone, Copy)]
pub struct Standpoint<'a> {
    /// The node's end of the family in question.
    pub local: &'a LocalEnd,
    /// Where the other nodes send to, of all families.
    pub public_ips: PerFamily<IpAddr>,
    /// The cluster's networks.
    pub cluster: &'a [IpNetwork],
}

/// One family of a peer.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// The family.
    pub family: Family,
    /// Its subnet.
    pub subnet: IpNetwork,
    /// Where it receives.
    pub public_ip: IpAddr,
    /// What it has published of the back end for this family.
    pub data: Option<&'a Json>,
    /// All that it says, of the other family, too.
    pub lease: &'a Lease,
}

impl End {
    /// The name of the device; `None` without one.
    #[must_use]
    pub fn device_name(&self) -> Option<&str> {
        self.device.name()
    }

    /// The device as `/status` tells it; `None` without one.
    #[must_use]
    pub fn status(&self) -> Option<DeviceStatus> {
        let (port, vni, mac, public_key) = match &self.device {
            Device::None => return None,
            Device::Vxlan(vxlan) => (vxlan.port, Some(vxlan.vni), vxlan.mac.map(|mac| mac.to_string()), None),
            Device::Wireguard(tunnel) => (tunnel.settings.listen_port, None, None, Some(tunnel.public_key.to_string())),
        };
        let name = self.device_name()?.to_owned();
        let (public_ip, address, mtu) = (self.public_ip, self.address, self.mtu);
        Some(DeviceStatus { name, vni, port, mac, public_key, public_ip, address, mtu })
    }
}

/// Plans the ends of all families of the node's subnets.
///
/// # Errors
/// Names what the uplink lacks.
pub fn ends(backend: &dyn Backend, here: &Here<'_>) -> Result<PerFamily<End>, String> {
    let (uplink, local) = (here.uplink, here.uplink.addresses());
    let mut ends = PerFamily::default();
    for (family, subnet) in here.subnets.iter() {
        let Some(&source) = local.get(family) else {
            return Err(format!(
                "{} has no {family} address, and the cluster network has an {family} part",
                uplink.name
            ));
        };
        let outer = backend.underlay_mtu().unwrap_or(uplink.mtu);
        let mtu = outer.saturating_sub(backend.overhead(family));
        let smallest = smallest_mtu(family);
        if mtu < smallest {
            return Err(format!(
                "the MTU {outer} of {} leaves pods {mtu} bytes; {family} needs {smallest}",
                uplink.name
            ));
        }
        let public_ip = here.public_ips.get(family).copied().unwrap_or(source);
        let site = Site {
            family,
            uplink: uplink.index,
            source,
            public_ip,
            mtu,
            published: here.published.data.get(family).filter(|_| here.published.kind == backend.kind().name),
            existing: here.existing.get(family).copied(),
            identity: here.identity,
            cluster: here.cluster,
            key: here.key,
        };
        let end = End { device: backend.device(&site)?, address: subnet.network(), public_ip, mtu };
        ends.set(family, Some(end));
    }
    Ok(ends)
}

/// What the lease is to say.
#[must_use]
pub fn lease_value(backend: &dyn Backend, ends: &PerFamily<End>) -> LeaseValue {
    LeaseValue {
        public_ips: ends.filter_map(|_, end| Some(end.public_ip)),
        backend: BackendData {
            kind: backend.kind().name.to_owned(),
            data: ends.filter_map(|_, end| backend.data(&end.device)),
        },
    }
}

/// What the back ends' tests plan with.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(in super::super) const IDENTITY: Identity<'static> = Identity { cluster: "/coreos.com/network", node: "node1" };

    pub(in super::super) fn site(family: Family) -> Site<'static> {
        let source = match family {
            Family::V4 => "192.0.2.1",
            Family::V6 => "2001:db8::1",
        };
        let source = source.parse().unwrap();
        let (published, existing, cluster, key) = (None, None, &[], None);
        Site {
            family,
            uplink: 2,
            source,
            public_ip: source,
            mtu: 1500,
            published,
            existing,
            identity: IDENTITY,
            cluster,
            key,
        }
    }

    pub(in super::super) fn lease(key: &str, value: &str) -> Lease {
        let value = LeaseValue::parse(value.as_bytes()).unwrap();
        Lease {
            key: key.parse().unwrap(),
            public_ips: value.public_ips,
            backend: value.backend,
            node: None,
            create_revision: 1,
        }
    }

    pub(in super::super) fn peer(lease: &Lease, family: Family) -> Peer<'_> {
        Peer {
            family,
            subnet: *lease.key.subnets().get(family).unwrap(),
            public_ip: *lease.public_ips.get(family).unwrap(),
            data: lease.backend.data.get(family),
            lease,
        }
    }

    pub(in super::super) fn standpoint(local: &LocalEnd) -> Standpoint<'_> {
        Standpoint { local, public_ips: PerFamily::default(), cluster: &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HostGw, Vxlan};
    use super::*;

    fn uplink() -> Uplink {
        Uplink {
            index: 2,
            name: "eth0".into(),
            mtu: 1500,
            up: true,
            v4: Some("192.0.2.1".parse().unwrap()),
            v6: Some("2001:db8::1".parse().unwrap()),
            because: String::new(),
        }
    }

    fn plan(backend: &dyn Backend, uplink: &Uplink) -> Result<PerFamily<End>, String> {
        let subnets =
            PerFamily { v4: Some("10.244.1.0/24".parse().unwrap()), v6: Some("fd00:10:244:1::/64".parse().unwrap()) };
        let here = Here {
            subnets: &subnets,
            uplink,
            public_ips: &PerFamily::default(),
            published: &BackendData::default(),
            existing: &PerFamily::default(),
            identity: testing::IDENTITY,
            cluster: &[],
            key: None,
        };
        ends(backend, &here)
    }

    #[test]
    fn an_mtu_that_is_too_small_is_named() {
        let uplink = Uplink { mtu: 1300, ..uplink() };
        let error = plan(&Vxlan::default(), &uplink).unwrap_err();
        assert_eq!(error, "the MTU 1300 of eth0 leaves pods 1230 bytes; IPv6 needs 1280");
        assert!(plan(&HostGw, &uplink).is_ok(), "it adds nothing to a packet");
    }

    #[test]
    fn a_family_that_the_uplink_lacks_is_named() {
        let error = plan(&Vxlan::default(), &Uplink { v6: None, ..uplink() }).unwrap_err();
        assert_eq!(error, "eth0 has no IPv6 address, and the cluster network has an IPv6 part");
    }

    #[test]
    fn the_lease_says_the_kind_and_what_each_device_needs_to_be_told() {
        let vxlan = Vxlan::default();
        let said = lease_value(&vxlan, &plan(&vxlan, &uplink()).unwrap());
        assert_eq!(said.backend.kind, "vxlan");
        assert!(said.backend.data.values().all(|data| data.to_string().contains("VtepMAC")));
        let said = lease_value(&HostGw, &plan(&HostGw, &uplink()).unwrap());
        assert_eq!(said.to_json(), r#"{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"host-gw"}"#);
    }
}
