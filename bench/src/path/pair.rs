//! Two nodes that are plugged into each other, each with a pod.
//!
//! ```text
//!   pod 1 ── node 1 192.168.100.1 eth0 ──── eth0 192.168.100.2 node 2 ── pod 2
//! ```

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use weft_tests::netns::OwnedNetns;
use weft_tests::scratch::unique_name;

use super::networks::Pod;

/// The nodes' link to each other.
pub(crate) const UPLINK: &str = "eth0";

/// One of the two.
pub(crate) struct Node {
    /// 1 or 2.
    pub(crate) number: u8,
    pub(crate) netns: OwnedNetns,
    /// Its pod's namespace, which nothing has been done to.
    pub(crate) pod: OwnedNetns,
}

impl Node {
    /// Its address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 100, self.number)
    }
}

/// Their pods, which have these addresses.
pub(crate) fn pods([one, other]: &[Node; 2], [first, second]: [IpAddr; 2]) -> [Pod<'_>; 2] {
    [Pod { netns: &one.pod, address: first }, Pod { netns: &other.pod, address: second }]
}

/// A new pair. It goes away with its owner, and whatever runs inside.
pub(crate) fn nodes() -> Result<[Node; 2]> {
    let name = unique_name();
    let node = |number: u8| Node {
        number,
        netns: OwnedNetns::new(format!("{name}-node{number}")),
        pod: OwnedNetns::bare(format!("{name}-pod{number}")),
    };
    let nodes = [node(1), node(2)];
    let [one, other] = &nodes;
    let peer = other.netns.name();
    one.netns
        .tool("ip", &["link", "add", UPLINK, "type", "veth", "peer", "name", UPLINK, "netns", peer])
        .context("cannot plug the nodes together")?;
    for node in &nodes {
        node.netns.tool("ip", &["address", "add", &format!("{}/24", node.address()), "dev", UPLINK])?;
        node.netns.tool("ip", &["link", "set", UPLINK, "up"])?;
    }
    Ok(nodes)
}
