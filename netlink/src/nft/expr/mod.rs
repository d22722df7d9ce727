//! Expressions: what a rule is made of.
//!
//! [`Expr`] is what the kernel runs, one value an expression; the functions here make the usual phrases of them, so that
//! a rule reads as a sentence. Both address families go through the same functions: the phrase asks for the family
//! itself where a table sees both.
//!
//! To add an expression, add its variant to [`Expr`] (to [`Source`] if all it does is to load a register) and its
//! writer beside the others.

mod actions;
mod load;
mod matches;
mod nat;
mod registers;
mod source;
mod step;

pub use crate::{IpVersion, protocol};
pub use actions::{
    accept, add_to_set, continue_, counter, counter_from, dnat, dnat_by_map, drop, goto, jump, limit, masquerade,
    masquerade_in_order, notrack, redirect, reject, return_, set_ct_mark, set_mark, snat, verdict_by_map,
};
pub use matches::{
    ct_direction, ct_mark_is, ct_state, ct_state_not, ct_status, ct_status_not, daddr_in, dport, fib_daddr_type,
    fib_daddr_type_not, fib_saddr_type, iifname, iifname_not, in_set, ip_daddr_in, ip_daddr_not_in, ip_saddr_in,
    ip_saddr_not_in, is, is_not, l4proto, mark_is, mark_is_not, nfproto, not_in_set, oifname, oifname_not, saddr_in,
    sport,
};
pub use nat::{NatFlags, NatKind};
pub use registers::{Register, load};
pub use source::{AddressKind, CtKey, CtState, CtStatus, Direction, Fib, FibOf, Header, MetaKey, NumGen, Side, Source};
pub use step::{ByteOrder, Compare, LimitPer, Reject, SetChange};

use std::iter;
use std::time::Duration;

use super::Name;
use super::value::Value;
use crate::codec::Writer;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It leaves this base chain, and meets the next.
    Accept,
    /// It is gone.
    Drop,
    /// It meets the next rule.
    Continue,
    /// It goes back to where its chain was jumped to from, or to the policy.
    Return,
    /// It goes through a chain, and comes back.
    Jump(Name),
    /// It goes through a chain, and comes back to where this chain was jumped to from.
    Goto(Name),
}

/// One expression (`nft_expr`, linux/netfilter/nf_tables.h).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Loads something of the packet, or about it, into registers.
    Load {
        /// What.
        source: Source,
        /// The first of its registers.
        register: Register,
    },
    /// Loads a constant.
    Immediate {
        /// The first of its registers.
        register: Register,
        /// The constant.
        value: Value,
    },
    /// Sets a property of the packet (`meta … set`).
    SetMeta {
        /// Which.
        key: MetaKey,
        /// Where its new value stands.
        register: Register,
    },
    /// Sets a property of the packet's connection (`ct … set`).
    SetCt {
        /// Which.
        key: CtKey,
        /// Where its new value stands.
        register: Register,
    },
    /// Goes on if the comparison holds.
    Compare {
        /// The left side.
        register: Register,
        /// How.
        comparison: Compare,
        /// The right side.
        value: Value,
    },
    /// `to = (from & mask) ^ xor`; both of the same length.
    Bitwise {
        /// The first register read.
        from: Register,
        /// The first register written.
        to: Register,
        /// The bits kept.
        mask: Value,
        /// The bits turned over then.
        xor: Value,
    },
    /// Turns numbers between network order and the machine's.
    ByteOrder {
        /// The first register read.
        from: Register,
        /// The first register written.
        to: Register,
        /// Which way.
        direction: ByteOrder,
        /// Length of it all, in bytes.
        length: u32,
        /// Length of each number, in bytes.
        size: u32,
    },
    /// Goes on if the key is in the set; loads the map's data, or gives its verdict.
    Lookup {
        /// The set or map.
        set: Name,
        /// The first register of the key.
        key: Register,
        /// Where a map's data goes: [`Register::VERDICT`] for a verdict map.
        data: Option<Register>,
        /// Goes on if the key is *not* in the set.
        inverted: bool,
    },
    /// Adds an element to a dynamic set, makes it last longer, or takes it out. For a map, the kernel wants the data
    /// register for each of them.
    ChangeSet {
        /// The set or map.
        set: Name,
        /// Which of them.
        change: SetChange,
        /// The first register of the key.
        key: Register,
        /// The first register of a map's data.
        data: Option<Register>,
        /// How long the element lasts; `None`: as the set says.
        timeout: Option<Duration>,
    },
    /// Judges the packet.
    Verdict(Verdict),
    /// Counts packets and bytes.
    Counter {
        /// Packets counted already.
        packets: u64,
        /// Bytes counted already.
        bytes: u64,
    },
    /// Goes on while no more than so many packets come.
    Limit {
        /// So many packets …
        packets: u64,
        /// … in this time.
        per: LimitPer,
        /// So many more at once.
        burst: u32,
        /// Goes on if *more* packets come.
        over: bool,
    },
    /// Rewrites source or destination.
    Nat {
        /// Which of both.
        kind: NatKind,
        /// The family of the address.
        version: IpVersion,
        /// Where the address stands.
        address: Option<Register>,
        /// Where the port stands, in network order.
        port: Option<Register>,
        /// How ports are chosen.
        flags: NatFlags,
    },
    /// Rewrites the source to the address of the interface that the packet leaves by.
    Masquerade(NatFlags),
    /// Rewrites the destination to this machine.
    Redirect {
        /// Where the port stands; `None`: as it is.
        port: Option<Register>,
        /// How ports are chosen.
        flags: NatFlags,
    },
    /// Drops the packet and tells its sender.
    Reject(Reject),
    /// Leaves the packet out of connection tracking.
    NoTrack,
}

impl Expr {
    pub(super) fn write(&self, w: &mut Writer) {
        w.nest(NFTA_LIST_ELEM, |w| match self {
            Self::Load { source, register } => load::write(w, source, *register),
            Self::SetMeta { key, register } => load::write_set_meta(w, *key, *register),
            Self::SetCt { key, register } => load::write_set_ct(w, *key, *register),
            Self::Immediate { register, value } => step::write_immediate(w, *register, value),
            Self::Compare { register, comparison, value } => step::write_compare(w, *register, *comparison, value),
            Self::Bitwise { from, to, mask, xor } => step::write_bitwise(w, *from, *to, mask, xor),
            Self::ByteOrder { from, to, direction, length, size } => {
                step::write_byte_order(w, *from, *to, *direction, (*length, *size));
            }
            Self::Lookup { set, key, data, inverted } => step::write_lookup(w, set, *key, *data, *inverted),
            Self::ChangeSet { set, change, key, data, timeout } => {
                step::write_change_set(w, set, *change, (*key, *data), *timeout);
            }
            Self::Verdict(verdict) => step::write_verdict(w, verdict),
            Self::Counter { packets, bytes } => step::write_counter(w, *packets, *bytes),
            Self::Limit { packets, per, burst, over } => step::write_limit(w, *packets, *per, *burst, *over),
            Self::Nat { kind, version, address, port, flags } => {
                nat::write_nat(w, (*kind, *version), *address, *port, *flags);
            }
            Self::Masquerade(flags) => nat::write_masquerade(w, *flags),
            Self::Redirect { port, flags } => nat::write_redirect(w, *port, *flags),
            Self::Reject(reject) => step::write_reject(w, *reject),
            Self::NoTrack => w.string(NFTA_EXPR_NAME, "notrack"),
        });
    }
}

/// A phrase of one expression.
impl IntoIterator for Expr {
    type Item = Self;
    type IntoIter = iter::Once<Self>;

    fn into_iter(self) -> Self::IntoIter {
        iter::once(self)
    }
}

/// Writes the name of an expression and what belongs to it.
fn named(w: &mut Writer, name: &str, body: impl FnOnce(&mut Writer)) {
    w.string(NFTA_EXPR_NAME, name);
    w.nest(NFTA_EXPR_DATA, body);
}
