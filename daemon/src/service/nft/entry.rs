//! Elements as values of ours, and how the kernel writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use weft_netlink::nft::{Element, ElementData, Value, Verdict};

use super::class::Class;
use super::layout::{Entrance, SetId, nfproto};
use crate::cluster::Family;
use crate::cluster::services::Protocol;
use crate::service::model::{Backend, FrontendKey};

/// Where a backend listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Endpoint {
    /// Its address.
    pub(super) address: IpAddr,
    /// Its port.
    pub(super) port: u16,
}

impl From<&Backend> for Endpoint {
    fn from(backend: &Backend) -> Self {
        Self { address: backend.address, port: backend.port }
    }
}

/// Which element of which set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    /// [`SetId::ClusterIps`].
    ClusterIp(IpAddr),
    /// [`SetId::Restricted`].
    Restricted(FrontendKey),
    /// [`SetId::Allowed`].
    Allowed(FrontendKey, IpNetwork),
    /// [`SetId::Hairpin`].
    Hairpin(IpAddr),
    /// [`SetId::Backends`] of a family: list and index.
    Backend(Family, u32, u32),
    /// [`SetId::Tagged`] of a family: tag and list.
    Tagged(Family, u32, u32),
    /// [`SetId::Tags`]: list and index.
    Tag(u32, u32),
    /// [`SetId::Sizes`]: a list.
    Size(u32),
    /// [`SetId::NoEndpoints`]: an id.
    NoEndpoints(u32),
    /// [`SetId::Frontends`] or [`SetId::NodePorts`].
    Frontend(FrontendKey),
    /// [`SetId::Blocked`].
    Blocked(FrontendKey),
    /// [`SetId::Doors`].
    Door(FrontendKey),
    /// [`SetId::NodePortIps`].
    NodePortNetwork(IpNetwork),
    /// [`SetId::ServiceCidrs`].
    ServiceCidr(IpNetwork),
    /// [`SetId::Balancers`].
    Balancer(Class),
    /// [`SetId::Entrances`].
    Entrance(u32),
    /// [`SetId::PortEntrances`].
    PortEntrance(u32),
}

/// What a map has for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Datum {
    /// It is a set.
    None,
    /// A number.
    Number(u32),
    /// A class.
    Class(Class),
    /// A backend.
    Endpoint(Endpoint),
    /// The chain that belongs to the key.
    Chain,
    /// Something that weft would not write.
    Foreign,
}

/// An element.
pub(super) type Entry = (Key, Datum);

impl Key {
    /// Whether it is a range of addresses, of which no two in a set may overlap.
    #[must_use]
    pub(super) fn is_range(&self) -> bool {
        matches!(self, Self::Allowed(..) | Self::NodePortNetwork(_) | Self::ServiceCidr(_))
    }

    /// The set that it is of.
    #[must_use]
    pub(super) fn set(&self) -> SetId {
        let of_frontend = |key: &FrontendKey, make: fn(Family) -> SetId| match key {
            FrontendKey::Address { address, .. } => make(Family::of(*address)),
            FrontendKey::NodePort { family, .. } => make(*family),
        };
        match self {
            Self::ClusterIp(address) => SetId::ClusterIps(Family::of(*address)),
            Self::Restricted(key) => of_frontend(key, SetId::Restricted),
            Self::Allowed(key, _) => of_frontend(key, SetId::Allowed),
            Self::Hairpin(address) => SetId::Hairpin(Family::of(*address)),
            Self::Backend(family, ..) => SetId::Backends(*family),
            Self::Tagged(family, ..) => SetId::Tagged(*family),
            Self::Tag(..) => SetId::Tags,
            Self::Size(_) => SetId::Sizes,
            Self::NoEndpoints(_) => SetId::NoEndpoints,
            Self::Frontend(FrontendKey::NodePort { .. }) => SetId::NodePorts,
            Self::Frontend(key) => of_frontend(key, SetId::Frontends),
            Self::Blocked(key) => of_frontend(key, SetId::Blocked),
            Self::Door(key) => of_frontend(key, SetId::Doors),
            Self::NodePortNetwork(network) => SetId::NodePortIps(Family::of(network.ip())),
            Self::ServiceCidr(network) => SetId::ServiceCidrs(Family::of(network.ip())),
            Self::Balancer(_) => SetId::Balancers,
            Self::Entrance(_) => SetId::Entrances,
            Self::PortEntrance(_) => SetId::PortEntrances,
        }
    }

    /// The element as the kernel is given it.
    #[must_use]
    pub(super) fn element(&self, datum: Datum) -> Element {
        let element = match self {
            Self::ClusterIp(address) => Element::new(*address),
            Self::Hairpin(address) => Element::new(Value::from(*address).and(*address)),
            Self::Restricted(key) | Self::Frontend(key) | Self::Blocked(key) | Self::Door(key) => {
                Element::new(frontend(key))
            }
            Self::Allowed(key, network) => {
                let (first, last) = ends(*network);
                Element::range(frontend(key).and(first), frontend(key).and(last))
            }
            Self::Backend(_, first, second) | Self::Tagged(_, first, second) | Self::Tag(first, second) => {
                Element::new(Value::number(*first).and(Value::number(*second)))
            }
            Self::Size(number) | Self::NoEndpoints(number) | Self::Entrance(number) | Self::PortEntrance(number) => {
                Element::new(Value::number(*number))
            }
            Self::NodePortNetwork(network) | Self::ServiceCidr(network) => Element::network(*network),
            Self::Balancer(class) => Element::new(words(*class)),
        };
        match datum {
            Datum::None | Datum::Foreign => element,
            Datum::Number(number) => element.value(Value::number(0).and(Value::number(number))),
            Datum::Class(class) => element.value(Value::number(0).and(words(class))),
            Datum::Endpoint(backend) => element.value(endpoint(backend)),
            Datum::Chain => element.verdict(Verdict::Goto(self.chain().unwrap_or_default().into())),
        }
    }

    /// The chain that a verdict map leads to.
    fn chain(&self) -> Option<String> {
        let entrance = |number: &u32| Entrance::ALL.into_iter().find(|entrance| entrance.number() == *number);
        match self {
            Self::Balancer(class) => Some(class.to_string()),
            Self::Entrance(number) => entrance(number).map(|entrance| entrance.chain().to_owned()),
            Self::PortEntrance(number) => entrance(number).map(|entrance| entrance.port_chain().to_owned()),
            _ => None,
        }
    }
}

fn frontend(key: &FrontendKey) -> Value {
    match key {
        FrontendKey::Address { address, protocol, port } => {
            Value::from(*address).and(Value::byte(protocol.number())).and(Value::port(*port))
        }
        FrontendKey::NodePort { family, protocol, port } => {
            Value::byte(nfproto(*family)).and(Value::byte(protocol.number())).and(Value::port(*port))
        }
    }
}

fn endpoint(endpoint: Endpoint) -> Value {
    Value::from(endpoint.address).and(Value::port(endpoint.port))
}

fn words(class: Class) -> Value {
    let [size, kind] = class.words();
    Value::number(size).and(Value::number(kind))
}

fn ends(network: IpNetwork) -> (IpAddr, IpAddr) {
    match network {
        IpNetwork::V4(v4) => (v4.network().into(), v4.broadcast().into()),
        IpNetwork::V6(v6) => (v6.network().into(), v6.broadcast().into()),
    }
}

/// The element as a value of ours; `None` if weft would write no such key into the set.
#[must_use]
pub(super) fn decode(set: SetId, element: &Element) -> Option<Entry> {
    let mut key = Fields(element.key.as_slice());
    let decoded = match set {
        SetId::ClusterIps(family) => Key::ClusterIp(key.address(family)?),
        SetId::Restricted(family) => Key::Restricted(key.frontend(family)?),
        SetId::Blocked(family) => Key::Blocked(key.frontend(family)?),
        SetId::Doors(family) => Key::Door(key.frontend(family)?),
        SetId::Frontends(family) => Key::Frontend(key.frontend(family)?),
        SetId::Allowed(family) => {
            let end = element.key_end.unwrap_or(element.key);
            let mut end = Fields(end.as_slice());
            let frontend = key.frontend(family)?;
            end.frontend(family).filter(|end| *end == frontend)?;
            Key::Allowed(frontend, network(key.address(family)?, end.address(family)?)?)
        }
        SetId::Hairpin(family) => {
            let address = key.address(family)?;
            Key::Hairpin(key.address(family).filter(|other| *other == address)?)
        }
        SetId::Backends(family) => Key::Backend(family, key.number()?, key.number()?),
        SetId::Tagged(family) => Key::Tagged(family, key.number()?, key.number()?),
        SetId::Tags => Key::Tag(key.number()?, key.number()?),
        SetId::Sizes => Key::Size(key.number()?),
        SetId::NoEndpoints => Key::NoEndpoints(key.number()?),
        SetId::NodePorts => {
            let number = key.byte()?;
            let family = Family::ALL.into_iter().find(|family| nfproto(*family) == number)?;
            Key::Frontend(FrontendKey::NodePort { family, protocol: key.protocol()?, port: key.port()? })
        }
        SetId::NodePortIps(family) | SetId::ServiceCidrs(family) => {
            let end = element.key_end.unwrap_or(element.key);
            let network = network(key.address(family)?, Fields(end.as_slice()).address(family)?)?;
            if matches!(set, SetId::NodePortIps(_)) { Key::NodePortNetwork(network) } else { Key::ServiceCidr(network) }
        }
        SetId::Balancers => Key::Balancer(key.class()?),
        SetId::Entrances => Key::Entrance(key.number()?),
        SetId::PortEntrances => Key::PortEntrance(key.number()?),
        SetId::Affinity(_) => return None,
    };
    Some((decoded, datum(set, decoded, element.data.as_ref())))
}

fn datum(set: SetId, key: Key, data: Option<&ElementData>) -> Datum {
    let read = |value: &Value| {
        let mut data = Fields(value.as_slice());
        match set {
            SetId::Backends(family) | SetId::Tagged(family) => data.endpoint(family).map(Datum::Endpoint),
            SetId::Sizes => data.nothing().and_then(|()| data.class()).map(Datum::Class),
            SetId::Frontends(_) | SetId::NodePorts | SetId::Tags => {
                data.nothing().and_then(|()| data.number()).map(Datum::Number)
            }
            _ => None,
        }
    };
    match data {
        None => Datum::None,
        Some(ElementData::Value(value)) => read(value).unwrap_or(Datum::Foreign),
        Some(ElementData::Verdict(Verdict::Goto(chain))) if Some(&**chain) == key.chain().as_deref() => Datum::Chain,
        Some(ElementData::Verdict(_)) => Datum::Foreign,
    }
}

/// The network from its first to its last address.
fn network(first: IpAddr, last: IpAddr) -> Option<IpNetwork> {
    let (bits, differ) = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (32, u128::from(first.to_bits() ^ last.to_bits())),
        (IpAddr::V6(first), IpAddr::V6(last)) => (128, first.to_bits() ^ last.to_bits()),
        _ => return None,
    };
    let prefix = u8::try_from(bits - (128 - differ.leading_zeros())).ok()?;
    IpNetwork::new(first, prefix).ok().filter(|network| ends(*network) == (first, last))
}

/// The fields of a concatenation, each in whole registers.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let field = *self.0.first_chunk()?;
        self.0 = self.0.get(N.next_multiple_of(4)..).unwrap_or_default();
        Some(field)
    }

    fn address(&mut self, family: Family) -> Option<IpAddr> {
        Some(match family {
            Family::V4 => Ipv4Addr::from(self.take::<4>()?).into(),
            Family::V6 => Ipv6Addr::from(self.take::<16>()?).into(),
        })
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn protocol(&mut self) -> Option<Protocol> {
        let number = self.byte()?;
        Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)
    }

    fn port(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    /// The word that is nobody's.
    fn nothing(&mut self) -> Option<()> {
        self.number().filter(|number| *number == 0).map(|_| ())
    }

    fn class(&mut self) -> Option<Class> {
        Some(Class::from_words([self.number()?, self.number()?]))
    }

    fn endpoint(&mut self, family: Family) -> Option<Endpoint> {
        Some(Endpoint { address: self.address(family)?, port: self.port()? })
    }

    fn frontend(&mut self, family: Family) -> Option<FrontendKey> {
        let (address, protocol, port) = (self.address(family)?, self.protocol()?, self.port()?);
        Some(FrontendKey::Address { address, protocol, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_read_back_as_it_was_written() {
        let addresses: [(IpAddr, IpNetwork); 2] = [
            ("10.96.0.1".parse().unwrap(), "192.0.2.0/25".parse().unwrap()),
            ("fd00::1".parse().unwrap(), "2001:db8::/32".parse().unwrap()),
        ];
        for (address, network) in addresses {
            let family = Family::of(address);
            let at = FrontendKey::Address { address, protocol: Protocol::Sctp, port: 80 };
            let node_port = FrontendKey::NodePort { family, protocol: Protocol::Udp, port: 30_001 };
            let backend = Endpoint { address, port: 8080 };
            let class = Class { family, local: true, size: 7, affinity: Some(10_800) };
            let entries = [
                (Key::ClusterIp(address), Datum::None),
                (Key::Restricted(at), Datum::None),
                (Key::Allowed(at, network), Datum::None),
                (Key::Allowed(at, address.into()), Datum::None),
                (Key::Hairpin(address), Datum::None),
                (Key::Backend(family, 9, 3), Datum::Endpoint(backend)),
                (Key::Tagged(family, 9, 3), Datum::Endpoint(backend)),
                (Key::Tag(9, 3), Datum::Number(5)),
                (Key::Size(9), Datum::Class(class)),
                (Key::NoEndpoints(8), Datum::None),
                (Key::Frontend(at), Datum::Number(10)),
                (Key::Frontend(node_port), Datum::Number(11)),
                (Key::Blocked(at), Datum::None),
                (Key::Door(at), Datum::None),
                (Key::NodePortNetwork(network), Datum::None),
                (Key::ServiceCidr(address.into()), Datum::None),
                (Key::Balancer(class), Datum::Chain),
                (Key::Entrance(3), Datum::Chain),
                (Key::PortEntrance(0), Datum::Chain),
            ];
            for (key, datum) in entries {
                assert_eq!(decode(key.set(), &key.element(datum)), Some((key, datum)));
            }
        }
    }

    #[test]
    fn what_weft_would_not_write_is_told_apart() {
        let set = SetId::ServiceCidrs(Family::V4);
        let (first, last): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        assert_eq!(decode(set, &Element::range(first, last)), None, "no network");
        let icmp = Value::from(first).and(Value::byte(1)).and(Value::port(1));
        assert_eq!(decode(SetId::Frontends(Family::V4), &Element::new(icmp)), None, "no protocol of ours");
        let key = Key::Entrance(1);
        let element = Element::new(Value::number(1)).verdict(Verdict::Drop);
        assert_eq!(decode(SetId::Entrances, &element), Some((key, Datum::Foreign)));
    }
}
