//! What can be loaded into a register: meta data, headers, conntrack, the routing table, numbers.

use std::ops::BitOr;

use super::Register;
use crate::IpVersion;

/// The source's side of something, or the destination's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// A property of a packet (`enum nft_meta_keys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetaKey {
    /// The packet's mark, in the machine's order.
    Mark,
    /// Index of the interface it came in by.
    Iif,
    /// Index of the interface it leaves by.
    Oif,
    /// Name of the interface it came in by.
    IifName,
    /// Name of the interface it leaves by.
    OifName,
    /// Address family, `NFPROTO_*`.
    Nfproto,
    /// IP protocol, behind all IPv6 extension headers.
    L4Proto,
}

impl MetaKey {
    pub(super) fn number_and_length(self) -> (u32, u32) {
        match self {
            Self::Mark => (3, 4),
            Self::Iif => (4, 4),
            Self::Oif => (5, 4),
            Self::IifName => (6, 16),
            Self::OifName => (7, 16),
            Self::Nfproto => (15, 1),
            Self::L4Proto => (16, 1),
        }
    }
}

/// The header that an offset counts from (`enum nft_payload_bases`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Header {
    /// Ethernet.
    Link,
    /// IPv4 or IPv6.
    Network,
    /// TCP, UDP, SCTP …
    Transport,
}

/// A property of a packet's connection (`enum nft_ct_keys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CtKey {
    /// See [`CtState`].
    State,
    /// See [`Direction`].
    Direction,
    /// See [`CtStatus`].
    Status,
    /// The connection's mark, in the machine's order.
    Mark,
    /// An address of the connection. Needs a direction.
    Address(IpVersion, Side),
    /// The IP protocol. Needs a direction.
    Protocol,
    /// A port of the connection. Needs a direction.
    Port(Side),
}

impl CtKey {
    pub(super) fn number_and_length(self) -> (u32, u32) {
        match self {
            Self::State => (0, 4),
            Self::Direction => (1, 1),
            Self::Status => (2, 4),
            Self::Mark => (3, 4),
            Self::Protocol => (10, 1),
            Self::Port(Side::Source) => (11, 2),
            Self::Port(Side::Destination) => (12, 2),
            Self::Address(IpVersion::V4, Side::Source) => (19, 4),
            Self::Address(IpVersion::V4, Side::Destination) => (20, 4),
            Self::Address(IpVersion::V6, Side::Source) => (21, 16),
            Self::Address(IpVersion::V6, Side::Destination) => (22, 16),
        }
    }
}

/// A direction of a connection (`enum ip_conntrack_dir`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// As its first packet went.
    Original,
    /// As the answers go.
    Reply,
}

impl Direction {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Original => 0,
            Self::Reply => 1,
        }
    }
}

/// States of a packet in its connection, any of which is meant (`NF_CT_STATE_BIT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CtState(u32);

impl CtState {
    /// Belongs to no connection that makes sense.
    pub const INVALID: Self = Self(1);
    /// Belongs to a connection that has seen packets both ways.
    pub const ESTABLISHED: Self = Self(2);
    /// Starts a connection that belongs to another.
    pub const RELATED: Self = Self(4);
    /// Starts a connection.
    pub const NEW: Self = Self(8);
    /// Is left out of connection tracking.
    pub const UNTRACKED: Self = Self(64);

    pub(super) fn bits(self) -> u32 {
        self.0
    }
}

impl BitOr for CtState {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What has happened to a connection (`enum ip_conntrack_status`); a rule means any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CtStatus(u32);

impl CtStatus {
    /// Packets went both ways.
    pub const SEEN_REPLY: Self = Self(1 << 1);
    /// It is not the first to go when the table is full.
    pub const ASSURED: Self = Self(1 << 2);
    /// Its source is translated.
    pub const SNAT: Self = Self(1 << 4);
    /// Its destination is translated.
    pub const DNAT: Self = Self(1 << 5);

    /// Whether all of this has happened.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

impl BitOr for CtStatus {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Which address is looked up in the routing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FibOf {
    /// Source or destination.
    pub side: Side,
    /// With the packet's mark.
    pub mark: bool,
    /// As seen by the interface that the packet came in by.
    pub iif: bool,
}

/// What the routing table is asked for (`enum nft_fib_result`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fib {
    /// Index of the interface it leads to; 0 if there is no route.
    Oif,
    /// Name of that interface.
    OifName,
    /// See [`AddressKind`].
    AddressKind,
}

/// What an address is to this machine (`RTN_*`, linux/rtnetlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressKind {
    /// Another machine's.
    Unicast,
    /// This machine's.
    Local,
    /// A broadcast address.
    Broadcast,
    /// A multicast address.
    Multicast,
}

impl AddressKind {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Unicast => 1,
            Self::Local => 2,
            Self::Broadcast => 3,
            Self::Multicast => 5,
        }
    }
}

/// How numbers are made (`enum nft_ng_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NumGen {
    /// One after the other, and round again.
    Incremental,
    /// At random.
    Random,
}

/// Something that can be loaded into registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A property of the packet.
    Meta(MetaKey),
    /// An address in the packet's IP header.
    Address(IpVersion, Side),
    /// A port in the packet's transport header.
    Port(Side),
    /// Any bytes of the packet.
    Payload {
        /// The header that the offset counts from.
        header: Header,
        /// Offset in bytes.
        offset: u32,
        /// Length in bytes.
        length: u32,
    },
    /// A property of the packet's connection.
    Ct {
        /// Which.
        key: CtKey,
        /// Of which direction, for the keys that need one.
        direction: Option<Direction>,
    },
    /// What the routing table says.
    Fib {
        /// About which address.
        of: FibOf,
        /// What is asked.
        result: Fib,
    },
    /// A number from `offset` to `offset + modulus - 1`, in the machine's order.
    Number {
        /// How it is made.
        kind: NumGen,
        /// How many there are.
        modulus: u32,
        /// The smallest.
        offset: u32,
    },
    /// Jenkins' hash of registers, from `offset` to `offset + modulus - 1`, in the machine's order.
    Hash {
        /// The first register hashed.
        input: Register,
        /// So many bytes are hashed.
        length: u32,
        /// How many results there are.
        modulus: u32,
        /// Makes hashes differ; `None`: the kernel chooses.
        seed: Option<u32>,
        /// The smallest result.
        offset: u32,
    },
}

impl Source {
    /// The packet's source address.
    #[must_use]
    pub fn saddr(version: IpVersion) -> Self {
        Self::Address(version, Side::Source)
    }

    /// The packet's destination address.
    #[must_use]
    pub fn daddr(version: IpVersion) -> Self {
        Self::Address(version, Side::Destination)
    }

    /// The packet's source port.
    #[must_use]
    pub fn sport() -> Self {
        Self::Port(Side::Source)
    }

    /// The packet's destination port.
    #[must_use]
    pub fn dport() -> Self {
        Self::Port(Side::Destination)
    }

    /// The packet's IP protocol.
    #[must_use]
    pub fn protocol() -> Self {
        Self::Meta(MetaKey::L4Proto)
    }

    /// The packet's mark.
    #[must_use]
    pub fn mark() -> Self {
        Self::Meta(MetaKey::Mark)
    }

    /// A random number below `modulus`.
    #[must_use]
    pub fn random(modulus: u32) -> Self {
        Self::Number { kind: NumGen::Random, modulus, offset: 0 }
    }

    /// An address of the packet's connection.
    #[must_use]
    pub fn ct_address(direction: Direction, version: IpVersion, side: Side) -> Self {
        Self::Ct { key: CtKey::Address(version, side), direction: Some(direction) }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn length(self) -> u32 {
        match self {
            Self::Meta(key) => key.number_and_length().1,
            Self::Address(IpVersion::V4, _) => 4,
            Self::Address(IpVersion::V6, _) | Self::Fib { result: Fib::OifName, .. } => 16,
            Self::Port(_) => 2,
            Self::Payload { length, .. } => length,
            Self::Ct { key, .. } => key.number_and_length().1,
            Self::Fib { .. } | Self::Number { .. } | Self::Hash { .. } => 4,
        }
    }

    /// The IP version without which it makes no sense.
    pub(super) fn version(self) -> Option<IpVersion> {
        match self {
            Self::Address(version, _) | Self::Ct { key: CtKey::Address(version, _), .. } => Some(version),
            _ => None,
        }
    }
}
