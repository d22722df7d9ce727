//! Addresses and networks as the Kubernetes API has always taken them: with leading zeros, which are decimal.
//!
//! Everything that reads an address of a Service reads it here, so that "010.0.0.1" is the same key wherever it stands.

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// Bits that an IPv4 address mapped into IPv6 (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2) has before its own.
const MAPPED_BITS: u8 = 96;

/// Reads an address. Leading zeros are passed over and a mapped IPv4 address is an IPv4 address, both as in Go's older
/// parser, which the Kubernetes API keeps for objects that were written in its time.
pub fn address(text: &str) -> Option<IpAddr> {
    let read = text.parse().or_else(|_| without_leading_zeros(text).parse::<IpAddr>());
    read.ok().map(|address| address.to_canonical())
}

/// Reads `<address>/<length>`; bits beyond the length are cleared.
pub fn network(text: &str) -> Option<IpNetwork> {
    let (ip, length) = text.split_once('/')?;
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    let address = address(ip)?;
    // The length of a mapped address counts from the start of the IPv6 one.
    let is_mapped = address.is_ipv4() && ip.contains(':');
    let length = if is_mapped { length.checked_sub(MAPPED_BITS)? } else { length };
    let network = IpNetwork::new(address, length).ok()?;
    IpNetwork::new(network.network(), length).ok()
}

/// Whether a Service may answer at the address: at no address at all, a group's, or the one by which every host means
/// itself, it would take traffic that is nobody else's to take.
pub(super) fn is_usable(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback() && !is_broadcast(address)
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

/// Whether an IPv6 address is of the link only.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => Ipv6Addr::is_unicast_link_local(&address),
    }
}

fn without_leading_zeros(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(['.', ':']).unwrap_or(rest.len());
        let (group, tail) = rest.split_at(end);
        let stripped = group.trim_start_matches('0');
        out.push_str(if stripped.is_empty() && !group.is_empty() { "0" } else { stripped });
        let separator = usize::from(!tail.is_empty());
        out.push_str(&tail[..separator]);
        rest = &tail[separator..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn t105_leading_zeros_are_decimal() {
        let same = [
            ("010.0.0.1", "10.0.0.1"),
            ("172.30.0.041", "172.30.0.41"),
            ("1.2.3.004", "1.2.3.4"),
            ("0.0.000.0", "0.0.0.0"),
            ("fd00:0:0:0:0:0:0:00001", "fd00::1"),
            ("::ffff:10.0.0.07", "10.0.0.7"),
        ];
        for (text, meant) in same {
            assert_eq!(address(text), Some(meant.parse().unwrap()), "{text}");
        }
        for text in
            ["", "10.0.0", "10.0.0.256", "10.0.0.1 ", "10..0.1", "fe80::1%eth0", "web", "1.2.3.4.5", "0x10.0.0.1"]
        {
            assert_eq!(address(text), None, "{text}");
        }
    }

    #[test]
    fn t105_networks_too() {
        let same = [
            ("203.0.113.000/025", "203.0.113.0/25"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("fd00::1/64", "fd00::/64"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ];
        for (text, meant) in same {
            assert_eq!(network(text), Some(meant.parse().unwrap()), "{text}");
        }
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/255.0.0.0", "::ffff:10.0.0.0/8"] {
            assert_eq!(network(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC*") {
            let _ = (address(&text), network(&text));
        }

        #[test]
        fn what_is_canonical_is_read_as_it_is(v4: u32, v6: u128) {
            for ip in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into()).to_canonical()] {
                prop_assert_eq!(address(&ip.to_string()), Some(ip));
            }
        }
    }
}
