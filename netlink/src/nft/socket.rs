//! The socket: commits transactions.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::batch::Batch;
use super::words;
use crate::socket::{Family, Socket as Netlink};
use crate::{Errno, Error, KernelError, Result};

/// How often a transaction is tried again that lost a race against another.
const COMMIT_ATTEMPTS: u32 = 8;
/// What the kernel keeps of a socket's send buffer for itself (`netlink_sendmsg`), and some more.
const SEND_OVERHEAD: usize = 4096;
/// `NLMSG_ERROR`, linux/netlink.h.
const NLMSG_ERROR: u16 = 2;

/// Why a transaction did not happen.
#[derive(Debug)]
pub enum CommitError {
    /// The kernel refused it, and changed nothing.
    Refused {
        /// The first request that it refused, or the transaction as a whole.
        first: KernelError,
        /// How many requests more it refused, as far as its answers fitted into the receive buffer (some 250).
        others: usize,
    },
    /// It did not reach the kernel, or the answer did not reach us: [`Error::errno`] is `ENOBUFS` if it may have
    /// happened and has to be looked at.
    Failed(Error),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { first, others: 0 } => first.fmt(f),
            Self::Refused { first, others } => write!(f, "{first} (and {others} more requests of the transaction)"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CommitError {}

impl From<Error> for CommitError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Refused { first, .. } => Self::Kernel(first),
            CommitError::Failed(error) => error,
        }
    }
}

/// A blocking nf_tables socket. It stays in the network namespace in which it was opened.
///
/// Closing it may take some 20 ms after elements were deleted: the kernel then waits until no packet sees them.
#[derive(Debug)]
pub struct Socket {
    pub(crate) netlink: Netlink,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel lacks nfnetlink or the process may not open sockets.
    pub fn open() -> Result<Self> {
        Ok(Self { netlink: Netlink::open(Family::Netfilter)? })
    }

    /// Makes all changes of the transaction, or none.
    ///
    /// A transaction that lost a race against another is tried again.
    ///
    /// # Errors
    /// [`CommitError::Refused`] names the request that the kernel refused; nothing has changed then.
    pub fn commit(&mut self, mut batch: Batch) -> Result<(), CommitError> {
        if batch.is_empty() {
            return Ok(());
        }
        batch.close();
        self.transact(batch, "commit an nftables transaction")
    }

    /// Asks whether the kernel would make all changes of the transaction, and makes none.
    ///
    /// The kernel undoes a transaction that has no end, after it has judged each request as in [`commit`](Self::commit);
    /// modules that a request needs are loaded.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn check(&mut self, batch: Batch) -> Result<(), CommitError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.transact(batch, "check an nftables transaction")
    }

    fn transact(&mut self, mut batch: Batch, operation: &'static str) -> Result<(), CommitError> {
        if let Some(fault) = batch.fault() {
            return Err(Error::io(operation, io::Error::new(io::ErrorKind::InvalidInput, fault)).into());
        }
        self.make_room(batch.byte_length()).map_err(|errno| Error::io(operation, errno))?;
        let mut attempt = 1;
        loop {
            let first = self.netlink.take_sequence(u32::try_from(batch.requests().count()).unwrap_or(u32::MAX));
            batch.number(first);
            self.netlink.send(batch.bytes(), operation)?;
            match self.verdict(&batch, first)? {
                None => return Ok(()),
                Some((refusal, _)) if may_pass(refusal.errno) && batch.may_repeat() && attempt < COMMIT_ATTEMPTS => {
                    attempt += 1;
                }
                Some((first, others)) => return Err(CommitError::Refused { first, others }),
            }
        }
    }

    /// Lets the send buffer take the whole transaction, which has to go in one `sendmsg`.
    fn make_room(&self, length: usize) -> Result<(), Errno> {
        let wanted = length + SEND_OVERHEAD;
        // The kernel reports twice of what was asked for, and allows all of it.
        if getsockopt(&self.netlink, sockopt::SndBuf)? >= wanted {
            return Ok(());
        }
        // Beyond net.core.wmem_max only with CAP_NET_ADMIN.
        setsockopt(&self.netlink, sockopt::SndBufForce, &wanted)
            .or_else(|_| setsockopt(&self.netlink, sockopt::SndBuf, &wanted))
    }

    /// Reads what the kernel said: nothing if all went well, else the first refusal and the number of the others.
    ///
    /// nfnetlink works inside `sendmsg`, so that all of it is queued by now.
    fn verdict(&mut self, batch: &Batch, base: u32) -> Result<Option<(KernelError, usize)>> {
        const OPERATION: &str = "read the outcome of an nftables transaction";
        let mut refusal: Option<(u32, KernelError)> = None;
        let mut refusals = 0;
        let mut lost = false;
        loop {
            let length = match self.netlink.receive(libc::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    lost = true;
                    continue;
                }
                Err(error) => return Err(Error::io(OPERATION, error)),
            };
            for frame in self.netlink.received(length) {
                let frame = frame.map_err(|reason| Error::decode(OPERATION, reason))?;
                let position = frame.sequence.wrapping_sub(base);
                let code = frame.error_code().unwrap_or_default();
                let Some(request) = batch.requests().nth(position as usize).filter(|_| frame.kind == NLMSG_ERROR)
                else {
                    continue; // a late answer to something else
                };
                if code == 0 {
                    continue;
                }
                refusals += 1;
                if refusal.as_ref().is_none_or(|(earlier, _)| position < *earlier) {
                    let mut error = frame.refusal(code, String::new());
                    error.operation = words::describe(request, error.offset);
                    refusal = Some((position, error));
                }
            }
        }
        match refusal {
            // One refusal is enough to know that nothing has changed, however many were lost.
            Some((_, error)) => Ok(Some((error, refusals - 1))),
            None if lost => {
                let operation = "an nftables transaction was sent, but its outcome was lost and has to be looked at";
                Err(Error::io(operation, Errno::ENOBUFS))
            }
            None => Ok(None),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

/// Whether the same transaction may pass another time: others changed the tables, or a signal came.
fn may_pass(errno: Errno) -> bool {
    matches!(errno, Errno::ERESTART | Errno::EAGAIN | Errno::EINTR)
}
