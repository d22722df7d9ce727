//! Requests that somebody else waits for.
//!
//! Some requests are done long before their `sendmsg` returns: the deletion of a link takes effect within 0.5 ms and then
//! keeps the caller for 10 to 20 ms more, in a wait for other processors (`rcu_barrier` in `netdev_run_todo`) that no
//! signal ends and no flag avoids. A process that has to answer quickly leaves that wait to a child.
//!
//! Likewise the deletion of nf_tables elements: it takes effect at once, but whoever closes a netfilter socket of this
//! network namespace before the kernel has destroyed them waits for that, some 16 ms, and everybody else who changes
//! nf_tables waits with it (`nft_rcv_nl_event`). A child keeps such a socket open until it can be closed at no cost.

#![expect(unsafe_code, reason = "fork, and the system calls that its child may make")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::error::{Error, Result};
use crate::{Request, RouteSocket};

/// How long a child keeps a socket open: several times what the kernel needs to destroy elements, and so long that in a
/// burst of deletions no child closes its own while the others' elements are being destroyed.
const LINGER: Duration = Duration::from_millis(250);

/// A child that sends a request and ends. It outlives this process if it must, and holds nothing of it but the socket.
#[derive(Debug)]
pub struct Detached(Pid);

/// Has a child send the request through the socket. Nobody reads the kernel's answer: look for what it should have done.
///
/// The child closes everything but the socket first, standard streams and locked files among them, so that nobody waits
/// for it. Its memory is a copy; it allocates nothing. A socket in `held` it keeps open too, for some time after its deed:
/// the caller closes its own end then without waiting.
///
/// # Errors
/// [`Error::Io`] if there can be no further process.
pub fn detach(socket: &RouteSocket, request: Request, held: Option<BorrowedFd<'_>>) -> Result<Detached> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | request.flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request.message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let descriptor = socket.as_fd().as_raw_fd();
    let send = || {
        // SAFETY: sends from a live buffer over a descriptor that the child has kept.
        unsafe { libc::send(descriptor, bytes.as_ptr().cast(), bytes.len(), 0) };
    };
    let child = child_with([Some(socket.as_fd()), held], held.map(|_| LINGER), send);
    child.map_err(|errno| Error::io(format!("fork to {}", request.operation), errno))
}

/// Has a child keep a socket open for some time: the caller closes its own end then without waiting.
///
/// # Errors
/// [`Error::Io`] if there can be no further process.
pub fn hold(socket: impl AsFd) -> Result<Detached> {
    let child = child_with([Some(socket.as_fd()), None], Some(LINGER), || {});
    child.map_err(|errno| Error::io("fork to hold a socket", errno))
}

/// A child that closes all descriptors but those kept, does `deed`, which may make system calls and nothing else, waits
/// for `linger`, and ends.
fn child_with(
    kept: [Option<BorrowedFd<'_>>; 2],
    linger: Option<Duration>,
    deed: impl FnOnce(),
) -> nix::Result<Detached> {
    // Descriptors are small numbers, never negative. The smaller first, as gaps between them are closed.
    let number = |fd: Option<BorrowedFd<'_>>| fd.and_then(|fd| libc::c_uint::try_from(fd.as_raw_fd()).ok());
    let mut kept = kept.map(number);
    kept.sort_unstable();
    let pause = libc::timespec {
        tv_sec: 0,
        tv_nsec: linger.map_or(0, |linger| libc::c_long::from(linger.subsec_nanos().cast_signed())),
    };
    // SAFETY: the child makes system calls only (all of them async-signal-safe) and never returns, so that the state in
    // which other threads of the parent left the memory does not matter.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Detached(child)),
        ForkResult::Child => {
            let mut first = 0;
            for descriptor in kept.into_iter().flatten() {
                if descriptor > first {
                    // SAFETY: closing descriptors of a process that uses none of them again.
                    unsafe { libc::syscall(libc::SYS_close_range, first, descriptor - 1, 0) };
                }
                first = descriptor + 1;
            }
            // SAFETY: as above.
            unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
            deed();
            // SAFETY: a pause that reads a live value; ending without running anybody's destructors.
            unsafe {
                if linger.is_some() {
                    libc::nanosleep(&raw const pause, std::ptr::null_mut());
                }
                libc::_exit(0)
            }
        }
    }
}

impl Detached {
    /// Whether the child has ended, well or not. Does not wait.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        // Where SIGCHLD is ignored there is nothing left to wait for (ECHILD).
        !matches!(waitpid(self.0, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
    }
}
