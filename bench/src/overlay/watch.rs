//! The judge: what the kernel of a node says that was changed, and when.
//!
//! It listens to rtnetlink's groups of neighbours (FDB entries among them) and IPv4 routes. Listening costs the one who changes
//! something a copy of the message, whoever it is.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use weft_netlink::RouteSocket;
use weft_tests::netns::Netns;

/// `RTMGRP_NEIGH` and `RTMGRP_IPV4_ROUTE` (linux/rtnetlink.h).
const GROUPS: u32 = 0x4 | 0x40;
/// Bytes that may wait to be read: what tens of thousands of changes take.
const BUFFER: usize = 256 << 20;
/// How long one look waits.
const LOOK: i64 = 20;
/// Nothing has changed for so long: it is over.
pub(crate) const QUIET: Duration = Duration::from_millis(200);

/// Types of rtnetlink (linux/rtnetlink.h).
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
/// `NUD_PERMANENT` (linux/neighbour.h).
const PERMANENT: u16 = 0x80;
/// `sizeof(struct nlmsghdr)`.
const HEADER: usize = 16;

/// Listens to a namespace.
pub(crate) struct Watch {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// How many messages of its kind there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    /// Changes in all.
    pub(crate) changes: usize,
    /// When the last one came.
    pub(crate) last: Option<Instant>,
}

impl Watch {
    /// Listens from now on.
    pub(crate) fn open(netns: &Netns) -> Result<Self> {
        let open = || {
            let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
            socket(AddressFamily::Netlink, kind, flags, SockProtocol::NetlinkRoute)
        };
        let socket = netns.run(open)?.context("no rtnetlink")?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(LOOK))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS)).context("cannot listen to rtnetlink")?;
        Ok(Self { socket, buffer: vec![0; 1 << 16] })
    }

    /// Adds what has come, or comes within a moment.
    fn look(&mut self, seen: &mut Seen) -> Result<()> {
        match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
            Ok(length) => {
                let changes = changes(self.buffer.get(..length).unwrap_or_default());
                if changes > 0 {
                    seen.changes += changes;
                    seen.last = Some(Instant::now());
                }
                Ok(())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(Errno::ENOBUFS) => bail!("there were more changes than could be listened to"),
            Err(error) => Err(error).context("cannot listen to rtnetlink"),
        }
    }

    /// Listens until `done` holds and nothing has changed for a while; `None` if the limit passes before.
    pub(crate) fn settle(&mut self, limit: Duration, mut done: impl FnMut(Seen) -> bool) -> Result<Option<Seen>> {
        let (begin, mut seen) = (Instant::now(), Seen::default());
        let mut is_done = false;
        while begin.elapsed() < limit {
            self.look(&mut seen)?;
            is_done = is_done || done(seen);
            if is_done && seen.last.unwrap_or(begin).elapsed() > QUIET && begin.elapsed() > QUIET {
                return Ok(Some(seen));
            }
        }
        Ok(None)
    }

    /// Listens while something else is done in a thread of its own.
    pub(crate) fn during<T: Send>(&mut self, work: impl FnOnce() -> Result<T> + Send) -> Result<(T, Seen)> {
        let mut seen = Seen::default();
        let done = std::thread::scope(|scope| {
            let working = scope.spawn(work);
            while !working.is_finished() {
                self.look(&mut seen)?;
            }
            working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let rest = self.settle(QUIET * 20, |_| true)?.context("the kernel changes without end")?;
        Ok((done, Seen { changes: seen.changes + rest.changes, last: rest.last.or(seen.last) }))
    }
}

/// How many of the messages tell of an FDB entry, a permanent neighbour or a route that came, went or was replaced.
fn changes(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some([a, b, c, d, e, f]) = bytes.first_chunk() {
        let length = usize::try_from(u32::from_ne_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        // struct ndmsg: family at 0, state at 8.
        let state = bytes.get(HEADER + 8..HEADER + 10).and_then(<[u8]>::first_chunk).map(|it| u16::from_ne_bytes(*it));
        let is_change = match u16::from_ne_bytes([*e, *f]) {
            RTM_NEWROUTE | RTM_DELROUTE | RTM_DELNEIGH => true,
            // What ARP finds out is nobody's doing.
            RTM_NEWNEIGH => state.is_some_and(|state| state & PERMANENT != 0),
            _ => false,
        };
        count += usize::from(is_change);
        let step = length.max(HEADER).checked_next_multiple_of(4);
        bytes = step.and_then(|step| bytes.get(step..)).unwrap_or_default();
    }
    count
}

/// Neighbours, FDB entries and on-link routes of the overlay's device.
pub(crate) fn objects(netns: &Netns) -> Result<[usize; 3]> {
    netns.run(|| {
        let mut socket = RouteSocket::open()?;
        let Some(device) = socket.link("flannel.1")? else { return Ok([0; 3]) };
        let filter = weft_netlink::RouteFilter { link: Some(device.index), ..Default::default() };
        let routes = socket.routes(filter)?.into_iter().filter(|route| route.next_hop.onlink).count();
        Ok([socket.neighbours(device.index)?.len(), socket.fdb(device.index)?.len(), routes])
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, state: u16) -> Vec<u8> {
        let mut bytes = vec![0; 28];
        bytes[..4].copy_from_slice(&28_u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[24..26].copy_from_slice(&state.to_ne_bytes());
        bytes
    }

    #[test]
    fn what_arp_finds_out_is_no_change() {
        let all = [message(28, 0x80), message(28, 0x02), message(24, 0), message(29, 0x20), message(16, 0)].concat();
        assert_eq!(changes(&all), 3);
        assert_eq!(changes(&[0xff; 40]), 0);
    }
}
