//! The interface that carries the overlay's outer packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use regex::bytes::{Regex, RegexBuilder};
use weft_netlink::{AddressInfo, Error, Link, Route, RouteKind, RouteSocket};

use crate::cluster::family::{Family, PerFamily};

/// What the names begin with of links that belong to pods' networks, this one's or another's: no node is reached by them.
pub(crate) const OF_PODS: [&str; 7] = ["cni", "flannel", "docker", "veth", "kube-ipvs", "virbr", "weft"];

/// How the interface is chosen. Of the criteria each counts only where those before it match nothing; without any, the default
/// route decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UplinkSpec {
    /// Names or addresses of interfaces, the first that matches.
    pub interfaces: Vec<String>,
    /// Patterns for addresses or names of interfaces, the first that matches; of each the addresses come first.
    pub patterns: Vec<Pattern>,
    /// The interface by which this address is reached.
    pub can_reach: Option<IpAddr>,
    /// Addresses to publish instead of the interface's own.
    pub public_ips: PerFamily<IpAddr>,
}

impl UplinkSpec {
    /// The criteria as they were given; empty if there are none.
    fn words(&self) -> Vec<String> {
        let names = self.interfaces.iter().map(|text| format!("is called, or owns, {text}"));
        let patterns = self.patterns.iter().map(|pattern| format!("matches {}", pattern.0.as_str()));
        names.chain(patterns).chain(self.can_reach.map(|target| format!("leads to {target}"))).collect()
    }
}

/// A regular expression in Go's manner, as flannel's users have written it: letters, digits and words are ASCII's.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    fn matches(&self, text: &str) -> bool {
        self.0.is_match(text.as_bytes())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl FromStr for Pattern {
    type Err = regex::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        RegexBuilder::new(text).unicode(false).build().map(Self)
    }
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
        /// It was asked for, and is not there.
        asked_for: bool,
    },
}

impl UplinkError {
    /// Whether an agent that starts should end: what it was told to use is not there, and to go on would hide that.
    #[must_use]
    pub const fn ends_start(&self) -> bool {
        matches!(self, Self::NoMatch { asked_for: true, .. })
    }
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
    /// The route to the address of [`UplinkSpec::can_reach`].
    pub reach: Option<Route>,
}

/// Chooses the interface on this machine.
///
/// # Errors
/// [`UplinkError::NoMatch`] lists the candidates.
pub fn select(socket: &mut RouteSocket, spec: &UplinkSpec) -> Result<Uplink, UplinkError> {
    let routes = socket.default_routes()?;
    // That there is no way to it is an answer, too.
    let reach = spec.can_reach.and_then(|target| socket.route_to(target).ok());
    choose(&Machine { links: socket.links()?, addresses: socket.addresses(None)?, routes, reach }, spec)
}

/// Chooses among the interfaces of a machine.
///
/// # Errors
/// [`UplinkError::NoMatch`] lists the candidates.
pub fn choose(machine: &Machine, spec: &UplinkSpec) -> Result<Uplink, UplinkError> {
    let no_match = |reason: String| UplinkError::NoMatch { reason, candidates: candidates(machine), asked_for: false };
    let criteria = spec.words();
    if !criteria.is_empty() {
        let found = spec.interfaces.iter().filter_map(|text| named(machine, text));
        let found = found.chain(spec.patterns.iter().filter_map(|pattern| matching(machine, pattern)));
        let found: Vec<Choice<'_>> = found.chain(spec.can_reach.and_then(|to| reaching(machine, to))).collect();
        let usable = |choice: &Choice<'_>| usable(machine, choice.link, choice.address, choice.because.clone());
        return found.iter().find_map(usable).ok_or_else(|| match found.first() {
            // At boot an address may come later than the interface.
            Some(choice) => no_match(format!("{} {} and has no address yet", choice.link.name, choice.because)),
            None => UplinkError::NoMatch {
                reason: format!("no interface {}", criteria.join(", or ")),
                candidates: candidates(machine),
                asked_for: true,
            },
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
            .and_then(|route| {
                let link = machine.links.iter().find(|link| Some(link.index) == route.next_hop.link)?;
                // Whoever made the route knows which address is the machine's own.
                let own = |ip: &IpAddr| machine.addresses.iter().any(|a| a.link == link.index && a.network.ip() == *ip);
                Some((link, route.src.filter(own)))
            })
    });
    default
        .and_then(|(link, own)| usable(machine, link, own, "has the default route".into()))
        .ok_or_else(|| no_match("no interface has a default route".into()))
}

/// An interface that meets a criterion.
struct Choice<'a> {
    link: &'a Link,
    /// The address by which it does.
    address: Option<IpAddr>,
    because: String,
}

fn named<'a>(machine: &'a Machine, text: &str) -> Option<Choice<'a>> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        let because = format!("owns {ip}, as --iface asks");
        return owner(machine, ip).map(|link| Choice { link, address: Some(ip), because });
    }
    let link = machine.links.iter().find(|link| link.name == text)?;
    Some(Choice { link, address: None, because: "is named by --iface".into() })
}

fn matching<'a>(machine: &'a Machine, pattern: &Pattern) -> Option<Choice<'a>> {
    let because = || format!("matches {} of --iface-regex", pattern.0.as_str());
    let is_of_pods = |link: &Link| OF_PODS.iter().any(|prefix| link.name.starts_with(prefix));
    let links = || machine.links.iter().filter(|link| !link.loopback && !is_of_pods(link));
    let by_address = links().find_map(|link| {
        let own = machine.addresses.iter().filter(|address| address.link == link.index);
        let mut own = own.filter(|address| may_serve(address)).map(|address| address.network.ip());
        let address = own.find(|ip| pattern.matches(&ip.to_string()))?;
        Some(Choice { link, address: Some(address), because: because() })
    });
    let by_name = || links().find(|link| pattern.matches(&link.name));
    by_address.or_else(|| by_name().map(|link| Choice { link, address: None, because: because() }))
}

fn reaching(machine: &Machine, target: IpAddr) -> Option<Choice<'_>> {
    let route = machine.reach.as_ref().filter(|route| route.kind == RouteKind::Unicast)?;
    let link = machine.links.iter().find(|link| Some(link.index) == route.next_hop.link)?;
    Some(Choice { link, address: route.src, because: format!("leads to {target}, as --iface-can-reach asks") })
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

/// Global before link-local; never deprecated or tentative ones, and never an IPv6 link-local one, which nobody can send to
/// without knowing by which of his links. Of IPv4 those with a network before floating ones (keepalived's, kube-vip's), which have
/// none, and those from DHCP like all others; of IPv6 permanent before learned, stable before temporary. Of equals the oldest, so
/// that one that comes later changes nothing.
pub(crate) fn best_address(machine: &Machine, link: u32, family: Family) -> Option<IpAddr> {
    let of_family = |address: &&AddressInfo| address.link == link && Family::of(address.network.ip()) == family;
    let usable = machine.addresses.iter().filter(of_family).filter(|address| may_serve(address));
    // The last of equals is taken. The kernel lists the oldest IPv6 address last, and the oldest IPv4 address first.
    let best = match family {
        Family::V4 => {
            usable.rev().max_by_key(|address| (address.global, !address.secondary, address.network.prefix() < 32))
        }
        Family::V6 => usable.max_by_key(|address| (address.global, address.permanent, !address.secondary)),
    };
    best.map(|address| address.network.ip())
}

fn may_serve(address: &AddressInfo) -> bool {
    !address.deprecated
        && !address.tentative
        && !address.dad_failed
        && (address.global || address.network.ip().is_ipv4())
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
            reach: None,
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
    fn d15_the_first_interface_that_is_there() {
        assert_eq!(choose(&machine(), &spec(&["nope", "eth0", "eth1"])).unwrap().name, "eth0");
        assert_eq!(choose(&machine(), &spec(&["192.0.2.7"])).unwrap().name, "eth1");
    }

    #[test]
    fn regular_expressions_count_where_no_name_matches_addresses_before_names() {
        let patterns = |names: &[&str], patterns: &[&str]| UplinkSpec {
            patterns: patterns.iter().map(|text| text.parse().unwrap()).collect(),
            ..spec(names)
        };
        let chosen = |spec: UplinkSpec| choose(&machine(), &spec).unwrap();
        assert_eq!(chosen(patterns(&["nope"], &["^eth\\d$"])).name, "eth0");
        assert_eq!(chosen(patterns(&["eth1"], &["^eth0$"])).name, "eth1");
        let by_address = chosen(patterns(&[], &["nope", r"^192\.0\.", "^eth0$"]));
        assert_eq!((by_address.name.as_str(), by_address.v4), ("eth1", Some("192.0.2.7".parse().unwrap())));
        assert!(by_address.because.contains(r"^192\.0\."), "{}", by_address.because);
        // The loopback interface is no underlay, whatever matches it.
        assert_eq!(chosen(patterns(&[], &["."])).name, "eth0");
        assert!("eth(".parse::<Pattern>().is_err());
    }

    #[test]
    fn d17_the_interface_and_the_source_of_the_route() {
        let mut machine = machine();
        machine.addresses.insert(0, address(2, "10.0.2.16/24"));
        let spec = UplinkSpec { can_reach: Some("192.0.2.200".parse().unwrap()), ..spec(&["nope"]) };
        assert!(choose(&machine, &spec).unwrap_err().ends_start(), "no way to it");
        let next_hop = NextHop { link: Some(2), ..NextHop::default() };
        let route = Route::new("192.0.2.200/32".parse().unwrap(), 0);
        machine.reach = Some(Route { next_hop, src: Some("10.0.2.16".parse().unwrap()), ..route });
        let uplink = choose(&machine, &spec).unwrap();
        assert_eq!((uplink.name.as_str(), uplink.v4), ("eth0", Some("10.0.2.16".parse().unwrap())));
    }

    #[test]
    fn d18_nothing_that_matches_lists_the_candidates() {
        let refused = choose(&machine(), &spec(&["nope"])).unwrap_err();
        assert!(refused.ends_start());
        let error = refused.to_string();
        assert!(error.contains("nope") && error.contains("eth1 (192.0.2.7/24 2001:db8::7/64)"), "{error}");
        assert!(!error.contains("lo ("), "{error}");
        // One that is there and has no address yet is waited for.
        let mut machine = machine();
        machine.links.push(link(4, "eth2", 1500));
        let waits = choose(&machine, &spec(&["eth2"])).unwrap_err();
        assert!(!waits.ends_start() && waits.to_string().contains("eth2"), "{waits}");
    }

    #[test]
    fn d19_a_deprecated_address_is_not_published() {
        let mut machine = machine();
        machine.addresses.insert(0, AddressInfo { deprecated: true, ..address(3, "2001:db8::1/64") });
        machine.addresses.insert(0, AddressInfo { secondary: true, ..address(3, "2001:db8::2/64") });
        assert_eq!(choose(&machine, &spec(&["eth1"])).unwrap().v6, Some("2001:db8::7".parse().unwrap()));
    }

    #[test]
    fn a_floating_address_that_comes_later_changes_nothing() {
        let mut machine = machine();
        let own = choose(&machine, &spec(&["eth1"])).unwrap().v4.unwrap();
        // From DHCP, so it does not last; a virtual address beside it does.
        for address in machine.addresses.iter_mut().filter(|address| address.network.ip() == IpAddr::V4(own)) {
            address.permanent = false;
        }
        for later in ["203.0.113.50/32", "203.0.113.60/24"] {
            machine.addresses.push(address(3, later));
            assert_eq!(choose(&machine, &spec(&["eth1"])).unwrap().v4, Some(own), "{later}");
        }
        // A lease of DHCP that was taken anew comes behind the virtual address.
        machine.addresses.rotate_left(1);
        machine.addresses.retain(|address| address.network.prefix() != 24 || address.network.ip() == IpAddr::V4(own));
        let (vip, kept): (Vec<_>, Vec<_>) = machine.addresses.into_iter().partition(|a| a.network.prefix() == 32);
        machine.addresses = vip.into_iter().chain(kept).collect();
        assert_eq!(choose(&machine, &spec(&["eth1"])).unwrap().v4, Some(own));
    }

    #[test]
    fn no_pattern_chooses_what_belongs_to_pods() {
        let mut machine = machine();
        let bridge = Link { index: 1, name: "cni0".into(), ..machine.links[1].clone() };
        machine.links.insert(0, bridge);
        machine.addresses.insert(0, address(1, "10.244.7.1/24"));
        let spec = UplinkSpec { patterns: vec![r"^10\.244\.".parse().unwrap(), "^cni".parse().unwrap()], ..spec(&[]) };
        assert!(choose(&machine, &spec).is_err());
    }
}
