//! Other nodes that publish the public address of this one. Whatever is sent to that address reaches one of the two, and the
//! other is cut off; nobody but the two can tell that it is a fault.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::cluster::key::SubnetKey;
use crate::cluster::model::Lease;
use crate::cluster::node::NodeName;

/// A public address that another node publishes, too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SharedIp {
    /// The address.
    pub address: IpAddr,
    /// The other node's lease.
    pub lease: SubnetKey,
    /// The other node's name, if the store tells it.
    pub node: Option<NodeName>,
}

impl fmt::Display for SharedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, lease, node } = self;
        match node {
            Some(node) => write!(f, "node {node} with lease {lease} publishes {address}")?,
            None => write!(f, "the node with lease {lease} publishes {address}")?,
        }
        f.write_str(", the public address of this node: one of the two cannot be reached; set iface or public-ip on one of them")
    }
}

/// The addresses among `own` that other nodes publish, too, whatever their back end is.
#[must_use]
pub fn shared(own: &BTreeSet<IpAddr>, peers: &[&Lease]) -> BTreeSet<SharedIp> {
    let of = |peer: &&Lease| {
        let (lease, node) = (peer.key, peer.node.clone());
        let addresses = peer.public_ips.values().copied().filter(|address| own.contains(address)).collect::<Vec<_>>();
        addresses.into_iter().map(move |address| SharedIp { address, lease, node: node.clone() })
    };
    peers.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::family::PerFamily;
    use crate::cluster::lease_value::BackendData;

    fn lease(number: u8, v4: &str, v6: &str, node: Option<&str>) -> Lease {
        Lease {
            key: format!("10.244.{number}.0-24&fd00:10:244:{number}::-64").parse().unwrap(),
            public_ips: PerFamily { v4: Some(v4.parse().unwrap()), v6: Some(v6.parse().unwrap()) },
            backend: BackendData::default(),
            node: node.map(|node| node.parse().unwrap()),
            create_revision: 1,
        }
    }

    #[test]
    fn d22_the_other_node_is_named_in_each_family() {
        let own = ["192.0.2.1", "2001:db8::1"].map(|address| address.parse().unwrap()).into();
        let other = lease(2, "192.0.2.2", "2001:db8::2", Some("n2"));
        assert!(shared(&own, &[&other]).is_empty());
        let v4 = lease(3, "192.0.2.1", "2001:db8::3", Some("n3"));
        let v6 = lease(4, "192.0.2.4", "2001:db8::1", None);
        let words: Vec<String> = shared(&own, &[&other, &v4, &v6]).iter().map(ToString::to_string).collect();
        let [first, second] = words.as_slice() else { panic!("{words:?}") };
        assert!(
            first.starts_with("node n3 with lease 10.244.3.0-24&fd00:10:244:3::-64 publishes 192.0.2.1,"),
            "{first}"
        );
        assert!(
            second.starts_with("the node with lease 10.244.4.0-24&fd00:10:244:4::-64 publishes 2001:db8::1,"),
            "{second}"
        );
    }
}
