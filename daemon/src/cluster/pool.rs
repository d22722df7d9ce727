//! The addresses of one family that leases are cut from: `SubnetMin` to `SubnetMax` of a network, in equal blocks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::family::Family;

/// One family's network and the blocks of it that may be leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    network: IpNetwork,
    subnet_len: u8,
    /// First address of the first block.
    min: u128,
    /// First address of the last block.
    max: u128,
}

impl Pool {
    /// The blocks of length `subnet_len` from `min` to `max`, both inclusive. The caller (net-config validation) has
    /// checked that the two lie on block boundaries inside `network`, and in order.
    pub(super) fn new(network: IpNetwork, subnet_len: u8, min: IpAddr, max: IpAddr) -> Self {
        Self { network, subnet_len, min: number(min), max: number(max) }
    }

    /// The family the pool is of.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.network.ip())
    }

    /// The whole cluster network (`Network`, `IPv6Network`).
    #[must_use]
    pub const fn network(&self) -> IpNetwork {
        self.network
    }

    /// Length of each leased subnet (`SubnetLen`, `IPv6SubnetLen`).
    #[must_use]
    pub const fn subnet_len(&self) -> u8 {
        self.subnet_len
    }

    /// How many subnets there are to lease.
    #[must_use]
    pub fn size(&self) -> u128 {
        ((self.max - self.min) >> self.block_bits()).saturating_add(1)
    }

    /// The subnet number `index`, counted from `SubnetMin`.
    #[must_use]
    pub fn nth(&self, index: u128) -> Option<IpNetwork> {
        if index >= self.size() {
            return None;
        }
        let first = self.min + (index << self.block_bits());
        IpNetwork::new(address(self.family(), first), self.subnet_len).ok()
    }

    /// Whether `subnet` is one that this pool leases: the right length, on a boundary, between `SubnetMin` and
    /// `SubnetMax`.
    #[must_use]
    pub fn leases(&self, subnet: IpNetwork) -> bool {
        let first = number(subnet.ip());
        Family::of(subnet.ip()) == self.family()
            && subnet.prefix() == self.subnet_len
            && (self.min..=self.max).contains(&first)
            && (first - self.min).trailing_zeros() >= self.block_bits()
    }

    /// The indices of the first and last subnet that share an address with `subnet`, if any does.
    #[must_use]
    pub fn touched_by(&self, subnet: IpNetwork) -> Option<(u128, u128)> {
        if Family::of(subnet.ip()) != self.family() {
            return None;
        }
        let first = number(subnet.network());
        let last = number(subnet.broadcast());
        let pool_last = self.max + ((1_u128 << self.block_bits()) - 1);
        if last < self.min || first > pool_last {
            return None;
        }
        let index = |at: u128| (at.clamp(self.min, pool_last) - self.min) >> self.block_bits();
        Some((index(first), index(last)))
    }

    /// Bits of an address that lie within a subnet.
    fn block_bits(&self) -> u32 {
        u32::from(self.family().bits() - self.subnet_len)
    }
}

/// An address as a number.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// A number as an address; bits beyond the family's width cannot be there and are dropped.
pub(crate) fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number & u128::from(u32::MAX)).unwrap_or(u32::MAX))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(network: &str, len: u8, min: &str, max: &str) -> Pool {
        Pool::new(network.parse().unwrap(), len, min.parse().unwrap(), max.parse().unwrap())
    }

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn counts_and_finds_the_blocks() {
        let pool = pool("10.3.0.0/16", 24, "10.3.1.0", "10.3.255.0");
        assert_eq!(pool.size(), 255);
        assert_eq!(pool.nth(0), Some(net("10.3.1.0/24")));
        assert_eq!(pool.nth(254), Some(net("10.3.255.0/24")));
        assert_eq!(pool.nth(255), None);
        assert!(pool.leases(net("10.3.7.0/24")));
        for other in ["10.3.0.0/24", "10.4.1.0/24", "10.3.8.0/25", "fd00::/24"] {
            assert!(!pool.leases(net(other)), "{other}");
        }
    }

    #[test]
    fn a_subnet_of_another_length_touches_all_it_covers() {
        let pool = pool("10.3.0.0/16", 24, "10.3.1.0", "10.3.255.0");
        assert_eq!(pool.touched_by(net("10.3.0.0/24")), None);
        assert_eq!(pool.touched_by(net("10.3.0.0/22")), Some((0, 2)));
        assert_eq!(pool.touched_by(net("10.3.9.128/25")), Some((8, 8)));
        assert_eq!(pool.touched_by(net("0.0.0.0/0")), Some((0, 254)));
        assert_eq!(pool.touched_by(net("fd00::/8")), None);
    }

    #[test]
    fn the_largest_ipv6_pool_does_not_overflow() {
        let pool = pool("::/1", 126, "::", "7fff:ffff:ffff:ffff:ffff:ffff:ffff:fffc");
        assert_eq!(pool.size(), 1 << 125);
        assert_eq!(pool.nth(pool.size() - 1), Some(net("7fff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126")));
    }

    proptest! {
        #[test]
        fn touched_is_exactly_what_overlaps(ip: u32, len in 8u8..=32) {
            let pool = pool("10.3.0.0/20", 24, "10.3.1.0", "10.3.14.0");
            let ip = Ipv4Addr::from_bits((ip & 0x0000_1fff) | 0x0a03_0000);
            let other = IpNetwork::new(IpAddr::V4(ip), len).unwrap();
            let expected: Vec<u128> =
                (0..pool.size()).filter(|i| crate::cluster::key::overlap(pool.nth(*i).unwrap(), other)).collect();
            let found: Vec<u128> = pool.touched_by(other).map(|(a, b)| (a..=b).collect()).unwrap_or_default();
            prop_assert_eq!(found, expected);
        }
    }
}
