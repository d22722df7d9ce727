//! What an attachment looks like: addresses of its interfaces, its routes. Pure.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use sha2::{Digest, Sha256};
use weft_netlink::{MacAddr, Route, RouteScope};

use crate::formats::attachment::{AssignedIp, AssignedRoute, Identity};
use crate::protocol::{CniError, Result};

/// On the link, no gateway between (linux/rtnetlink.h).
const RT_SCOPE_LINK: u8 = 253;

/// `rtm_protocol` of the routes that weft makes.
pub const ROUTE_PROTOCOL: u8 = 0x77;

/// What is asked of the routes.
#[derive(Debug, Clone, Copy)]
pub struct RouteWish<'a> {
    /// Routes of the configuration; one without a gateway goes through the gateway of its family.
    pub configured: &'a [AssignedRoute],
    /// Whether there is a default route.
    pub default_gateway: bool,
    /// The cluster's networks.
    pub networks: &'a [IpNetwork],
}

/// The address of the container's interface.
///
/// It follows from an IP address, so that whoever remembers the previous owner of the IP remembers the right address.
#[must_use]
pub fn container_mac(requested: Option<MacAddr>, ips: &[AssignedIp]) -> MacAddr {
    let v4 = ips.iter().find_map(|ip| match ip.address.ip() {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    });
    let v6 = || ips.first().map(|ip| ip.address.ip().to_string()).unwrap_or_default();
    requested.or(v4.map(MacAddr::for_ipv4)).unwrap_or_else(|| hashed(&["container", &v6()]))
}

/// The address of the interface on the host. Explicit, as udev changes random ones under our hands.
#[must_use]
pub fn host_mac(identity: &Identity) -> MacAddr {
    hashed(&["host", &identity.network, &identity.container, &identity.interface])
}

/// The address of a bridge that we make: it follows from the gateway's IP address, so that a bridge that was deleted and
/// made again is still known to its containers.
#[must_use]
pub fn bridge_mac(name: &str, gateways: &[IpNetwork]) -> MacAddr {
    gateways
        .iter()
        .find_map(|gateway| match gateway.ip() {
            IpAddr::V4(v4) => Some(MacAddr::for_ipv4(v4)),
            IpAddr::V6(_) => None,
        })
        .unwrap_or_else(|| hashed(&["bridge", name]))
}

fn hashed(parts: &[&str]) -> MacAddr {
    let digest: [u8; 32] = Sha256::digest(parts.join("\0")).into();
    let [a, b, c, d, e, f, ..] = digest;
    MacAddr::from_hash([a, b, c, d, e, f])
}

/// Which addresses have to be announced to those who remember another owner: those from which the interface's own address
/// does not follow.
#[must_use]
pub fn to_announce(mac: MacAddr, ips: &[AssignedIp]) -> Vec<IpAddr> {
    let follows = |ip: &AssignedIp| container_mac(None, std::slice::from_ref(ip)) == mac;
    ips.iter().filter(|ip| !follows(ip)).map(|ip| ip.address.ip()).collect()
}

/// The addresses that the bridge bears as gateway, each with its subnet's prefix length.
#[must_use]
pub fn gateways(ips: &[AssignedIp]) -> Vec<IpNetwork> {
    ips.iter().filter_map(|ip| IpNetwork::new(ip.gateway?, ip.address.prefix()).ok()).collect()
}

/// The routes of a container with these addresses.
#[must_use]
pub fn routes(wish: RouteWish<'_>, ips: &[AssignedIp]) -> Vec<AssignedRoute> {
    let gateway = |v6: bool| ips.iter().filter(|ip| ip.address.is_ipv6() == v6).find_map(|ip| ip.gateway);
    let via = |dst: IpNetwork, gw| AssignedRoute {
        dst,
        gw,
        mtu: None,
        advmss: None,
        priority: None,
        table: None,
        scope: None,
    };
    let mut routes: Vec<AssignedRoute> = wish
        .configured
        .iter()
        .map(|route| {
            // What is said to be on the link (RT_SCOPE_LINK and nearer) has no gateway, and the kernel takes none.
            let far = route.scope.is_none_or(|scope| scope < RT_SCOPE_LINK);
            let gw = route.gw.or_else(|| far.then(|| gateway(route.dst.is_ipv6())).flatten());
            AssignedRoute { gw, ..route.clone() }
        })
        .collect();
    for v6 in [false, true] {
        let Some(gw) = gateway(v6) else { continue };
        let unspecified = if v6 { IpAddr::from([0; 16]) } else { IpAddr::from([0; 4]) };
        if wish.default_gateway
            && !routes.iter().any(|route| route.dst.prefix() == 0 && route.dst.is_ipv6() == v6 && route.table.is_none())
        {
            routes.push(via(IpNetwork::from(unspecified), Some(gw)).default_route());
        }
        for network in wish.networks.iter().filter(|network| network.is_ipv6() == v6) {
            // What the subnet covers is on the link; the same twice the kernel refuses.
            let own =
                ips.iter().any(|ip| ip.address.contains(network.network()) && ip.address.prefix() <= network.prefix());
            let network = IpNetwork::new(network.network(), network.prefix()).unwrap_or(*network);
            if !own && !routes.iter().any(|route| route.dst == network) {
                routes.push(via(network, Some(gw)));
            }
        }
    }
    routes
}

/// Refuses several ways to one destination that are not of one kind: the kernel has one MTU, one segment size and one scope
/// for all of them.
///
/// # Errors
/// Code 7 naming both.
pub fn check_routes(routes: &[AssignedRoute]) -> Result<()> {
    let place = |route: &AssignedRoute| (route.dst, route.table.unwrap_or(Route::MAIN), route.priority);
    // Scope 0 is what absence means.
    let kind = |route: &AssignedRoute| (route.mtu, route.advmss, route.scope.unwrap_or_default());
    for (index, route) in routes.iter().enumerate() {
        let earlier = routes.iter().take(index);
        if let Some(other) =
            earlier.into_iter().find(|other| place(other) == place(route) && kind(other) != kind(route))
        {
            return Err(CniError::invalid(
                "ipam.routes",
                words(route),
                format!("the same mtu, advmss and scope as {}, or another priority", words(other)),
            ));
        }
    }
    Ok(())
}

fn words(route: &AssignedRoute) -> String {
    let mut words = route.dst.to_string();
    let mut say = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            words.push_str(&format!(" {key} {value}"));
        }
    };
    say("gw", route.gw.map(|gw| gw.to_string()));
    say("mtu", route.mtu.map(|mtu| mtu.to_string()));
    say("advmss", route.advmss.map(|advmss| advmss.to_string()));
    say("scope", route.scope.map(|scope| scope.to_string()));
    words
}

/// The routes with the priorities of those that had to go behind others.
#[must_use]
pub fn moved_behind(routes: &[AssignedRoute], behind: &[Route]) -> Vec<AssignedRoute> {
    let moved = |route: &AssignedRoute| {
        let table = route.table.unwrap_or(Route::MAIN);
        let same = |other: &&Route| other.dst == route.dst && other.table == table && route.priority.is_none();
        let priority = behind.iter().find(same).map_or(route.priority, |other| other.priority);
        AssignedRoute { priority, ..route.clone() }
    };
    routes.iter().map(moved).collect()
}

/// The routes as the kernel takes them, through the link with this index. Several ways to one destination are one route.
#[must_use]
pub fn kernel_routes(routes: &[AssignedRoute], link: u32) -> Vec<Route> {
    let mut merged: Vec<Route> = Vec::with_capacity(routes.len());
    for route in routes.iter().map(|route| route.on_link(link)) {
        let same = |other: &&mut Route| {
            other.dst == route.dst && other.table == route.table && other.priority == route.priority
        };
        match merged.iter_mut().find(same) {
            Some(first) => first.further.push(route.next_hop),
            None => merged.push(route),
        }
    }
    merged
}

impl AssignedRoute {
    /// The same with the destination of a default route.
    fn default_route(mut self) -> Self {
        self.dst = IpNetwork::new(self.dst.ip(), 0).unwrap_or(self.dst);
        self
    }

    /// The route as the kernel takes it, through the link with this index.
    #[must_use]
    pub fn on_link(&self, link: u32) -> Route {
        let mut route = Route::new(self.dst, ROUTE_PROTOCOL);
        route.next_hop.link = Some(link);
        route.next_hop.gateway = self.gw;
        route.table = self.table.unwrap_or(Route::MAIN);
        route.priority = self.priority;
        route.mtu = self.mtu;
        route.advmss = self.advmss;
        route.scope = match self.scope {
            // The kernel wants to be told that there is no gateway.
            None if self.gw.is_none() && self.dst.is_ipv4() => RouteScope::Link,
            None | Some(0) => RouteScope::Universe,
            Some(RT_SCOPE_LINK) => RouteScope::Link,
            Some(254) => RouteScope::Host,
            Some(other) => RouteScope::Other(other),
        };
        route
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(all: &[(&str, &str)]) -> Vec<AssignedIp> {
        let ip = |(address, gateway): &(&str, &str)| AssignedIp {
            address: address.parse().unwrap(),
            gateway: Some(gateway.parse().unwrap()),
        };
        all.iter().map(ip).collect()
    }

    fn text(routes: &[AssignedRoute]) -> Vec<String> {
        routes.iter().map(|route| format!("{} via {}", route.dst, route.gw.unwrap())).collect()
    }

    #[test]
    fn f63_default_and_network_go_through_the_gateway() {
        let ips = ips(&[("10.244.1.2/24", "10.244.1.1"), ("fd00::2/64", "fd00::1")]);
        let networks = ["10.244.0.0/16".parse().unwrap(), "fd00::/48".parse().unwrap()];
        let wish = RouteWish { configured: &[], default_gateway: true, networks: &networks };
        assert_eq!(
            text(&routes(wish, &ips)),
            ["0.0.0.0/0 via 10.244.1.1", "10.244.0.0/16 via 10.244.1.1", "::/0 via fd00::1", "fd00::/48 via fd00::1"]
        );
    }

    #[test]
    fn configured_routes_come_first_and_are_not_doubled() {
        let ips = ips(&[("10.244.1.2/24", "10.244.1.1")]);
        let configured = [AssignedRoute {
            dst: "0.0.0.0/0".parse().unwrap(),
            gw: None,
            mtu: Some(1400),
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }];
        let networks = ["10.244.1.0/24".parse().unwrap()];
        let wish = RouteWish { configured: &configured, default_gateway: true, networks: &networks };
        assert_eq!(text(&routes(wish, &ips)), ["0.0.0.0/0 via 10.244.1.1"]);
    }

    #[test]
    fn several_ways_to_one_destination_are_of_one_kind() {
        let way = |gw: &str, mtu, priority| AssignedRoute {
            dst: "172.16.0.0/16".parse().unwrap(),
            gw: Some(gw.parse().unwrap()),
            mtu,
            advmss: None,
            priority,
            table: None,
            scope: None,
        };
        check_routes(&[way("10.1.0.8", Some(1400), None), way("10.1.0.9", Some(1400), None)]).unwrap();
        check_routes(&[way("10.1.0.8", Some(1400), None), way("10.1.0.9", None, Some(7))]).unwrap();
        let both = [way("10.1.0.8", Some(1400), None), way("10.1.0.9", None, None)];
        let error = check_routes(&both).unwrap_err().to_string();
        assert!(error.contains("10.1.0.8 mtu 1400") && error.contains("10.1.0.9"), "{error}");
        // What was moved shows, what has a priority of its own keeps it.
        let mut behind = both[0].on_link(3);
        behind.priority = Some(1027);
        let applied = moved_behind(&[way("10.1.0.8", None, None), way("10.1.0.8", None, Some(7))], &[behind]);
        assert_eq!(applied.iter().map(|route| route.priority).collect::<Vec<_>>(), [Some(1027), Some(7)]);
    }

    #[test]
    fn addresses_follow_from_ips_unless_asked_for() {
        let dual = ips(&[("10.244.1.2/24", "10.244.1.1"), ("fd00::2/64", "fd00::1")]);
        assert_eq!(container_mac(None, &dual).to_string(), "0a:58:0a:f4:01:02");
        // The IPv6 address of a dual-stack container may have had another interface address before.
        assert_eq!(to_announce(container_mac(None, &dual), &dual), [dual[1].address.ip()]);
        let v6 = ips(&[("fd00::2/64", "fd00::1")]);
        assert!(to_announce(container_mac(None, &v6), &v6).is_empty());
        let requested = "0a:00:00:00:00:01".parse().unwrap();
        assert_eq!(container_mac(Some(requested), &dual), requested);
        assert_eq!(to_announce(requested, &dual).len(), 2);
        assert_eq!(bridge_mac("cni0", &gateways(&dual)).to_string(), "0a:58:0a:f4:01:01");
    }
}
