//! List and watch of Services, EndpointSlices and the own Node: keeps a [`ServiceStore`] up to date for as long as the agent
//! runs.
//!
//! Three watches, each with a place of its own; what they tell is taken in by one task, in batches when much comes at once.
//! Nothing is given out before all three lists have been whole once.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::servers::Servers;
use super::service_cidrs;
use super::watch::{Object, Target, Told, encoded, run as run_watch};
use crate::cluster::node::NodeName;
use crate::cluster::services::reader::{Kind, Listing, Reader, Version};
use crate::cluster::services::{Batch, ServiceStore, ServicesHandle, ServicesStatus};

/// What waits to be taken in, at most: then a watcher waits, and the API server with it.
const QUEUE: usize = 512;

/// What has one of these labels is another proxy's to serve, or nobody's (kube-proxy's selector of both kinds).
const OURS: &str = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";

/// Headless Services need not have the label.
const WITH_ADDRESS: &str = "spec.clusterIP!=None";

/// Where EndpointSlices are.
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

/// Starts a source on the current runtime of a node.
#[must_use]
pub fn spawn(api: &Api, node: &NodeName, stop: CancellationToken) -> ServicesHandle {
    let store = Arc::new(ServiceStore::default());
    let (status, status_out) = watch::channel(ServicesStatus::default());
    let feeds = targets(node).map(|(kind, target)| {
        let (sender, told) = mpsc::channel(QUEUE);
        tokio::spawn(run_watch(api.clone(), target, sender));
        Feed { kind, told, listing: None, is_whole: false, watching: false, error: None, revision: 0 }
    });
    let cidrs = service_cidrs::spawn(api, stop.clone());
    let (reader, servers) = (Reader::default(), api.servers.clone());
    let source = Source { feeds, reader, servers, store: Arc::clone(&store), status };
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = source.run() => {}
        }
    });
    ServicesHandle::new(store, status_out, cidrs)
}

fn targets(node: &NodeName) -> [(Kind, Target); 3] {
    let target = |what, resource, path, selector| Target { what, resource, path, selector };
    let labels = format!("&labelSelector={}", encoded(OURS));
    let fields = |selector: &str| format!("&fieldSelector={}", encoded(selector));
    let services = labels.clone() + &fields(WITH_ADDRESS);
    let own = fields(&format!("metadata.name={node}"));
    [
        (Kind::Service, target("Services", "services", "/api/v1/services", services)),
        (Kind::Slice, target("EndpointSlices", "endpointslices", SLICES, labels)),
        (Kind::Node, target("own Node's changes", "node", "/api/v1/nodes", own)),
    ]
}

/// One watch.
struct Feed {
    kind: Kind,
    told: mpsc::Receiver<Told>,
    /// The list in the making.
    listing: Option<Listing>,
    /// Whether a list has been whole once.
    is_whole: bool,
    watching: bool,
    error: Option<String>,
    /// Everything up to here has come.
    revision: i64,
}

struct Source {
    feeds: [Feed; 3],
    reader: Reader,
    /// Who is told what the slices say of the API servers themselves.
    servers: Option<Arc<Servers>>,
    store: Arc<ServiceStore>,
    status: watch::Sender<ServicesStatus>,
}

impl Source {
    /// Takes in what the watches tell until nobody listens any more.
    async fn run(mut self) {
        loop {
            let [services, slices, node] = &mut self.feeds;
            let (at, told) = tokio::select! {
                told = services.told.recv() => (0, told),
                told = slices.told.recv() => (1, told),
                told = node.told.recv() => (2, told),
                () = self.status.closed() => return,
            };
            let Some(told) = told else { return };
            let mut batch = Batch::default();
            self.take(at, told, &mut batch);
            // What else is there already, so that a list is not put in object by object.
            for _ in 1..QUEUE {
                let Ok(told) = self.feeds[at].told.try_recv() else { break };
                self.take(at, told, &mut batch);
            }
            self.publish(batch);
        }
    }

    /// Takes in one word of the watch number `at`.
    fn take(&mut self, at: usize, told: Told, batch: &mut Batch) {
        let (feed, reader) = (&mut self.feeds[at], &mut self.reader);
        let kind = feed.kind;
        if let (Kind::Slice, Some(servers)) = (kind, &self.servers) {
            servers.take(&told);
        }
        match told {
            Told::ListBegins => feed.listing = Some(Listing::default()),
            Told::Listed(object) => {
                let id = (kind, reader.name(&object.namespace, &object.name));
                let label = label(kind, &object);
                if let Some(listing) = &mut feed.listing {
                    // Versions are the store's own, and another store would be another cluster.
                    reader.list(listing, id, version(&label, &object), true);
                }
            }
            Told::Unlisted(object) => {
                let id = (kind, reader.name(&object.namespace, &object.name));
                if let Some(listing) = &mut feed.listing {
                    listing.forget(id);
                }
            }
            Told::ListEnds(revision) => {
                append(batch, reader.listed(feed.listing.take().unwrap_or_default(), &[kind]));
                feed.is_whole = true;
                self.reached(at, revision);
            }
            Told::Reached(revision) => self.reached(at, revision),
            Told::Changed(object) => {
                let id = (kind, reader.name(&object.namespace, &object.name));
                let label = label(kind, &object);
                reader.change(batch, id, version(&label, &object));
                feed.revision = feed.revision.max(object.revision);
            }
            Told::Deleted(object) => {
                let id = (kind, reader.name(&object.namespace, &object.name));
                reader.delete(batch, id);
                feed.revision = feed.revision.max(object.revision);
            }
            Told::Watching => (feed.watching, feed.error) = (true, None),
            Told::Lost(reason) => (feed.watching, feed.error) = (false, Some(reason)),
        }
    }

    /// The server says that a watch has told everything up to a revision.
    fn reached(&mut self, at: usize, revision: i64) {
        // A list may be of a store that was put back in time.
        self.feeds[at].revision = revision;
        self.status.send_modify(|status| status.last_list = Some(Instant::now()));
    }

    fn publish(&mut self, batch: Batch) {
        self.store.update(batch);
        if !self.store.synced() && self.feeds.iter().all(|feed| feed.is_whole) {
            self.store.set_synced();
        }
        // Each watch is at another place; what all have reached is what is in the store.
        let revision = self.feeds.iter().map(|feed| feed.revision).min().unwrap_or_default();
        let status = &self.status;
        status.send_modify(|status| {
            status.watching = self.feeds.iter().all(|feed| feed.watching);
            status.error = self.feeds.iter().find_map(|feed| feed.error.clone());
            status.revision = revision;
            status.rejected = self.reader.rejected();
        });
        if self.store.synced() {
            self.store.set_revision(self.status.borrow().revision);
        }
    }
}

fn version<'a>(label: &'a str, object: &'a Object) -> Version<'a> {
    Version { label, json: object.bytes(), revision: object.revision }
}

fn label(kind: Kind, Object { namespace, name, .. }: &Object) -> String {
    match kind {
        Kind::Service => format!("services/{namespace}/{name}"),
        Kind::Slice => format!("endpointslices/{namespace}/{name}"),
        Kind::Node => format!("nodes/{name}"),
    }
}

fn append(batch: &mut Batch, more: Batch) {
    batch.services.extend(more.services);
    batch.slices.extend(more.slices);
    batch.node.extend(more.node);
}
