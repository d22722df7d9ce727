//! Limits of a container's traffic.
//!
//! What the container receives leaves the host through the host's end of the pair, and waits in a queue there. What it
//! sends comes in there, where there is no queue: it takes a way round by a device (ifb) that has one. All of it is out of
//! the container's reach.
//!
//! The queues go with the interface they are at. The device does not: it is named like the host's interface, so that
//! whoever removes the one finds the other, and one without the other is nobody's.

use weft_netlink::{Ifb, LinkChange, LinkProbe, MacAddr, Redirect, RouteSocket, TokenBucket};

use super::teardown::{delete_all, delete_now};
use crate::formats::attachment::{Attachment, Limit, host_interface_of, limiter_digits};
use crate::protocol::{CniError, Result};

/// Packets wait for 25 ms at most, a fortieth of a second, apart from what is let wait of a burst.
const WAITS_PER_SECOND: u64 = 40;
/// How much of a burst may wait, in bytes. Runtimes that are told no burst ask for half a gigabyte; a container that sends
/// without heed would fill as much of the host's memory.
const WAITING_BURST: u64 = 1024 * 1024;

/// The queue that keeps a limit.
fn bucket(limit: Limit) -> TokenBucket {
    let (rate, burst) = (limit.rate / 8, limit.burst / 8);
    let waiting = rate / WAITS_PER_SECOND + burst.min(WAITING_BURST);
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    TokenBucket { rate, burst: narrow(burst), limit: narrow(waiting) }
}

/// Puts an attachment's limits on its interface, which is not up yet: so no packet passes before, and the kernel has nobody
/// to wait for. Returns name and address of the device that it made for them.
///
/// # Errors
/// Code 999 with the kernel's words.
pub fn apply(attachment: &Attachment, probe: &LinkProbe, host: &mut RouteSocket) -> Result<Option<(String, MacAddr)>> {
    let Some(limits) = &attachment.limits else { return Ok(None) };
    let index = index_of(&attachment.host_interface, probe)?;
    let mut requests = Vec::new();
    requests.extend(limits.ingress.map(|limit| bucket(limit).create(index)));
    let mut made = None;
    if let Some(limit) = limits.egress {
        let name = attachment.identity.limiter();
        // Left by an ADD whose record is lost.
        if probe.index(&name)?.is_some() {
            delete_now(&name, host)?;
        }
        host.one(Ifb { name: name.clone(), mtu: attachment.mtu }.create())?;
        let device = index_of(&name, probe)?;
        requests.push(bucket(limit).create(device));
        requests.push(LinkChange::new(device).up().request());
        requests.extend(Redirect { link: index, to: device }.create());
        let mac = probe.mac(&name)?.ok_or_else(|| vanished(&name))?;
        made = Some((name, mac));
    }
    host.all(requests)?;
    Ok(made)
}

/// Looks whether an attachment's limits are as [`apply`] has put them on the host's interface with index `port`.
///
/// # Errors
/// Code 999 naming what is missing or different.
pub fn check(attachment: &Attachment, port: u32, host: &mut RouteSocket) -> Result<()> {
    let Some(limits) = &attachment.limits else { return Ok(()) };
    let differs = |what: String| Err(CniError::internal(what));
    let interface = &attachment.host_interface;
    if let Some(limit) = limits.ingress
        && !host.has_token_bucket(port, &bucket(limit))?
    {
        return differs(format!("interface {interface} has lost its limit of {limit} into the container"));
    }
    let Some(limit) = limits.egress else { return Ok(()) };
    let name = attachment.identity.limiter();
    let Some(device) = host.link(name.as_str())?.filter(|device| device.up) else {
        return differs(format!("interface {name}, the limit of what comes out of the container, is gone or down"));
    };
    if !host.has_token_bucket(device.index, &bucket(limit))? {
        return differs(format!("interface {name} has lost its limit of {limit} out of the container"));
    }
    if !host.has_redirect(&Redirect { link: port, to: device.index })? {
        return differs(format!("interface {interface} does not redirect to {name}, which has the limit of {limit}"));
    }
    Ok(())
}

/// Removes the devices of attachments that nobody knows any more: those whose interface on the host is gone. A device is
/// made after that interface, so one that is being made is not among them.
///
/// # Errors
/// What the kernel says.
pub fn remove_orphans(host: &mut RouteSocket) -> Result<(), weft_netlink::Error> {
    let links = host.links()?;
    let has = |name: &str| links.iter().any(|link| link.name == name);
    let orphans: Vec<&str> = links
        .iter()
        .map(|link| link.name.as_str())
        .filter(|name| limiter_digits(name).is_some_and(|digits| !has(&host_interface_of(digits))))
        .collect();
    if orphans.is_empty() { Ok(()) } else { delete_all(&orphans, host) }
}

fn index_of(name: &str, probe: &LinkProbe) -> Result<u32> {
    probe.index(name)?.ok_or_else(|| vanished(name))
}

fn vanished(name: &str) -> CniError {
    CniError::later(format!("interface {name} vanished while it was set up"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t116_a_queue_holds_25_ms_and_the_burst() {
        let limit = |rate, burst| Limit { rate, burst };
        assert_eq!(bucket(limit(10_000_000, 800_000)), TokenBucket { rate: 1_250_000, burst: 100_000, limit: 131_250 });
        // containerd's burst; the largest that CRI-O could be told; more than 32 bits of bytes a second.
        let large = bucket(limit(8_000_000, u64::from(u32::MAX)));
        assert_eq!(large, TokenBucket { rate: 1_000_000, burst: 536_870_911, limit: 25_000 + 1024 * 1024 });
        assert_eq!(bucket(limit(8_000, (1 << 35) - 1)).burst, u32::MAX);
        assert_eq!(bucket(limit(1_000_000_000_000_000, 8)).limit, u32::MAX);
        assert_eq!(bucket(limit(1_000_000_000_000_000, 8)).rate, 125_000_000_000_000);
    }
}
