//! Why a phase did not come to its end, and with which exit code the command ends then.

use super::upgrade::UpgradeError;
use crate::bootstrap::api::{ApiError, DiscoveryError, EtcdError, KeyError, PinError, TokenError};
use crate::bootstrap::config::ConfigError;
use crate::bootstrap::converge::FileError;
use crate::bootstrap::cri::CriError;
use crate::bootstrap::host::reset::ResetError;
use crate::bootstrap::host::{HostError, PreflightReport};
use crate::bootstrap::images::ImageError;
use crate::bootstrap::journal::JournalError;
use crate::bootstrap::kubelet::files::KubeletFilesError;
use crate::bootstrap::kubelet::service::ServiceError;
use crate::bootstrap::kubelet::unit::UnitError;
use crate::bootstrap::patches::PatchError;
use crate::bootstrap::pki::PkiError;
use crate::bootstrap::static_pods::WriteError;
use crate::bootstrap::waiting::poll::WaitError;
use crate::bootstrap::waiting::probe::IdentityError;
use crate::bootstrap::waiting::targets::TargetError;

/// Exit codes of init, join, reset and upgrade; `weft init --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The machine cannot become a node as it is.
    Preflight = 2,
    /// A flag or the configuration is wrong.
    Config = 3,
    /// Images could not be had.
    Images = 4,
    /// kubelet or the control plane did not get well.
    Unwell = 5,
    /// The cluster could not be found, or is not trusted.
    Discovery = 6,
    /// Everything else.
    Failed = 1,
}

/// Why a phase did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum PhaseError {
    /// The machine cannot become a node as it is.
    #[error(
        "preflight checks failed:\n{0}Mend it and run the same command again, or let checks only warn with --ignore-preflight-errors"
    )]
    Preflight(Box<PreflightReport>),
    /// What the user gave makes no sense together.
    #[error("{0}")]
    Usage(String),
    /// A value is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The machine could not be made ready.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] CriError),
    /// Images.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// containerd runs with an old configuration, and nobody who could be told keeps it running.
    #[error(
        "containerd's configuration is mended, and containerd has not read it yet: no service manager keeps it running here. \
         Start it anew and run the same command again"
    )]
    RuntimeToRestart,
    /// A throw-away pod did not start.
    #[error("a first pod does not start: {cause}\n{fix}")]
    Rehearsal {
        /// Why.
        cause: String,
        /// What mends it.
        fix: String,
    },
    /// Certificates and kubeconfigs.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Static pods.
    #[error(transparent)]
    StaticPod(#[from] WriteError),
    /// Patches.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// kubelet's files.
    #[error(transparent)]
    KubeletFiles(#[from] KubeletFilesError),
    /// kubelet's unit.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// A service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// What is to be waited for.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The identity of the one who waits.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Somebody did not get well.
    #[error("{0}")]
    Unwell(Box<WaitError>),
    /// The cluster could not be found, or is not trusted.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The API server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// etcd's members.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// A token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The key of uploaded certificates.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The hash of an authority's key.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// A reset that was not begun, or ended before a file was touched.
    #[error(transparent)]
    Reset(#[from] ResetError),
    /// A reset that has left something.
    #[error("something is left, as reported above; run it again when the cause is gone")]
    Left,
    /// An upgrade that was not made.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

impl PhaseError {
    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Host(HostError::Journal(_)) => Exit::Failed,
            // What it is to be, the machine cannot be made.
            Self::Host(_) | Self::Preflight(_) => Exit::Preflight,
            Self::Rehearsal { .. } | Self::Runtime(_) | Self::RuntimeToRestart => Exit::Preflight,
            Self::Usage(_) | Self::Config(_) | Self::Patch(_) | Self::Token(_) | Self::Key(_) | Self::Pin(_) => {
                Exit::Config
            }
            Self::Images(_) => Exit::Images,
            Self::Unwell(_) => Exit::Unwell,
            Self::Upgrade(error) => error.exit(),
            Self::Discovery(_) => Exit::Discovery,
            _ => Exit::Failed,
        }
    }
}
