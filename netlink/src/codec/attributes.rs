//! Reads the attributes of messages.

/// `NLA_TYPE_MASK`, linux/netlink.h: the kind without the flags "nested" and "byte order".
const KIND: u16 = 0x3fff;

/// A run of attributes, searched by kind; what is malformed is passed over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// Kind and value of each attribute.
    pub(crate) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let [a, b, c, d] = *rest.first_chunk::<4>()?;
            let length = usize::from(u16::from_ne_bytes([a, b]));
            let value = rest.get(4..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((u16::from_ne_bytes([c, d]) & KIND, value))
        })
    }

    pub(crate) fn raw(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    pub(crate) fn nest(self, kind: u16) -> Option<Self> {
        self.raw(kind).map(Attributes)
    }

    pub(crate) fn string(self, kind: u16) -> Option<String> {
        let value = self.raw(kind)?;
        let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
        value.get(..end).map(|text| String::from_utf8_lossy(text).into_owned())
    }

    pub(crate) fn byte(self, kind: u16) -> Option<u8> {
        self.raw(kind)?.first().copied()
    }

    pub(crate) fn be16(self, kind: u16) -> Option<u16> {
        self.raw(kind)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    pub(crate) fn u16(self, kind: u16) -> Option<u16> {
        self.raw(kind)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
    }

    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        self.raw(kind)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    pub(crate) fn u64(self, kind: u16) -> Option<u64> {
        self.raw(kind)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
    }

    pub(crate) fn be32(self, kind: u16) -> Option<u32> {
        self.raw(kind)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    pub(crate) fn be64(self, kind: u16) -> Option<u64> {
        self.raw(kind)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// The comment in nft's user data (type 0, length, text with NUL).
    pub(crate) fn comment(self, kind: u16) -> Option<String> {
        let mut rest = self.raw(kind)?;
        loop {
            let [kind, length] = *rest.first_chunk::<2>()?;
            let value = rest.get(2..2 + usize::from(length))?;
            if kind == 0 {
                return Some(String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned());
            }
            rest = rest.get(2 + usize::from(length)..)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, kind in 0u16..4) {
            let attributes = Attributes(&bytes);
            let _ = (attributes.string(kind), attributes.be32(kind), attributes.be64(kind), attributes.comment(kind));
            let _ = attributes.nest(kind).and_then(|inner| inner.comment(kind));
        }
    }

    #[test]
    fn a_comment_is_found_behind_other_user_data() {
        let mut bytes = [12, 0, 6, 0, 2, 1, 9, 0, 3, b'h', b'i', 0];
        assert_eq!(Attributes(&bytes).comment(6).as_deref(), Some("hi"));
        bytes[0] = 11;
        assert_eq!(Attributes(&bytes).comment(6), None, "the comment is cut short");
    }
}
