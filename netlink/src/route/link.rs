//! Links to be created, changed and deleted.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};

use super::request::Request;
use crate::MacAddr;

/// Which link is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkRef {
    /// The one with this index.
    Index(u32),
    /// The one that bears this name when the kernel reads the request.
    Name(String),
}

impl LinkRef {
    fn message(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        match self {
            Self::Index(index) => message.header.index = *index,
            Self::Name(name) => message.attributes.push(LinkAttribute::IfName(name.clone())),
        }
        message
    }

    /// A message about this link, for the modules beside this one.
    pub(crate) fn to_message(&self) -> LinkMessage {
        self.message()
    }
}

impl From<u32> for LinkRef {
    fn from(index: u32) -> Self {
        Self::Index(index)
    }
}

impl From<&str> for LinkRef {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl fmt::Display for LinkRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A veth pair whose other end may be born in another network namespace, in one request.
///
/// Both ends get one queue each way: by default the kernel makes one a CPU, which costs milliseconds under RTNL on large
/// machines and brings nothing, as a veth has no hardware to spread over.
#[derive(Debug, Clone)]
pub struct Veth<'a> {
    /// Name of this end.
    pub name: String,
    /// Address of this end; random if absent.
    pub mac: Option<MacAddr>,
    /// MTU of this end in bytes; 1500 if absent.
    pub mtu: Option<u32>,
    /// Index to ask for; refused with `EBUSY` or `EEXIST` if taken. The kernel chooses if absent.
    pub index: Option<u32>,
    /// Whether this end is set up at once. (The peer cannot be: it has no partner yet when it is made.)
    pub up: bool,
    /// Index of the bridge that this end joins.
    pub master: Option<u32>,
    /// The other end.
    pub peer: VethPeer<'a>,
}

/// The other end of a [`Veth`].
#[derive(Debug, Clone)]
pub struct VethPeer<'a> {
    /// Its name.
    pub name: String,
    /// Its address; random if absent.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes; 1500 if absent.
    pub mtu: Option<u32>,
    /// The network namespace in which it is born; the socket's own if absent.
    pub netns: Option<BorrowedFd<'a>>,
}

impl Veth<'_> {
    /// The request that creates the pair.
    #[must_use]
    pub fn create(&self) -> Request {
        let mut peer = end(&self.peer.name, self.peer.mac, self.peer.mtu);
        peer.attributes.extend(self.peer.netns.map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd())));
        single_queue(&mut peer);

        let mut message = end(&self.name, self.mac, self.mtu);
        message.header.index = self.index.unwrap_or_default();
        message.attributes.extend(self.master.map(LinkAttribute::Controller));
        single_queue(&mut message);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        create(format!("create veth {} with peer {}", self.name, self.peer.name), message, self.up)
    }
}

/// A bridge.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// Its address. Given one, the bridge keeps it; else it follows its ports.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes; without one it follows its ports.
    pub mtu: Option<u32>,
    /// Whether it is set up at once.
    pub up: bool,
}

impl Bridge {
    /// The request that creates it.
    #[must_use]
    pub fn create(&self) -> Request {
        let mut message = end(&self.name, self.mac, self.mtu);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        create(format!("create bridge {}", self.name), message, self.up)
    }
}

/// An intermediate functional block (drivers/net/ifb.c): a link whose only use is the queue that it has.
#[derive(Debug, Clone)]
pub struct Ifb {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes; 1500 if absent.
    pub mtu: Option<u32>,
}

impl Ifb {
    /// The request that creates it. It is down, as a queue is put on a link in less time while that is.
    #[must_use]
    pub fn create(&self) -> Request {
        let mut message = end(&self.name, None, self.mtu);
        single_queue(&mut message);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]));
        create(format!("create ifb {}", self.name), message, false)
    }
}

/// A VXLAN device (RFC 7348; linux/if_link.h `IFLA_VXLAN_*`), as the overlay makes and compares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// Its name.
    pub name: String,
    /// Its address, which is the VTEP MAC that peers send to.
    pub mac: Option<MacAddr>,
    /// MTU of the inner packets, in bytes.
    pub mtu: Option<u32>,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// UDP port that it sends to and listens on.
    pub port: u16,
    /// Index of the device that carries the outer packets.
    pub underlay: Option<u32>,
    /// Source address of the outer packets. It also decides their family.
    pub local: Option<IpAddr>,
    /// Whether it learns remotes from what arrives. Off where every remote is programmed.
    pub learning: bool,
    /// Group Based Policy extension: carries the packet's mark.
    pub gbp: bool,
    /// Whether it is set up at once.
    pub up: bool,
}

impl Vxlan {
    /// The request that creates it.
    #[must_use]
    pub fn create(&self) -> Request {
        let mut data = vec![InfoVxlan::Id(self.vni), InfoVxlan::Port(self.port)];
        data.extend(self.changeable());
        if self.gbp {
            data.push(InfoVxlan::Gbp);
        }
        let mut message = end(&self.name, self.mac, self.mtu);
        message.attributes.push(vxlan_info(data));
        create(format!("create vxlan {} (VNI {}, UDP port {})", self.name, self.vni, self.port), message, self.up)
    }

    /// The request that gives the device of this index its underlay, local address and learning. The kernel lets nothing else of
    /// it be changed (`vxlan_changelink`), nor the family of its local address.
    #[must_use]
    pub fn change(&self, index: u32) -> Request {
        let mut message = LinkRef::from(index).message();
        message.attributes.push(vxlan_info(self.changeable()));
        let underlay = self.underlay.map(|link| format!("on link {link}, ")).unwrap_or_default();
        let local = self.local.map(|local| format!("from {local}, ")).unwrap_or_default();
        let learning = if self.learning { "learning" } else { "no learning" };
        let operation = format!("change VXLAN device {}: {underlay}{local}{learning}", self.name);
        Request::new(operation, 0, RouteNetlinkMessage::NewLink(message))
    }

    fn changeable(&self) -> Vec<InfoVxlan> {
        let local = self.local.map(|local| match local {
            IpAddr::V4(v4) => InfoVxlan::Local(v4),
            IpAddr::V6(v6) => InfoVxlan::Local6(v6),
        });
        let learning = Some(InfoVxlan::Learning(self.learning));
        learning.into_iter().chain(self.underlay.map(InfoVxlan::Link)).chain(local).collect()
    }
}

/// A WireGuard device, as a link. Its keys and peers are [`wireguard`](crate::wireguard)'s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wireguard {
    /// Its name.
    pub name: String,
    /// MTU of the inner packets, in bytes; 1420 if absent.
    pub mtu: Option<u32>,
}

impl Wireguard {
    /// The request that creates it. It is down: once it is up it listens, and which port at is still to be said.
    #[must_use]
    pub fn create(&self) -> Request {
        let mut message = end(&self.name, None, self.mtu);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]));
        create(format!("create WireGuard device {}", self.name), message, false)
    }
}

/// Changes to one link, made in one request.
#[derive(Debug, Clone)]
pub struct LinkChange {
    message: LinkMessage,
    words: Vec<String>,
    link: LinkRef,
}

impl LinkChange {
    /// No change yet.
    #[must_use]
    pub fn new(link: impl Into<LinkRef>) -> Self {
        let link = link.into();
        Self { message: link.message(), words: Vec::new(), link }
    }

    fn with(mut self, words: impl Into<String>, attribute: LinkAttribute) -> Self {
        self.words.push(words.into());
        self.message.attributes.push(attribute);
        self
    }

    fn flag(mut self, words: &str, flag: LinkFlags, on: bool) -> Self {
        self.words.push(words.to_owned());
        self.message.header.change_mask |= flag;
        self.message.header.flags.set(flag, on);
        self
    }

    /// Sets it up.
    #[must_use]
    pub fn up(self) -> Self {
        self.flag("up", LinkFlags::Up, true)
    }

    /// Sets it down.
    #[must_use]
    pub fn down(self) -> Self {
        self.flag("down", LinkFlags::Up, false)
    }

    /// Receives every frame, or only its own. The kernel counts: setting it twice takes unsetting it twice.
    #[must_use]
    pub fn promisc(self, on: bool) -> Self {
        self.flag(if on { "promiscuous" } else { "not promiscuous" }, LinkFlags::Promisc, on)
    }

    /// Sets the MTU, in bytes.
    #[must_use]
    pub fn mtu(self, mtu: u32) -> Self {
        self.with(format!("mtu {mtu}"), LinkAttribute::Mtu(mtu))
    }

    /// Sets the address.
    #[must_use]
    pub fn mac(self, mac: MacAddr) -> Self {
        self.with(format!("address {mac}"), LinkAttribute::Address(mac.0.to_vec()))
    }

    /// Makes it a port of the bridge with this index.
    #[must_use]
    pub fn master(self, bridge: u32) -> Self {
        self.with(format!("master {bridge}"), LinkAttribute::Controller(bridge))
    }

    /// Has the kernel give it no IPv6 address of its own (link-local) when it comes up: a bridge port needs none, and each
    /// costs a walk through the routes of the machine when it goes. Refused with `EAFNOSUPPORT` where the link, the machine
    /// or the kernel has no IPv6. Takes effect behind all other changes of the request, so the link must still be down.
    #[must_use]
    pub fn without_link_local(self) -> Self {
        let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        self.with("no link-local address", LinkAttribute::AfSpecUnspec(vec![mode]))
    }

    /// Sets the free text that the kernel keeps with it (`IFLA_IFALIAS`), weft's mark of ownership.
    #[must_use]
    pub fn alias(self, alias: &str) -> Self {
        self.with(format!("alias {alias:?}"), LinkAttribute::IfAlias(alias.to_owned()))
    }

    /// The request that makes the changes.
    #[must_use]
    pub fn request(self) -> Request {
        let operation = format!("set link {} {}", self.link, self.words.join(", "));
        // NEWLINK without CREATE changes, and knows everything that SETLINK knows and more (rtnetlink.c).
        Request::new(operation, 0, RouteNetlinkMessage::NewLink(self.message))
    }
}

/// The request that deletes a link. For one end of a veth pair it deletes both.
#[must_use]
pub fn delete_link(link: impl Into<LinkRef>) -> Request {
    let link = link.into();
    Request::new(format!("delete link {link}"), 0, RouteNetlinkMessage::DelLink(link.message()))
}

fn end(name: &str, mac: Option<MacAddr>, mtu: Option<u32>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message
}

fn vxlan_info(data: Vec<InfoVxlan>) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))])
}

fn single_queue(message: &mut LinkMessage) {
    message.attributes.extend([LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)]);
}

fn create(operation: String, mut message: LinkMessage, up: bool) -> Request {
    if up {
        message.header.flags |= LinkFlags::Up;
        message.header.change_mask |= LinkFlags::Up;
    }
    Request::new(operation, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(message))
}
