//! What can go wrong between us and the kernel.

use std::fmt;
use std::io;

use nix::errno::Errno;

/// The result of a netlink operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a netlink operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel understood the request and refused it.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The request did not reach the kernel, or its answer did not reach us.
    #[error("{operation}: {source}")]
    Io {
        /// What was being done, as an operator would say it.
        operation: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The kernel's answer is not what the netlink protocol promises.
    #[error("{operation}: cannot read the kernel's answer: {reason}")]
    Decode {
        /// What was being done.
        operation: String,
        /// What was wrong with the answer.
        reason: String,
    },
    /// The kernel does not have something, neither built in nor as a module that it could load.
    #[error("this kernel has no {feature}: module {module} is neither loaded nor can it be")]
    Unsupported {
        /// What is not there.
        feature: &'static str,
        /// The module that has it.
        module: &'static str,
    },
    /// A dump was overtaken by changes (`NLM_F_DUMP_INTR`, linux/netlink.h) each time it was tried.
    #[error("{operation}: the kernel's table kept changing while it was read ({attempts} attempts)")]
    DumpInterrupted {
        /// What was being read.
        operation: String,
        /// How often it was tried.
        attempts: u32,
    },
}

impl Error {
    pub(crate) fn io(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { operation: operation.into(), source: source.into() }
    }

    pub(crate) fn decode(operation: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::Decode { operation: operation.into(), reason: reason.to_string() }
    }

    /// The error number behind this error, if there is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel(kernel) => Some(kernel.errno),
            Self::Io { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::Decode { .. } | Self::Unsupported { .. } | Self::DumpInterrupted { .. } => None,
        }
    }

    /// Whether the object spoken of is not there (`ENOENT`, `ENODEV`, `ESRCH`, `EADDRNOTAVAIL`): for a deletion, success.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.errno().is_some_and(is_absent)
    }

    /// Whether the object spoken of exists already (`EEXIST`).
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }
}

/// A refusal by the kernel, with its own words (extended ACK, linux/netlink.h `NLMSGERR_ATTR_MSG`) where it has some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelError {
    /// The request, as an operator would say it: `add route 10.244.2.0/24 via 10.244.2.0 dev 7`.
    pub operation: String,
    /// The error number.
    pub errno: Errno,
    /// The kernel's sentence, if it gave one.
    pub message: Option<String>,
    /// Byte offset of the offending attribute in the request (`NLMSGERR_ATTR_OFFS`), if the kernel said so.
    pub offset: Option<u32>,
}

impl KernelError {
    /// Whether the object spoken of is not there: for a deletion, success.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        is_absent(self.errno)
    }

    /// Whether the object spoken of exists already (`EEXIST`): for an addition, success.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.errno == Errno::EEXIST
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({:?})", self.operation, self.errno.desc(), self.errno)?;
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        if let Some(offset) = self.offset {
            write!(f, " (at byte {offset} of the request)")?;
        }
        Ok(())
    }
}

impl std::error::Error for KernelError {}

/// Routes and virtual servers answer `ESRCH`, addresses `EADDRNOTAVAIL`, links `ENODEV`, everything else `ENOENT`.
fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENODEV | Errno::ESRCH | Errno::EADDRNOTAVAIL)
}
