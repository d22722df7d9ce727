//! Phrases that do something to a packet.

use std::net::IpAddr;
use std::time::Duration;

use super::matches::{guarded, lookup};
use super::{
    CtKey, Expr, IpVersion, LimitPer, MetaKey, NatFlags, NatKind, Register, Reject, SetChange, Source, Verdict,
};
use crate::nft::Name;
use crate::nft::value::Value;

/// The packet leaves this base chain, and meets the next.
#[must_use]
pub fn accept() -> Expr {
    Expr::Verdict(Verdict::Accept)
}

/// The packet is gone.
#[must_use]
pub fn drop() -> Expr {
    Expr::Verdict(Verdict::Drop)
}

/// The packet meets the next rule.
#[must_use]
pub fn continue_() -> Expr {
    Expr::Verdict(Verdict::Continue)
}

/// The packet goes back to where this chain was jumped to from.
#[must_use]
pub fn return_() -> Expr {
    Expr::Verdict(Verdict::Return)
}

/// The packet goes through a chain, and comes back.
pub fn jump(chain: impl Into<Name>) -> Expr {
    Expr::Verdict(Verdict::Jump(chain.into()))
}

/// The packet goes through a chain, and does not come back here.
pub fn goto(chain: impl Into<Name>) -> Expr {
    Expr::Verdict(Verdict::Goto(chain.into()))
}

/// The verdict that a verdict map has for the key; without one, the packet meets the next rule.
#[must_use]
pub fn verdict_by_map(key: &[Source], map: impl Into<Name>) -> Vec<Expr> {
    lookup(key, map.into(), Some(Register::VERDICT), false)
}

/// Counts packets and bytes.
#[must_use]
pub fn counter() -> Expr {
    counter_from(0, 0)
}

/// Counts packets and bytes on from what was counted already.
#[must_use]
pub fn counter_from(packets: u64, bytes: u64) -> Expr {
    Expr::Counter { packets, bytes }
}

/// Goes on for so many packets in a time, and `burst` more at once.
#[must_use]
pub fn limit(packets: u64, per: LimitPer, burst: u32) -> Expr {
    Expr::Limit { packets, per, burst, over: false }
}

/// Drops the packet and tells its sender.
#[must_use]
pub fn reject(with: Reject) -> Expr {
    Expr::Reject(with)
}

/// Leaves the packet out of connection tracking; only before [`crate::priority::CONNTRACK`].
#[must_use]
pub fn notrack() -> Expr {
    Expr::NoTrack
}

/// Rewrites the source to the address of the interface that the packet leaves by, the port fully at random.
#[must_use]
pub fn masquerade() -> Expr {
    Expr::Masquerade(NatFlags::FULLY_RANDOM)
}

/// The same, with the port that the sender has chosen where it is free.
#[must_use]
pub fn masquerade_in_order() -> Expr {
    Expr::Masquerade(NatFlags::default())
}

/// Rewrites the source.
#[must_use]
pub fn snat(address: IpAddr, port: Option<u16>, flags: NatFlags) -> Vec<Expr> {
    nat(NatKind::Source, address, port, flags)
}

/// Rewrites the destination. A port needs [`l4proto`](super::l4proto) in front of it.
#[must_use]
pub fn dnat(address: IpAddr, port: Option<u16>) -> Vec<Expr> {
    nat(NatKind::Destination, address, port, NatFlags::default())
}

fn nat(kind: NatKind, address: IpAddr, port: Option<u16>, flags: NatFlags) -> Vec<Expr> {
    let value = Value::from(address);
    let behind = Register::FIRST.behind(u32::from(value.len()));
    let mut phrase = vec![Expr::Immediate { register: Register::FIRST, value }];
    phrase.extend(port.map(|port| Expr::Immediate { register: behind, value: Value::port(port) }));
    phrase.push(Expr::Nat {
        kind,
        version: IpVersion::of(address),
        address: Some(Register::FIRST),
        port: port.map(|_| behind),
        flags,
    });
    phrase
}

/// Rewrites the destination to the address and port that a map has for the key.
#[must_use]
pub fn dnat_by_map(version: IpVersion, key: &[Source], map: impl Into<Name>) -> Vec<Expr> {
    let mut phrase = lookup(key, map.into(), Some(Register::FIRST), false);
    phrase.push(Expr::Nat {
        kind: NatKind::Destination,
        version,
        address: Some(Register::FIRST),
        port: Some(Register::FIRST.behind(Source::daddr(version).length())),
        flags: NatFlags::default(),
    });
    phrase
}

/// Rewrites the destination to a port of this machine.
#[must_use]
pub fn redirect(port: u16) -> Vec<Expr> {
    let register = Register::FIRST;
    vec![
        Expr::Immediate { register, value: Value::port(port) },
        Expr::Redirect { port: Some(register), flags: NatFlags::default() },
    ]
}

/// Sets those bits of the packet's mark that the mask holds, and leaves the others as they are.
#[must_use]
pub fn set_mark(value: u32, mask: u32) -> Vec<Expr> {
    let register = Register::FIRST;
    let mut phrase = marked(Source::mark(), value, mask);
    phrase.push(Expr::SetMeta { key: MetaKey::Mark, register });
    phrase
}

/// Sets those bits of the connection's mark that the mask holds, and leaves the others as they are.
#[must_use]
pub fn set_ct_mark(value: u32, mask: u32) -> Vec<Expr> {
    let register = Register::FIRST;
    let mut phrase = marked(Source::Ct { key: CtKey::Mark, direction: None }, value, mask);
    phrase.push(Expr::SetCt { key: CtKey::Mark, register });
    phrase
}

fn marked(source: Source, value: u32, mask: u32) -> Vec<Expr> {
    let register = Register::FIRST;
    match mask {
        u32::MAX => vec![Expr::Immediate { register, value: Value::number(value) }],
        _ => vec![
            Expr::Load { source, register },
            Expr::Bitwise {
                from: register,
                to: register,
                mask: Value::number(!mask),
                xor: Value::number(value & mask),
            },
        ],
    }
}

/// Adds the key to a dynamic set, or starts its time anew.
#[must_use]
pub fn add_to_set(key: &[Source], set: impl Into<Name>, timeout: Option<Duration>) -> Vec<Expr> {
    let mut phrase = guarded(key);
    phrase.push(Expr::ChangeSet {
        set: set.into(),
        change: SetChange::Update,
        key: Register::FIRST,
        data: None,
        timeout,
    });
    phrase
}
