//! What a key asks of its value beyond its type.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::service_types::TimeOrZero;
use super::value::{Endpoint, Value};

/// A condition, and the words for it in error messages.
pub(super) struct Rule<T> {
    /// What is right; stands for the type's own words, so says that, too.
    pub(super) expected: &'static str,
    /// Whether a value is right.
    pub(super) holds: fn(&T) -> bool,
}

impl<T: Value> Rule<T> {
    /// The rule of a key that asks for nothing more.
    pub(super) const ANY: Self = Self { expected: T::EXPECTED, holds: |_| true };
}

/// `public-ip`: what every other node can send to.
pub(super) const PUBLIC_V4: Rule<Option<Ipv4Addr>> = Rule {
    expected: "an IPv4 address that other nodes can send to, such as 192.0.2.1: \
               not 0.0.0.0, loopback, link-local, multicast or broadcast",
    holds: |ip| ip.is_none_or(|ip| is_public(ip.into()) && !ip.is_link_local() && !ip.is_broadcast()),
};

/// `public-ipv6`: as [`PUBLIC_V4`].
pub(super) const PUBLIC_V6: Rule<Option<Ipv6Addr>> = Rule {
    expected: "an IPv6 address that other nodes can send to, such as 2001:db8::1: \
               not ::, loopback, link-local, multicast or IPv4-mapped",
    holds: |ip| {
        let wrong = |ip: Ipv6Addr| ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some();
        ip.is_none_or(|ip| is_public(ip.into()) && !wrong(ip))
    },
};

/// `kube-api-server`: one server.
pub(super) const API_SERVER: Rule<Option<Endpoint>> =
    Rule { expected: "a URL such as https://192.0.2.10:6443", holds: |_| true };

/// Paths of a service, whose working directory is nobody's choice.
pub(super) const ABSOLUTE: Rule<PathBuf> =
    Rule { expected: "an absolute path, one that begins with a slash", holds: |path| path.is_absolute() };

/// As [`ABSOLUTE`], of a path that may be missing.
pub(super) const ABSOLUTE_IF_ANY: Rule<Option<PathBuf>> =
    Rule { expected: ABSOLUTE.expected, holds: |path| path.as_ref().is_none_or(|path| path.is_absolute()) };

/// `vni`: 24 bits (RFC 7348 section 5), and 0 is what devices without a VNI have.
pub(super) const VNI: Rule<u32> =
    Rule { expected: "a number from 1 to 16777215", holds: |vni| (1..1 << 24).contains(vni) };

/// `repair-interval`: more often would be nothing but load, less often than every minute would pass for an agent that hangs.
pub(super) const INTERVAL: Rule<Duration> = Rule {
    expected: "a time with its unit from 100ms to 1m, such as 10s",
    holds: |time| (Duration::from_millis(100)..=Duration::from_secs(60)).contains(time),
};

/// `masquerade-bit`: a bit of the 32 of a packet's mark.
pub(super) const MARK_BIT: Rule<u8> = Rule { expected: "a number from 0 to 31", holds: |bit| *bit < 32 };

/// The kernel's timers take whole seconds, and no more of them than fit their clock's ticks (`INT_MAX / HZ`).
pub(super) const KERNEL_TIME: Rule<TimeOrZero> = Rule {
    expected: "whole seconds up to 500h, such as 15m, or 0 to leave what the kernel has",
    holds: |time| time.duration().subsec_nanos() == 0 && time.duration() <= Duration::from_secs(500 * 3600),
};

/// `min-sync-period`: a change that waits for longer than the whole table's period makes the node unhealthy.
pub(super) const SYNC_GAP: Rule<TimeOrZero> = Rule {
    expected: "a time with its unit up to 30s, such as 20ms, or 0",
    holds: |time| time.duration() <= Duration::from_secs(30),
};

/// `ipvs-drain-limit`: draining has an end.
pub(super) const DRAIN: Rule<TimeOrZero> = Rule {
    expected: "a time with its unit up to 24h, such as 2m, or 0 to end connections at once",
    holds: |time| time.duration() <= Duration::from_secs(24 * 3600),
};

/// `service-cidr`: a range of Services that is everything would turn away everything.
pub(super) const SERVICE_RANGES: Rule<Vec<IpNetwork>> = Rule {
    expected: "networks such as 10.96.0.0/12 or fd00:10:96::/108, with a prefix of at least 8 bits",
    holds: |networks| networks.iter().all(|network| network.prefix() >= 8),
};

fn is_public(ip: IpAddr) -> bool {
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}
