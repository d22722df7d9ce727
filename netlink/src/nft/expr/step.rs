//! Expressions that compare, change, look up and judge.

use std::time::Duration;

use super::{Register, Verdict, named};
use crate::codec::Writer;
use crate::nft::data;
use crate::nft::value::Value;

/// A comparison (`enum nft_cmp_ops`); of bytes, so that numbers must be in network order to be less or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compare {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// Less than.
    Less,
    /// Less than or equal.
    LessOrEqual,
    /// Greater than.
    Greater,
    /// Greater than or equal.
    GreaterOrEqual,
}

/// Which way numbers are turned (`enum nft_byteorder_ops`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// From network order to the machine's.
    ToHost,
    /// From the machine's order to the network's.
    ToNetwork,
}

/// What a rule does to a dynamic set (`enum nft_dynset_ops`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SetChange {
    /// Adds the element if it is not there.
    Add,
    /// Adds the element, or starts its time anew.
    Update,
    /// Takes the element out if it is there.
    Delete,
}

/// The time that a limit speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitPer {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

/// What the sender of a rejected packet is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reject {
    /// TCP reset; only for TCP.
    TcpReset,
    /// No route, in ICMP or ICMPv6 as the packet is.
    NoRoute,
    /// Port unreachable.
    PortUnreachable,
    /// Host unreachable.
    HostUnreachable,
    /// Prohibited by an administrator.
    AdminProhibited,
}

pub(super) fn write_immediate(w: &mut Writer, register: Register, value: &Value) {
    immediate(w, register, |w| data::write_value(w, value));
}

pub(super) fn write_verdict(w: &mut Writer, verdict: &Verdict) {
    immediate(w, Register::VERDICT, |w| data::write_verdict(w, verdict));
}

fn immediate(w: &mut Writer, register: Register, body: impl FnOnce(&mut Writer)) {
    const NFTA_IMMEDIATE_DREG: u16 = 1;
    const NFTA_IMMEDIATE_DATA: u16 = 2;
    named(w, "immediate", |w| {
        w.be32(NFTA_IMMEDIATE_DREG, register.number());
        w.nest(NFTA_IMMEDIATE_DATA, body);
    });
}

pub(super) fn write_compare(w: &mut Writer, register: Register, comparison: Compare, value: &Value) {
    const NFTA_CMP_SREG: u16 = 1;
    const NFTA_CMP_OP: u16 = 2;
    const NFTA_CMP_DATA: u16 = 3;
    let operation = match comparison {
        Compare::Equal => 0,
        Compare::NotEqual => 1,
        Compare::Less => 2,
        Compare::LessOrEqual => 3,
        Compare::Greater => 4,
        Compare::GreaterOrEqual => 5,
    };
    named(w, "cmp", |w| {
        w.be32(NFTA_CMP_SREG, register.number());
        w.be32(NFTA_CMP_OP, operation);
        w.nest(NFTA_CMP_DATA, |w| data::write_value(w, value));
    });
}

pub(super) fn write_bitwise(w: &mut Writer, from: Register, to: Register, mask: &Value, xor: &Value) {
    const NFTA_BITWISE_SREG: u16 = 1;
    const NFTA_BITWISE_DREG: u16 = 2;
    const NFTA_BITWISE_LEN: u16 = 3;
    const NFTA_BITWISE_MASK: u16 = 4;
    const NFTA_BITWISE_XOR: u16 = 5;
    named(w, "bitwise", |w| {
        w.be32(NFTA_BITWISE_SREG, from.number());
        w.be32(NFTA_BITWISE_DREG, to.number());
        w.be32(NFTA_BITWISE_LEN, u32::from(mask.len()));
        w.nest(NFTA_BITWISE_MASK, |w| data::write_value(w, mask));
        w.nest(NFTA_BITWISE_XOR, |w| data::write_value(w, xor));
    });
}

pub(super) fn write_byte_order(
    w: &mut Writer,
    from: Register,
    to: Register,
    direction: ByteOrder,
    (length, size): (u32, u32),
) {
    const NFTA_BYTEORDER_SREG: u16 = 1;
    const NFTA_BYTEORDER_DREG: u16 = 2;
    const NFTA_BYTEORDER_OP: u16 = 3;
    const NFTA_BYTEORDER_LEN: u16 = 4;
    const NFTA_BYTEORDER_SIZE: u16 = 5;
    named(w, "byteorder", |w| {
        w.be32(NFTA_BYTEORDER_SREG, from.number());
        w.be32(NFTA_BYTEORDER_DREG, to.number());
        w.be32(NFTA_BYTEORDER_OP, if direction == ByteOrder::ToHost { 0 } else { 1 });
        w.be32(NFTA_BYTEORDER_LEN, length);
        w.be32(NFTA_BYTEORDER_SIZE, size);
    });
}

pub(super) fn write_lookup(w: &mut Writer, set: &str, key: Register, data: Option<Register>, inverted: bool) {
    const NFTA_LOOKUP_SET: u16 = 1;
    const NFTA_LOOKUP_SREG: u16 = 2;
    const NFTA_LOOKUP_DREG: u16 = 3;
    const NFTA_LOOKUP_FLAGS: u16 = 5;
    const NFT_LOOKUP_F_INV: u32 = 1;
    named(w, "lookup", |w| {
        w.string(NFTA_LOOKUP_SET, set);
        w.be32(NFTA_LOOKUP_SREG, key.number());
        if let Some(data) = data {
            w.be32(NFTA_LOOKUP_DREG, data.number());
        }
        if inverted {
            w.be32(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
        }
    });
}

pub(super) fn write_change_set(
    w: &mut Writer,
    set: &str,
    change: SetChange,
    (key, data): (Register, Option<Register>),
    timeout: Option<Duration>,
) {
    const NFTA_DYNSET_SET_NAME: u16 = 1;
    const NFTA_DYNSET_OP: u16 = 3;
    const NFTA_DYNSET_SREG_KEY: u16 = 4;
    const NFTA_DYNSET_SREG_DATA: u16 = 5;
    const NFTA_DYNSET_TIMEOUT: u16 = 6;
    let operation = match change {
        SetChange::Add => 0,
        SetChange::Update => 1,
        SetChange::Delete => 2,
    };
    named(w, "dynset", |w| {
        w.string(NFTA_DYNSET_SET_NAME, set);
        w.be32(NFTA_DYNSET_OP, operation);
        w.be32(NFTA_DYNSET_SREG_KEY, key.number());
        if let Some(data) = data {
            w.be32(NFTA_DYNSET_SREG_DATA, data.number());
        }
        if let Some(timeout) = timeout {
            w.be64(NFTA_DYNSET_TIMEOUT, crate::nft::milliseconds(timeout));
        }
    });
}

pub(super) fn write_counter(w: &mut Writer, packets: u64, bytes: u64) {
    const NFTA_COUNTER_BYTES: u16 = 1;
    const NFTA_COUNTER_PACKETS: u16 = 2;
    named(w, "counter", |w| {
        w.be64(NFTA_COUNTER_BYTES, bytes);
        w.be64(NFTA_COUNTER_PACKETS, packets);
    });
}

pub(super) fn write_limit(w: &mut Writer, packets: u64, per: LimitPer, burst: u32, over: bool) {
    const NFTA_LIMIT_RATE: u16 = 1;
    const NFTA_LIMIT_UNIT: u16 = 2;
    const NFTA_LIMIT_BURST: u16 = 3;
    const NFTA_LIMIT_TYPE: u16 = 4;
    const NFTA_LIMIT_FLAGS: u16 = 5;
    const NFT_LIMIT_PKTS: u32 = 0;
    const NFT_LIMIT_F_INV: u32 = 1;
    let seconds = match per {
        LimitPer::Second => 1,
        LimitPer::Minute => 60,
        LimitPer::Hour => 3600,
    };
    named(w, "limit", |w| {
        w.be64(NFTA_LIMIT_RATE, packets);
        w.be64(NFTA_LIMIT_UNIT, seconds);
        w.be32(NFTA_LIMIT_BURST, burst);
        w.be32(NFTA_LIMIT_TYPE, NFT_LIMIT_PKTS);
        w.be32(NFTA_LIMIT_FLAGS, if over { NFT_LIMIT_F_INV } else { 0 });
    });
}

pub(super) fn write_reject(w: &mut Writer, reject: Reject) {
    const NFTA_REJECT_TYPE: u16 = 1;
    const NFTA_REJECT_ICMP_CODE: u16 = 2;
    const NFT_REJECT_TCP_RST: u32 = 1;
    const NFT_REJECT_ICMPX_UNREACH: u32 = 2;
    // `enum nft_reject_inet_code`; the kernel turns them into ICMP or ICMPv6.
    let (kind, code) = match reject {
        Reject::TcpReset => (NFT_REJECT_TCP_RST, None),
        Reject::NoRoute => (NFT_REJECT_ICMPX_UNREACH, Some(0)),
        Reject::PortUnreachable => (NFT_REJECT_ICMPX_UNREACH, Some(1)),
        Reject::HostUnreachable => (NFT_REJECT_ICMPX_UNREACH, Some(2)),
        Reject::AdminProhibited => (NFT_REJECT_ICMPX_UNREACH, Some(3)),
    };
    named(w, "reject", |w| {
        w.be32(NFTA_REJECT_TYPE, kind);
        if let Some(code) = code {
            w.byte(NFTA_REJECT_ICMP_CODE, code);
        }
    });
}
