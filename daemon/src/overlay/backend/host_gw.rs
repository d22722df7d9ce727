//! `host-gw`: plain routes between nodes that share a link, and no device at all.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Backend, Device, Kind, Peer, Site, Standpoint};
use crate::cluster::family::Family;
use crate::overlay::peers::{PeerObject, direct_route};

/// Its name in configurations and leases, and what reads it.
pub(super) const KIND: Kind = Kind { name: "host-gw", keys: &[], parse: |_| Ok(Arc::new(HostGw)), check: |_| Ok(()) };

/// The `host-gw` back end, which has no options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostGw;

impl Backend for HostGw {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn options(&self) -> Map<String, Value> {
        Map::new()
    }

    fn overhead(&self, _outer: Family) -> u32 {
        0
    }

    fn device_name(&self, _family: Family) -> Option<String> {
        None
    }

    fn device(&self, site: &Site<'_>) -> Result<Device, String> {
        // Behind address translation nobody could take this node for his gateway.
        if site.public_ip != site.source {
            return Err(format!(
                "the public address {} is not the interface's own, {}: with host-gw the other nodes must reach it without \
                 a router in between",
                site.public_ip, site.source
            ));
        }
        Ok(Device::None)
    }

    fn reach(&self, from: &Standpoint<'_>, peer: &Peer<'_>) -> Result<Vec<PeerObject>, String> {
        Ok(vec![direct_route(peer.subnet, peer.public_ip, from.local.link)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::end::testing;
    use super::super::{End, LocalEnd};
    use super::*;

    #[test]
    fn a_peer_is_the_gateway_to_its_own_subnet() {
        let (public_ip, address) = ("192.0.2.1".parse().unwrap(), "10.244.1.0".parse().unwrap());
        let local = LocalEnd { end: End { device: Device::None, address, public_ip, mtu: 1500 }, link: 2 };
        let lease = testing::lease("10.244.2.0-24", r#"{"PublicIP":"192.0.2.2","BackendType":"host-gw"}"#);
        let objects = HostGw.reach(&testing::standpoint(&local), &testing::peer(&lease, Family::V4)).unwrap();
        let [PeerObject::Route(route)] = objects.as_slice() else { panic!("{objects:?}") };
        assert_eq!(route.to_string(), "route 10.244.2.0/24 via 192.0.2.2 on link 2");
        assert!(!route.next_hop.onlink, "the kernel is to refuse a gateway that is on no link");
    }

    #[test]
    fn a_node_behind_address_translation_is_told_so() {
        let (source, public_ip) = ("10.0.2.15".parse().unwrap(), "203.0.113.9".parse().unwrap());
        let site = Site { source, public_ip, ..testing::site(Family::V4) };
        let error = HostGw.device(&site).unwrap_err();
        assert!(error.contains("203.0.113.9") && error.contains("10.0.2.15"), "{error}");
    }
}
