//! Plans this node's end of the overlay: one VXLAN device for each family, and what the lease says about them.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_netlink::{MacAddr, Vxlan};

use crate::cluster::family::{Family, PerFamily};
use crate::cluster::lease_value::{BackendData, LeaseValue, VxlanData};
use crate::cluster::netconf;
use crate::overlay::device;
use crate::overlay::mac::vtep_mac;
use crate::overlay::uplink::Uplink;
use crate::serve::document::DeviceStatus;

/// Smallest MTU that pods can live with: that of an IPv6 link (RFC 8200), and what every IPv4 host takes (RFC 791).
const fn smallest_mtu(family: Family) -> u32 {
    match family {
        Family::V4 => 576,
        Family::V6 => 1280,
    }
}

/// One family's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vtep {
    /// The device.
    pub(super) device: Vxlan,
    /// The address on it: the first of the subnet.
    pub(super) address: IpAddr,
    /// Where the other nodes send to.
    pub(super) public_ip: IpAddr,
    /// The device's MAC, which the lease publishes.
    pub(super) mac: MacAddr,
}

impl Vtep {
    /// The device as `/status` tells it.
    pub(super) fn status(&self) -> DeviceStatus {
        DeviceStatus {
            name: self.device.name.clone(),
            vni: self.device.vni,
            port: self.device.port,
            mac: self.mac.to_string(),
            public_ip: self.public_ip,
            address: self.address,
            mtu: self.device.mtu.unwrap_or_default(),
        }
    }
}

/// What to make the MAC of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity<'a> {
    /// Identifies the cluster: the prefix in its store.
    pub(super) cluster: &'a str,
    /// The node's name.
    pub(super) node: &'a str,
}

/// Plans the ends of all families of the node's subnets.
///
/// `public_ips` are those to publish instead of the uplink's own addresses. A device keeps the MAC that the node has
/// published, as every peer has it; failing that, the one it has; failing that, the one that its name gives.
///
/// # Errors
/// Names what the uplink lacks.
pub(super) fn plan(
    subnets: &PerFamily<IpNetwork>,
    settings: &netconf::Vxlan,
    uplink: &Uplink,
    public_ips: &PerFamily<IpAddr>,
    published: &BackendData,
    existing: &PerFamily<MacAddr>,
    identity: Identity<'_>,
) -> Result<PerFamily<Vtep>, String> {
    let local = uplink.addresses();
    let mut vteps = PerFamily::default();
    for (family, subnet) in subnets.iter() {
        let Some(&source) = local.get(family) else {
            return Err(format!(
                "{} has no {family} address, and the cluster network has an {family} part",
                uplink.name
            ));
        };
        let outer = settings.mtu.unwrap_or(uplink.mtu);
        let mtu = outer.saturating_sub(netconf::overhead(family));
        let smallest = smallest_mtu(family);
        if mtu < smallest {
            return Err(format!(
                "the MTU {outer} of {} leaves pods {mtu} bytes; {family} needs {smallest}",
                uplink.name
            ));
        }
        let said = match published {
            BackendData::Vxlan(data) => data.get(family).map(|data| data.vtep_mac),
            BackendData::None | BackendData::Other(_) => None,
        };
        let mac = said
            .or_else(|| existing.get(family).copied())
            .unwrap_or_else(|| vtep_mac(identity.cluster, identity.node, family));
        let device = Vxlan {
            name: device::name(family, settings.vni),
            mac: Some(mac),
            mtu: Some(mtu),
            vni: settings.vni,
            port: settings.port,
            underlay: Some(uplink.index),
            local: Some(source),
            learning: settings.learning,
            gbp: settings.gbp,
            up: true,
        };
        let public_ip = public_ips.get(family).copied().unwrap_or(source);
        vteps.set(family, Some(Vtep { device, address: subnet.network(), public_ip, mac }));
    }
    Ok(vteps)
}

/// What the lease is to say.
pub(super) fn lease_value(vteps: &PerFamily<Vtep>) -> LeaseValue {
    LeaseValue {
        public_ips: vteps.filter_map(|_, vtep| Some(vtep.public_ip)),
        backend: BackendData::Vxlan(
            vteps.filter_map(|_, vtep| Some(VxlanData { vni: Some(vtep.device.vni), vtep_mac: vtep.mac })),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity<'_> = Identity { cluster: "/coreos.com/network", node: "node1" };

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

    fn both() -> PerFamily<IpNetwork> {
        PerFamily { v4: Some("10.244.1.0/24".parse().unwrap()), v6: Some("fd00:10:244:1::/64".parse().unwrap()) }
    }

    fn planned(published: &BackendData, existing: &PerFamily<MacAddr>) -> PerFamily<Vtep> {
        let settings = netconf::Vxlan::default();
        plan(&both(), &settings, &uplink(), &PerFamily::default(), published, existing, IDENTITY).unwrap()
    }

    #[test]
    fn one_device_a_family_each_with_its_overhead() {
        let vteps = planned(&BackendData::None, &PerFamily::default());
        let (v4, v6) = (vteps.v4.as_ref().unwrap(), vteps.v6.as_ref().unwrap());
        assert_eq!((v4.device.name.as_str(), v4.device.mtu), ("flannel.1", Some(1450)));
        assert_eq!((v6.device.name.as_str(), v6.device.mtu), ("flannel-v6.1", Some(1430)));
        assert_eq!(v4.address.to_string(), "10.244.1.0");
    }

    #[test]
    fn the_published_mac_then_the_devices_then_the_names() {
        let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
        let said = BackendData::Vxlan(PerFamily { v4: Some(VxlanData { vni: Some(1), vtep_mac: mac(1) }), v6: None });
        let had = PerFamily { v4: Some(mac(2)), v6: Some(mac(3)) };
        let vteps = planned(&said, &had);
        assert_eq!(vteps.v4.unwrap().mac, mac(1));
        assert_eq!(vteps.v6.unwrap().mac, mac(3));
        let vteps = planned(&BackendData::None, &PerFamily::default());
        assert_eq!(vteps.v4.unwrap().mac, vtep_mac("/coreos.com/network", "node1", Family::V4));
    }

    #[test]
    fn an_mtu_that_is_too_small_is_named() {
        let uplink = Uplink { mtu: 1300, ..uplink() };
        let (settings, none) = (netconf::Vxlan::default(), PerFamily::default());
        let error =
            plan(&both(), &settings, &uplink, &none, &BackendData::None, &PerFamily::default(), IDENTITY).unwrap_err();
        assert_eq!(error, "the MTU 1300 of eth0 leaves pods 1230 bytes; IPv6 needs 1280");
    }

    #[test]
    fn a_family_that_the_uplink_lacks_is_named() {
        let uplink = Uplink { v6: None, ..uplink() };
        let settings = netconf::Vxlan::default();
        let none = PerFamily::default();
        let error =
            plan(&both(), &settings, &uplink, &none, &BackendData::None, &PerFamily::default(), IDENTITY).unwrap_err();
        assert_eq!(error, "eth0 has no IPv6 address, and the cluster network has an IPv6 part");
    }
}
