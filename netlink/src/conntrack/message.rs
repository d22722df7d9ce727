//! The messages of conntrack (`enum cntl_msg_types`, linux/netfilter/nfnetlink_conntrack.h).

/// `NFNL_SUBSYS_CTNETLINK`, the upper byte of every message's type.
const SUBSYSTEM: u16 = 1;

pub(super) const NEW: u16 = SUBSYSTEM << 8;
pub(super) const GET: u16 = SUBSYSTEM << 8 | 1;
pub(super) const DELETE: u16 = SUBSYSTEM << 8 | 2;
pub(super) const GET_STATS: u16 = SUBSYSTEM << 8 | 5;

pub(super) const CTA_TUPLE_ORIG: u16 = 1;
pub(super) const CTA_TUPLE_REPLY: u16 = 2;
pub(super) const CTA_STATUS: u16 = 3;
pub(super) const CTA_MARK: u16 = 8;
pub(super) const CTA_ID: u16 = 12;
pub(super) const CTA_ZONE: u16 = 18;
pub(super) const CTA_FILTER: u16 = 25;

pub(super) const CTA_TUPLE_IP: u16 = 1;
pub(super) const CTA_TUPLE_PROTO: u16 = 2;
pub(super) const CTA_PROTO_NUM: u16 = 1;
pub(super) const CTA_PROTO_SRC_PORT: u16 = 2;
pub(super) const CTA_PROTO_DST_PORT: u16 = 3;

/// `struct nfgenmsg`: the address family, version 0 and no resource.
pub(super) const fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}
