//! Writes messages into one growing buffer.
//!
//! Nothing is allocated for an attribute: a nest is opened with a length of zero, and the length is set when it closes.

/// `NLA_F_NESTED`, linux/netlink.h.
const NESTED: u16 = 1 << 15;
/// `struct nlattr`, linux/netlink.h.
const ATTRIBUTE_HEADER: usize = 4;
/// `struct nlmsghdr` and the four bytes of `struct nfgenmsg` or `struct genlmsghdr`.
pub(crate) const MESSAGE_HEADER: usize = 20;

/// The messages written so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    fault: Option<String>,
}

impl Writer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What cannot be said in netlink at all; the kernel never sees such a buffer.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    fn note_fault(&mut self, fault: impl FnOnce() -> String) {
        if self.fault.is_none() {
            self.fault = Some(fault());
        }
    }

    /// Writes one message. `header` is that of the protocol; the sequence number is set when the message is sent.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, header: [u8; 4], body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(&header);
        body(self);
        let length = self.bytes.len() - start;
        match u32::try_from(length) {
            Ok(length) => self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.note_fault(|| format!("a message of {length} bytes is longer than netlink allows")),
        }
    }

    /// Writes an attribute that holds other attributes.
    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.header(kind | NESTED, 0);
        body(self);
        let length = self.bytes.len() - start;
        match u16::try_from(length) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => {
                self.note_fault(|| format!("an attribute of {length} bytes is longer than netlink allows (65535)"));
            }
        }
    }

    /// Writes an attribute of plain bytes, padded to the next multiple of four.
    pub(crate) fn raw(&mut self, kind: u16, value: &[u8]) {
        self.parts(kind, value, &[]);
    }

    /// Writes a name with its closing NUL.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        if value.bytes().any(|byte| byte == 0) {
            self.note_fault(|| format!("the name {value:?} holds a NUL byte"));
        }
        self.parts(kind, value.as_bytes(), &[0]);
    }

    /// Writes one byte.
    pub(crate) fn byte(&mut self, kind: u16, value: u8) {
        self.parts(kind, &[value], &[]);
    }

    /// Writes a 16-bit number, big endian: a port.
    pub(crate) fn be16(&mut self, kind: u16, value: u16) {
        self.parts(kind, &value.to_be_bytes(), &[]);
    }

    /// Writes a 32-bit number, big endian as everywhere in nfnetlink.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.parts(kind, &value.to_be_bytes(), &[]);
    }

    /// Writes a 64-bit number, big endian.
    pub(crate) fn be64(&mut self, kind: u16, value: u64) {
        self.parts(kind, &value.to_be_bytes(), &[]);
    }

    /// Writes a 16-bit number in the machine's order, as everywhere in generic netlink.
    pub(crate) fn u16(&mut self, kind: u16, value: u16) {
        self.parts(kind, &value.to_ne_bytes(), &[]);
    }

    /// Writes a 32-bit number in the machine's order.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.parts(kind, &value.to_ne_bytes(), &[]);
    }

    /// Writes a comment as nft's user data: type, length with the NUL, text, NUL.
    pub(crate) fn comment(&mut self, kind: u16, comment: &str) {
        const COMMENT: u8 = 0;
        // nft itself refuses to list more than 128 bytes.
        match u8::try_from(comment.len() + 1) {
            Ok(length) if length <= 128 && !comment.contains('\0') => {
                let start = self.bytes.len();
                self.header(kind, 2 + usize::from(length));
                self.bytes.extend_from_slice(&[COMMENT, length]);
                self.bytes.extend_from_slice(comment.as_bytes());
                self.bytes.push(0);
                self.pad(start);
            }
            _ => self.note_fault(|| format!("the comment {comment:?} is longer than 127 bytes or holds a NUL byte")),
        }
    }

    fn parts(&mut self, kind: u16, value: &[u8], end: &[u8]) {
        let start = self.bytes.len();
        self.header(kind, value.len() + end.len());
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(end);
        self.pad(start);
    }

    fn header(&mut self, kind: u16, length: usize) {
        let length = u16::try_from(ATTRIBUTE_HEADER + length).unwrap_or_else(|_| {
            self.note_fault(|| format!("an attribute of {length} bytes is longer than netlink allows (65531)"));
            0
        });
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
    }

    fn pad(&mut self, start: usize) {
        let length = self.bytes.len() - start;
        self.bytes.resize(start + length.next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(body: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        body(&mut writer);
        assert_eq!(writer.fault(), None);
        writer.bytes
    }

    fn header(length: u16, kind: u16) -> [u8; 4] {
        let [a, b] = length.to_ne_bytes();
        let [c, d] = kind.to_ne_bytes();
        [a, b, c, d]
    }

    #[test]
    fn a_name_ends_in_nul_and_is_padded_behind_its_length() {
        assert_eq!(written(|w| w.string(1, "weft")), [&header(9, 1)[..], b"weft\0\0\0\0"].concat());
        assert_eq!(written(|w| w.string(1, "wef")), [&header(8, 1)[..], b"wef\0"].concat());
    }

    #[test]
    fn numbers_are_big_endian() {
        assert_eq!(written(|w| w.be32(2, 0x0102_0304)), [&header(8, 2)[..], &[1, 2, 3, 4]].concat());
        assert_eq!(written(|w| w.be64(2, 5)), [&header(12, 2)[..], &[0, 0, 0, 0, 0, 0, 0, 5]].concat());
    }

    #[test]
    fn a_nest_knows_the_length_of_what_it_holds() {
        let bytes = written(|w| w.nest(3, |w| w.nest(4, |w| w.byte(5, 9))));
        let expected = [&header(16, 3 | NESTED)[..], &header(12, 4 | NESTED), &header(5, 5), &[9, 0, 0, 0]].concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_message_carries_its_length_and_the_header_of_its_protocol() {
        let bytes = written(|w| w.message(0x0a00, 5, [1, 0, 0, 10], |w| w.be32(1, 7)));
        assert_eq!(bytes.len(), MESSAGE_HEADER + 8);
        assert_eq!(bytes[..4], 28u32.to_ne_bytes());
        assert_eq!(bytes[16..20], [1, 0, 0, 10]);
    }

    #[test]
    fn a_comment_is_a_type_length_value() {
        assert_eq!(written(|w| w.comment(7, "hi")), [&header(9, 7)[..], &[0, 3, b'h', b'i', 0, 0, 0, 0]].concat());
    }

    #[test]
    fn what_netlink_cannot_say_is_a_fault() {
        let faults: [fn(&mut Writer); 4] = [
            |w| w.raw(1, &vec![0; 65_532]),
            |w| w.nest(1, |w| (0..5).for_each(|_| w.raw(1, &[0; 20_000]))),
            |w| w.string(1, "a\0b"),
            |w| w.comment(1, &"x".repeat(128)),
        ];
        for fault in faults {
            let mut writer = Writer::default();
            fault(&mut writer);
            assert!(writer.fault().is_some());
        }
    }
}
