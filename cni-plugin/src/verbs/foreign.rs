//! Containers that flannel's, the bridge and the host-local plugin have attached before weft took the node over.
//!
//! There is no record of them. What proves that a container is such a one, and still attached, is its address in host-local's
//! store: nobody else can have that address. So the interface that is deleted is the one with the address, or the one on the
//! host with the random MAC address that their result names; what else lies behind a namespace's path is left alone.

use std::fs;
use std::io;
use std::net::IpAddr;

use weft_netlink::netns::NetNs;
use weft_netlink::{LinkKind, LinkProbe, RouteSocket};

use super::host::{Host, open_sandbox};
use crate::formats::attachment::Identity;
use crate::ipam::foreign::ForeignAddress;
use crate::ipam::store::Store;
use crate::protocol::config::Base;
use crate::protocol::env::{Call, is_link_name};
use crate::protocol::json::Json;
use crate::protocol::previous::Previous;
use crate::protocol::{CniError, Result};
use crate::wiring::ports::PortTable;
use crate::wiring::teardown::delete_all_soon;

/// DEL of a container without record: takes away what the others made for it, if they did.
///
/// # Errors
/// If the kernel or the file system refuses; what is left is kept for the next DEL.
pub(super) fn detach(base: &Base, store: &Store, json: &Json, call: &Call) -> Result<()> {
    let all = store.foreign()?;
    let own: Vec<&ForeignAddress> =
        all.iter().filter(|address| address.owner.is(&call.container, &call.interface)).collect();
    if !own.is_empty() {
        let ips: Vec<IpAddr> = own.iter().map(|address| address.ip).collect();
        // Before the address can be another's.
        PortTable::default().release_inherited(&call.container, &ips)?;
        remove_on_host(json)?;
        remove_in_container(call, &ips)?;
        store.forget_foreign(&own)?;
    }
    let scratch = base.flannel_dir.join(&call.container);
    // Looked for first: on a file system that is read-only, what is not there cannot be removed either; and the container's
    // name may be too long for a file.
    if !fs::symlink_metadata(&scratch).is_ok_and(|found| found.is_file()) {
        return Ok(());
    }
    match fs::remove_file(&scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CniError::io(format!("remove {}", scratch.display()), error))
        }
        _ => Ok(()),
    }
}

/// Deletes the host's end that the previous result names. Its name alone proves nothing: it may be another's by now.
fn remove_on_host(json: &Json) -> Result<()> {
    let Ok(previous) = Previous::required(json) else { return Ok(()) };
    let Host { probe, mut socket, .. } = Host::open()?;
    for interface in previous.on_host() {
        let Some(mac) = interface.mac.as_ref().filter(|_| is_link_name(&interface.name)) else { continue };
        let link = socket.link(interface.name.as_str())?;
        let is_it = |link: &weft_netlink::Link| {
            link.kind == LinkKind::Veth && link.mac.is_some_and(|found| found.to_string() == *mac)
        };
        if link.as_ref().is_some_and(is_it) {
            delete_all_soon(&[&interface.name], &mut socket, &probe, None)?;
        }
    }
    Ok(())
}

/// Deletes the container's interface if it has one of the addresses. Ends in the container's namespace.
fn remove_in_container(call: &Call, ips: &[IpAddr]) -> Result<()> {
    let host_netns = NetNs::current()?;
    // None, a file that was one, or the host's own: then there is nothing to be found in it.
    let Ok(sandbox) = open_sandbox(call, &host_netns) else { return Ok(()) };
    sandbox.enter()?;
    let mut socket = RouteSocket::open()?;
    let Some(link) = socket.link(call.interface.as_str())?.filter(|link| link.kind == LinkKind::Veth) else {
        return Ok(());
    };
    if socket.addresses(Some(link.index))?.iter().any(|address| ips.contains(&address.network.ip())) {
        delete_all_soon(&[&call.interface], &mut socket, &LinkProbe::open()?, None)?;
    }
    Ok(())
}

/// GC: frees the addresses of containers that are not listed, unless they were given out since it `begun` (milliseconds
/// since 1970). Their interfaces went with their namespaces, or with the DEL that runtimes make before.
///
/// # Errors
/// If the file system refuses.
pub(super) fn collect(store: &Store, valid: &[Identity], begun: u64) -> Result<()> {
    let all = store.foreign()?;
    let is_valid = |address: &ForeignAddress| {
        valid.iter().any(|identity| address.owner.is(&identity.container, &identity.interface))
    };
    let stale: Vec<&ForeignAddress> =
        all.iter().filter(|address| address.created < begun && !is_valid(address)).collect();
    Ok(store.forget_foreign(&stale)?)
}
