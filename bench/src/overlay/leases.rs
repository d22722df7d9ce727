//! The other nodes as flannel's leases tell of them, and how they change.

use std::net::Ipv4Addr;

use anyhow::Result;
use serde_json::json;
use weft_tests::etcd::Etcd;

use crate::agent::PREFIX;

/// The cluster network: room for 8192 nodes.
const NETWORK: &str = r#"{"Network":"10.0.0.0/11","SubnetLen":24,"EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#;

/// Another node, as it is at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    number: u16,
    /// How often its VTEP has got another MAC address.
    mac: u8,
    /// How often the node has got another address.
    address: u8,
}

/// What may happen to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It comes.
    Comes,
    /// Its VTEP gets another MAC address.
    Mac,
    /// It gets another address.
    Address,
    /// It goes.
    Goes,
}

impl Change {
    /// Each, in an order in which the cluster is in the end as it was before.
    pub(crate) const ALL: [Self; 4] = [Self::Comes, Self::Mac, Self::Address, Self::Goes];
}

impl Peer {
    /// By its number, from 1 to 8000.
    pub(crate) fn new(number: u16) -> Self {
        Self { number, mac: 0, address: 0 }
    }

    /// Its subnet, a /24.
    pub(crate) fn subnet(self) -> Ipv4Addr {
        let [high, low] = self.number.to_be_bytes();
        Ipv4Addr::new(10, high, low, 0)
    }

    /// The address of its VTEP.
    pub(crate) fn address(self) -> Ipv4Addr {
        let [high, low] = self.number.to_be_bytes();
        Ipv4Addr::new(198, 18 + self.address % 2, high, low)
    }

    /// The MAC address of its VTEP.
    pub(crate) fn mac(self) -> [u8; 6] {
        let [high, low] = self.number.to_be_bytes();
        [0x0a, 0, 0, self.mac, high, low]
    }

    /// The same after a change.
    pub(crate) fn after(mut self, change: Change) -> Self {
        match change {
            Change::Mac => self.mac = self.mac.wrapping_add(1),
            Change::Address => self.address = self.address.wrapping_add(1),
            Change::Comes | Change::Goes => {}
        }
        self
    }

    fn key(self) -> String {
        format!("{PREFIX}/subnets/{}-24", self.subnet())
    }

    fn value(self) -> String {
        let mac = self.mac().map(|byte| format!("{byte:02x}")).join(":");
        json!({"PublicIP": self.address(), "PublicIPv6": null, "BackendType": "vxlan",
            "BackendData": {"VNI": 1, "VtepMAC": mac}})
        .to_string()
    }
}

/// Writes the network's configuration, and the leases of all others.
pub(crate) fn provide(etcd: &Etcd, peers: u16) -> Result<()> {
    etcd.put(&format!("{PREFIX}/config"), NETWORK)?;
    renew(etcd, 1..=peers)
}

/// Writes leases as they are, as renewing them does.
pub(crate) fn renew(etcd: &Etcd, numbers: impl Iterator<Item = u16>) -> Result<()> {
    etcd.put_all(numbers.map(Peer::new).map(|peer| (peer.key(), peer.value())))
}

/// Has something happen to another node. Returns what it is then.
pub(crate) fn apply(etcd: &Etcd, peer: Peer, change: Change) -> Result<Peer> {
    let peer = peer.after(change);
    match change {
        Change::Goes => etcd.delete(&peer.key())?,
        _ => etcd.put(&peer.key(), &peer.value())?,
    }
    Ok(peer)
}
