//! Writes the expressions that load a [`Source`], and those that set a property.

use super::{CtKey, Direction, Fib, FibOf, Header, IpVersion, MetaKey, NumGen, Register, Side, Source, named};
use crate::codec::Writer;

const NFTA_META_KEY: u16 = 2;
const NFTA_CT_KEY: u16 = 2;

pub(super) fn write(w: &mut Writer, source: &Source, register: Register) {
    match *source {
        Source::Meta(key) => write_meta(w, key, register),
        Source::Address(version, side) => {
            // RFC 791 section 3.1, RFC 8200 section 3.
            let offset = match (version, side) {
                (IpVersion::V4, Side::Source) => 12,
                (IpVersion::V4, Side::Destination) => 16,
                (IpVersion::V6, Side::Source) => 8,
                (IpVersion::V6, Side::Destination) => 24,
            };
            write_payload(w, Header::Network, (offset, source.length()), register);
        }
        // The same in TCP, UDP and SCTP.
        Source::Port(Side::Source) => write_payload(w, Header::Transport, (0, 2), register),
        Source::Port(Side::Destination) => write_payload(w, Header::Transport, (2, 2), register),
        Source::Payload { header, offset, length } => write_payload(w, header, (offset, length), register),
        Source::Ct { key, direction } => write_ct(w, key, direction, register),
        Source::Fib { of, result } => write_fib(w, of, result, register),
        Source::Number { kind, modulus, offset } => write_numgen(w, kind, modulus, offset, register),
        Source::Hash { input, length, modulus, seed, offset } => {
            write_hash(w, (input, length), (modulus, offset), seed, register);
        }
    }
}

fn write_meta(w: &mut Writer, key: MetaKey, register: Register) {
    const NFTA_META_DREG: u16 = 1;
    named(w, "meta", |w| {
        w.be32(NFTA_META_KEY, key.number_and_length().0);
        w.be32(NFTA_META_DREG, register.number());
    });
}

pub(super) fn write_set_meta(w: &mut Writer, key: MetaKey, register: Register) {
    const NFTA_META_SREG: u16 = 3;
    named(w, "meta", |w| {
        w.be32(NFTA_META_KEY, key.number_and_length().0);
        w.be32(NFTA_META_SREG, register.number());
    });
}

fn write_payload(w: &mut Writer, header: Header, (offset, length): (u32, u32), register: Register) {
    const NFTA_PAYLOAD_DREG: u16 = 1;
    const NFTA_PAYLOAD_BASE: u16 = 2;
    const NFTA_PAYLOAD_OFFSET: u16 = 3;
    const NFTA_PAYLOAD_LEN: u16 = 4;
    let base = match header {
        Header::Link => 0,
        Header::Network => 1,
        Header::Transport => 2,
    };
    named(w, "payload", |w| {
        w.be32(NFTA_PAYLOAD_DREG, register.number());
        w.be32(NFTA_PAYLOAD_BASE, base);
        w.be32(NFTA_PAYLOAD_OFFSET, offset);
        w.be32(NFTA_PAYLOAD_LEN, length);
    });
}

fn write_ct(w: &mut Writer, key: CtKey, direction: Option<Direction>, register: Register) {
    const NFTA_CT_DREG: u16 = 1;
    const NFTA_CT_DIRECTION: u16 = 3;
    named(w, "ct", |w| {
        w.be32(NFTA_CT_KEY, key.number_and_length().0);
        w.be32(NFTA_CT_DREG, register.number());
        if let Some(direction) = direction {
            w.byte(NFTA_CT_DIRECTION, direction.number());
        }
    });
}

pub(super) fn write_set_ct(w: &mut Writer, key: CtKey, register: Register) {
    const NFTA_CT_SREG: u16 = 4;
    named(w, "ct", |w| {
        w.be32(NFTA_CT_KEY, key.number_and_length().0);
        w.be32(NFTA_CT_SREG, register.number());
    });
}

fn write_fib(w: &mut Writer, of: FibOf, result: Fib, register: Register) {
    const NFTA_FIB_DREG: u16 = 1;
    const NFTA_FIB_RESULT: u16 = 2;
    const NFTA_FIB_FLAGS: u16 = 3;
    const SADDR: u32 = 1;
    const DADDR: u32 = 2;
    const MARK: u32 = 4;
    const IIF: u32 = 8;
    let side = if of.side == Side::Source { SADDR } else { DADDR };
    let mark = if of.mark { MARK } else { 0 };
    let iif = if of.iif { IIF } else { 0 };
    let result = match result {
        Fib::Oif => 1,
        Fib::OifName => 2,
        Fib::AddressKind => 3,
    };
    named(w, "fib", |w| {
        w.be32(NFTA_FIB_DREG, register.number());
        w.be32(NFTA_FIB_RESULT, result);
        w.be32(NFTA_FIB_FLAGS, side | mark | iif);
    });
}

fn write_numgen(w: &mut Writer, kind: NumGen, modulus: u32, offset: u32, register: Register) {
    const NFTA_NG_DREG: u16 = 1;
    const NFTA_NG_MODULUS: u16 = 2;
    const NFTA_NG_TYPE: u16 = 3;
    const NFTA_NG_OFFSET: u16 = 4;
    named(w, "numgen", |w| {
        w.be32(NFTA_NG_DREG, register.number());
        w.be32(NFTA_NG_MODULUS, modulus);
        w.be32(NFTA_NG_TYPE, if kind == NumGen::Incremental { 0 } else { 1 });
        w.be32(NFTA_NG_OFFSET, offset);
    });
}

fn write_hash(
    w: &mut Writer,
    (input, length): (Register, u32),
    (modulus, offset): (u32, u32),
    seed: Option<u32>,
    register: Register,
) {
    const NFTA_HASH_SREG: u16 = 1;
    const NFTA_HASH_DREG: u16 = 2;
    const NFTA_HASH_LEN: u16 = 3;
    const NFTA_HASH_MODULUS: u16 = 4;
    const NFTA_HASH_SEED: u16 = 5;
    const NFTA_HASH_OFFSET: u16 = 6;
    const NFTA_HASH_TYPE: u16 = 7;
    const NFT_HASH_JENKINS: u32 = 0;
    named(w, "hash", |w| {
        w.be32(NFTA_HASH_SREG, input.number());
        w.be32(NFTA_HASH_DREG, register.number());
        w.be32(NFTA_HASH_LEN, length);
        w.be32(NFTA_HASH_MODULUS, modulus);
        if let Some(seed) = seed {
            w.be32(NFTA_HASH_SEED, seed);
        }
        w.be32(NFTA_HASH_OFFSET, offset);
        w.be32(NFTA_HASH_TYPE, NFT_HASH_JENKINS);
    });
}
