//! List and watch of Services, EndpointSlices and the own Node: keeps a [`ServiceStore`] up to date for as long as the agent runs.
//!
//! As with leases, every end of a watch is answered by a whole list and a watch from there, and only a whole list or a
//! delete event takes anything out. A list is repeated now and then besides, rarely, because it reads everything.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, KeyValue, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::objects::{Listing, Objects};
use super::pages::{self, MAX_MESSAGE};
use super::store::Store;
use super::watching::{OLDER, RETRY, opened, told};
use crate::cluster::backoff::jittered;
use crate::cluster::layout::Layout;
use crate::cluster::node::NodeName;
use crate::cluster::outage::Outage;
use crate::cluster::services::{Batch, ServiceStore, ServicesHandle, ServicesStatus};

/// How often everything is listed again although the watch works. Services can be a hundred times what leases are.
pub const RELIST_INTERVAL: Duration = Duration::from_secs(600);

/// Starts a source on the current runtime of a node. `relist` is [`RELIST_INTERVAL`] but in tests.
#[must_use]
pub fn spawn(
    access: Store,
    layout: Layout,
    node: &NodeName,
    relist: Duration,
    stop: CancellationToken,
) -> ServicesHandle {
    let store = Arc::new(ServiceStore::default());
    let (status, status_out) = watch::channel(ServicesStatus::default());
    let objects = Objects::new(&layout, node);
    let source = Source { access, layout, relist, objects, store: Arc::clone(&store), status };
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = source.run() => {}
        }
    });
    // The store does not say which networks cluster IPs are taken from.
    ServicesHandle::new(store, status_out, watch::channel(None).1)
}

struct Source {
    access: Store,
    layout: Layout,
    relist: Duration,
    objects: Objects,
    store: Arc<ServiceStore>,
    status: watch::Sender<ServicesStatus>,
}

impl Source {
    /// Lists and watches until nobody listens any more.
    async fn run(mut self) {
        let mut outage = Outage::of("Services", RETRY);
        loop {
            let reason = match self.begin().await {
                Ok((revision, stream)) => {
                    outage.over();
                    self.status.send_modify(|status| status.watching = true);
                    self.follow(revision, stream).await
                }
                Err(reason) => reason,
            };
            if self.status.is_closed() {
                return;
            }
            self.status.send_modify(|status| {
                status.watching = false;
                status.error = Some(reason.clone());
            });
            sleep(outage.failed(&reason, self.store.synced())).await;
        }
    }

    /// Lists everything, and opens a watch from there on. The store may be another one than before.
    async fn begin(&mut self) -> Result<(i64, WatchStream), String> {
        let (revision, listing) = self.list(false).await?;
        self.publish_list(revision, listing);
        let stream = opened(self.watch(revision)).await?;
        Ok((revision, stream))
    }

    /// Reads everything.
    async fn list(&mut self, is_same_store: bool) -> Result<(i64, Listing), String> {
        let mut listing = Listing::default();
        let objects = &mut self.objects;
        let visit = |kv: &KeyValue| {
            objects.list(&mut listing, kv.key(), kv.value(), kv.mod_revision(), is_same_store);
        };
        let range = self.layout.service_objects();
        let client = self.access.client().await.map_err(|error| format!("cannot list: {error}"))?;
        let read = pages::visit(&client, range, visit).await;
        read.map(|revision| (revision, listing))
            .map_err(|error| format!("cannot list: {}", self.access.explain(&error)))
    }

    fn publish_list(&mut self, revision: i64, listing: Listing) {
        let batch = self.objects.listed(listing);
        self.status.send_modify(|status| {
            status.last_list = Some(Instant::now());
            status.error = None;
        });
        self.publish(revision, batch);
    }

    fn publish(&self, revision: i64, batch: Batch) {
        if self.store.synced() {
            self.store.update(batch);
        } else {
            let services = batch.services.into_iter().filter_map(|(_, service)| service).collect();
            let slices = batch.slices.into_iter().filter_map(|(_, slice)| slice).collect();
            // First, so that what is planned first is planned for the right zone.
            for node in batch.node {
                self.store.set_node(node);
            }
            self.store.replace(services, slices);
        }
        self.store.set_revision(revision);
        self.status.send_modify(|status| {
            status.revision = revision;
            status.rejected = self.objects.rejected();
        });
    }

    /// Brings the store up to date by its watch, until that ends or a list fails; says why.
    async fn follow(&mut self, mut revision: i64, mut stream: WatchStream) -> String {
        let mut listed_at = revision;
        let mut relist_at = Instant::now() + jittered(self.relist);
        let status = self.status.clone();
        loop {
            tokio::select! {
                response = stream.message() => {
                    let response = match told(&self.access, response) {
                        Ok(response) => response,
                        Err(reason) => return reason,
                    };
                    revision = self.apply(revision, listed_at, &response);
                }
                () = sleep_until(relist_at) => {
                    let (now, listing) = match self.list(true).await {
                        Ok(listed) => listed,
                        Err(reason) => return reason,
                    };
                    if now < revision {
                        return OLDER.to_owned();
                    }
                    self.publish_list(now, listing);
                    (revision, listed_at) = (now, now);
                    relist_at = Instant::now() + jittered(self.relist);
                }
                () = status.closed() => return "nobody listens".to_owned(),
            }
        }
    }

    async fn watch(&self, revision: i64) -> Result<WatchStream, String> {
        let (first, end) = self.layout.service_objects();
        let options = WatchOptions::new().with_start_revision(revision + 1).with_range(end);
        let client = self.access.client().await.map_err(|error| error.to_string())?;
        let mut client = client.watch_client().max_decoding_message_size(MAX_MESSAGE);
        client.watch(first, Some(options)).await.map_err(|error| self.access.explain(&error))
    }

    /// Applies one message of the watch to what was last listed at revision `listed`; returns the revision that is reached.
    fn apply(&mut self, revision: i64, listed: i64, response: &WatchResponse) -> i64 {
        let mut batch = Batch::default();
        for event in response.events() {
            // A list that was made after the event has it already, and may have newer things that this would undo.
            let Some(kv) = event.kv().filter(|kv| kv.mod_revision() > listed) else { continue };
            let value = match event.event_type() {
                EventType::Put => Some(kv.value()),
                EventType::Delete => None,
            };
            self.objects.change(&mut batch, kv.key(), value, kv.mod_revision());
        }
        let Some(header) = response.header().filter(|_| !response.events().is_empty()) else { return revision };
        let revision = revision.max(header.revision());
        self.publish(revision, batch);
        revision
    }
}
