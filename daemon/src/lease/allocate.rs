//! Choosing a free subnet.
//!
//! The search begins at a place that follows from the node's name and goes round once. Nodes so spread over the network,
//! a subnet just given back is not the next one given out, and a node that comes back tends to find its old one.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use sha2::{Digest, Sha256};

use crate::cluster::family::PerFamily;
use crate::cluster::key::SubnetKey;
use crate::cluster::node::NodeName;
use crate::cluster::pool::Pool;

/// The subnets of one pool that are taken: runs of indices, first to last, that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupied(BTreeMap<u128, u128>);

impl Occupied {
    /// What `taken` takes from `pool`; subnets of any length count for all they touch.
    #[must_use]
    pub fn of(pool: &Pool, taken: impl IntoIterator<Item = IpNetwork>) -> Self {
        let mut runs: Vec<(u128, u128)> = taken.into_iter().filter_map(|subnet| pool.touched_by(subnet)).collect();
        runs.sort_unstable();
        let mut merged = BTreeMap::new();
        let mut open: Option<(u128, u128)> = None;
        for (first, last) in runs {
            open = match open {
                Some((start, end)) if first <= end.saturating_add(1) => Some((start, end.max(last))),
                Some((start, end)) => {
                    merged.insert(start, end);
                    Some((first, last))
                }
                None => Some((first, last)),
            };
        }
        merged.extend(open);
        Self(merged)
    }

    /// How many subnets are taken.
    #[must_use]
    pub fn count(&self) -> u128 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// The first free index from `start` on, going round once; `None` if all of `size` are taken.
    fn free_from(&self, start: u128, size: u128) -> Option<u128> {
        let free = |from: u128| match self.0.range(..=from).next_back() {
            Some((_, last)) if *last >= from => last + 1,
            _ => from,
        };
        Some(free(start)).filter(|index| *index < size).or_else(|| Some(free(0)).filter(|index| *index < start))
    }
}

/// Free subnets for a node, one in each family. The IPv6 subnet has the IPv4 subnet's number where that is free, so
/// that an operator sees which belong together; otherwise the next free one.
#[must_use]
pub fn allocate(pools: &PerFamily<Pool>, occupied: &PerFamily<Occupied>, node: &NodeName) -> Option<SubnetKey> {
    let mut place = hash(node);
    let mut subnets = PerFamily::default();
    for (family, pool) in pools.iter() {
        let nothing = Occupied::default();
        let taken = occupied.get(family).unwrap_or(&nothing);
        place = taken.free_from(place % pool.size(), pool.size())?;
        subnets.set(family, pool.nth(place));
    }
    SubnetKey::new(subnets)
}

/// A number that follows from the node's name alone, on every version and machine.
fn hash(node: &NodeName) -> u128 {
    let digest = Sha256::digest(node.as_str().as_bytes());
    digest.iter().take(8).fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::netconf::NetConf;
    use proptest::prelude::*;

    fn pools(text: &str) -> PerFamily<Pool> {
        NetConf::parse(text.as_bytes()).unwrap().0.pools
    }

    fn occupied(pools: &PerFamily<Pool>, keys: &[SubnetKey]) -> PerFamily<Occupied> {
        pools.filter_map(|family, pool| Some(Occupied::of(pool, keys.iter().filter_map(|key| key.subnet(family)))))
    }

    #[test]
    fn gives_out_every_subnet_once_and_then_none() {
        let pools = pools(
            r#"{"Network": "10.0.0.0/20", "SubnetLen": 24, "EnableIPv6": true, "IPv6Network": "fd00::/56", "IPv6SubnetLen": 60}"#,
        );
        let mut keys: Vec<SubnetKey> = Vec::new();
        for n in 0..15 {
            let node = format!("node-{n}").parse().unwrap();
            let key = allocate(&pools, &occupied(&pools, &keys), &node).unwrap();
            assert!(keys.iter().all(|other| !other.overlaps(&key)), "{key} of {keys:?}");
            keys.push(key);
        }
        assert_eq!(allocate(&pools, &occupied(&pools, &keys), &"one-more".parse().unwrap()), None);
        let first = keys[0];
        let [v4, v6] = first
            .subnets()
            .iter()
            .map(|(family, s)| pools.get(family).unwrap().touched_by(*s).unwrap().0)
            .collect::<Vec<_>>()[..]
        else {
            panic!()
        };
        assert_eq!(v4, v6, "{first}");
    }

    #[test]
    fn the_same_node_finds_the_same_subnet() {
        let pools = pools(r#"{"Network": "10.244.0.0/16"}"#);
        let key = |name: &str| allocate(&pools, &PerFamily::default(), &name.parse().unwrap()).unwrap();
        assert_eq!(key("node-1"), key("node-1"));
        assert_ne!(key("node-1"), key("node-2"));
    }

    #[test]
    fn an_ipv6_only_network_of_any_size() {
        let pools = pools(r#"{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00::/8"}"#);
        let key = allocate(&pools, &PerFamily::default(), &"n".parse().unwrap()).unwrap();
        assert!(key.to_string().starts_with("0.0.0.0-0&fd"), "{key}");
    }

    proptest! {
        #[test]
        fn never_overlaps_what_is_taken(
            taken in proptest::collection::vec((0u32..0x1000, 20u8..=28), 0..60),
            taken6 in proptest::collection::vec((0u128..0x100, 56u8..=64), 0..30),
            name in "[a-z]{1,8}",
        ) {
            let pools = pools(r#"{"Network": "10.0.0.0/20", "SubnetLen": 25, "EnableIPv6": true, "IPv6Network": "fd00::/56", "IPv6SubnetLen": 62}"#);
            let v4: Vec<IpNetwork> = taken.iter()
                .map(|(low, len)| IpNetwork::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 | low).into(), *len).unwrap()).collect();
            let v6: Vec<IpNetwork> = taken6.iter()
                .map(|(low, len)| IpNetwork::new(std::net::Ipv6Addr::from_bits((0xfd00 << 112) | (low << 64)).into(), *len).unwrap()).collect();
            let occupied = PerFamily {
                v4: pools.v4.map(|pool| Occupied::of(&pool, v4.clone())),
                v6: pools.v6.map(|pool| Occupied::of(&pool, v6.clone())),
            };
            match allocate(&pools, &occupied, &name.parse().unwrap()) {
                Some(key) => for (family, subnet) in key.subnets().iter() {
                    prop_assert!(pools.get(family).unwrap().leases(*subnet));
                    prop_assert!(v4.iter().chain(&v6).all(|other| !crate::cluster::key::overlap(*subnet, *other)));
                },
                None => {
                    let full = |family| occupied.get(family).unwrap().count() == pools.get(family).unwrap().size();
                    prop_assert!(crate::cluster::family::Family::ALL.into_iter().any(full));
                }
            }
        }
    }
}
