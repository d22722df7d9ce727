//! Plans the bridge on which the node's pods are.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_cni::formats::conflist::BRIDGE_ALIAS;
use weft_netlink::{
    Address, AddressInfo, Bridge, Link, LinkChange, LinkKind, MacAddr, NextHop, Request, Route, RouteScope, Verb,
};

/// `rtm_protocol` of the routes that the kernel makes with addresses (`RTPROT_KERNEL`, linux/rtnetlink.h).
const RTPROT_KERNEL: u8 = 2;
/// Metric that the kernel gives them in IPv6 (`IP6_RT_PRIO_ADDRCONF`, net/ip6_route.h).
const IP6_RT_PRIO_ADDRCONF: u32 = 256;

/// The bridge that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedBridge {
    /// Its name.
    pub name: String,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// The pods' gateways with the prefix length of their subnets.
    pub gateways: Vec<IpNetwork>,
}

impl WantedBridge {
    /// The requests that create it: it has an address of its own from the start, so that it neither follows its ports
    /// nor is given another by udev.
    #[must_use]
    pub fn create(&self) -> Vec<Request> {
        let mac = self.gateways.iter().find_map(|gateway| match gateway.ip() {
            IpAddr::V4(v4) => Some(MacAddr::for_ipv4(v4)),
            IpAddr::V6(_) => None,
        });
        vec![
            Bridge { name: self.name.clone(), mac, mtu: Some(self.mtu), up: true }.create(),
            LinkChange::new(self.name.as_str()).alias(BRIDGE_ALIAS).request(),
        ]
    }

    /// The requests that mend the bridge that is there.
    ///
    /// # Errors
    /// A link of that name that is no bridge, in words for the operator.
    pub fn mend(&self, found: &Link) -> Result<Vec<Request>, String> {
        if found.kind != LinkKind::Bridge {
            return Err(format!("{} is there and is no bridge; weft needs that name for its pods", self.name));
        }
        let mut change = LinkChange::new(found.index);
        if found.mtu != self.mtu {
            change = change.mtu(self.mtu);
        }
        if !found.up {
            change = change.up();
        }
        let right = found.mtu == self.mtu && found.up;
        Ok(if right { Vec::new() } else { vec![change.request()] })
    }

    /// The requests that leave the bridge with the gateways' addresses and no other of the cluster's.
    #[must_use]
    pub fn addresses(&self, link: u32, cluster: &[IpNetwork], found: &[AddressInfo]) -> Vec<Request> {
        let missing = self.gateways.iter().filter(|gateway| !found.iter().any(|found| found.network == **gateway));
        let stale = found.iter().map(|found| found.network).filter(|network| {
            !self.gateways.contains(network) && cluster.iter().any(|cluster| cluster.contains(network.ip()))
        });
        missing
            .map(|gateway| Address::new(link, *gateway).request(Verb::Replace))
            .chain(stale.map(|network| Address::new(link, network).request(Verb::Delete)))
            .collect()
    }

    /// The requests that bring back the routes to the node's own pods. The kernel makes them with the gateways' addresses,
    /// and does not make them again when a flush takes them away.
    #[must_use]
    pub fn routes(&self, link: u32, found: &[Route]) -> Vec<Request> {
        let route = |gateway: &IpNetwork| {
            let subnet = IpNetwork::new(gateway.network(), gateway.prefix()).unwrap_or(*gateway);
            let v4 = gateway.is_ipv4();
            Route {
                next_hop: NextHop { link: Some(link), ..NextHop::default() },
                scope: if v4 { RouteScope::Link } else { RouteScope::Universe },
                src: v4.then(|| gateway.ip()),
                priority: (!v4).then_some(IP6_RT_PRIO_ADDRCONF),
                ..Route::new(subnet, RTPROT_KERNEL)
            }
        };
        let missing = self.gateways.iter().map(route).filter(|route| !found.iter().any(|found| found.dst == route.dst));
        missing.map(|route| route.request(Verb::Create)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge() -> WantedBridge {
        let gateways = ["10.244.1.1/24", "fd00:10:244:1::1/64"].map(|gateway| gateway.parse().unwrap()).to_vec();
        WantedBridge { name: "cni0".into(), mtu: 1450, gateways }
    }

    fn info(network: &str) -> AddressInfo {
        AddressInfo {
            link: 5,
            network: network.parse().unwrap(),
            tentative: false,
            dad_failed: false,
            deprecated: false,
            permanent: true,
            secondary: false,
            global: true,
        }
    }

    #[test]
    fn the_addresses_of_an_old_life_go_and_foreign_ones_stay() {
        let cluster = ["10.244.0.0/16".parse().unwrap(), "fd00:10:244::/48".parse().unwrap()];
        let found = [info("10.244.9.1/24"), info("10.244.1.1/24"), info("192.0.2.1/24"), info("fe80::1/64")];
        let requests = bridge().addresses(5, &cluster, &found);
        let words: Vec<&str> = requests.iter().map(Request::operation).collect();
        assert_eq!(words, ["set address fd00:10:244:1::1/64 on link 5", "delete address 10.244.9.1/24 on link 5"]);
    }
}
