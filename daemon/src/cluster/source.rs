//! A running source of leases, whichever it is: what it has seen, and how it is doing.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::model::Snapshot;

/// How the source is doing, for readiness and metrics.
#[derive(Debug, Clone, Default)]
pub struct SourceStatus {
    /// When everything was last read without an error.
    pub last_list: Option<Instant>,
    /// Whether a watch is open.
    pub watching: bool,
    /// What went wrong last; `None` once a list has succeeded again.
    pub error: Option<String>,
}

/// The running source. It stops when its token is cancelled or every handle is gone.
#[derive(Debug, Clone)]
pub struct SourceHandle {
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    status: watch::Receiver<SourceStatus>,
}

impl SourceHandle {
    /// The handle of a source that writes to these.
    pub(in crate::cluster) const fn new(
        snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
        status: watch::Receiver<SourceStatus>,
    ) -> Self {
        Self { snapshots, status }
    }

    /// The snapshots; `None` until the first list has succeeded.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.snapshots.clone()
    }

    /// How the source is doing.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.status.clone()
    }
}
