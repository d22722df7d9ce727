//! What is wrong with single Services, and with all of it.

use std::fmt;
use std::net::IpAddr;

use weft_netlink::KernelError;
use weft_netlink::ipvs::{Scheduler, Target};

use super::ownership::JournalError;
use super::scheduler::Fallback;
use crate::service::model::PortKey;

/// Something to tell the operator, once. The others are served all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whose it is; `None` if it is nobody's in particular.
    pub port: Option<PortKey>,
    /// What it is.
    pub reason: Reason,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Somebody else has a virtual server there, and keeps it.
    Conflict(Target),
    /// The Service does not get the scheduler that it asks for.
    Scheduler {
        /// Why.
        cause: Fallback,
        /// What it gets.
        used: Scheduler,
    },
    /// The cluster IP is in none of the service networks, so that no packet would get to the virtual server.
    OutOfRange(IpAddr),
    /// The kernel has refused a change, twice. It is asked again at the next audit.
    Refused(KernelError),
    /// So many virtual servers in the service networks are not touched, because kube-proxy's device is still there.
    KubeProxy(usize),
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(port) = &self.port {
            write!(out, "{port}: ")?;
        }
        self.reason.fmt(out)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict(target) => {
                write!(out, "there is a virtual server {target} that is not weft's; it is left as it is")
            }
            Self::Scheduler { cause, used } => write!(out, "{cause}; {used} is used"),
            Self::OutOfRange(address) => {
                write!(out, "cluster IP {address} is in none of the service networks: not served")
            }
            Self::Refused(error) => error.fmt(out),
            Self::KubeProxy(count) => write!(
                out,
                "{count} virtual servers in the service networks are kube-proxy's, whose device kube-ipvs0 is there: \
                 they are left as they are until it is gone (weft migrate node removes it; \
                 kube-proxy --cleanup would empty IPVS, with what is weft's)"
            ),
        }
    }
}

/// Why IPVS as a whole could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel cannot be spoken to.
    #[error(transparent)]
    Kernel(#[from] weft_netlink::Error),
    /// The record of what is ours cannot be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Error {
    /// Whether the kernel has no IPVS at all, neither built in nor to be loaded.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Kernel(weft_netlink::Error::Unsupported { .. }))
    }
}
