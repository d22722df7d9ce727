//! IP protocol numbers (`IPPROTO_*`, linux/in.h).

use std::fmt;

/// ICMP.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// SCTP.
pub const SCTP: u8 = 132;

/// A protocol by its name, or by its number where it is none of the above.
pub(crate) fn name(protocol: u8) -> impl fmt::Display {
    fmt::from_fn(move |f| match protocol {
        ICMP => f.write_str("ICMP"),
        TCP => f.write_str("TCP"),
        UDP => f.write_str("UDP"),
        ICMPV6 => f.write_str("ICMPv6"),
        SCTP => f.write_str("SCTP"),
        other => write!(f, "protocol {other}"),
    })
}
