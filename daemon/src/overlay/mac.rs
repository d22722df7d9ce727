//! The MAC of a VTEP, the same after every loss of state.

use sha2::{Digest, Sha256};
use weft_netlink::MacAddr;

use crate::cluster::family::Family;

/// The MAC for a node's VTEP of one family: the hash of cluster, node and family as a local unicast address.
///
/// flannel draws it at random, so a device that is deleted comes back with a MAC that no peer knows.
#[must_use]
pub fn vtep_mac(cluster: &str, node: &str, family: Family) -> MacAddr {
    let mut hash = Sha256::new();
    // Lengths first, so that no two inputs run together to the same bytes.
    for part in [cluster, node, &family.to_string()] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, e, f, ..] = digest;
    MacAddr::from_hash([a, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differs_by_cluster_node_and_family_and_never_changes() {
        let macs = [
            vtep_mac("a", "node1", Family::V4),
            vtep_mac("a", "node1", Family::V6),
            vtep_mac("a", "node2", Family::V4),
            vtep_mac("b", "node1", Family::V4),
            vtep_mac("an", "ode1", Family::V4),
        ];
        for (i, mac) in macs.iter().enumerate() {
            assert!(mac.is_unicast());
            assert!(!macs[i + 1..].contains(mac));
        }
        // Part of what a cluster remembers: a new version must not change it.
        assert_eq!(macs[0].to_string(), vtep_mac("a", "node1", Family::V4).to_string());
    }
}
