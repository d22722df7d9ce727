//! List and watch: keeps a [`Snapshot`] of all leases up to date for as long as the agent runs.
//!
//! A watch ends for many reasons (compaction, a lost leader, a lost connection, a store that was put back in time), and
//! each is answered in the same way: wait a little, list everything, watch from there. A list is repeated every minute
//! besides, so that nothing rests on a watch having told all. Only a whole list or a delete event removes anything.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::read::entry;
use super::store::Store;
use super::watching::{OLDER, RETRY, opened, told};
use crate::cluster::backoff::jittered;
use crate::cluster::layout::Layout;
use crate::cluster::model::Snapshot;
use crate::cluster::outage::Outage;
use crate::cluster::source::{SourceHandle, SourceStatus};
use crate::cluster::view::StoreView;

/// How often everything is listed again although the watch works.
pub const RELIST_INTERVAL: Duration = Duration::from_secs(60);

/// The least time between two snapshots that are published, in which changes are gathered: when all nodes of a large cluster start at once, a snapshot
/// for each single change would cost more than all the rest.
const GATHER: Duration = Duration::from_millis(10);

/// Starts a source on the current runtime. `relist` is [`RELIST_INTERVAL`] but in tests.
#[must_use]
pub fn spawn(store: Store, layout: Layout, relist: Duration, stop: CancellationToken) -> SourceHandle {
    let (snapshots, snapshots_out) = watch::channel(None);
    let (status, status_out) = watch::channel(SourceStatus::default());
    let source = Source { store, layout, relist, snapshots, status };
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = source.run() => {}
        }
    });
    SourceHandle::new(snapshots_out, status_out)
}

struct Source {
    store: Store,
    layout: Layout,
    relist: Duration,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    status: watch::Sender<SourceStatus>,
}

impl Source {
    /// Lists and watches until nobody listens any more.
    async fn run(self) {
        let mut outage = Outage::of("leases", RETRY);
        loop {
            let reason = match self.begin().await {
                Ok((view, stream)) => {
                    outage.over();
                    self.status.send_modify(|status| status.watching = true);
                    self.follow(view, stream).await
                }
                Err(reason) => reason,
            };
            if self.snapshots.is_closed() {
                return;
            }
            self.status.send_modify(|status| {
                status.watching = false;
                status.error = Some(reason.clone());
            });
            let known = self.snapshots.borrow().is_some();
            sleep(outage.failed(&reason, known)).await;
        }
    }

    /// Lists everything, and opens a watch from there on.
    async fn begin(&self) -> Result<(StoreView, WatchStream), String> {
        let view = self.list().await?;
        let stream = opened(self.watch(view.revision)).await?;
        Ok((view, stream))
    }

    /// Reads everything and publishes it.
    async fn list(&self) -> Result<StoreView, String> {
        let view = self.store.view(&self.layout).await.map_err(|reason| format!("cannot list: {reason}"))?;
        self.status.send_modify(|status| {
            status.last_list = Some(Instant::now());
            status.error = None;
        });
        self.publish(&view);
        Ok(view)
    }

    fn publish(&self, view: &StoreView) {
        let snapshot = Snapshot::of(view);
        self.snapshots.send_if_modified(|current| {
            if current.as_deref().is_some_and(|current| current.says_the_same(&snapshot)) {
                return false;
            }
            warn_of_rejected(current.as_deref(), &snapshot);
            *current = Some(Arc::new(snapshot));
            true
        });
    }

    /// Brings `view` up to date by its watch, until that ends or a list fails; says why.
    async fn follow(&self, mut view: StoreView, mut stream: WatchStream) -> String {
        let mut listed_at = view.revision;
        let mut relist_at = Instant::now() + jittered(self.relist);
        // A change that comes alone is published at once.
        let (mut published_at, mut publish_at) = (Instant::now(), None);
        loop {
            tokio::select! {
                () = sleep_until(publish_at.unwrap_or(relist_at)), if publish_at.is_some() => {
                    (publish_at, published_at) = (None, Instant::now());
                    self.publish(&view);
                }
                response = stream.message() => {
                    let response = match told(&self.store, response) {
                        Ok(response) => response,
                        Err(reason) => return reason,
                    };
                    if self.apply(&mut view, listed_at, &response) {
                        publish_at = publish_at.or_else(|| Some(published_at + GATHER));
                    }
                }
                () = sleep_until(relist_at) => {
                    let listed = match self.list().await {
                        Ok(listed) => listed,
                        Err(reason) => return reason,
                    };
                    if listed.revision < view.revision {
                        return OLDER.to_owned();
                    }
                    listed_at = listed.revision;
                    view = listed;
                    relist_at = Instant::now() + jittered(self.relist);
                }
                () = self.snapshots.closed() => return "nobody listens".to_owned(),
            }
        }
    }

    /// One stream with two watches: leases with node records, and the configuration.
    async fn watch(&self, revision: i64) -> Result<WatchStream, String> {
        let options = || WatchOptions::new().with_start_revision(revision + 1);
        let (first, end) = self.layout.leases_and_nodes();
        let mut client = self.store.client().await.map_err(|error| error.to_string())?.watch_client();
        let both = async {
            let mut stream = client.watch(first, Some(options().with_range(end))).await?;
            stream.watch(self.layout.config(), Some(options())).await?;
            Ok(stream)
        };
        both.await.map_err(|error| self.store.explain(&error))
    }

    /// Applies one message of the watch to what was last listed at revision `listed`; says whether anything changed.
    fn apply(&self, view: &mut StoreView, listed: i64, response: &WatchResponse) -> bool {
        let mut is_news = false;
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            // A list that was made after the event has it already, and may have newer things that this would undo.
            if kv.mod_revision() <= listed {
                continue;
            }
            let value = match event.event_type() {
                EventType::Put => Some(entry(kv)),
                EventType::Delete => None,
            };
            is_news |= view.set(&self.layout, &String::from_utf8_lossy(kv.key()), value);
        }
        if let Some(header) = response.header().filter(|_| !response.events().is_empty()) {
            view.revision = view.revision.max(header.revision());
        }
        is_news
    }
}

/// One line for each entry that is ignored now and was not before.
fn warn_of_rejected(before: Option<&Snapshot>, now: &Snapshot) {
    for rejected in &now.rejected {
        if !before.is_some_and(|before| before.rejected.contains(rejected)) {
            tracing::warn!(key = rejected.key, reason = rejected.reason, "ignored a lease");
        }
    }
}
