//! Routes.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteScope as WireScope, RouteType,
};

use super::address::family;
use super::request::{Request, Verb};

/// What becomes of a packet that takes a route (`RTN_*`, linux/rtnetlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum RouteKind {
    /// It goes to the next hop.
    #[default]
    Unicast,
    /// It is for this machine.
    Local,
    /// It is dropped in silence.
    Blackhole,
    /// It is dropped, and the sender told.
    Unreachable,
    /// Another kind, by its number.
    Other(u8),
}

/// How far away the destination is (`RT_SCOPE_*`, linux/rtnetlink.h). IPv6 has no scopes and reports universe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum RouteScope {
    /// Anywhere (0).
    #[default]
    Universe,
    /// On a link of this machine (253).
    Link,
    /// On this machine (254).
    Host,
    /// Another, by its number.
    Other(u8),
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NextHop {
    /// Index of the link.
    pub link: Option<u32>,
    /// The gateway; on-link if absent.
    pub gateway: Option<IpAddr>,
    /// The gateway is on the link although no prefix says so (`RTNH_F_ONLINK`).
    pub onlink: bool,
}

impl NextHop {
    fn to_wire(self) -> RouteNextHop {
        let mut hop = RouteNextHop::default();
        hop.interface_index = self.link.unwrap_or_default();
        hop.flags.set(RouteNextHopFlags::Onlink, self.onlink);
        hop.attributes.extend(self.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
        hop
    }

    fn from_wire(hop: &RouteNextHop) -> Self {
        let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(address) => ip(address),
            _ => None,
        });
        Self {
            link: (hop.interface_index != 0).then_some(hop.interface_index),
            gateway,
            onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
        }
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Destination, host bits zero; `0.0.0.0/0` or `::/0` for the default route.
    pub dst: IpNetwork,
    /// Where it leads.
    pub next_hop: NextHop,
    /// Further ways of the same cost, among which the kernel spreads connections (ECMP).
    pub further: Vec<NextHop>,
    /// Routing table; [`Route::MAIN`] mostly.
    pub table: u32,
    /// Who put it there (`rtm_protocol`, linux/rtnetlink.h).
    pub protocol: u8,
    /// How far away the destination is.
    pub scope: RouteScope,
    /// What becomes of the packet.
    pub kind: RouteKind,
    /// Source address that the machine prefers for its own packets.
    pub src: Option<IpAddr>,
    /// Priority, the lower the better. IPv6 routes get 1024 from the kernel if there is none.
    pub priority: Option<u32>,
    /// MTU along the route, in bytes.
    pub mtu: Option<u32>,
    /// Largest TCP segment to advertise, in bytes.
    pub advmss: Option<u32>,
}

impl Route {
    /// The main routing table (`RT_TABLE_MAIN`).
    pub const MAIN: u32 = 254;
    /// The table of the machine's own addresses (`RT_TABLE_LOCAL`).
    pub const LOCAL: u32 = 255;

    /// A unicast route in the main table.
    #[must_use]
    pub fn new(dst: IpNetwork, protocol: u8) -> Self {
        Self {
            dst,
            next_hop: NextHop::default(),
            further: Vec::new(),
            table: Self::MAIN,
            protocol,
            scope: RouteScope::Universe,
            kind: RouteKind::Unicast,
            src: None,
            priority: None,
            mtu: None,
            advmss: None,
        }
    }

    /// The request that creates, replaces or deletes it.
    #[must_use]
    pub fn request(&self, verb: Verb) -> Request {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family(self.dst.ip());
        header.destination_prefix_length = self.dst.prefix();
        header.protocol = RouteProtocol::from(self.protocol);
        header.scope = self.scope.to_wire();
        header.kind = self.kind.to_wire();
        if self.next_hop.onlink && self.further.is_empty() {
            header.flags = RouteFlags::Onlink;
        }
        // The header has one byte for the table; the attribute has room for all of them.
        match u8::try_from(self.table) {
            Ok(table) => header.table = table,
            Err(_) => message.attributes.push(RouteAttribute::Table(self.table)),
        }
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Destination(self.dst.network().into()));
        if self.further.is_empty() {
            attributes.extend(self.next_hop.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
            attributes.extend(self.next_hop.link.map(RouteAttribute::Oif));
        } else {
            attributes.push(RouteAttribute::MultiPath(self.next_hops().copied().map(NextHop::to_wire).collect()));
        }
        attributes.extend(self.src.map(|ip| RouteAttribute::PrefSource(ip.into())));
        attributes.extend(self.priority.map(RouteAttribute::Priority));
        let metrics: Vec<_> =
            self.mtu.map(RouteMetric::Mtu).into_iter().chain(self.advmss.map(RouteMetric::Advmss)).collect();
        if !metrics.is_empty() {
            attributes.push(RouteAttribute::Metrics(metrics));
        }
        let operation = format!("{verb} {self}");
        let message = match verb {
            Verb::Delete => RouteNetlinkMessage::DelRoute(message),
            _ => RouteNetlinkMessage::NewRoute(message),
        };
        Request::new(operation, verb.flags(), message)
    }

    /// All ways that it leads.
    pub fn next_hops(&self) -> impl Iterator<Item = &NextHop> {
        std::iter::once(&self.next_hop).chain(&self.further)
    }

    /// `None` for a cached route, and for families other than IP: nothing that weft makes or compares.
    pub(crate) fn from_message(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        if header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let unspecified = match header.address_family {
            netlink_packet_route::AddressFamily::Inet => IpAddr::from([0; 4]),
            netlink_packet_route::AddressFamily::Inet6 => IpAddr::from([0; 16]),
            _ => return None,
        };
        // A default route has no destination attribute.
        let mut route =
            Self::new(IpNetwork::new(unspecified, header.destination_prefix_length).ok()?, u8::from(header.protocol));
        route.table = u32::from(header.table);
        route.scope = RouteScope::from_wire(header.scope);
        route.kind = RouteKind::from_wire(header.kind);
        route.next_hop.onlink = header.flags.contains(RouteFlags::Onlink);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => {
                    route.dst = IpNetwork::new(ip(address)?, header.destination_prefix_length).ok()?;
                }
                RouteAttribute::Gateway(address) => route.next_hop.gateway = ip(address),
                RouteAttribute::Oif(index) => route.next_hop.link = Some(*index),
                RouteAttribute::PrefSource(address) => route.src = ip(address),
                RouteAttribute::Priority(priority) => route.priority = Some(*priority),
                RouteAttribute::Table(table) => route.table = *table,
                RouteAttribute::Metrics(metrics) => {
                    for metric in metrics {
                        match metric {
                            RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
                            RouteMetric::Advmss(advmss) => route.advmss = Some(*advmss),
                            _ => {}
                        }
                    }
                }
                RouteAttribute::MultiPath(hops) => {
                    let mut hops = hops.iter().map(NextHop::from_wire);
                    route.next_hop = hops.next()?;
                    route.further = hops.collect();
                }
                _ => {}
            }
        }
        Some(route)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteKind::Unicast => write!(f, "route {}", self.dst)?,
            kind => write!(f, "{kind:?} route {}", self.dst)?,
        }
        for hop in self.next_hops() {
            if let Some(gateway) = hop.gateway {
                write!(f, " via {gateway}")?;
            }
            if let Some(link) = hop.link {
                write!(f, " on link {link}")?;
            }
        }
        if self.table != Self::MAIN {
            write!(f, " in table {}", self.table)?;
        }
        Ok(())
    }
}

/// Which routes a dump returns. Filtered by the kernel (`NETLINK_GET_STRICT_CHK`).
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteFilter {
    /// Only those through this link.
    pub link: Option<u32>,
    /// Only those of this table; all tables if absent.
    pub table: Option<u32>,
    /// Only those with this `rtm_protocol`.
    pub protocol: Option<u8>,
    /// Only those of this kind.
    pub kind: Option<RouteKind>,
    /// Only one address family: true for IPv6, false for IPv4.
    pub v6: Option<bool>,
}

impl RouteFilter {
    pub(crate) fn message(self) -> RouteMessage {
        let mut message = RouteMessage::default();
        // All zero is "no filter"; the library's own default is not all zero.
        message.header = RouteHeader {
            address_family: match self.v6 {
                None => netlink_packet_route::AddressFamily::Unspec,
                Some(false) => netlink_packet_route::AddressFamily::Inet,
                Some(true) => netlink_packet_route::AddressFamily::Inet6,
            },
            destination_prefix_length: 0,
            source_prefix_length: 0,
            tos: 0,
            table: 0,
            protocol: self.protocol.map_or(RouteProtocol::Unspec, RouteProtocol::from),
            scope: WireScope::Universe,
            kind: self.kind.map_or(RouteType::Unspec, RouteKind::to_wire),
            flags: RouteFlags::empty(),
        };
        message.attributes.extend(self.link.map(RouteAttribute::Oif));
        message.attributes.extend(self.table.map(RouteAttribute::Table));
        message
    }

    /// The same as filters of one family each: a dump over both the kernel does not filter (`rtnl_dump_all`).
    pub(crate) fn by_family(self) -> impl Iterator<Item = Self> {
        let families = self.v6.map_or(vec![false, true], |v6| vec![v6]);
        families.into_iter().map(move |v6| Self { v6: Some(v6), ..self })
    }

    /// Whether a route is one of those asked for: a kernel without one of the families answers with the other.
    pub(crate) fn admits(self, route: &Route) -> bool {
        self.link.is_none_or(|link| route.next_hops().any(|hop| hop.link == Some(link)))
            && self.table.is_none_or(|table| route.table == table)
            && self.protocol.is_none_or(|protocol| route.protocol == protocol)
            && self.kind.is_none_or(|kind| route.kind == kind)
            && self.v6.is_none_or(|v6| route.dst.is_ipv6() == v6)
    }
}

/// A request for the route that a packet to `destination` takes (`ip route get`).
pub(crate) fn lookup(destination: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination);
    message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
    message.attributes.push(RouteAttribute::Destination(destination.into()));
    message
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

impl RouteKind {
    fn to_wire(self) -> RouteType {
        match self {
            Self::Unicast => RouteType::Unicast,
            Self::Local => RouteType::Local,
            Self::Blackhole => RouteType::BlackHole,
            Self::Unreachable => RouteType::Unreachable,
            Self::Other(number) => RouteType::from(number),
        }
    }

    fn from_wire(kind: RouteType) -> Self {
        match kind {
            RouteType::Unicast => Self::Unicast,
            RouteType::Local => Self::Local,
            RouteType::BlackHole => Self::Blackhole,
            RouteType::Unreachable => Self::Unreachable,
            other => Self::Other(u8::from(other)),
        }
    }
}

impl RouteScope {
    fn to_wire(self) -> WireScope {
        match self {
            Self::Universe => WireScope::Universe,
            Self::Link => WireScope::Link,
            Self::Host => WireScope::Host,
            Self::Other(number) => WireScope::from(number),
        }
    }

    fn from_wire(scope: WireScope) -> Self {
        match scope {
            WireScope::Universe => Self::Universe,
            WireScope::Link => Self::Link,
            WireScope::Host => Self::Host,
            other => Self::Other(u8::from(other)),
        }
    }
}
