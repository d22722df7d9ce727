//! A netlink socket, with nothing around it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::message::Batch;

/// Room for a link without its statistics.
const ANSWER: usize = 4096;
/// Where `nlmsg_type` is, linux/netlink.h.
const KIND: std::ops::Range<usize> = 4..6;
/// `nlmsg_type` of an acknowledgement, which may be a refusal.
const NLMSG_DONE: [u8; 2] = 3u16.to_ne_bytes();
/// Room for one part of a table.
const DUMPED: usize = 8192;
const NLMSG_ERROR: [u8; 2] = 2u16.to_ne_bytes();
/// Where the error number of an acknowledgement is, behind `struct nlmsghdr`.
const ERROR: std::ops::Range<usize> = 16..20;

/// An rtnetlink socket of the namespace in which it was opened. Unbound: the kernel binds it when it first sends.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(Self(socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?))
    }

    /// Sends a question for a table and reads the answer to its end.
    pub(crate) fn dump(&self, batch: &Batch) -> io::Result<()> {
        send(self.0.as_raw_fd(), batch.bytes(), MsgFlags::empty())?;
        let mut answer = [0; DUMPED];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            let mut rest = answer.get(..length).unwrap_or_default();
            while let Some(size) = rest.first_chunk().map(|size| u32::from_ne_bytes(*size) as usize) {
                if rest.get(KIND) == Some(&NLMSG_DONE) {
                    return Ok(());
                }
                rest = rest.get(size.max(16).next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    /// Sends the requests together and reads an answer to each: an acknowledgement, or what was asked for.
    pub(crate) fn run(&self, batch: &Batch) -> io::Result<()> {
        send(self.0.as_raw_fd(), batch.bytes(), MsgFlags::empty())?;
        let mut answer = [0; ANSWER];
        for _ in 0..batch.len() {
            let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
            let answer = answer.get(..length).unwrap_or_default();
            if answer.get(KIND) != Some(&NLMSG_ERROR) {
                continue;
            }
            let verdict = answer.get(ERROR).and_then(<[u8]>::first_chunk);
            match verdict.copied().map(i32::from_ne_bytes) {
                Some(0) => {}
                Some(code) => return Err(io::Error::from_raw_os_error(-code)),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(())
    }
}
