//! The segment between the nodes: a bridge in a namespace of its own, one port a node, a gateway address on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::Node;
use crate::netns::Netns;
use crate::tool;

/// The address of the underlay itself: the nodes' default gateway, and etcd's.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 1);
/// Its MAC.
const GATEWAY_MAC: &str = "02:00:c0:a8:64:01";
/// etcd's client port.
pub(super) const ETCD_PORT: u16 = 2379;

/// The same of IPv6.
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0, 1);

/// Which addresses a machine has, the one that stands for it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4, and IPv6 besides.
    Both,
    /// IPv6, and no IPv4 at all.
    V6,
}

impl Families {
    /// The address of a node by which others know it.
    pub(crate) fn first(self, number: u8) -> IpAddr {
        match self {
            Self::Both => node_v4(number).into(),
            Self::V6 => node_v6(number).into(),
        }
    }

    /// All addresses of a node, that one first.
    pub(crate) fn all(self, number: u8) -> Vec<IpAddr> {
        let further = (self == Self::Both).then(|| node_v6(number).into());
        [self.first(number)].into_iter().chain(further).collect()
    }
}

/// Node 1 has .11.
pub(crate) fn node_v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 100, number.saturating_add(10))
}

/// Node 1 has ::11 in writing, as in v4.
pub(crate) fn node_v6(number: u8) -> Ipv6Addr {
    let digits = u16::from_str_radix(&number.saturating_add(10).to_string(), 16).unwrap_or_default();
    Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0, digits)
}

/// Makes the segment, unless it is there.
pub fn ensure(underlay: &Netns) -> Result<()> {
    Netns::ensure_machine(underlay.name())?;
    if underlay.tool("ip", &["link", "show", "br0"]).is_ok() {
        return Ok(());
    }
    // No snooping: a querier that is not there makes a bridge forget v6 neighbour discovery. A MAC of its own: a bridge takes
    // that of a port else, and another one when that port goes, of which nobody tells the nodes.
    let own = ["link", "add", "br0", "address", GATEWAY_MAC, "type", "bridge", "stp_state", "0", "mcast_snooping", "0"];
    underlay.tool("ip", &own)?;
    underlay.tool("ip", &["addr", "add", &format!("{GATEWAY}/24"), "dev", "br0"])?;
    underlay.tool("ip", &["addr", "add", &format!("{GATEWAY_V6}/64"), "dev", "br0", "nodad"])?;
    underlay.tool("ip", &["link", "set", "br0", "up"])?;
    Ok(())
}

/// From so many nodes on, their underlay neighbours are fixed entries.
///
/// The kernel counts the neighbours of all namespaces together and takes 1024 of them (`gc_thresh3`, which is the host's
/// and not ours to raise); 33 nodes that all know each other are beyond that. Fixed entries do not count.
const CROWD: u16 = 20;

/// Makes a node's namespace and plugs it in, unless that is done; in a lab that shall have so many nodes.
pub(super) fn attach(underlay: &Netns, node: &Node, nodes: u16) -> Result<()> {
    std::fs::create_dir_all(&node.folder)?;
    let netns = Netns::ensure_machine(node.netns.name())?;
    plug_in(underlay, &netns, &port(node), &mac(node.number), &[node.v4().into(), node.v6().into()])?;
    if nodes > CROWD {
        introduce(&netns, node, nodes)?;
    }
    Ok(())
}

/// Gives a machine its `eth0` on the segment, unless it has it.
pub(crate) fn plug_in(underlay: &Netns, netns: &Netns, port: &str, mac: &str, ips: &[IpAddr]) -> Result<()> {
    let Some(last) = ips.last() else { return Ok(()) };
    // The last thing that is done below.
    if netns.tool("ip", &[family(*last), "route", "show", "default"])?.contains("eth0") {
        return Ok(());
    }
    // What a kill in the middle may have left; the pair goes with either end.
    let _ = underlay.tool("ip", &["link", "delete", port]);
    let add = ["link", "add", port, "type", "veth", "peer", "name", "eth0", "address", mac, "netns", netns.name()];
    underlay.tool("ip", &add)?;
    underlay.tool("ip", &["link", "set", port, "master", "br0", "up"])?;
    netns.tool("ip", &["link", "set", "eth0", "up"])?;
    for ip in ips {
        let (length, gateway): (u8, IpAddr) = if ip.is_ipv4() { (24, GATEWAY.into()) } else { (64, GATEWAY_V6.into()) };
        let address = format!("{ip}/{length}");
        let add = ["addr", "add", &address, "dev", "eth0", "nodad"];
        // The last word is one for IPv6 only.
        netns.tool("ip", if ip.is_ipv4() { &add[..5] } else { &add })?;
        netns.tool("ip", &[family(*ip), "route", "add", "default", "via", &gateway.to_string(), "dev", "eth0"])?;
    }
    Ok(())
}

/// The option of `ip` for an address's family.
fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "-4" } else { "-6" }
}

/// Gives a node the others' addresses, those too that are still to come.
fn introduce(netns: &Netns, node: &Node, nodes: u16) -> Result<()> {
    let others = (1..=u8::try_from(nodes)?).filter(|number| *number != node.number);
    let lines = others.flat_map(|number| {
        let (v4, v6, mac) = (node_v4(number), node_v6(number), mac(number));
        [v4.to_string(), v6.to_string()].map(|ip| format!("neigh replace {ip} dev eth0 lladdr {mac} nud permanent\n"))
    });
    let batch = node.path("neighbours");
    std::fs::write(&batch, lines.collect::<String>())?;
    netns.command(tool::command("ip").arg("-batch").arg(&batch)).map(drop)
}

/// The MAC of a node's `eth0`.
pub(crate) fn mac(number: u8) -> String {
    format!("02:00:c0:a8:64:{:02x}", number.saturating_add(10))
}

/// Removes what [`attach`] made in the underlay, if the node's namespace has not taken it along yet.
pub(super) fn detach(underlay: &Netns, node: &Node) -> Result<()> {
    let port = port(node);
    if underlay.tool("ip", &["link", "show", &port]).is_ok() {
        // It may vanish by itself in this very moment.
        let _ = underlay.tool("ip", &["link", "delete", &port]);
    }
    Ok(())
}

/// Plugs a node in or out.
pub(super) fn plug(underlay: &Netns, node: &Node, plugged: bool) -> Result<()> {
    underlay.tool("ip", &["link", "set", &port(node), if plugged { "up" } else { "down" }]).map(drop)
}

fn port(node: &Node) -> String {
    format!("p{}", node.number.saturating_add(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_alike_in_both_families() {
        assert_eq!(node_v4(1).to_string(), "192.168.100.11");
        assert_eq!(node_v6(1).to_string(), "fd00:100::11");
        assert_eq!(node_v6(100).to_string(), "fd00:100::110");
    }
}
