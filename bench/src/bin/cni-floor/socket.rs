//! A netlink socket, with nothing around it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::message::Batch;

/// Where the error number of an acknowledgement is, behind `struct nlmsghdr`.
const ERROR: std::ops::Range<usize> = 16..20;

/// An rtnetlink socket of the namespace in which it was opened. Unbound: the kernel binds it when it first sends.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(Self(socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?))
    }

    /// Sends the requests together and reads an acknowledgement for each.
    pub(crate) fn run(&self, batch: &Batch) -> io::Result<()> {
        send(self.0.as_raw_fd(), batch.bytes(), MsgFlags::empty())?;
        let mut answer = [0; 512];
        for _ in 0..batch.len() {
            let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
            let verdict = answer.get(..length).and_then(|answer| answer.get(ERROR)?.first_chunk());
            match verdict.copied().map(i32::from_ne_bytes) {
                Some(0) => {}
                Some(code) => return Err(io::Error::from_raw_os_error(-code)),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(())
    }
}
