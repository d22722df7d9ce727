//! Options of a bridge port.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::link::LinkRef;
use super::request::Request;

/// Options of a bridge port (linux/if_link.h `IFLA_BRPORT_*`); an absent one stays as it is.
#[derive(Debug, Clone)]
pub struct BridgePort {
    /// The port.
    pub link: LinkRef,
    /// Whether a frame may leave through the port it came in by: a pod that reaches itself through a Service.
    pub hairpin: Option<bool>,
    /// Whether the port is kept from all other isolated ports.
    pub isolated: Option<bool>,
}

impl BridgePort {
    /// The request that sets them.
    #[must_use]
    pub fn set(&self) -> Request {
        Request::new(format!("set bridge port {}", self.link), 0, RouteNetlinkMessage::NewLink(self.message()))
    }

    /// The request that sets them, and then sets the link up.
    #[must_use]
    pub fn set_and_bring_up(&self) -> Request {
        let mut message = self.message();
        message.header.flags |= LinkFlags::Up;
        message.header.change_mask |= LinkFlags::Up;
        Request::new(format!("set bridge port {} and bring it up", self.link), 0, RouteNetlinkMessage::NewLink(message))
    }

    fn message(&self) -> LinkMessage {
        let hairpin = self.hairpin.map(InfoBridgePort::HairpinMode);
        let isolated = self.isolated.map(InfoBridgePort::Isolated);
        let mut message = self.link.to_message();
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(hairpin.into_iter().chain(isolated).collect())),
        ]));
        message
    }
}
