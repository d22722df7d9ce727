//! Brings the VXLAN devices and the bridge into the kernel.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_netlink::agent::Connection;
use weft_netlink::sysctl::Sysctl;
use weft_netlink::{Error, Link, LinkKind, Request, Route, RouteFilter, Vxlan, delete_link};

use super::bridge::WantedBridge;
use super::device::{self, DevicePlan};

/// Why a link is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] Error),
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

/// Brings a VXLAN device into place with the address that is the source of the node's own packets to pods.
///
/// # Errors
/// [`LinkError`]; a later pass tries again.
pub async fn vxlan(
    kernel: &Connection,
    sysctl: &Sysctl,
    wanted: &Vxlan,
    address: IpAddr,
    cluster: &[IpNetwork],
) -> Result<InPlace, LinkError> {
    let mut done = Vec::new();
    let found = kernel.link(wanted.name.as_str()).await?;
    if found.is_none() {
        make_way(kernel, wanted, &mut done).await?;
    }
    let kept = match device::plan(wanted, found.as_ref()) {
        DevicePlan::Keep => found,
        DevicePlan::Conflict(reason) => return Err(LinkError::Conflict(reason)),
        DevicePlan::Change(requests) => {
            carry_out(kernel, requests, &mut done).await?;
            found
        }
        DevicePlan::Make { requests, because } => {
            done.extend(because);
            carry_out(kernel, requests, &mut done).await?;
            None
        }
    };
    let device = match kept {
        Some(device) => device,
        None => made(kernel, &wanted.name).await?,
    };
    // Nothing out there may configure it; its addresses come from us alone. A kernel without IPv6 has no such setting.
    let accept_ra = format!("net/ipv6/conf/{}/accept_ra", wanted.name);
    if sysctl.read(&accept_ra)?.is_some() && sysctl.ensure(&accept_ra, "0")?.is_some() {
        done.push(format!("{accept_ra} = 0"));
    }
    let addresses = kernel.addresses(Some(device.index)).await?;
    carry_out(kernel, device::addresses(device.index, address, cluster, &addresses), &mut done).await?;
    Ok(InPlace { index: device.index, done })
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

/// Removes a VXLAN device that is no longer wanted, with its routes, neighbours and FDB entries.
///
/// # Errors
/// [`Error`]; one that is not there, or is no VXLAN device any more, is no error.
pub async fn remove_vxlan(kernel: &Connection, name: &str) -> Result<(), Error> {
    match kernel.link(name).await? {
        Some(link) if matches!(link.kind, LinkKind::Vxlan { .. }) => kernel.one(delete_link(link.index)).await,
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
