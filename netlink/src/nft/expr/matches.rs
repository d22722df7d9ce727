//! Phrases that let a packet pass to the next phrase, or not.

use ipnetwork::IpNetwork;

use super::{
    AddressKind, Compare, CtKey, CtState, CtStatus, Direction, Expr, Fib, FibOf, IpVersion, MetaKey, Register, Side,
    Source, load,
};
use crate::nft::Name;
use crate::nft::value::Value;

/// The packet is of this IP version: `meta nfproto ipv4`.
#[must_use]
pub fn nfproto(version: IpVersion) -> Vec<Expr> {
    is(Source::Meta(MetaKey::Nfproto), Value::byte(version.number()))
}

/// The packet is of this IP protocol: `meta l4proto tcp`.
#[must_use]
pub fn l4proto(protocol: u8) -> Vec<Expr> {
    is(Source::protocol(), Value::byte(protocol))
}

/// The packet comes in by this interface; a name that ends in `*` stands for all that begin so.
#[must_use]
pub fn iifname(name: &str) -> Vec<Expr> {
    interface(MetaKey::IifName, Compare::Equal, name)
}

/// The packet comes in by another interface.
#[must_use]
pub fn iifname_not(name: &str) -> Vec<Expr> {
    interface(MetaKey::IifName, Compare::NotEqual, name)
}

/// The packet leaves by this interface; a name that ends in `*` stands for all that begin so.
#[must_use]
pub fn oifname(name: &str) -> Vec<Expr> {
    interface(MetaKey::OifName, Compare::Equal, name)
}

/// The packet leaves by another interface.
#[must_use]
pub fn oifname_not(name: &str) -> Vec<Expr> {
    interface(MetaKey::OifName, Compare::NotEqual, name)
}

fn interface(key: MetaKey, comparison: Compare, name: &str) -> Vec<Expr> {
    // What the kernel is to leave open it is not given to compare.
    let value = name.strip_suffix('*').map_or_else(|| Value::interface(name), |start| Value::bytes(start.as_bytes()));
    compare(Source::Meta(key), comparison, value)
}

/// The packet comes from this network: `ip saddr 10.244.0.0/16`.
#[must_use]
pub fn ip_saddr_in(network: IpNetwork) -> Vec<Expr> {
    in_network(Side::Source, Compare::Equal, network)
}

/// The packet is of the network's IP version, but comes from elsewhere.
#[must_use]
pub fn ip_saddr_not_in(network: IpNetwork) -> Vec<Expr> {
    in_network(Side::Source, Compare::NotEqual, network)
}

/// The packet goes to this network: `ip daddr 10.244.0.0/16`.
#[must_use]
pub fn ip_daddr_in(network: IpNetwork) -> Vec<Expr> {
    in_network(Side::Destination, Compare::Equal, network)
}

/// The packet is of the network's IP version, but goes elsewhere.
#[must_use]
pub fn ip_daddr_not_in(network: IpNetwork) -> Vec<Expr> {
    in_network(Side::Destination, Compare::NotEqual, network)
}

/// The packet comes from this network, in a table of the network's IP version alone: there the version need not be asked
/// for, and iptables, whose tables those are, does not understand the question.
#[must_use]
pub fn saddr_in(network: IpNetwork) -> Vec<Expr> {
    of_network(Side::Source, Compare::Equal, network)
}

/// The packet goes to this network, in a table of the network's IP version alone: see [`saddr_in`].
#[must_use]
pub fn daddr_in(network: IpNetwork) -> Vec<Expr> {
    of_network(Side::Destination, Compare::Equal, network)
}

fn in_network(side: Side, comparison: Compare, network: IpNetwork) -> Vec<Expr> {
    let mut phrase = nfproto(IpVersion::of(network.ip()));
    phrase.extend(of_network(side, comparison, network));
    phrase
}

fn of_network(side: Side, comparison: Compare, network: IpNetwork) -> Vec<Expr> {
    if network.prefix() == 0 && comparison == Compare::Equal {
        return Vec::new();
    }
    let whole = match network {
        IpNetwork::V4(_) => 32,
        IpNetwork::V6(_) => 128,
    };
    let (source, address) = (Source::Address(IpVersion::of(network.ip()), side), Value::from(network.network()));
    if network.prefix() == whole {
        compare(source, comparison, address)
    } else {
        masked(source, network.mask().into(), comparison, address)
    }
}

/// The packet comes from this port, of a protocol that has ports (see [`super::protocol`]).
#[must_use]
pub fn sport(protocol: u8, port: u16) -> Vec<Expr> {
    with_port(protocol, Side::Source, port)
}

/// The packet goes to this port, of a protocol that has ports (see [`super::protocol`]).
#[must_use]
pub fn dport(protocol: u8, port: u16) -> Vec<Expr> {
    with_port(protocol, Side::Destination, port)
}

fn with_port(protocol: u8, side: Side, port: u16) -> Vec<Expr> {
    let mut phrase = l4proto(protocol);
    phrase.extend(is(Source::Port(side), Value::port(port)));
    phrase
}

/// Of the packet's mark, the bits of the mask have this value.
#[must_use]
pub fn mark_is(value: u32, mask: u32) -> Vec<Expr> {
    mark(Source::mark(), value, mask, Compare::Equal)
}

/// Of the packet's mark, the bits of the mask have another value.
#[must_use]
pub fn mark_is_not(value: u32, mask: u32) -> Vec<Expr> {
    mark(Source::mark(), value, mask, Compare::NotEqual)
}

/// Of the connection's mark, the bits of the mask have this value.
#[must_use]
pub fn ct_mark_is(value: u32, mask: u32) -> Vec<Expr> {
    mark(ct(CtKey::Mark), value, mask, Compare::Equal)
}

fn mark(source: Source, value: u32, mask: u32, comparison: Compare) -> Vec<Expr> {
    match mask {
        u32::MAX => compare(source, comparison, Value::number(value)),
        _ => masked(source, Value::number(mask), comparison, Value::number(value)),
    }
}

/// The packet is in one of these states: `ct state established,related`.
#[must_use]
pub fn ct_state(states: CtState) -> Vec<Expr> {
    masked(ct(CtKey::State), Value::number(states.bits()), Compare::NotEqual, Value::number(0))
}

/// The packet is in none of these states.
#[must_use]
pub fn ct_state_not(states: CtState) -> Vec<Expr> {
    masked(ct(CtKey::State), Value::number(states.bits()), Compare::Equal, Value::number(0))
}

/// One of these has happened to the connection: `ct status dnat`.
#[must_use]
pub fn ct_status(status: CtStatus) -> Vec<Expr> {
    masked(ct(CtKey::Status), Value::number(status.bits()), Compare::NotEqual, Value::number(0))
}

/// None of these has happened to the connection.
#[must_use]
pub fn ct_status_not(status: CtStatus) -> Vec<Expr> {
    masked(ct(CtKey::Status), Value::number(status.bits()), Compare::Equal, Value::number(0))
}

/// The packet goes in this direction of its connection.
#[must_use]
pub fn ct_direction(direction: Direction) -> Vec<Expr> {
    is(ct(CtKey::Direction), Value::byte(direction.number()))
}

fn ct(key: CtKey) -> Source {
    Source::Ct { key, direction: None }
}

/// The packet's source is such an address to this machine: `fib saddr type local`.
#[must_use]
pub fn fib_saddr_type(kind: AddressKind) -> Vec<Expr> {
    fib_type(Side::Source, Compare::Equal, kind)
}

/// The packet's destination is such an address to this machine: `fib daddr type local`.
#[must_use]
pub fn fib_daddr_type(kind: AddressKind) -> Vec<Expr> {
    fib_type(Side::Destination, Compare::Equal, kind)
}

/// The packet's destination is another kind of address to this machine.
#[must_use]
pub fn fib_daddr_type_not(kind: AddressKind) -> Vec<Expr> {
    fib_type(Side::Destination, Compare::NotEqual, kind)
}

fn fib_type(side: Side, comparison: Compare, kind: AddressKind) -> Vec<Expr> {
    let source = Source::Fib { of: FibOf { side, mark: false, iif: false }, result: Fib::AddressKind };
    compare(source, comparison, Value::number(kind.number()))
}

/// The key is in the set: `ip saddr . tcp dport @set`.
#[must_use]
pub fn in_set(key: &[Source], set: impl Into<Name>) -> Vec<Expr> {
    lookup(key, set.into(), None, false)
}

/// The key is not in the set. If it holds an address, the packet is of that address's IP version.
#[must_use]
pub fn not_in_set(key: &[Source], set: impl Into<Name>) -> Vec<Expr> {
    lookup(key, set.into(), None, true)
}

/// Asks for the IP version that the key implies, loads the key, and looks it up.
pub(super) fn lookup(key: &[Source], set: Name, data: Option<Register>, inverted: bool) -> Vec<Expr> {
    let mut phrase = guarded(key);
    phrase.push(Expr::Lookup { set, key: Register::FIRST, data, inverted });
    phrase
}

/// Asks for the IP version that the key implies, and loads the key.
pub(super) fn guarded(key: &[Source]) -> Vec<Expr> {
    let mut phrase = key.iter().find_map(|source| source.version()).map(nfproto).unwrap_or_default();
    phrase.extend(load(key));
    phrase
}

/// The source has this value.
#[must_use]
pub fn is(source: Source, value: impl Into<Value>) -> Vec<Expr> {
    compare(source, Compare::Equal, value.into())
}

/// The source has another value.
#[must_use]
pub fn is_not(source: Source, value: impl Into<Value>) -> Vec<Expr> {
    compare(source, Compare::NotEqual, value.into())
}

fn compare(source: Source, comparison: Compare, value: Value) -> Vec<Expr> {
    let register = Register::FIRST;
    vec![Expr::Load { source, register }, Expr::Compare { register, comparison, value }]
}

fn masked(source: Source, mask: Value, comparison: Compare, value: Value) -> Vec<Expr> {
    let register = Register::FIRST;
    let xor = Value::zero(mask.as_slice().len());
    vec![
        Expr::Load { source, register },
        Expr::Bitwise { from: register, to: register, mask, xor },
        Expr::Compare { register, comparison, value },
    ]
}
