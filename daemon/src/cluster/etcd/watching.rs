//! What every watch has in common: how it is opened, and how it ends.

use std::time::Duration;

use etcd_client::{Error, WatchResponse, WatchStream};
use tokio::time::timeout;

use super::store::Store;

/// Longest time that opening a watch may take; the watch itself has no limit.
const WATCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Shortest and longest wait after a failure.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Said of a list that is older than what is known already.
pub(super) const OLDER: &str = "the store is older than it was: it was wiped or restored";

/// The watch that is being opened, or why there is none.
pub(super) async fn opened(opening: impl Future<Output = Result<WatchStream, String>>) -> Result<WatchStream, String> {
    match timeout(WATCH_TIMEOUT, opening).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(reason)) => Err(format!("cannot watch: {reason}")),
        Err(_) => Err("cannot watch: no answer in time".to_owned()),
    }
}

/// What the watch tells, or why it has ended.
pub(super) fn told(store: &Store, message: Result<Option<WatchResponse>, Error>) -> Result<WatchResponse, String> {
    let response = match message {
        Ok(Some(response)) => response,
        Ok(None) => return Err("the watch ended".to_owned()),
        Err(error) => return Err(format!("the watch ended: {}", store.explain(&error))),
    };
    if response.compact_revision() > 0 {
        return Err(format!("the store has compacted its history up to {}", response.compact_revision()));
    }
    if response.canceled() {
        return Err(format!("etcd ended the watch: {}", response.cancel_reason()));
    }
    Ok(response)
}
