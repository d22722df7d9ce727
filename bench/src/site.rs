//! Where a contender works: a node with a client on one side and a server on the other, each a namespace.
//!
//! ```text
//!   client 172.16.1.2 ── c0 172.16.1.1  node  s0 172.16.2.1 ── 172.16.2.2 server
//! ```

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use weft_tests::netns::{Netns, OwnedNetns};
use weft_tests::scratch::unique_name;

/// The address of the node on the server's side, which is its uplink.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(172, 16, 2, 1);
/// The uplink.
pub(crate) const UPLINK: &str = "s0";
/// The address of the server.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(172, 16, 2, 2);

/// The three namespaces. They go away with their owner, and whatever runs inside them.
pub(crate) struct Site {
    pub(crate) node: OwnedNetns,
    pub(crate) client: OwnedNetns,
    pub(crate) server: OwnedNetns,
}

impl Site {
    /// A new one.
    pub(crate) fn new() -> Result<Self> {
        let name = unique_name();
        let machine = |part: &str| OwnedNetns::new(format!("{name}-{part}"));
        let site = Self { node: machine("node"), client: machine("client"), server: machine("server") };
        connect(&site.node, &site.client, "c0", 1)?;
        connect(&site.node, &site.server, UPLINK, 2)?;
        site.node.sysctl("net/ipv4/ip_forward", "1")?;
        // Every contender finds a way to endpoints that nobody answers at.
        site.node.tool("ip", &["route", "add", "default", "via", &SERVER.to_string()])?;
        Ok(site)
    }
}

/// Links 172.16.`number`.1 on the node with .2 in the other, which has its default route there.
fn connect(node: &Netns, other: &Netns, device: &str, number: u8) -> Result<()> {
    let (near, far) = (Ipv4Addr::new(172, 16, number, 1), Ipv4Addr::new(172, 16, number, 2));
    node.tool("ip", &["link", "add", device, "up", "type", "veth", "peer", "name", "eth0", "netns", other.name()])
        .context("cannot make a veth pair")?;
    node.tool("ip", &["address", "add", &format!("{near}/24"), "dev", device])?;
    other.tool("ip", &["address", "add", &format!("{far}/24"), "dev", "eth0"])?;
    other.tool("ip", &["link", "set", "eth0", "up"])?;
    other.tool("ip", &["route", "add", "default", "via", &near.to_string()]).map(drop)
}
