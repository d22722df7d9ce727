//! Device groups (`IFLA_GROUP`): many links deleted as one.
//!
//! The kernel ends every deletion of a link with an RCU barrier of some 20 ms (`netdev_run_todo`); a group has one for all
//! of it.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};

use super::link::LinkRef;
use super::request::Request;

/// The request that puts a link into a group. All links begin in group 0.
#[must_use]
pub fn set_group(link: impl Into<LinkRef>, group: u32) -> Request {
    let link = link.into();
    let mut message = link.to_message();
    message.attributes.push(LinkAttribute::Group(group));
    Request::new(format!("set group {group} on link {link}"), 0, RouteNetlinkMessage::NewLink(message))
}

/// The request that deletes every link of a group. Refused as a whole if one of them cannot be deleted.
#[must_use]
pub fn delete_group(group: u32) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    Request::new(format!("delete the links of group {group}"), 0, RouteNetlinkMessage::DelLink(message))
}
