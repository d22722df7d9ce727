//! Requests that somebody else waits for.
//!
//! Some requests are done long before their `sendmsg` returns: the deletion of a link takes effect within 0.5 ms and then
//! keeps the caller for 10 to 20 ms more, in a wait for other processors (`rcu_barrier` in `netdev_run_todo`) that no
//! signal ends and no flag avoids. A process that has to answer quickly leaves that wait to a child.

#![expect(unsafe_code, reason = "fork, and the system calls that its child may make")]

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::error::{Error, Result};
use crate::{Request, RouteSocket};

/// A child that sends a request and ends. It outlives this process if it must, and holds nothing of it but the socket.
#[derive(Debug)]
pub struct Detached(Pid);

/// Has a child send the request through the socket. Nobody reads the kernel's answer: look for what it should have done.
///
/// The child closes everything but the socket first, standard streams and locked files among them, so that nobody waits
/// for it. Its memory is a copy; it allocates nothing.
///
/// # Errors
/// [`Error::Io`] if there can be no further process.
pub fn detach(socket: &RouteSocket, request: Request) -> Result<Detached> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | request.flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request.message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the child makes system calls only (all of them async-signal-safe) and never returns, so that the state in
    // which other threads of the parent left the memory does not matter.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => Ok(Detached(child)),
        Ok(ForkResult::Child) => {
            let own = libc::c_uint::try_from(descriptor).unwrap_or_default();
            // SAFETY: closing descriptors of a process that uses none of them again; sending from a live buffer over the
            // one that is left; ending without running anybody's destructors.
            unsafe {
                if own > 0 {
                    libc::syscall(libc::SYS_close_range, 0, own - 1, 0);
                }
                libc::syscall(libc::SYS_close_range, own + 1, libc::c_uint::MAX, 0);
                libc::send(descriptor, bytes.as_ptr().cast(), bytes.len(), 0);
                libc::_exit(0)
            }
        }
        Err(errno) => Err(Error::io(format!("fork to {}", request.operation), errno)),
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
