//! Tables.

use std::fmt;

use crate::codec::Attributes;
use crate::codec::Writer;

const NFTA_TABLE_FLAGS: u16 = 2;
/// `NFT_TABLE_F_DORMANT`: the table is there, and packets pass it by.
const DORMANT: u32 = 1;
const NFTA_TABLE_HANDLE: u16 = 4;
const NFTA_TABLE_USERDATA: u16 = 6;

/// Which packets a table sees (`NFPROTO_*`, linux/netfilter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableFamily {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// ARP.
    Arp,
    /// Frames that pass a bridge.
    Bridge,
    /// Frames at one device.
    Netdev,
}

impl TableFamily {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Arp => 3,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ip6 => 10,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Inet, Self::Ip, Self::Ip6, Self::Arp, Self::Bridge, Self::Netdev]
            .into_iter()
            .find(|f| f.number() == number)
    }
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        })
    }
}

/// A table: the name under which chains, sets and maps live.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table {
    /// Which packets it sees.
    pub family: TableFamily,
    /// Its name, unique in the family.
    pub name: String,
    /// A comment for whoever lists it; at most 127 bytes, set when the table is made.
    pub comment: Option<String>,
}

impl Table {
    /// A table without a comment.
    pub fn new(family: TableFamily, name: impl Into<String>) -> Self {
        Self { family, name: name.into(), comment: None }
    }

    /// The table with a comment.
    #[must_use]
    pub fn with_comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    pub(super) fn write(&self, w: &mut Writer) {
        // Said outright, so that a table that somebody has put to sleep wakes up.
        w.be32(NFTA_TABLE_FLAGS, 0);
        if let Some(comment) = &self.comment {
            w.comment(NFTA_TABLE_USERDATA, comment);
        }
    }
}

/// As nft says it: `inet weft`.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// A table as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// The table.
    pub table: Table,
    /// The kernel's number for it; a table that was deleted and made again has another.
    pub handle: u64,
    /// It is there, and packets pass it by.
    pub dormant: bool,
}

impl TableInfo {
    /// Reads the attributes; `None` for a family that has no [`TableFamily`].
    pub(super) fn read(family: u8, attributes: Attributes<'_>) -> Result<Option<Self>, String> {
        let Some(family) = TableFamily::from_number(family) else { return Ok(None) };
        let name = attributes.string(super::message::TABLE_NAME).ok_or("a table without a name")?;
        let comment = attributes.comment(NFTA_TABLE_USERDATA);
        let handle = attributes.be64(NFTA_TABLE_HANDLE).unwrap_or_default();
        let dormant = attributes.be32(NFTA_TABLE_FLAGS).unwrap_or_default() & DORMANT != 0;
        Ok(Some(Self { table: Table { family, name, comment }, handle, dormant }))
    }
}
