//! Taking an attachment's interfaces away.
//!
//! `RTM_DELLINK` of a veth has done its work after 0.3 ms: both ends are closed and off the lists of their namespaces, and
//! their names are free. But it keeps its caller for 10 to 20 ms more (an RCU barrier), which is longer than all the rest
//! of DEL. Measured on Linux 6.18, 2 CPUs, in ms:
//!
//! | way | blocks the caller |
//! |---|---|
//! | delete | 10–22 |
//! | move the host's end to a namespace that ends with this process | 9–20 (the move has its own RCU waits) |
//! | move both ends there | 27–40 |
//! | a child deletes, we look until both names are gone | 0.5 |
//!
//! So a child deletes. It holds none of our descriptors, so neither the runtime's pipes nor our locks wait for it; it ends
//! by itself and is reaped by init or the nearest subreaper. If it cannot be made, or dies before it has sent its request,
//! the caller deletes and waits. Killed at any point, the record still stands and the next DEL goes on from there.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use weft_netlink::{Detached, LinkProbe, RouteSocket, delete_group, delete_link, detach, set_group};

/// Group of links that are about to be deleted: "weft" in ASCII.
const CONDEMNED: u32 = 0x7765_6674;

/// Deletes a link and waits for the kernel to be done with it. One that is not there is no error.
///
/// # Errors
/// What the kernel says.
pub fn delete_now(name: &str, socket: &mut RouteSocket) -> Result<(), weft_netlink::Error> {
    match socket.one(delete_link(name)) {
        Err(error) if !error.is_absent() => Err(error),
        _ => Ok(()),
    }
}

/// Deletes the links of one attachment: when this returns, they are closed and unlisted. The kernel's afterwork is left to
/// a child, and so is the closing of a socket in `held`.
///
/// # Errors
/// What the kernel says to [`delete_all`], which is the way out if the child fails.
pub fn delete_all_soon<N: AsRef<str>>(
    names: &[N],
    socket: &mut RouteSocket,
    probe: &LinkProbe,
    held: Option<BorrowedFd<'_>>,
) -> Result<(), weft_netlink::Error> {
    match names {
        [] => Ok(()),
        [name] => await_gone(&[name], detach(socket, delete_link(name.as_ref()), held), socket, probe),
        // One after the other they would take the afterwork's time each.
        _ if condemn(names, socket)? => await_gone(names, detach(socket, delete_group(CONDEMNED), held), socket, probe),
        _ => Ok(()),
    }
}

/// Waits until a child has had the links deleted, or deletes them.
fn await_gone<N: AsRef<str>>(
    names: &[N],
    child: Result<Detached, weft_netlink::Error>,
    socket: &mut RouteSocket,
    probe: &LinkProbe,
) -> Result<(), weft_netlink::Error> {
    let Ok(child) = child else { return delete_all(names, socket) };
    let mut pause = Duration::from_micros(50);
    loop {
        // Asked first: it may end between the two questions.
        let ended = child.has_ended();
        let mut left = false;
        for name in names {
            left |= probe.index(name.as_ref())?.is_some();
        }
        if !left {
            return Ok(());
        }
        if ended {
            return delete_all(names, socket);
        }
        pause_for(pause);
        pause = (pause * 2).min(Duration::from_millis(1));
    }
}

/// Deletes many links at the price of one. Those that are not there are no error.
///
/// # Errors
/// What the kernel says; some may then be gone.
pub fn delete_all<N: AsRef<str>>(names: &[N], socket: &mut RouteSocket) -> Result<(), weft_netlink::Error> {
    if let [name] = names {
        return delete_now(name.as_ref(), socket);
    }
    if !condemn(names, socket)? {
        return Ok(());
    }
    match socket.one(delete_group(CONDEMNED)) {
        // The last of them may have gone since, with the namespace of its other end: a group without members is ENODEV.
        Err(error) if !error.is_absent() => Err(error),
        _ => Ok(()),
    }
}

/// Puts links into the group of those that are about to be deleted. Returns whether there was any.
fn condemn<N: AsRef<str>>(names: &[N], socket: &mut RouteSocket) -> Result<bool, weft_netlink::Error> {
    let mut condemned = false;
    for verdict in socket.run(names.iter().map(|name| set_group(name.as_ref(), CONDEMNED)).collect())? {
        match verdict {
            Ok(()) => condemned = true,
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(condemned)
}

#[expect(
    clippy::disallowed_methods,
    reason = "polls a condition that the kernel does not notify of; the child ends it"
)]
fn pause_for(pause: Duration) {
    std::thread::sleep(pause);
}
