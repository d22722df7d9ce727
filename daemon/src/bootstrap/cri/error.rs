//! What can be wrong with a runtime, and what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use tonic::{Code, Status};

/// The runtime cannot be used, or has refused.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// There is no such file.
    #[error(
        "there is no container runtime at {}: install and start containerd, or name its socket with --cri-socket",
        .0.display()
    )]
    Missing(PathBuf),
    /// There is a file, but no socket.
    #[error("{} is not a socket; expected that of a container runtime (--cri-socket)", .0.display())]
    NotASocket(PathBuf),
    /// Nobody listens, or it may not be used.
    #[error("the container runtime does not answer at {}: {cause}; is it running (systemctl status containerd)?", .socket.display())]
    Deaf {
        /// Its socket.
        socket: PathBuf,
        /// The system's reason.
        cause: String,
    },
    /// The kubelet's socket address is none of a file.
    #[error("the runtime's socket is {0:?}; expected unix:///run/containerd/containerd.sock or another absolute path")]
    Address(String),
    /// It is a runtime whose CRI part is switched off, as Docker's packages of containerd have it.
    #[error(
        "the runtime at {} does not serve CRI ({cause}): its CRI plugin is disabled; take \"cri\" out of disabled_plugins \
         in /etc/containerd/config.toml and restart containerd", .socket.display()
    )]
    NoCri {
        /// Its socket.
        socket: PathBuf,
        /// Its answer.
        cause: String,
    },
    /// It took too long.
    #[error("the container runtime has not answered to {call} within {} s", .limit.as_secs())]
    Slow {
        /// What was asked.
        call: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// It has refused.
    #[error("the container runtime refuses {call}{}: {}", of(.object), words(.status))]
    Refused {
        /// What was asked.
        call: &'static str,
        /// Of which object; empty for none.
        object: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// Its answer lacks what every answer has.
    #[error("the container runtime's answer to {call} has no {field}")]
    Incomplete {
        /// What was asked.
        call: &'static str,
        /// What is not there.
        field: &'static str,
    },
}

impl CriError {
    /// The code of the runtime's answer, if it has given one.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { status, .. } => Some(status.code()),
            _ => None,
        }
    }
}

fn of(object: &str) -> String {
    if object.is_empty() { String::new() } else { format!(" of {object}") }
}

/// A status as a person wants it: the code alone says little, and the words mostly say all.
fn words(status: &Status) -> String {
    if status.message().is_empty() { format!("{:?}", status.code()) } else { status.message().to_owned() }
}

/// Whether this is gRPC's answer for a service that nobody has registered.
pub(super) fn is_unknown_service(status: &Status) -> bool {
    status.code() == Code::Unimplemented && status.message().contains("unknown service")
}
