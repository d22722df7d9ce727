//! Sets and maps.

use std::time::Duration;

use super::Name;
use crate::codec::Attributes;
use crate::codec::Writer;

pub(super) const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_DESC: u16 = 9;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_TIMEOUT: u16 = 11;
const NFTA_SET_USERDATA: u16 = 13;
const NFTA_SET_HANDLE: u16 = 16;
const NFTA_SET_DESC_SIZE: u16 = 1;
const NFTA_SET_DESC_CONCAT: u16 = 2;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_FIELD_LEN: u16 = 1;

const NFT_SET_CONSTANT: u32 = 0x2;
const NFT_SET_INTERVAL: u32 = 0x4;
const NFT_SET_MAP: u32 = 0x8;
const NFT_SET_TIMEOUT: u32 = 0x10;
const NFT_SET_EVAL: u32 = 0x20;
const NFT_SET_CONCAT: u32 = 0x80;
/// `NFT_DATA_VERDICT`: the data type of a verdict map.
const VERDICT: u32 = 0xffff_ff00;

/// One field of a key or of a map's data, with nft's number for its type, by which it prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// Address family, 1 byte (`NFPROTO_*`).
    Nfproto,
    /// IPv4 address.
    Ipv4,
    /// IPv6 address.
    Ipv6,
    /// Ethernet address.
    Mac,
    /// IP protocol, 1 byte.
    Protocol,
    /// Port, 2 bytes in network order.
    Port,
    /// A 32-bit number in the machine's order: a mark, or an index such as `numgen` makes.
    Mark,
    /// Interface index, 4 bytes in the machine's order.
    Interface,
    /// Interface name, 16 bytes.
    InterfaceName,
}

impl Field {
    const ALL: [Self; 9] = [
        Self::Nfproto,
        Self::Ipv4,
        Self::Ipv6,
        Self::Mac,
        Self::Protocol,
        Self::Port,
        Self::Mark,
        Self::Interface,
        Self::InterfaceName,
    ];

    /// nft's number and the length in bytes.
    fn number_and_length(self) -> (u32, u32) {
        match self {
            Self::Nfproto => (2, 1),
            Self::Ipv4 => (7, 4),
            Self::Ipv6 => (8, 16),
            Self::Mac => (9, 6),
            Self::Protocol => (12, 1),
            Self::Port => (13, 2),
            Self::Mark => (19, 4),
            Self::Interface => (20, 4),
            Self::InterfaceName => (41, 16),
        }
    }
}

/// nft's `BYTEORDER_HOST_ENDIAN` and `BYTEORDER_BIG_ENDIAN` in a set's user data: without them it takes every single
/// field for one in network order, and lists marks and interface names wrong.
fn byte_order(fields: &[Field]) -> u32 {
    match fields {
        [Field::Mark | Field::Interface | Field::InterfaceName] => 1,
        _ => 2,
    }
}

/// Type and length of one or more fields: six bits a type, and each field padded to whole registers when there are
/// several.
fn type_and_length(fields: &[Field]) -> (u32, u32) {
    match fields {
        [field] => field.number_and_length(),
        fields => fields
            .iter()
            .map(|field| field.number_and_length())
            .fold((0, 0), |(types, sum), (number, length)| (types << 6 | number, sum + length.next_multiple_of(4))),
    }
}

/// The fields of a type number, the last in its lowest six bits.
fn fields_of(mut types: u32) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while types != 0 {
        fields.push(Field::ALL.into_iter().find(|field| field.number_and_length().0 == types & 0x3f)?);
        types >>= 6;
    }
    fields.reverse();
    Some(fields)
}

/// What a map gives for a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MapData {
    /// A verdict: accept, drop, jump, goto …
    Verdict,
    /// A value of one or more fields.
    Value(Vec<Field>),
}

/// A named set, or a map if it has data.
///
/// ```
/// use weft_netlink::nft::{Field, Set};
///
/// let pods = Set::new("pods", [Field::Ipv4]).intervals();
/// let services = Set::new("services", [Field::Ipv4, Field::Protocol, Field::Port]).verdicts();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Set {
    /// Its name, unique in the table among sets and maps.
    pub name: Name,
    /// The fields of a key, at most five.
    pub key: Vec<Field>,
    /// What a map gives; `None` for a set.
    pub data: Option<MapData>,
    /// Whether keys are ranges and prefixes.
    pub interval: bool,
    /// Whether rules may add elements.
    pub dynamic: bool,
    /// Whether the elements never change once the set is in use, which lets the kernel choose a quicker structure.
    pub constant: bool,
    /// Whether elements may expire.
    pub timeouts: bool,
    /// After what time elements expire that do not say so themselves, in whole milliseconds.
    pub timeout: Option<Duration>,
    /// How many elements there may be. A kernel that knows makes a table of that size once; else it grows with the
    /// elements.
    pub size: Option<u32>,
}

impl Set {
    /// A set of single keys.
    pub fn new(name: impl Into<Name>, key: impl Into<Vec<Field>>) -> Self {
        Self {
            name: name.into(),
            key: key.into(),
            data: None,
            interval: false,
            dynamic: false,
            constant: false,
            timeouts: false,
            timeout: None,
            size: None,
        }
    }

    /// A map to values.
    #[must_use]
    pub fn values(mut self, data: impl Into<Vec<Field>>) -> Self {
        self.data = Some(MapData::Value(data.into()));
        self
    }

    /// A map to verdicts.
    #[must_use]
    pub fn verdicts(mut self) -> Self {
        self.data = Some(MapData::Verdict);
        self
    }

    /// Keys are ranges and prefixes.
    #[must_use]
    pub fn intervals(mut self) -> Self {
        self.interval = true;
        self
    }

    /// Rules may add elements.
    #[must_use]
    pub fn dynamic(mut self) -> Self {
        self.dynamic = true;
        self
    }

    /// The elements never change once the set is in use.
    #[must_use]
    pub fn constant(mut self) -> Self {
        self.constant = true;
        self
    }

    /// Elements may expire; those that say nothing stay.
    #[must_use]
    pub fn timeouts(mut self) -> Self {
        self.timeouts = true;
        self
    }

    /// Elements expire after this time unless they say otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeouts = true;
        self.timeout = Some(timeout);
        self
    }

    /// There may be so many elements at most.
    #[must_use]
    pub fn size(mut self, size: u32) -> Self {
        self.size = Some(size);
        self
    }

    /// Whether ranges are told by `KEY_END`, as in concatenations, or by an element that ends them.
    pub(super) fn has_key_end(&self) -> bool {
        self.interval && self.key.len() > 1
    }

    fn flags(&self) -> u32 {
        [
            (self.constant, NFT_SET_CONSTANT),
            (self.interval, NFT_SET_INTERVAL),
            (self.data.is_some(), NFT_SET_MAP),
            (self.timeouts, NFT_SET_TIMEOUT),
            (self.dynamic, NFT_SET_EVAL),
            (self.has_key_end(), NFT_SET_CONCAT),
        ]
        .into_iter()
        .filter_map(|(set, flag)| set.then_some(flag))
        .fold(0, |flags, flag| flags | flag)
    }

    /// Writes the set; `id` tells it from the others of the transaction.
    pub(super) fn write(&self, id: u32, w: &mut Writer) {
        w.string(NFTA_SET_NAME, &self.name);
        w.be32(NFTA_SET_FLAGS, self.flags());
        let (key_type, key_length) = type_and_length(&self.key);
        w.be32(NFTA_SET_KEY_TYPE, key_type);
        w.be32(NFTA_SET_KEY_LEN, key_length);
        match &self.data {
            Some(MapData::Value(fields)) => {
                let (data_type, data_length) = type_and_length(fields);
                w.be32(NFTA_SET_DATA_TYPE, data_type);
                w.be32(NFTA_SET_DATA_LEN, data_length);
            }
            Some(MapData::Verdict) => w.be32(NFTA_SET_DATA_TYPE, VERDICT),
            None => {}
        }
        w.be32(NFTA_SET_ID, id);
        if let Some(timeout) = self.timeout {
            w.be64(NFTA_SET_TIMEOUT, super::milliseconds(timeout));
        }
        if self.size.is_some() || self.has_key_end() {
            w.nest(NFTA_SET_DESC, |w| self.write_description(w));
        }
        self.write_byte_orders(w);
    }

    /// For nft alone: type, length, value of each byte order.
    fn write_byte_orders(&self, w: &mut Writer) {
        let mut bytes = [0, 4, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0];
        bytes[2..6].copy_from_slice(&byte_order(&self.key).to_ne_bytes());
        match &self.data {
            Some(MapData::Value(fields)) => {
                bytes[8..].copy_from_slice(&byte_order(fields).to_ne_bytes());
                w.raw(NFTA_SET_USERDATA, &bytes);
            }
            Some(MapData::Verdict) | None => w.raw(NFTA_SET_USERDATA, &bytes[..6]),
        }
    }

    fn write_description(&self, w: &mut Writer) {
        if let Some(size) = self.size {
            w.be32(NFTA_SET_DESC_SIZE, size);
        }
        if self.has_key_end() {
            // The lengths as they are, not as padded: the kernel compares no padding.
            w.nest(NFTA_SET_DESC_CONCAT, |w| {
                for field in &self.key {
                    w.nest(NFTA_LIST_ELEM, |w| w.be32(NFTA_SET_FIELD_LEN, field.number_and_length().1));
                }
            });
        }
    }
}

/// A set or map as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetInfo {
    /// The set.
    pub set: Set,
    /// The kernel's number for it.
    pub handle: u64,
}

impl SetInfo {
    pub(super) fn read(attributes: Attributes<'_>) -> Result<Self, String> {
        let name = attributes.string(NFTA_SET_NAME).ok_or("a set without a name")?;
        let flags = attributes.be32(NFTA_SET_FLAGS).unwrap_or_default();
        let has = |flag: u32| flags & flag != 0;
        let known =
            |types: u32| fields_of(types).ok_or_else(|| format!("set {name} is of the unknown type {types:#x}"));
        let key = known(attributes.be32(NFTA_SET_KEY_TYPE).unwrap_or_default())?;
        let data = match attributes.be32(NFTA_SET_DATA_TYPE) {
            _ if !has(NFT_SET_MAP) => None,
            Some(VERDICT) => Some(MapData::Verdict),
            types => Some(MapData::Value(known(types.unwrap_or_default())?)),
        };
        let set = Set {
            key,
            data,
            interval: has(NFT_SET_INTERVAL),
            dynamic: has(NFT_SET_EVAL),
            constant: has(NFT_SET_CONSTANT),
            timeouts: has(NFT_SET_TIMEOUT),
            timeout: attributes.be64(NFTA_SET_TIMEOUT).filter(|time| *time > 0).map(Duration::from_millis),
            size: attributes.nest(NFTA_SET_DESC).and_then(|description| description.be32(NFTA_SET_DESC_SIZE)),
            name: name.into(),
        };
        Ok(Self { set, handle: attributes.be64(NFTA_SET_HANDLE).unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_concatenation_is_numbered_from_the_left() {
        let (types, length) = type_and_length(&[Field::Ipv4, Field::Protocol, Field::Port]);
        assert_eq!(types, 7 << 12 | 12 << 6 | 13);
        assert_eq!(length, 12);
        assert_eq!(type_and_length(&[Field::Port]), (13, 2), "a single field is not padded");
    }

    proptest! {
        #[test]
        fn any_concatenation_is_padded_and_read_back(
            fields in proptest::collection::vec(proptest::sample::select(&Field::ALL[..]), 2..=5),
        ) {
            let (types, length) = type_and_length(&fields);
            let registers: u32 = fields.iter().map(|field| field.number_and_length().1.div_ceil(4)).sum();
            prop_assert_eq!(length, registers * 4);
            prop_assert_eq!(fields_of(types), Some(fields));
        }
    }
}
