//! Ethernet addresses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A 48-bit Ethernet address (IEEE 802 MAC-48).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

/// A text that is not an Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address; expected six pairs of hexadecimal digits such as 0a:58:0a:f4:01:02")]
pub struct ParseMacError(String);

impl MacAddr {
    /// The address that belongs to an IPv4 address: `0a:58` and its four bytes.
    ///
    /// A neighbour that remembers the previous owner of the IP then still has the right MAC (plugins#756).
    #[must_use]
    pub fn for_ipv4(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x0a, 0x58, a, b, c, d])
    }

    /// A locally administered unicast address made of the first six bytes of a hash.
    #[must_use]
    pub fn from_hash(hash: [u8; 6]) -> Self {
        let [first, rest @ ..] = hash;
        let [b, c, d, e, f] = rest;
        // Bit 0 of the first byte is "group", bit 1 "locally administered" (IEEE 802-2014, 8.4).
        Self([(first & 0xfe) | 0x02, b, c, d, e, f])
    }

    /// Whether the address can belong to one interface: neither a group address nor all zeroes.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = ParseMacError;

    /// Reads `aa:bb:cc:dd:ee:ff`, or the same with `-`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseMacError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(wrong)?;
            // from_str_radix alone would also take "+f".
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<&[u8]> for MacAddr {
    type Error = ParseMacError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self).map_err(|_| ParseMacError(format!("{bytes:02x?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_back(bytes: [u8; 6]) {
            let mac = MacAddr(bytes);
            prop_assert_eq!(mac.to_string().parse::<MacAddr>().unwrap(), mac);
        }

        #[test]
        fn any_text_is_an_answer_not_a_panic(text: String) {
            let _ = text.parse::<MacAddr>();
        }

        #[test]
        fn a_hash_becomes_a_local_unicast_address(bytes: [u8; 6]) {
            let mac = MacAddr::from_hash(bytes);
            prop_assert!(mac.is_unicast());
            prop_assert_eq!(mac.0[0] & 2, 2);
        }
    }

    #[test]
    fn refuses_what_is_not_a_mac() {
        for text in
            ["", "0a:58:0a:f4:01", "0a:58:0a:f4:01:02:03", "0a:58:0a:f4:01:+2", "0a580af40102", "zz:58:0a:f4:01:02"]
        {
            let error = text.parse::<MacAddr>().unwrap_err().to_string();
            assert!(error.contains("is not a MAC address"), "{text}: {error}");
        }
    }
}
