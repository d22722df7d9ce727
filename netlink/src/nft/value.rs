//! What a register, a set key or a map's data holds.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use crate::MacAddr;

/// The longest value nf_tables knows (`NFT_DATA_VALUE_MAXLEN`, linux/netfilter/nf_tables.h).
const LONGEST: usize = 64;

/// Up to 64 bytes as they stand in registers: addresses and ports in network order, marks in the machine's own.
///
/// A value that has several fields (a concatenation) has each padded to four bytes, as each takes whole registers.
#[derive(Clone, Copy)]
pub struct Value {
    bytes: [u8; LONGEST],
    length: u8,
}

impl Value {
    /// A value of these bytes; what is beyond 64 is cut off, as no register holds it.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Self {
        let mut value = Self { bytes: [0; LONGEST], length: 0 };
        for (to, from) in value.bytes.iter_mut().zip(bytes) {
            *to = *from;
            value.length += 1;
        }
        value
    }

    /// A port, in network order.
    #[must_use]
    pub fn port(port: u16) -> Self {
        Self::bytes(&port.to_be_bytes())
    }

    /// A 32-bit number in the machine's order: a mark, an index, a `numgen` result, conntrack bits.
    #[must_use]
    pub fn number(number: u32) -> Self {
        Self::bytes(&number.to_ne_bytes())
    }

    /// One byte: an IP protocol, an address family, a direction.
    #[must_use]
    pub fn byte(byte: u8) -> Self {
        Self::bytes(&[byte])
    }

    /// An interface name, padded to the 16 bytes of `IFNAMSIZ`.
    #[must_use]
    pub fn interface(name: &str) -> Self {
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(name.bytes().take(15)) {
            *to = from;
        }
        Self::bytes(&bytes)
    }

    /// This value with another field behind it, both padded to whole registers.
    #[must_use]
    pub fn and(self, field: impl Into<Self>) -> Self {
        let field = field.into();
        let mut bytes = [0; 3 * LONGEST];
        let at = self.as_slice().len().next_multiple_of(4);
        let end = at + field.as_slice().len().next_multiple_of(4);
        bytes[..self.as_slice().len()].copy_from_slice(self.as_slice());
        bytes[at..at + field.as_slice().len()].copy_from_slice(field.as_slice());
        Self::bytes(&bytes[..end])
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The number of bytes.
    pub(super) fn len(&self) -> u8 {
        self.length
    }

    /// Turns over every bit: the complement of a mask.
    pub(super) fn complement(mut self) -> Self {
        self.bytes.iter_mut().take(usize::from(self.length)).for_each(|byte| *byte = !*byte);
        self
    }

    /// Zeroes of the same length.
    pub(super) fn zero(length: usize) -> Self {
        Self::bytes(&[0; LONGEST][..length.min(LONGEST)])
    }

    /// The value after this one in network order; `None` after the last.
    pub(super) fn successor(mut self) -> Option<Self> {
        for byte in self.bytes[..usize::from(self.length)].iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return Some(self);
            }
        }
        None
    }

    /// The value before this one in network order; `None` before the first.
    pub(super) fn predecessor(mut self) -> Option<Self> {
        for byte in self.bytes[..usize::from(self.length)].iter_mut().rev() {
            *byte = byte.wrapping_sub(1);
            if *byte != u8::MAX {
                return Some(self);
            }
        }
        None
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::bytes(&v4.octets()),
            IpAddr::V6(v6) => Self::bytes(&v6.octets()),
        }
    }
}

impl From<MacAddr> for Value {
    fn from(mac: MacAddr) -> Self {
        Self::bytes(&mac.0)
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({self})")
    }
}

/// The bytes in hexadecimal.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.as_slice().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_field_of_a_concatenation_starts_at_a_register(
            fields in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..=16), 2..=4),
        ) {
            let joined = fields[1..].iter().fold(Value::bytes(&fields[0]), |key, field| key.and(Value::bytes(field)));
            let mut rest = joined.as_slice();
            for field in &fields {
                let padded = field.len().next_multiple_of(4);
                prop_assert_eq!(&rest[..field.len()], &field[..]);
                prop_assert!(rest[field.len()..padded].iter().all(|byte| *byte == 0));
                rest = &rest[padded..];
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn a_predecessor_is_followed_by_its_value(bytes in proptest::collection::vec(any::<u8>(), 1..=16)) {
            let value = Value::bytes(&bytes);
            if let Some(next) = value.successor() {
                prop_assert_eq!(next.predecessor(), Some(value));
                prop_assert!(next > value);
            } else {
                prop_assert!(bytes.iter().all(|byte| *byte == 0xff));
            }
        }
    }

    #[test]
    fn numbers_are_in_the_order_their_register_wants() {
        assert_eq!(Value::port(0x0050).as_slice(), [0, 0x50]);
        assert_eq!(Value::number(7).as_slice(), 7u32.to_ne_bytes());
        assert_eq!(Value::interface("cni0").as_slice(), b"cni0\0\0\0\0\0\0\0\0\0\0\0\0");
    }
}
