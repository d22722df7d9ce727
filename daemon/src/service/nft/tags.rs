//! Numbers by which clients remember their backend.
//!
//! A place in a list is given to others, so it will not do; the address itself is not always 32 bits. A hash needs no memory
//! of ours, and is the same in both lists of a port and after a restart.

use std::collections::HashSet;
use std::net::IpAddr;

use super::entry::Endpoint;

/// The tag of each backend of a list, in the list's order. No two of a list have the same.
#[must_use]
pub(super) fn of(backends: &[Endpoint]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..backends.len()).collect();
    // Who has to give way must not depend on the places.
    order.sort_unstable_by_key(|position| backends.get(*position));
    let mut tags = vec![0; backends.len()];
    let mut taken = HashSet::with_capacity(backends.len());
    for position in order {
        let (Some(backend), Some(tag)) = (backends.get(position), tags.get_mut(position)) else { continue };
        *tag = hash(backend);
        while !taken.insert(*tag) {
            *tag = tag.wrapping_add(1);
        }
    }
    tags
}

/// FNV-1a (draft-eastlake-fnv).
fn hash(backend: &Endpoint) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let start = 0x811c_9dc5;
    let address = match backend.address {
        IpAddr::V4(v4) => v4.octets().iter().fold(start, step),
        IpAddr::V6(v6) => v6.octets().iter().fold(start, step),
    };
    backend.port.to_be_bytes().iter().fold(address, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_backend_keeps_its_tag_wherever_it_stands(ports in proptest::collection::hash_set(any::<u16>(), 1..50)) {
            let mut backends: Vec<Endpoint> =
                ports.into_iter().map(|port| Endpoint { address: "10.0.0.1".parse().unwrap(), port }).collect();
            let tags = of(&backends);
            prop_assert_eq!(tags.iter().collect::<HashSet<_>>().len(), backends.len());
            backends.reverse();
            prop_assert!(of(&backends).into_iter().rev().eq(tags));
        }
    }
}
