//! The numbers of nf_tables messages (linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h).

use super::table::Table;
use crate::codec::Writer;

/// `NFNL_SUBSYS_NFTABLES`.
pub(super) const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`.
pub(super) const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`.
pub(super) const BATCH_END: u16 = 0x11;

/// `enum nf_tables_msg_types`.
pub(super) const NEW_TABLE: u16 = 0;
pub(super) const GET_TABLE: u16 = 1;
pub(super) const DELETE_TABLE: u16 = 2;
pub(super) const NEW_CHAIN: u16 = 3;
pub(super) const GET_CHAIN: u16 = 4;
pub(super) const DELETE_CHAIN: u16 = 5;
pub(super) const NEW_RULE: u16 = 6;
pub(super) const GET_RULE: u16 = 7;
pub(super) const DELETE_RULE: u16 = 8;
pub(super) const NEW_SET: u16 = 9;
pub(super) const GET_SET: u16 = 10;
pub(super) const DELETE_SET: u16 = 11;
pub(super) const NEW_ELEMENTS: u16 = 12;
pub(super) const GET_ELEMENTS: u16 = 13;
pub(super) const DELETE_ELEMENTS: u16 = 14;
pub(super) const NEW_GENERATION: u16 = 15;
pub(super) const GET_GENERATION: u16 = 16;

/// The first attribute of every object is the name of its table.
pub(super) const TABLE_NAME: u16 = 1;

/// `nlmsg_type` of an nf_tables message.
pub(super) const fn kind(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}

/// `struct nfgenmsg` of a message: the family, version 0, and no resource.
pub(super) const fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// `struct nfgenmsg` of the messages around a transaction: its resource is the subsystem.
pub(super) const fn transaction_header() -> [u8; 4] {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    [0, 0, high, low]
}

/// Writes a message about something in a table; its first attribute names the table.
pub(super) fn about(w: &mut Writer, message: u16, flags: u16, table: &Table, body: impl FnOnce(&mut Writer)) {
    w.message(kind(message), flags, header(table.family.number()), |w| {
        w.string(TABLE_NAME, &table.name);
        body(w);
    });
}
