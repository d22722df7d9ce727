//! Brings the overlay's devices and the bridge into the kernel.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_netlink::agent::Connection;
use weft_netlink::sysctl::Sysctl;
use weft_netlink::{Errno, Error, Link, LinkKind, Request, Route, RouteFilter, Vxlan, delete_link, wireguard};

use super::backend::{Device, WIREGUARD_DEVICES};
use super::bridge::WantedBridge;
use super::device::{self, DevicePlan};
use super::tunnel::Tunnel;

/// Why a link is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] Error),
    /// The kernel does not have such devices.
    #[error(
        "{0}; install the package with the kernel's further modules (linux-modules-extra-$(uname -r), kernel-modules-extra), then modprobe {1}"
    )]
    Unsupported(Error, &'static str),
    /// A foreign link is in the way.
    #[error("{0}")]
    Conflict(String),
    /// A link that was just made is not there.
    #[error("{0} was made and is gone again; is another network manager deleting it?")]
    Vanished(String),
}

/// A link brought into place, and what that took.
#[derive(Debug)]
pub struct InPlace {
    /// The link.
    pub index: u32,
    /// What was done, for the log and the count of repairs; empty if nothing was.
    pub done: Vec<String>,
}

/// Brings the device of a back end into place, with the addresses that are the source of the node's own packets to pods; `None` if
/// it has none.
///
/// # Errors
/// [`LinkError`]; a later pass tries again.
pub async fn device(
    kernel: &Connection,
    sysctl: &Sysctl,
    wanted: &Device,
    addresses: &[IpAddr],
    cluster: &[IpNetwork],
) -> Result<Option<InPlace>, LinkError> {
    let mut done = Vec::new();
    let Link { index, name, .. } = match wanted {
        Device::None => return Ok(None),
        Device::Vxlan(vxlan) => place_vxlan(kernel, vxlan, &mut done).await?,
        Device::Wireguard(tunnel) => place_tunnel(kernel, tunnel, &mut done).await?,
    };
    // Nothing out there may configure it; its addresses come from us alone. A kernel without IPv6 has no such setting.
    let accept_ra = format!("net/ipv6/conf/{name}/accept_ra");
    if sysctl.read(&accept_ra)?.is_some() && sysctl.ensure(&accept_ra, "0")?.is_some() {
        done.push(format!("{accept_ra} = 0"));
    }
    let found = kernel.addresses(Some(index)).await?;
    carry_out(kernel, device::addresses(index, addresses, cluster, &found), &mut done).await?;
    Ok(Some(InPlace { index, done }))
}

async fn place_vxlan(kernel: &Connection, wanted: &Vxlan, done: &mut Vec<String>) -> Result<Link, LinkError> {
    let found = kernel.link(wanted.name.as_str()).await?;
    if found.is_none() {
        make_way(kernel, wanted, done).await?;
    }
    let kept = match device::plan(wanted, found.as_ref()) {
        DevicePlan::Keep => found,
        DevicePlan::Conflict(reason) => return Err(LinkError::Conflict(reason)),
        DevicePlan::Change(requests) => {
            carry_out(kernel, requests, done).await?;
            found
        }
        DevicePlan::Make { requests, because } => {
            done.extend(because);
            carry_out(kernel, requests, done).await?;
            None
        }
    };
    match kept {
        Some(device) => Ok(device),
        None => made(kernel, &wanted.name).await,
    }
}

async fn place_tunnel(kernel: &Connection, wanted: &Tunnel, done: &mut Vec<String>) -> Result<Link, LinkError> {
    let name = &wanted.link.name;
    // The question loads the module, and a kernel that has none says so.
    let mut socket = wireguard::Socket::open().map_err(|error| match error {
        Error::Unsupported { module, .. } => LinkError::Unsupported(error, module),
        other => other.into(),
    })?;
    let found = match kernel.link(name.as_str()).await? {
        Some(found) => found,
        None => {
            remove_renamed(kernel, &mut socket, wanted, done).await?;
            carry_out(kernel, vec![wanted.link.create()], done).await?;
            made(kernel, name).await?
        }
    };
    let change = wanted.mend(&found).map_err(LinkError::Conflict)?;
    let port = wanted.settings.listen_port;
    let taken = |error: Error| match error.errno() {
        Some(Errno::EADDRINUSE) => LinkError::Conflict(format!(
            "{name} cannot listen at UDP port {port}: somebody else does; ss -lunp tells who, and ListenPort and ListenPortV6 of \
             the network configuration choose others"
        )),
        _ => error.into(),
    };
    let device = socket.device(found.index)?.ok_or_else(|| LinkError::Vanished(name.clone()))?;
    if device.settings != wanted.settings {
        socket.configure(found.index, &wanted.settings).map_err(taken)?;
        done.push(format!("give {name} its key, and UDP port {port}"));
    }
    if let Some(change) = change {
        let operation = change.operation().to_owned();
        kernel.one(change).await.map_err(taken)?;
        done.push(operation);
    }
    Ok(found)
}

/// Removes our device if somebody has renamed it: it has the port.
async fn remove_renamed(
    kernel: &Connection,
    socket: &mut wireguard::Socket,
    wanted: &Tunnel,
    done: &mut Vec<String>,
) -> Result<(), Error> {
    // Our other device has the same key; if it has the same port, too, making this one tells that.
    let is_other = |link: &&Link| link.kind == LinkKind::Wireguard && !WIREGUARD_DEVICES.contains(&link.name.as_str());
    for link in kernel.links().await?.iter().filter(is_other) {
        if socket.device(link.index)?.is_some_and(|device| wanted.is(&device)) {
            done.push(format!("{} was renamed to {}", wanted.link.name, link.name));
            carry_out(kernel, vec![delete_link(link.index)], done).await?;
        }
    }
    Ok(())
}

/// Removes our device if somebody has renamed it: there can be no second one with its VNI and port.
async fn make_way(kernel: &Connection, wanted: &Vxlan, done: &mut Vec<String>) -> Result<(), Error> {
    let in_the_way = |link: &Link| {
        let same =
            matches!(&link.kind, LinkKind::Vxlan { vni, port, .. } if (*vni, *port) == (wanted.vni, wanted.port));
        // The MAC is what we have published; a device with another one is somebody else's.
        same && link.mac.is_some() && link.mac == wanted.mac
    };
    if let Some(renamed) = kernel.links().await?.iter().find(|link| in_the_way(link)) {
        done.push(format!("{} was renamed to {}", wanted.name, renamed.name));
        carry_out(kernel, vec![delete_link(renamed.index)], done).await?;
    }
    Ok(())
}

/// Whether a link is of a kind that back ends make.
#[must_use]
pub fn is_device(link: &Link) -> bool {
    matches!(link.kind, LinkKind::Vxlan { .. } | LinkKind::Wireguard)
}

/// Removes a device that is no longer wanted, with its routes, neighbours, FDB entries and peers.
///
/// # Errors
/// [`Error`]; one that is not there, or is no such device any more, is no error.
pub async fn remove_device(kernel: &Connection, name: &str) -> Result<(), Error> {
    match kernel.link(name).await? {
        Some(link) if is_device(&link) => kernel.one(delete_link(link.index)).await,
        _ => Ok(()),
    }
}

/// Brings the bridge into place.
///
/// # Errors
/// [`LinkError`]; a later pass tries again.
pub async fn bridge(kernel: &Connection, wanted: &WantedBridge, cluster: &[IpNetwork]) -> Result<InPlace, LinkError> {
    let mut done = Vec::new();
    let bridge = match kernel.link(wanted.name.as_str()).await? {
        Some(found) => {
            carry_out(kernel, wanted.mend(&found).map_err(LinkError::Conflict)?, &mut done).await?;
            found
        }
        None => {
            for request in wanted.create() {
                match kernel.one(request.clone()).await {
                    Ok(()) => done.push(request.operation().to_owned()),
                    // The plugin makes the bridge too, when a pod comes before us.
                    Err(error) if error.is_present() => {}
                    Err(error) => return Err(error.into()),
                }
            }
            made(kernel, &wanted.name).await?
        }
    };
    let addresses = kernel.addresses(Some(bridge.index)).await?;
    carry_out(kernel, wanted.addresses(bridge.index, cluster, &addresses), &mut done).await?;
    let filter = RouteFilter { link: Some(bridge.index), table: Some(Route::MAIN), ..RouteFilter::default() };
    carry_out(kernel, wanted.routes(bridge.index, &kernel.routes(filter).await?), &mut done).await?;
    Ok(InPlace { index: bridge.index, done })
}

async fn made(kernel: &Connection, name: &str) -> Result<Link, LinkError> {
    kernel.link(name).await?.ok_or_else(|| LinkError::Vanished(name.to_owned()))
}

/// Each on its own: a create and what follows must not run when the step before was refused.
async fn carry_out(kernel: &Connection, requests: Vec<Request>, done: &mut Vec<String>) -> Result<(), Error> {
    for request in requests {
        let operation = request.operation().to_owned();
        kernel.one(request).await?;
        done.push(operation);
    }
    Ok(())
}
