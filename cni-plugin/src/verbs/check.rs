//! CHECK: whether a container is still attached as ADD left it.
//!
//! CRI-O asks right after every ADD, so it looks at the few objects that matter and at nothing else. Addresses and routes
//! beside ours are nobody's business here: plugins behind us may have added them.

use weft_netlink::netns::NetNs;
use weft_netlink::{Link, LinkKind, RouteFilter, RouteSocket};

use super::host::{open_sandbox, store_of};
use crate::formats::attachment::{Attachment, State};
use crate::protocol::config::Base;
use crate::protocol::env::Call;
use crate::protocol::json::Json;
use crate::protocol::previous::Previous;
use crate::protocol::{CniError, Result};
use crate::wiring::limits;
use crate::wiring::ports::PortTable;

/// Compares the kernel with the record and the runtime's `prevResult`.
///
/// # Errors
/// The first difference, naming the object.
pub fn check(base: &Base, json: &Json, call: &Call) -> Result<()> {
    let previous = Previous::required(json)?;
    let host_netns = NetNs::current()?;
    let sandbox = open_sandbox(call, &host_netns)?;
    let identity = base.identity(&call.container, &call.interface);
    let record = store_of(base).find(&identity)?;
    let differs = |what: String| Err(CniError::internal(what));
    let attachment = match record.map(|record| record.content) {
        Some(Ok(attachment)) if attachment.status.state == State::Committed => attachment,
        Some(Ok(_)) => return differs("the attachment has not been completed".to_owned()),
        Some(Err(error)) => return differs(error.to_string()),
        None => {
            return differs(format!(
                "no address is reserved for container {} interface {}",
                call.container, call.interface
            ));
        }
    };
    let mut listed = previous.ips_of(&call.interface);
    if let Some(ip) = listed.find(|ip| !attachment.ips.iter().any(|own| own.address == *ip)) {
        return differs(format!("prevResult.ips: {ip} is not reserved for container {}", call.container));
    }
    check_host(&attachment, &mut RouteSocket::open()?)?;
    check_ports(&attachment)?;
    sandbox.enter()?;
    check_container(&attachment, &previous, &mut RouteSocket::open()?)
}

fn check_host(attachment: &Attachment, socket: &mut RouteSocket) -> Result<()> {
    let bridge = up(&attachment.bridge, &LinkKind::Bridge, socket)?;
    let port = up(&attachment.host_interface, &LinkKind::Veth, socket)?;
    if port.index != attachment.status.host_index {
        return Err(CniError::internal(format!(
            "interface {} has index {}, expected {}: it is not the one that ADD made",
            port.name, port.index, attachment.status.host_index
        )));
    }
    if port.master != Some(bridge.index) {
        return Err(CniError::internal(format!("interface {} is not a port of bridge {}", port.name, bridge.name)));
    }
    limits::check(attachment, port.index, socket)
}

fn check_ports(attachment: &Attachment) -> Result<()> {
    match PortTable::default().missing(attachment)? {
        Some(what) => Err(CniError::internal(format!("host ports: {what} is not as ADD left it"))),
        None => Ok(()),
    }
}

fn check_container(attachment: &Attachment, previous: &Previous, socket: &mut RouteSocket) -> Result<()> {
    let link = up(&attachment.identity.interface, &LinkKind::Veth, socket)?;
    if link.peer_index != Some(attachment.status.host_index) {
        return Err(CniError::internal(format!(
            "interface {} is not the other end of {}",
            link.name, attachment.host_interface
        )));
    }
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    // A plugin behind us may have given it another address; the runtime has the last word.
    let listed =
        previous.interface(&link.name).find_map(|interface| interface.mac.as_ref().filter(|mac| !mac.is_empty()));
    let expected = listed.unwrap_or(&attachment.container_mac);
    if *expected != mac {
        return Err(CniError::internal(format!("interface {} has address {mac}, expected {expected}", link.name)));
    }
    let addresses = socket.addresses(Some(link.index))?;
    if let Some(missing) = attachment.ips.iter().find(|ip| !addresses.iter().any(|own| own.network == ip.address)) {
        return Err(CniError::internal(format!("interface {} has lost address {}", link.name, missing.address)));
    }
    if attachment.routes.is_empty() {
        return Ok(());
    }
    let routes = socket.routes(RouteFilter { link: Some(link.index), ..RouteFilter::default() })?;
    for route in &attachment.routes {
        let wanted = route.on_link(link.index);
        let same = |found: &weft_netlink::Route| {
            found.dst == wanted.dst
                && found.next_hops().any(|hop| hop.gateway == wanted.next_hop.gateway)
                && found.table == wanted.table
                && wanted.priority.is_none_or(|priority| found.priority == Some(priority))
        };
        if !routes.iter().any(same) {
            return Err(CniError::internal(format!("container has lost its {wanted}")));
        }
    }
    Ok(())
}

fn up(name: &str, kind: &LinkKind, socket: &mut RouteSocket) -> Result<Link> {
    let link = socket.link(name)?.ok_or_else(|| CniError::internal(format!("interface {name} is gone")))?;
    if link.kind != *kind {
        return Err(CniError::internal(format!("interface {name} is {:?}, expected {kind:?}", link.kind)));
    }
    if !link.up {
        return Err(CniError::internal(format!("interface {name} is down")));
    }
    Ok(link)
}
