//! A running source of Services, whichever it is: what it has read, and how it is doing.

use std::sync::Arc;

use ipnetwork::IpNetwork;
use tokio::sync::watch;
use tokio::time::Instant;

use super::store::ServiceStore;

/// How the source is doing, for readiness and metrics.
#[derive(Debug, Clone, Default)]
pub struct ServicesStatus {
    /// When everything was last read without an error.
    pub last_list: Option<Instant>,
    /// Whether a watch is open.
    pub watching: bool,
    /// What went wrong last; `None` once a list has succeeded again.
    pub error: Option<String>,
    /// The store's revision up to which changes have been taken in.
    pub revision: i64,
    /// How many objects hold something that cannot be used; each has been logged.
    pub rejected: usize,
}

/// The running source. It stops when its token is cancelled or every handle is gone.
#[derive(Debug, Clone)]
pub struct ServicesHandle {
    store: Arc<ServiceStore>,
    status: watch::Receiver<ServicesStatus>,
    cidrs: watch::Receiver<Option<Vec<IpNetwork>>>,
}

impl ServicesHandle {
    /// The handle of a source that writes to these.
    pub(in crate::cluster) const fn new(
        store: Arc<ServiceStore>,
        status: watch::Receiver<ServicesStatus>,
        cidrs: watch::Receiver<Option<Vec<IpNetwork>>>,
    ) -> Self {
        Self { store, status, cidrs }
    }

    /// What has been read.
    #[must_use]
    pub const fn store(&self) -> &Arc<ServiceStore> {
        &self.store
    }

    /// How the source is doing.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<ServicesStatus> {
        self.status.clone()
    }

    /// The networks that cluster IPs are taken from, as the cluster says; `None` where it says none.
    #[must_use]
    pub fn cidrs(&self) -> watch::Receiver<Option<Vec<IpNetwork>>> {
        self.cidrs.clone()
    }
}
