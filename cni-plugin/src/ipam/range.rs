//! Ranges of addresses to give out, with host-local's defaults and rules.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// Consecutive addresses of one subnet. All of it is consistent once it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    subnet: IpNetwork,
    start: IpAddr,
    end: IpAddr,
    gateway: IpAddr,
}

/// Ranges of one family that give one address together.
pub type RangeSet = Vec<Range>;

/// Why there is no such range: the key within the range, its value, what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {value} is not valid; expected {expected}")]
pub struct RangeError {
    /// The key within the range.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What was expected.
    pub expected: String,
}

impl RangeError {
    fn new(key: &'static str, value: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self { key, value: value.to_string(), expected: expected.into() }
    }
}

impl Range {
    /// A range of `subnet`. Without `start` and `end` it is all of it that a host can have; without `gateway` that is the
    /// first address.
    ///
    /// # Errors
    /// [`RangeError`] if the subnet has host bits, is smaller than four addresses, or if an address is outside of it.
    pub fn new(
        subnet: IpNetwork,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self, RangeError> {
        if subnet.ip() != subnet.network() {
            return Err(RangeError::new(
                "subnet",
                subnet,
                format!("no host bits: {}/{}", subnet.network(), subnet.prefix()),
            ));
        }
        let longest = if subnet.is_ipv4() { 30 } else { 126 };
        if subnet.prefix() > longest {
            return Err(RangeError::new("subnet", subnet, format!("a prefix of /{longest} or shorter")));
        }
        let within = |key, ip: Option<IpAddr>, default: IpAddr| match ip {
            None => Ok(default),
            Some(ip) if subnet.contains(ip) => Ok(ip),
            Some(ip) => Err(RangeError::new(key, ip, format!("an address in {subnet}"))),
        };
        let first = offset(subnet.network(), 1);
        let last =
            if subnet.is_ipv4() { from_number(number(subnet.broadcast()) - 1, true) } else { subnet.broadcast() };
        let range = Self {
            subnet,
            start: within("rangeStart", start, first)?,
            end: within("rangeEnd", end, last)?,
            gateway: within("gateway", gateway, first)?,
        };
        if range.start > range.end {
            return Err(RangeError::new("rangeStart", range.start, format!("not after rangeEnd {}", range.end)));
        }
        Ok(range)
    }

    /// The subnet.
    #[must_use]
    pub fn subnet(&self) -> IpNetwork {
        self.subnet
    }

    /// The gateway.
    #[must_use]
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// The first address of the range.
    #[must_use]
    pub fn start(&self) -> IpAddr {
        self.start
    }

    /// The last address of the range.
    #[must_use]
    pub fn end(&self) -> IpAddr {
        self.end
    }

    /// Whether the address lies in the range.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.subnet.is_ipv4() && (self.start..=self.end).contains(&ip)
    }

    /// Whether a host may have the address: not the gateway, not the subnet's first, nor in IPv4 its last.
    #[must_use]
    pub fn is_host(&self, ip: IpAddr) -> bool {
        ip != self.gateway && ip != self.subnet.network() && !(ip.is_ipv4() && ip == self.subnet.broadcast())
    }

    /// The address with the subnet's prefix length.
    #[must_use]
    pub fn with_prefix(&self, ip: IpAddr) -> IpNetwork {
        // The prefix length is of this family, so the address takes it.
        IpNetwork::new(ip, self.subnet.prefix()).unwrap_or(self.subnet)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.subnet.is_ipv4() == other.subnet.is_ipv4() && self.start <= other.end && other.start <= self.end
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}/{}", self.start, self.end, self.subnet.prefix())
    }
}

/// Refuses sets that no address could be given from without doubt.
///
/// # Errors
/// A sentence if a set is empty or of two families, or if any two ranges overlap.
pub fn validate(sets: &[RangeSet]) -> Result<(), RangeError> {
    let mut seen: Vec<&Range> = Vec::new();
    for (index, set) in sets.iter().enumerate() {
        let Some(first) = set.first() else {
            return Err(RangeError::new("ranges", format!("set {index}"), "at least one range"));
        };
        for range in set {
            if range.subnet.is_ipv4() != first.subnet.is_ipv4() {
                return Err(RangeError::new("subnet", range.subnet, "one address family in a range set"));
            }
            if let Some(other) = seen.iter().find(|other| other.overlaps(range)) {
                return Err(RangeError::new("ranges", range, format!("no overlap with {other}")));
            }
            seen.push(range);
        }
    }
    Ok(())
}

/// The sets as one line, for messages: `[10.244.1.1-10.244.1.254/24]`.
#[must_use]
pub fn describe(set: &[Range]) -> String {
    format!("[{}]", set.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

/// An address as a number.
#[must_use]
pub(crate) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// A number as an address; what does not fit IPv4 is its last address.
#[must_use]
pub(crate) fn from_number(number: u128, v4: bool) -> IpAddr {
    if v4 {
        IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)))
    } else {
        IpAddr::V6(Ipv6Addr::from(number))
    }
}

fn offset(ip: IpAddr, by: u32) -> IpAddr {
    from_number(number(ip).saturating_add(by.into()), ip.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(subnet: &str, start: Option<&str>, end: Option<&str>, gateway: Option<&str>) -> Result<Range, RangeError> {
        let ip = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        Range::new(subnet.parse().unwrap(), ip(start), ip(end), ip(gateway))
    }

    #[test]
    fn defaults_are_host_locals() {
        let v4 = range("10.1.0.0/16", None, None, None).unwrap();
        assert_eq!(v4.to_string(), "10.1.0.1-10.1.255.254/16");
        assert_eq!(v4.gateway().to_string(), "10.1.0.1");
        let v6 = range("fd00::/64", None, None, None).unwrap();
        assert_eq!(v6.to_string(), "fd00::1-fd00::ffff:ffff:ffff:ffff/64");
    }

    #[test]
    fn t071_impossible_ranges_are_refused_by_key_and_value() {
        for (subnet, start, end, gateway, key) in [
            ("10.1.0.5/24", None, None, None, "subnet"),
            ("10.1.0.0/31", None, None, None, "subnet"),
            ("10.1.0.0/32", None, None, None, "subnet"),
            ("fd00::/127", None, None, None, "subnet"),
            ("10.1.0.0/24", Some("10.1.0.9"), Some("10.1.0.8"), None, "rangeStart"),
            ("10.1.0.0/24", Some("10.2.0.9"), None, None, "rangeStart"),
            ("10.1.0.0/24", None, Some("fd00::1"), None, "rangeEnd"),
            ("10.1.0.0/24", None, None, Some("10.2.0.1"), "gateway"),
        ] {
            let error = range(subnet, start, end, gateway).unwrap_err();
            assert_eq!(error.key, key, "{error}");
        }
    }

    #[test]
    fn t071_sets_do_not_overlap_and_have_one_family() {
        let a = range("10.1.0.0/24", None, Some("10.1.0.99"), None).unwrap();
        let b = range("10.1.0.0/24", Some("10.1.0.100"), None, None).unwrap();
        let c = range("10.1.0.0/24", Some("10.1.0.50"), Some("10.1.0.60"), None).unwrap();
        let v6 = range("fd00::/64", None, None, None).unwrap();
        assert!(validate(&[vec![a, b], vec![v6]]).is_ok());
        assert!(validate(&[vec![a], vec![c]]).unwrap_err().expected.contains("overlap"));
        assert!(validate(&[vec![a, c]]).is_err());
        assert!(validate(&[vec![a, v6]]).unwrap_err().expected.contains("family"));
        assert!(validate(&[vec![]]).is_err());
    }

    #[test]
    fn neither_gateway_nor_network_nor_broadcast_is_a_host() {
        let v4 = range("10.1.0.0/30", Some("10.1.0.0"), Some("10.1.0.3"), None).unwrap();
        let hosts: Vec<_> = (0..4).map(|n| offset(v4.start(), n)).filter(|ip| v4.is_host(*ip)).collect();
        assert_eq!(hosts, ["10.1.0.2".parse::<IpAddr>().unwrap()]);
        let v6 = range("fd00::/126", None, None, None).unwrap();
        assert!(v6.is_host("fd00::3".parse().unwrap()) && !v6.is_host("fd00::".parse().unwrap()));
    }
}
