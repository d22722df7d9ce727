//! The least that it takes: for each other node the three messages, sent by one socket as fast as the kernel takes them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use weft_netlink::{FdbEntry, MacAddr, Neighbour, NextHop, Request, Route, RouteSocket, Verb};
use weft_tests::netns::OwnedNetns;
use weft_tests::scratch::unique_name;

use super::leases::Peer;

/// Who put routes there, which is nobody in particular (`RTPROT_STATIC`, linux/rtnetlink.h).
const PROTOCOL: u8 = 4;

/// How long the kernel of a new node takes for so many other nodes.
pub(crate) fn time(peers: u16) -> Result<Duration> {
    let node = OwnedNetns::new(unique_name());
    let device =
        ["link", "add", "flannel.1", "up", "type", "vxlan", "id", "1", "dstport", "8472", "nolearning", "local"];
    node.tool("ip", &[&device[..], &["127.0.0.1"]].concat())?;
    node.tool("ip", &["address", "add", "10.0.0.0/32", "dev", "flannel.1"])?;
    node.run(|| {
        let mut socket = RouteSocket::open()?;
        let link = socket.link("flannel.1")?.context("no flannel.1")?.index;
        let requests = (1..=peers).map(Peer::new).flat_map(|peer| requests(link, peer)).collect();
        let begin = Instant::now();
        socket.all(requests)?;
        Ok(begin.elapsed())
    })?
}

fn requests(link: u32, peer: Peer) -> [Request; 3] {
    let (mac, gateway) = (MacAddr(peer.mac()), IpAddr::V4(peer.subnet()));
    let neighbour = Neighbour { link, ip: gateway, mac };
    let entry = FdbEntry { link, mac, dst: peer.address().into() };
    let subnet = ipnetwork::Ipv4Network::new(peer.subnet(), 24);
    let mut route = Route::new(subnet.map_or_else(|_| gateway.into(), IpNetwork::V4), PROTOCOL);
    route.next_hop = NextHop { link: Some(link), gateway: Some(gateway), onlink: true };
    [neighbour.request(Verb::Replace), entry.request(Verb::Replace), route.request(Verb::Create)]
}
