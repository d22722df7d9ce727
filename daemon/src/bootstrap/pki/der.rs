//! Putting ASN.1 values together. Reading is x509-parser's part.

use rsa::pkcs8::der::asn1::{
    AnyRef, BitStringRef, GeneralizedTime, ObjectIdentifier, PrintableStringRef, UintRef, UtcTime, Utf8StringRef,
};
use rsa::pkcs8::der::{self, Encode, Tag, TagNumber};

use std::time::Duration;

use jiff::Timestamp;

/// DER of a value with this tag and content.
pub(super) fn value(tag: Tag, parts: &[&[u8]]) -> der::Result<Vec<u8>> {
    AnyRef::new(tag, &parts.concat())?.to_der()
}

/// SEQUENCE of encoded values.
pub(super) fn sequence(parts: &[&[u8]]) -> der::Result<Vec<u8>> {
    value(Tag::Sequence, parts)
}

/// SET OF encoded values, in DER's order.
pub(super) fn set(mut parts: Vec<Vec<u8>>) -> der::Result<Vec<u8>> {
    parts.sort();
    value(Tag::Set, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// `[number]` around encoded values (explicit), or around content (implicit and primitive).
pub(super) fn context(number: u32, constructed: bool, parts: &[&[u8]]) -> der::Result<Vec<u8>> {
    value(Tag::ContextSpecific { constructed, number: TagNumber(number) }, parts)
}

/// OBJECT IDENTIFIER.
pub(super) fn oid(dotted: &str) -> der::Result<Vec<u8>> {
    ObjectIdentifier::new(dotted)?.to_der()
}

/// INTEGER out of the bytes of a number that is not negative.
pub(super) fn unsigned(bytes: &[u8]) -> der::Result<Vec<u8>> {
    UintRef::new(bytes)?.to_der()
}

/// BIT STRING with that many bits of its last byte unused.
pub(super) fn bits(unused: u8, bytes: &[u8]) -> der::Result<Vec<u8>> {
    BitStringRef::new(unused, bytes)?.to_der()
}

/// OCTET STRING.
pub(super) fn octets(bytes: &[u8]) -> der::Result<Vec<u8>> {
    value(Tag::OctetString, &[bytes])
}

/// A name's text: PrintableString where it may be one, else UTF8String, as Go does it.
pub(super) fn text(text: &str) -> der::Result<Vec<u8>> {
    match PrintableStringRef::new(text) {
        Ok(printable) => printable.to_der(),
        Err(_) => Utf8StringRef::new(text)?.to_der(),
    }
}

/// UTCTime up to 2049 and GeneralizedTime from then on (RFC 5280, 4.1.2.5). Times before 1970 become 1970.
pub(super) fn time(at: Timestamp) -> der::Result<Vec<u8>> {
    let since = Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0));
    match UtcTime::from_unix_duration(since) {
        Ok(time) => time.to_der(),
        Err(_) => GeneralizedTime::from_unix_duration(since)?.to_der(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_as_x690_has_them() {
        assert_eq!(sequence(&[&[1, 1, 0xff]]).unwrap(), [0x30, 3, 1, 1, 0xff]);
        assert_eq!(oid("2.5.4.3").unwrap(), [6, 3, 0x55, 4, 3]);
        assert_eq!(unsigned(&[0x80]).unwrap(), [2, 2, 0, 0x80], "a positive number begins with a zero bit");
        assert_eq!(bits(5, &[0xa0]).unwrap(), [3, 2, 5, 0xa0]);
        assert_eq!(context(2, false, &[b"a"]).unwrap(), [0x82, 1, b'a']);
        assert_eq!(context(3, true, &[&[5, 0]]).unwrap(), [0xa3, 2, 5, 0]);
        assert_eq!(set(vec![vec![2, 1, 9], vec![2, 1, 1]]).unwrap(), [0x31, 6, 2, 1, 1, 2, 1, 9]);
    }

    #[test]
    fn texts_are_printable_if_they_may() {
        assert_eq!(text("system:node:n1").unwrap()[0], 0x13);
        assert_eq!(text("a_b@c").unwrap()[0], 0x0c);
    }

    #[test]
    fn times_change_their_form_in_2050() {
        let at = |text: &str| time(text.parse().unwrap()).unwrap();
        assert_eq!(&at("2049-12-31T23:59:59Z")[2..], b"491231235959Z");
        assert_eq!(&at("2050-01-01T00:00:00Z")[2..], b"20500101000000Z");
    }
}
