//! The interface that carries the overlay's outer packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_netlink::{AddressInfo, Error, Link, Route, RouteKind, RouteSocket};

use crate::cluster::family::{Family, PerFamily};

/// How the interface is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UplinkSpec {
    /// Names or addresses of interfaces, the first that matches; empty for the one with the default route.
    pub interfaces: Vec<String>,
    /// Addresses to publish instead of the interface's own.
    pub public_ips: PerFamily<IpAddr>,
}

/// The chosen interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// The IPv4 address on it that the overlay uses.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address on it that the overlay uses.
    pub v6: Option<Ipv6Addr>,
    /// Whether it is set up.
    pub up: bool,
    /// Why it was chosen, for the log and for `/readyz`.
    pub because: String,
}

impl Uplink {
    /// The addresses on it.
    #[must_use]
    pub fn addresses(&self) -> PerFamily<IpAddr> {
        PerFamily { v4: self.v4.map(IpAddr::V4), v6: self.v6.map(IpAddr::V6) }
    }
}

/// Why no interface was chosen.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The kernel cannot be asked.
    #[error(transparent)]
    Kernel(#[from] Error),
    /// Nothing matches.
    #[error("{reason}; candidates are: {candidates}. Name the interface with --iface")]
    NoMatch {
        /// What was looked for.
        reason: String,
        /// What there is.
        candidates: String,
    },
}

/// What the kernel says of this machine's interfaces.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Its links.
    pub links: Vec<Link>,
    /// Its addresses.
    pub addresses: Vec<AddressInfo>,
    /// Its default routes, those of the main table.
    pub routes: Vec<Route>,
}

/// Chooses the interface on this machine.
///
/// # Errors
/// [`UplinkError::NoMatch`] lists the candidates.
pub fn select(socket: &mut RouteSocket, spec: &UplinkSpec) -> Result<Uplink, UplinkError> {
    let routes = socket.default_routes()?;
    choose(&Machine { links: socket.links()?, addresses: socket.addresses(None)?, routes }, spec)
}

/// Chooses among the interfaces of a machine.
///
/// # Errors
/// [`UplinkError::NoMatch`] lists the candidates.
pub fn choose(machine: &Machine, spec: &UplinkSpec) -> Result<Uplink, UplinkError> {
    let no_match = |reason: String| UplinkError::NoMatch { reason, candidates: candidates(machine) };
    if !spec.interfaces.is_empty() {
        return spec.interfaces.iter().find_map(|text| named(machine, text)).ok_or_else(|| {
            no_match(format!("no usable interface is called, or owns, {}", spec.interfaces.join(" or ")))
        });
    }
    for public_ip in spec.public_ips.values() {
        if let Some(link) = owner(machine, *public_ip) {
            return usable(machine, link, Some(*public_ip), format!("owns the public address {public_ip}"))
                .ok_or_else(|| no_match(format!("{} owns {public_ip} and has no MTU", link.name)));
        }
    }
    // The better metric wins, as for the packets themselves; IPv4 first where a machine has both.
    let default = Family::ALL.into_iter().find_map(|family| {
        machine
            .routes
            .iter()
            .filter(|route| route.kind == RouteKind::Unicast && route.dst.prefix() == 0)
            .filter(|route| Family::of(route.dst.ip()) == family)
            .min_by_key(|route| route.priority.unwrap_or_default())
            .and_then(|route| machine.links.iter().find(|link| Some(link.index) == route.next_hop.link))
    });
    default
        .and_then(|link| usable(machine, link, None, "has the default route".into()))
        .ok_or_else(|| no_match("no interface has a default route".into()))
}

fn named(machine: &Machine, text: &str) -> Option<Uplink> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return usable(machine, owner(machine, ip)?, Some(ip), format!("owns {ip}, as --iface asks"));
    }
    let link = machine.links.iter().find(|link| link.name == text)?;
    usable(machine, link, None, "is named by --iface".into())
}

fn owner(machine: &Machine, ip: IpAddr) -> Option<&Link> {
    let address = machine.addresses.iter().find(|address| address.network.ip() == ip)?;
    machine.links.iter().find(|link| link.index == address.link)
}

/// `None` for an interface that has no address of any family, or no MTU.
fn usable(machine: &Machine, link: &Link, preferred: Option<IpAddr>, because: String) -> Option<Uplink> {
    let mut addresses: PerFamily<IpAddr> = PerFamily::default();
    for family in Family::ALL {
        let fixed = preferred.filter(|ip| Family::of(*ip) == family);
        addresses.set(family, fixed.or_else(|| best_address(machine, link.index, family)));
    }
    if addresses.is_empty() || link.mtu == 0 {
        return None;
    }
    Some(Uplink {
        index: link.index,
        name: link.name.clone(),
        mtu: link.mtu,
        up: link.up,
        v4: addresses.v4.and_then(|ip| if let IpAddr::V4(v4) = ip { Some(v4) } else { None }),
        v6: addresses.v6.and_then(|ip| if let IpAddr::V6(v6) = ip { Some(v6) } else { None }),
        because,
    })
}

/// Global before link-local, permanent before learned, stable before temporary; never deprecated or tentative ones, and
/// never an IPv6 link-local one, which nobody can send to without knowing by which of his links.
pub(crate) fn best_address(machine: &Machine, link: u32, family: Family) -> Option<IpAddr> {
    machine
        .addresses
        .iter()
        .filter(|address| address.link == link && Family::of(address.network.ip()) == family)
        .filter(|address| !address.deprecated && !address.tentative && !address.dad_failed)
        .filter(|address| address.global || family == Family::V4)
        .max_by_key(|address| (address.global, address.permanent, !address.secondary))
        .map(|address| address.network.ip())
}

fn candidates(machine: &Machine) -> String {
    let words: Vec<String> = machine
        .links
        .iter()
        .filter(|link| !link.loopback)
        .map(|link| {
            let addresses: Vec<String> = machine
                .addresses
                .iter()
                .filter(|address| address.link == link.index && address.global)
                .map(|address| address.network.to_string())
                .collect();
            format!("{} ({})", link.name, if addresses.is_empty() { "no address".into() } else { addresses.join(" ") })
        })
        .collect();
    if words.is_empty() { "none".into() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_netlink::{LinkKind, NextHop};

    fn link(index: u32, name: &str, mtu: u32) -> Link {
        Link {
            index,
            name: name.into(),
            kind: LinkKind::Other(String::new()),
            mac: None,
            mtu,
            up: true,
            running: true,
            operational: true,
            loopback: name == "lo",
            master: None,
            promiscuity: 0,
            alias: None,
            peer_index: None,
            hairpin: None,
            isolated: None,
        }
    }

    fn address(link: u32, network: &str) -> AddressInfo {
        AddressInfo {
            link,
            network: network.parse().unwrap(),
            tentative: false,
            dad_failed: false,
            deprecated: false,
            permanent: true,
            secondary: false,
            global: !network.starts_with("fe80"),
        }
    }

    fn default_route(link: u32, priority: u32) -> Route {
        Route {
            next_hop: NextHop { link: Some(link), gateway: Some("192.0.2.254".parse().unwrap()), onlink: false },
            priority: Some(priority),
            ..Route::new("0.0.0.0/0".parse().unwrap(), 3)
        }
    }

    fn machine() -> Machine {
        Machine {
            links: vec![link(1, "lo", 65536), link(2, "eth0", 1500), link(3, "eth1", 9000)],
            addresses: vec![
                address(2, "10.0.2.15/24"),
                address(3, "192.0.2.7/24"),
                address(3, "fe80::7/64"),
                address(3, "2001:db8::7/64"),
            ],
            routes: vec![default_route(2, 100), default_route(3, 50)],
        }
    }

    fn spec(interfaces: &[&str]) -> UplinkSpec {
        UplinkSpec { interfaces: interfaces.iter().map(ToString::to_string).collect(), ..UplinkSpec::default() }
    }

    #[test]
    fn without_a_word_the_default_route_decides() {
        let uplink = choose(&machine(), &UplinkSpec::default()).unwrap();
        assert_eq!((uplink.name.as_str(), uplink.mtu), ("eth1", 9000));
        assert_eq!(uplink.v6, Some("2001:db8::7".parse().unwrap()), "global before link-local");
    }

    #[test]
    fn b15_the_first_interface_that_is_there() {
        assert_eq!(choose(&machine(), &spec(&["nope", "eth0", "eth1"])).unwrap().name, "eth0");
        assert_eq!(choose(&machine(), &spec(&["192.0.2.7"])).unwrap().name, "eth1");
    }

    #[test]
    fn b18_nothing_that_matches_lists_the_candidates() {
        let error = choose(&machine(), &spec(&["nope"])).unwrap_err().to_string();
        assert!(error.contains("nope") && error.contains("eth1 (192.0.2.7/24 2001:db8::7/64)"), "{error}");
        assert!(!error.contains("lo ("), "{error}");
    }

    #[test]
    fn b19_a_deprecated_address_is_not_published() {
        let mut machine = machine();
        machine.addresses.insert(0, AddressInfo { deprecated: true, ..address(3, "2001:db8::1/64") });
        machine.addresses.insert(0, AddressInfo { secondary: true, ..address(3, "2001:db8::2/64") });
        assert_eq!(choose(&machine, &spec(&["eth1"])).unwrap().v6, Some("2001:db8::7".parse().unwrap()));
    }
}
