//! Why an upgrade was not made, and what is so now.

use crate::bootstrap::phases::error::{Exit, PhaseError};
use crate::bootstrap::version::VersionError;

/// Why an upgrade was not made.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The target is no version.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The rules do not allow it.
    #[error("the cluster cannot go to that version:\n  {}", .0.join("\n  "))]
    Policy(Vec<String>),
    /// The cluster is not well enough to be changed.
    #[error(
        "the cluster is not well, and an upgrade would make it harder to mend:\n  {}\nNothing was changed. Mend it (weft status, weft doctor), or pass over checks with --ignore-preflight-errors",
        .0.join("\n  ")
    )]
    Unwell(Vec<String>),
    /// This is no node of a cluster, or not one of the kind that is asked for.
    #[error("{0}")]
    NoNode(String),
    /// kubelet has not taken up a manifest.
    #[error("kubelet has not taken up the new manifest of {part} within {seconds} s: {last}")]
    NotTakenUp {
        /// Which.
        part: &'static str,
        /// How long was waited.
        seconds: u64,
        /// What was seen last.
        last: String,
    },
    /// Something failed, and everything is as it was.
    #[error(
        "{part} did not get well with its new manifest, and all manifests are as they were; the old control plane is well again.\nThe cause: {cause}"
    )]
    RolledBack {
        /// Whose new manifest it was.
        part: &'static str,
        /// Why.
        cause: Box<PhaseError>,
    },
    /// Something failed, the manifests are as they were, and that does not suffice.
    #[error(
        "{part} did not get well with its new manifest: {cause}\nThe old manifests were put back (they are in {folder}), and that did not suffice: {then}\nA snapshot of etcd from before the upgrade, if one was taken, is in the same folder"
    )]
    StillUnwell {
        /// Whose new manifest it was.
        part: &'static str,
        /// Why.
        cause: Box<PhaseError>,
        /// Where the old manifests are.
        folder: String,
        /// What is wrong now.
        then: Box<PhaseError>,
    },
}

impl UpgradeError {
    /// The exit code.
    pub(in crate::bootstrap::phases) fn exit(&self) -> Exit {
        match self {
            Self::Version(_) | Self::Policy(_) => Exit::Config,
            Self::Unwell(_) | Self::NoNode(_) => Exit::Preflight,
            Self::NotTakenUp { .. } | Self::RolledBack { .. } | Self::StillUnwell { .. } => Exit::Unwell,
        }
    }
}
