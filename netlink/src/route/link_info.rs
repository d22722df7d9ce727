//! Links as the kernel reports them.

use std::net::IpAddr;

use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};

use crate::MacAddr;

/// What kind of device a link is, with what weft compares of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// One end of a veth pair.
    Veth,
    /// A bridge.
    Bridge,
    /// A VXLAN device.
    Vxlan {
        /// VXLAN network identifier.
        vni: u32,
        /// UDP port.
        port: u16,
        /// Index of the device that carries the outer packets, if it is bound to one.
        underlay: Option<u32>,
        /// Source address of the outer packets.
        local: Option<IpAddr>,
        /// Whether it learns remotes.
        learning: bool,
        /// Whether it speaks Group Based Policy.
        gbp: bool,
    },
    /// A WireGuard device.
    Wireguard,
    /// Any other, by the kernel's name for it; empty for hardware.
    Other(String),
}

/// One link as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index, unique in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: LinkKind,
    /// Ethernet address, if it has one of six bytes.
    pub mac: Option<MacAddr>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether it is set up (`IFF_UP`).
    pub up: bool,
    /// Whether it is set up and has a carrier (`IFF_RUNNING`).
    pub running: bool,
    /// Whether packets that it is given now are sent (`IF_OPER_UP`, RFC 2863). With only a carrier they may still be
    /// dropped: the queue is opened a little later, by the kernel's link watch. Asking for one link (not for all) makes
    /// the link watch run at once, since Linux 6.8.
    pub operational: bool,
    /// Whether it is a loopback device.
    pub loopback: bool,
    /// Index of the bridge whose port it is.
    pub master: Option<u32>,
    /// How many times it was set promiscuous.
    pub promiscuity: u32,
    /// The free text kept with it.
    pub alias: Option<String>,
    /// For a veth: the index of its peer in the peer's namespace (`IFLA_LINK`).
    pub peer_index: Option<u32>,
    /// For a bridge port: whether frames may go out where they came in.
    pub hairpin: Option<bool>,
    /// For a bridge port: whether it is kept from other isolated ports.
    pub isolated: Option<bool>,
}

impl Link {
    pub(crate) fn from_message(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            kind: LinkKind::Other(String::new()),
            mac: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Running),
            operational: false,
            loopback: flags.contains(LinkFlags::Loopback),
            master: None,
            promiscuity: 0,
            alias: None,
            peer_index: None,
            hairpin: None,
            isolated: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => link.mac = MacAddr::try_from(bytes.as_slice()).ok(),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::OperState(state) => link.operational = state == State::Up,
                LinkAttribute::Controller(master) => link.master = Some(master),
                LinkAttribute::Promiscuity(count) => link.promiscuity = count,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Link(peer) => link.peer_index = Some(peer),
                LinkAttribute::LinkInfo(infos) => link.read_info(infos),
                _ => {}
            }
        }
        link
    }

    fn read_info(&mut self, infos: Vec<LinkInfo>) {
        for info in infos {
            match info {
                LinkInfo::Kind(InfoKind::Veth) => self.kind = LinkKind::Veth,
                LinkInfo::Kind(InfoKind::Bridge) => self.kind = LinkKind::Bridge,
                LinkInfo::Kind(InfoKind::Wireguard) => self.kind = LinkKind::Wireguard,
                // A VXLAN device says what it is in its data.
                LinkInfo::Kind(InfoKind::Vxlan) => {}
                LinkInfo::Kind(kind) => self.kind = LinkKind::Other(kind.to_string()),
                LinkInfo::Data(InfoData::Vxlan(data)) => self.kind = vxlan(data),
                LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                    for option in port {
                        match option {
                            InfoBridgePort::HairpinMode(on) => self.hairpin = Some(on),
                            InfoBridgePort::Isolated(on) => self.isolated = Some(on),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

fn vxlan(data: Vec<InfoVxlan>) -> LinkKind {
    // A zero underlay or local address is how the kernel says "none".
    let (mut vni, mut port, mut underlay, mut local, mut learning, mut gbp) = (0, 0, None, None, false, false);
    for option in data {
        match option {
            InfoVxlan::Id(id) => vni = id,
            InfoVxlan::Port(number) => port = number,
            InfoVxlan::Link(index) => underlay = (index != 0).then_some(index),
            InfoVxlan::Local(ip) => local = (!ip.is_unspecified()).then_some(IpAddr::V4(ip)),
            InfoVxlan::Local6(ip) => local = (!ip.is_unspecified()).then_some(IpAddr::V6(ip)),
            InfoVxlan::Learning(on) => learning = on,
            InfoVxlan::Gbp => gbp = true,
            _ => {}
        }
    }
    LinkKind::Vxlan { vni, port, underlay, local, learning, gbp }
}
