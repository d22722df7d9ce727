//! The name of a lease under `<prefix>/subnets/`: flannel's subnet key.
//!
//! `10.5.52.0-24` is an IPv4 subnet, `10.12.13.0-24&fd00:12:13::-56` a pair. A lease without IPv4 is written as flannel
//! writes it when `EnableIPv4` is false: its zero subnet stands in the IPv4 place, `0.0.0.0-0&fd00:12:13::-56`.
//!
//! Only the canonical spelling is accepted, so that a key and its subnets stand for each other one to one.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;

use super::family::{Family, PerFamily};

/// What flannel writes in the IPv4 place of a lease that has no IPv4 subnet.
const NO_IPV4: &str = "0.0.0.0-0";

/// The subnets of one lease, one for each family the cluster uses; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubnetKey(PerFamily<IpNetwork>);

/// A key under `<prefix>/subnets/` that names no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a subnet key ({reason}); expected such as 10.244.3.0-24 or 10.244.3.0-24&fd00:3::-64")]
pub struct KeyError {
    text: String,
    reason: &'static str,
}

impl SubnetKey {
    /// The key of these subnets; `None` if there is none, or one whose length the format cannot hold (flannel's format
    /// ends at /31 and /127), or that is in the place of the other family, or whose host part is not zero.
    #[must_use]
    pub fn new(subnets: PerFamily<IpNetwork>) -> Option<Self> {
        let fits = |(family, subnet): (Family, &IpNetwork)| {
            Family::of(subnet.ip()) == family
                && (1..family.bits()).contains(&subnet.prefix())
                && subnet.ip() == subnet.network()
        };
        (!subnets.is_empty() && subnets.iter().all(fits)).then_some(Self(subnets))
    }

    /// The subnets by family.
    #[must_use]
    pub const fn subnets(&self) -> &PerFamily<IpNetwork> {
        &self.0
    }

    /// The subnet of one family.
    #[must_use]
    pub fn subnet(&self, family: Family) -> Option<IpNetwork> {
        self.0.get(family).copied()
    }

    /// Whether any address belongs to both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|(family, mine)| other.subnet(family).is_some_and(|theirs| overlap(*mine, theirs)))
    }
}

/// Whether two networks share an address; networks of different families never do.
#[must_use]
pub fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

impl fmt::Display for SubnetKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.v4 {
            Some(v4) => write!(out, "{}-{}", v4.ip(), v4.prefix())?,
            None => out.write_str(NO_IPV4)?,
        }
        if let Some(v6) = self.0.v6 {
            write!(out, "&{}-{}", v6.ip(), v6.prefix())?;
        }
        Ok(())
    }
}

impl FromStr for SubnetKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let refused = |reason| KeyError { text: text.to_owned(), reason };
        let (first, second) = match text.split_once('&') {
            Some((first, second)) => (first, Some(second)),
            None => (text, None),
        };
        let v4 = if first == NO_IPV4 { None } else { Some(subnet(first).map_err(refused)?) };
        let v6 = second.map(subnet).transpose().map_err(refused)?;
        let key = Self::new(PerFamily { v4, v6 })
            .ok_or_else(|| refused("wrong family, length out of range, or bits set beyond the length"))?;
        if key.to_string() == text { Ok(key) } else { Err(refused("not in canonical form")) }
    }
}

/// Reads `<address>-<length>`.
fn subnet(text: &str) -> Result<IpNetwork, &'static str> {
    let (address, length) = text.split_once('-').ok_or("no length after a dash")?;
    let address: IpAddr = address.parse().map_err(|_| "not an IP address")?;
    let length: u8 = length.parse().map_err(|_| "the length is not a number")?;
    IpNetwork::new(address, length).map_err(|_| "the length is out of range")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn d51_the_forms_flannel_writes() {
        for text in ["10.5.52.0-24", "10.12.13.0-24&fd00:12:13::-56", "0.0.0.0-0&fd00:12:13::-56", "10.0.0.0-31"] {
            let key: SubnetKey = text.parse().unwrap();
            assert_eq!(key.to_string(), text);
        }
        let dual: SubnetKey = "10.12.13.0-24&fd00:12:13::-56".parse().unwrap();
        assert_eq!(dual.subnet(Family::V4), Some("10.12.13.0/24".parse().unwrap()));
        assert_eq!(dual.subnet(Family::V6), Some("fd00:12:13::/56".parse().unwrap()));
    }

    #[test]
    fn d51_the_keys_flannel_rejects() {
        let vectors = [
            "10",
            "10.12.13.0",
            "10.12.13-24",
            "10.12.13.300-24",
            "10.12.13.0-24hi",
            "&2001::-56",
            "10.12.13.0-24&:12:13:-56",
            "10.12.13.0-24&20011::-56",
            "10.12.13.0-24&2001-56",
            "10.12.13.0-24&2001::",
            "10.12.13.0-24&2001::-56hi",
        ];
        for text in vectors {
            assert!(text.parse::<SubnetKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn rejects_what_would_name_a_subnet_twice_or_none() {
        for text in [
            "",
            "0.0.0.0-0",
            "10.0.0.0-32",
            "10.0.0.0-024",
            "10.0.0.0-+24",
            "10.0.0.1-24",
            "10.0.0.0-0",
            "FD00::-64",
            "10.0.0.0-24&FD00::-64",
            "10.0.0.0-24&fd00:0::-64",
            "10.0.0.0-24&fd00::-128",
            "fd00::-64",
            "10.0.0.0-24&10.1.0.0-24",
            "10.0.0.0-24&",
        ] {
            assert!(text.parse::<SubnetKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn overlap_is_by_family_and_by_containment() {
        let key = |text: &str| text.parse::<SubnetKey>().unwrap();
        assert!(key("10.0.0.0-16").overlaps(&key("10.0.5.0-24")));
        assert!(key("10.0.5.0-24").overlaps(&key("10.0.0.0-16&fd00::-64")));
        assert!(key("10.0.1.0-24&fd00::-64").overlaps(&key("10.0.2.0-24&fd00::-64")));
        assert!(!key("10.0.1.0-24&fd00::-64").overlaps(&key("10.0.2.0-24&fd00:1::-64")));
        assert!(!key("10.0.1.0-24").overlaps(&key("0.0.0.0-0&fd00::-64")));
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC*") {
            let _ = text.parse::<SubnetKey>();
        }

        #[test]
        fn what_is_read_is_written_back(text in "[0-9.]{1,12}-[0-9]{1,3}(&[0-9a-f:]{1,12}-[0-9]{1,3})?") {
            if let Ok(key) = text.parse::<SubnetKey>() {
                prop_assert_eq!(key.to_string(), text);
            }
        }

        #[test]
        fn what_is_written_is_read_back(v4: u32, v6: u128, len4 in 1u8..32, len6 in 1u8..128, which in 1u8..4) {
            let net = |ip: IpAddr, len| { let net = IpNetwork::new(ip, len).unwrap(); IpNetwork::new(net.network(), len).unwrap() };
            let key = SubnetKey::new(PerFamily {
                v4: (which & 1 != 0).then(|| net(IpAddr::V4(v4.into()), len4)),
                v6: (which & 2 != 0).then(|| net(IpAddr::V6(v6.into()), len6)),
            }).unwrap();
            prop_assert_eq!(key.to_string().parse::<SubnetKey>().unwrap(), key);
        }
    }
}
