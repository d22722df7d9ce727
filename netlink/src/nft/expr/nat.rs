//! Address translation.

use super::{IpVersion, Register, named};
use crate::codec::Writer;

/// Which address is rewritten (`enum nft_nat_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NatKind {
    /// The source's.
    Source,
    /// The destination's.
    Destination,
}

/// How ports are chosen where the old one is taken (`NF_NAT_RANGE_*`, linux/netfilter/nf_nat.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NatFlags {
    /// From a hash.
    pub random: bool,
    /// From a random number: two connections that start at once do not choose the same port and lose a packet.
    pub fully_random: bool,
    /// A client gets the same address each time.
    pub persistent: bool,
}

impl NatFlags {
    /// `fully-random` alone.
    pub const FULLY_RANDOM: Self = Self { random: false, fully_random: true, persistent: false };

    fn bits(self) -> Option<u32> {
        let bits = [(self.random, 1 << 2), (self.persistent, 1 << 3), (self.fully_random, 1 << 4)]
            .into_iter()
            .filter_map(|(set, bit)| set.then_some(bit))
            .fold(0, |bits, bit| bits | bit);
        Some(bits).filter(|bits| *bits != 0)
    }
}

pub(super) fn write_nat(
    w: &mut Writer,
    (kind, version): (NatKind, IpVersion),
    address: Option<Register>,
    port: Option<Register>,
    flags: NatFlags,
) {
    const NFTA_NAT_TYPE: u16 = 1;
    const NFTA_NAT_FAMILY: u16 = 2;
    const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
    const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
    const NFTA_NAT_FLAGS: u16 = 7;
    named(w, "nat", |w| {
        w.be32(NFTA_NAT_TYPE, if kind == NatKind::Source { 0 } else { 1 });
        w.be32(NFTA_NAT_FAMILY, u32::from(version.number()));
        if let Some(address) = address {
            w.be32(NFTA_NAT_REG_ADDR_MIN, address.number());
        }
        if let Some(port) = port {
            w.be32(NFTA_NAT_REG_PROTO_MIN, port.number());
        }
        if let Some(bits) = flags.bits() {
            w.be32(NFTA_NAT_FLAGS, bits);
        }
    });
}

pub(super) fn write_masquerade(w: &mut Writer, flags: NatFlags) {
    const NFTA_MASQ_FLAGS: u16 = 1;
    named(w, "masq", |w| {
        if let Some(bits) = flags.bits() {
            w.be32(NFTA_MASQ_FLAGS, bits);
        }
    });
}

pub(super) fn write_redirect(w: &mut Writer, port: Option<Register>, flags: NatFlags) {
    const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;
    const NFTA_REDIR_FLAGS: u16 = 3;
    named(w, "redir", |w| {
        if let Some(port) = port {
            w.be32(NFTA_REDIR_REG_PROTO_MIN, port.number());
        }
        if let Some(bits) = flags.bits() {
            w.be32(NFTA_REDIR_FLAGS, bits);
        }
    });
}
