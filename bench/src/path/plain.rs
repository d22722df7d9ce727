//! The same devices, entries, routes, masquerade and sysctls as weft makes, by iproute2 and nft(8).

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use super::networks::{Network, Pod};
use super::pair::{Node, UPLINK, nodes, pods};

/// With conntrack for whatever passes, as every node with masquerade has it.
const RULES: &str = "table ip plain {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/16 return
        ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade
    }
    chain forward {
        type filter hook forward priority filter;
        ip saddr 10.244.0.0/16 accept
        ip daddr 10.244.0.0/16 accept
    }
}";

/// Two nodes made by hand.
pub(crate) struct Plain {
    nodes: [Node; 2],
}

impl Plain {
    /// New ones.
    pub(crate) fn new() -> Result<Self> {
        let this = Self { nodes: nodes()? };
        let [one, other] = &this.nodes;
        set_up(one, other)?;
        set_up(other, one)?;
        Ok(this)
    }
}

impl Network for Plain {
    fn name(&self) -> &'static str {
        "iproute2"
    }

    fn pods(&self) -> [Pod<'_>; 2] {
        pods(&self.nodes, self.nodes.each_ref().map(|node| IpAddr::V4(pod_address(node))))
    }
}

fn pod_address(node: &Node) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, node.number, 2)
}

fn mac(node: &Node) -> String {
    format!("0a:00:00:00:00:{:02x}", node.number)
}

fn set_up(node: &Node, peer: &Node) -> Result<()> {
    let (number, local, pod) = (node.number, node.address(), node.pod.name());
    let (gateway, mac_here) = (format!("10.244.{number}.1"), mac(node));
    let host = [
        format!(
            "link add flannel.1 address {mac_here} mtu 1450 type vxlan id 1 dstport 8472 nolearning local {local} dev {UPLINK}"
        ),
        format!("address add 10.244.{number}.0/32 dev flannel.1"),
        "link set flannel.1 up".to_owned(),
        "link add cni0 mtu 1450 type bridge".to_owned(),
        format!("address add {gateway}/24 dev cni0"),
        "link set cni0 up".to_owned(),
        format!("link add veth1 mtu 1450 type veth peer name eth0 mtu 1450 netns {pod}"),
        "link set veth1 master cni0 up".to_owned(),
        "link set veth1 type bridge_slave hairpin on".to_owned(),
        format!("neighbour add 10.244.{}.0 lladdr {} dev flannel.1 nud permanent", peer.number, mac(peer)),
        format!("route add 10.244.{0}.0/24 via 10.244.{0}.0 dev flannel.1 onlink", peer.number),
    ];
    for line in &host {
        node.netns.tool("ip", &line.split(' ').collect::<Vec<_>>())?;
    }
    let (destination, mac_there) = (peer.address().to_string(), mac(peer));
    node.netns
        .tool("bridge", &["fdb", "add", &mac_there, "dev", "flannel.1", "dst", &destination, "self", "permanent"])?;
    node.netns.tool("nft", &[RULES])?;
    node.netns.sysctl("net/ipv4/ip_forward", "1")?;
    let inside = [
        "link set lo up".to_owned(),
        format!("address add {}/24 dev eth0", pod_address(node)),
        "link set eth0 up".to_owned(),
        format!("route add default via {gateway}"),
    ];
    inside.iter().try_for_each(|line| node.pod.tool("ip", &line.split(' ').collect::<Vec<_>>()).map(drop))
}
