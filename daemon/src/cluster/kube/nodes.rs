//! List and watch of Nodes: keeps a [`Snapshot`] of the leases that flannel's annotations tell of up to date, and the own
//! Node beside it.
//!
//! Nodes tell of their health all the time; only what changes a lease is published.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::annotations::Annotations;
use super::api::Api;
use super::node::KubeNode;
use super::watch::{Object, Target, Told, run as run_watch};
use crate::cluster::events::{Events, Happening};
use crate::cluster::model::{Lease, Rejected, Snapshot, without_overlaps};
use crate::cluster::netconf::NetConf;
use crate::cluster::node::NodeName;
use crate::cluster::source::{SourceHandle, SourceStatus};

/// What waits to be taken in, at most.
const QUEUE: usize = 512;

/// How long changes are gathered before they are published: when all nodes of a large cluster start at once, a snapshot
/// for each single change would cost more than all the rest.
const GATHER: Duration = Duration::from_millis(10);

/// What the API server says of the own Node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OwnNode {
    /// Nothing yet.
    #[default]
    Unread,
    /// There is none.
    Absent,
    /// This.
    Known(Arc<KubeNode>),
}

/// Whose Nodes, and how to read them.
#[derive(Debug, Clone)]
pub struct NodesRequest {
    /// The own Node.
    pub node: NodeName,
    /// The names of the annotations.
    pub annotations: Annotations,
    /// The network configuration, which decides which families there are.
    pub network: Arc<NetConf>,
    /// Where it is told what is wrong with the own Node.
    pub events: Events,
}

/// The running source. It stops when its token is cancelled or every handle is gone.
#[derive(Debug, Clone)]
pub struct NodesHandle {
    /// The leases.
    pub leases: SourceHandle,
    /// The own Node, now and whenever it changes.
    pub own: watch::Receiver<OwnNode>,
}

/// Starts a source on the current runtime.
#[must_use]
pub fn spawn(api: &Api, request: NodesRequest, stop: CancellationToken) -> NodesHandle {
    let (snapshots, snapshots_out) = watch::channel(None);
    let (status, status_out) = watch::channel(SourceStatus::default());
    let (own, own_out) = watch::channel(OwnNode::Unread);
    let (sender, told) = mpsc::channel(QUEUE);
    let target = Target { what: "Nodes", resource: "nodes", path: "/api/v1/nodes", selector: String::new() };
    tokio::spawn(run_watch(api.clone(), target, sender));
    let config = request.network.to_json().into_bytes();
    let source = Source {
        told,
        request,
        config,
        peers: HashMap::new(),
        listing: None,
        is_whole: false,
        revision: 0,
        snapshots,
        status,
        own,
    };
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = source.run() => {}
        }
    });
    NodesHandle { leases: SourceHandle::new(snapshots_out, status_out), own: own_out }
}

/// A node that takes part, as a lease or as the reason why it is none.
type Judged = Result<Lease, Rejected>;

/// A list in the making.
#[derive(Default)]
struct Listing {
    peers: HashMap<String, Judged>,
    own: Option<Arc<KubeNode>>,
}

struct Source {
    told: mpsc::Receiver<Told>,
    request: NodesRequest,
    config: Vec<u8>,
    peers: HashMap<String, Judged>,
    listing: Option<Listing>,
    is_whole: bool,
    revision: i64,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    status: watch::Sender<SourceStatus>,
    own: watch::Sender<OwnNode>,
}

impl Source {
    /// Takes in what the watch tells until nobody listens any more.
    async fn run(mut self) {
        let mut gathered = Vec::new();
        let mut publish_at: Option<Instant> = None;
        loop {
            let due = publish_at.unwrap_or_else(Instant::now);
            tokio::select! {
                count = self.told.recv_many(&mut gathered, QUEUE) => if count == 0 { return },
                () = sleep_until(due), if publish_at.is_some() => {
                    publish_at = None;
                    self.publish();
                }
                () = self.snapshots.closed() => return,
            }
            for told in gathered.drain(..) {
                if self.take(told) {
                    publish_at = publish_at.or_else(|| Some(Instant::now() + GATHER));
                }
            }
        }
    }

    /// Takes in one word of the watch; says whether a lease may have changed.
    fn take(&mut self, told: Told) -> bool {
        match told {
            Told::ListBegins => self.listing = Some(Listing::default()),
            Told::Listed(object) => {
                let node = self.read(&object);
                let is_own = object.name == self.request.node.as_str();
                let Some(listing) = &mut self.listing else { return false };
                // Of one that cannot be read stands what was known.
                let Some(node) = node else {
                    if let Some(known) = self.peers.get(&object.name) {
                        listing.peers.entry(object.name).or_insert_with(|| known.clone());
                    }
                    if is_own && let OwnNode::Known(node) = &*self.own.borrow() {
                        listing.own.get_or_insert_with(|| Arc::clone(node));
                    }
                    return false;
                };
                match node.lease() {
                    Some(judged) => drop(listing.peers.insert(object.name, judged)),
                    None => drop(listing.peers.remove(&object.name)),
                }
                if is_own {
                    listing.own = Some(Arc::new(node));
                }
            }
            Told::Unlisted(object) => {
                let Some(listing) = &mut self.listing else { return false };
                listing.peers.remove(&object.name);
                if object.name == self.request.node.as_str() {
                    listing.own = None;
                }
            }
            Told::ListEnds(revision) => {
                let Listing { peers, own } = self.listing.take().unwrap_or_default();
                self.peers = peers;
                self.set_own(own);
                self.is_whole = true;
                self.revision = revision;
                self.status.send_modify(|status| status.last_list = Some(Instant::now()));
                return true;
            }
            Told::Changed(object) => return self.change(object),
            Told::Reached(revision) => {
                self.revision = self.revision.max(revision);
                self.status.send_modify(|status| status.last_list = Some(Instant::now()));
            }
            Told::Deleted(object) => {
                self.revision = self.revision.max(object.revision);
                if object.name == self.request.node.as_str() {
                    self.set_own(None);
                }
                return self.peers.remove(&object.name).is_some();
            }
            Told::Watching => self.status.send_modify(|status| {
                status.watching = true;
                status.error = None;
                status.last_list = Some(Instant::now());
            }),
            Told::Lost(reason) => self.status.send_modify(|status| {
                status.watching = false;
                status.error = Some(reason);
            }),
        }
        false
    }

    fn change(&mut self, object: Object) -> bool {
        let Some(node) = self.read(&object) else { return false };
        self.revision = self.revision.max(object.revision);
        let judged = node.lease();
        let is_news = self.peers.get(&object.name) != judged.as_ref();
        match judged {
            Some(judged) if is_news => drop(self.peers.insert(object.name, judged)),
            None if is_news => drop(self.peers.remove(&object.name)),
            _ => {}
        }
        if node.name == self.request.node {
            self.set_own(Some(Arc::new(node)));
        }
        is_news
    }

    /// Reads a Node. One that cannot be read changes nothing.
    fn read(&self, object: &Object) -> Option<KubeNode> {
        let NodesRequest { annotations, network, .. } = &self.request;
        match KubeNode::parse(object.bytes(), annotations, &network.pools) {
            Ok(node) => Some(node),
            Err(reason) => {
                tracing::warn!(node = object.name, revision = object.revision, reason, "ignored a Node");
                None
            }
        }
    }

    fn set_own(&self, own: Option<Arc<KubeNode>>) {
        let own = own.map_or(OwnNode::Absent, OwnNode::Known);
        self.own.send_if_modified(|current| {
            let is_news = *current != own;
            *current = own;
            is_news
        });
    }

    fn publish(&self) {
        if !self.is_whole {
            return;
        }
        let usable = self.peers.values().filter_map(|judged| judged.as_ref().ok()).cloned().collect();
        let name =
            |lease: &Lease| lease.node.as_ref().map_or_else(|| lease.key.to_string(), |node| format!("node {node}"));
        let (leases, overlapping) = without_overlaps(usable, name);
        let refused = self.peers.values().filter_map(|judged| judged.as_ref().err()).cloned();
        let mut rejected: Vec<Rejected> = refused.chain(overlapping).collect();
        rejected.sort_by(|a, b| a.key.cmp(&b.key));
        self.snapshots.send_if_modified(|current| {
            let before = current.as_deref();
            if before.is_some_and(|before| before.leases == leases && before.rejected == rejected) {
                return false;
            }
            for rejected in rejected.iter().filter(|rejected| !before.is_some_and(|b| b.rejected.contains(rejected))) {
                tracing::warn!(key = rejected.key, reason = rejected.reason, "ignored a lease");
                // What is wrong with another node its own agent tells, or nobody: as many events as nodes would help no one.
                if rejected.key == format!("node {}", self.request.node) {
                    let note = format!("other nodes do not reach the pods of this one: it {}", rejected.reason);
                    self.request.events.tell(Happening::warning("NotAPeer", "ReadNode", note));
                }
            }
            let config = Some(self.config.clone());
            *current = Some(Arc::new(Snapshot { revision: self.revision, config, leases, rejected }));
            true
        });
    }
}
