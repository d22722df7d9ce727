//! The lease of a node in Kubernetes: its podCIDR, announced by flannel's annotations on its Node.
//!
//! Level-triggered: whatever the Node says is compared with what it is to say, after every change of either, and only the
//! difference is written. A Node that others keep changing back is written ever more slowly.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::driver::{LeaseHandle, log};
use super::kube_plan::{Known, is_of, state, value};
use super::machine::LeaseState;
use crate::cluster::backoff::Backoff;
use crate::cluster::events::{Events, Happening};
use crate::cluster::kube::annotations::Annotations;
use crate::cluster::kube::api::Api;
use crate::cluster::kube::nodes::OwnNode;
use crate::cluster::kube::patch::{self, Patch, apply};
use crate::cluster::lease_value::LeaseValue;
use crate::cluster::model::Snapshot;
use crate::cluster::netconf::NetConf;
use crate::cluster::node::NodeName;

/// Shortest and longest wait from one write to the next. What was written takes a moment to come back by the watch; and two
/// machines of one name would write in turns.
const GAP: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Shortest and longest wait after a write that failed.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// After so long without a write the waits start over.
const CALM: Duration = Duration::from_secs(300);

/// A Node without a pod network for so long is worth an event.
const LONG: Duration = Duration::from_secs(60);

/// Writes in a row that are no accident any more.
const QUARREL: u32 = 4;

/// Whose lease, and what it is to say.
#[derive(Debug)]
pub struct KubeLeaseRequest {
    /// The node.
    pub node: NodeName,
    /// The names of the annotations.
    pub annotations: Annotations,
    /// The network configuration, now and whenever it changes.
    pub network: watch::Receiver<Arc<NetConf>>,
    /// What the Node is to say; each change is published. One without a back end leaves what it says.
    pub value: watch::Receiver<LeaseValue>,
    /// What the Node says.
    pub own: watch::Receiver<OwnNode>,
    /// All nodes.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Whether the node's network is there, so that its condition may say so; `None` if the condition is left to others.
    pub ready: Option<watch::Receiver<bool>>,
    /// Where it is told what somebody should mend.
    pub events: Events,
}

/// Keeps the lease from now on, on the current runtime.
#[must_use]
pub fn spawn(api: Api, request: KubeLeaseRequest) -> LeaseHandle {
    let acquiring = LeaseState::Acquiring { reason: "the Node has not been read yet".to_owned() };
    let state = watch::Sender::new(acquiring);
    let handle = state.subscribe();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let keeper = Keeper {
        api,
        request,
        state,
        failure: None,
        quarrel: None,
        writes: Writes::default(),
        waits: None,
        refused: Vec::new(),
    };
    let task = tokio::spawn(async move {
        tokio::select! {
            () = stopped.cancelled() => {}
            () = keeper.run() => {}
        }
    });
    LeaseHandle::new(handle, stop, task)
}

struct Keeper {
    api: Api,
    request: KubeLeaseRequest,
    state: watch::Sender<LeaseState>,
    /// Why the last write failed.
    failure: Option<String>,
    /// What it looks like when others keep writing to the Node.
    quarrel: Option<String>,
    writes: Writes,
    /// Since when the Node has no pod network.
    waits: Option<Instant>,
    /// The user's addresses that are none, as they were told.
    refused: Vec<String>,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            self.tell();
            let due = match self.needed() {
                // All is said; a failure that is left is one of the past.
                None => {
                    if self.writes.is_calm() {
                        self.quarrel = None;
                    }
                    if self.failure.take().is_some() {
                        self.tell();
                    }
                    None
                }
                Some(patch) => match self.writes.due() {
                    due if due <= Instant::now() => {
                        self.write(&patch).await;
                        continue;
                    }
                    due => Some(due),
                },
            };
            let long = self.waits.map(|since| since + LONG);
            let KubeLeaseRequest { value, own, snapshots, ready, network, .. } = &mut self.request;
            tokio::select! {
                () = changed(network) => {}
                () = sleep_until(long.unwrap_or_else(Instant::now)), if long.is_some() => self.waits_long(),
                () = changed(value) => {}
                () = changed(own) => {}
                () = changed(snapshots) => {}
                () = changed_if_any(ready.as_mut()) => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Says how the lease is.
    fn tell(&mut self) {
        let nodes = self.request.snapshots.borrow_and_update().as_ref().map_or(0, |snapshot| snapshot.leases.len());
        let own = self.request.own.borrow_and_update().clone();
        let network = Arc::clone(&self.request.network.borrow_and_update());
        self.look_at(&own);
        let before = self.state.borrow().clone();
        let running = if let LeaseState::Held(held) = &before { Some(held) } else { None };
        let now = state(&Known {
            name: &self.request.node,
            own: &own,
            running,
            network: &network,
            nodes,
            failure: self.failure.as_deref().or(self.quarrel.as_deref()),
        });
        if before != now {
            log(&before, &now);
            self.state.send_replace(now);
        }
    }

    /// What somebody should see to, of what the Node says: that there is no pod network, and addresses that are none.
    fn look_at(&mut self, own: &OwnNode) {
        let OwnNode::Known(node) = own else { return self.waits = None };
        self.waits = node.subnets.is_err().then(|| self.waits.unwrap_or_else(Instant::now));
        let refused = node.refused_overwrites(&self.request.annotations);
        for words in refused.iter().filter(|words| !self.refused.contains(words)) {
            tracing::warn!(node = %node.name, "{words}");
            self.request.events.tell(Happening::warning("BadAnnotation", "ReadNode", words.clone()));
        }
        self.refused = refused;
    }

    /// The Node has had no pod network for long.
    fn waits_long(&mut self) {
        // The next time is as far away.
        self.waits = Some(Instant::now());
        if let LeaseState::Acquiring { reason } = &*self.state.borrow() {
            self.request.events.tell(Happening::warning("NoPodCIDR", "WaitForPodCIDR", reason.clone()));
        }
    }

    /// What has to be written, if anything. The condition comes last: it says that all else is done.
    fn needed(&mut self) -> Option<Patch> {
        let wanted = self.request.value.borrow_and_update().clone();
        let ready = self.request.ready.as_mut().is_some_and(|ready| *ready.borrow_and_update());
        let own = self.request.own.borrow();
        let OwnNode::Known(node) = &*own else { return None };
        let ready = ready && is_of(&self.state.borrow(), node);
        patch::annotations(node, &value(node, &wanted), &self.request.annotations)
            .or_else(|| ready.then(|| patch::condition(node, &patch::now())).flatten())
    }

    async fn write(&mut self, patch: &Patch) {
        let node = &self.request.node;
        match apply(&self.api, node, patch).await {
            Ok(()) => {
                self.failure = None;
                tracing::debug!(%node, ?patch, "wrote to the Node");
                if self.writes.done() == QUARREL {
                    let words =
                        format!("Node {node} is changed back again and again: does another machine have its name?");
                    tracing::warn!("{words}");
                    self.request.events.tell(Happening::warning("LeaseConflict", "WriteNode", words.clone()));
                    self.quarrel = Some(words);
                }
            }
            Err(reason) => {
                self.writes.failed();
                let words = format!("cannot write to Node {node}: {reason}");
                if self.failure.as_ref() != Some(&words) {
                    tracing::warn!("{words}");
                    self.request.events.tell(Happening::warning("NodeNotWritten", "WriteNode", words.clone()));
                }
                self.failure = Some(words);
            }
        }
    }
}

/// When it was last written, and how soon it may be again.
#[derive(Debug)]
struct Writes {
    last: Option<Instant>,
    next: Option<Instant>,
    in_a_row: u32,
    gap: Backoff,
    retry: Backoff,
}

impl Default for Writes {
    fn default() -> Self {
        let (gap, retry) = (Backoff::new(GAP.0, GAP.1), Backoff::new(RETRY.0, RETRY.1));
        Self { last: None, next: None, in_a_row: 0, gap, retry }
    }
}

impl Writes {
    fn due(&self) -> Instant {
        self.next.unwrap_or_else(Instant::now)
    }

    /// Whether the last write is long ago.
    fn is_calm(&self) -> bool {
        self.last.is_none_or(|last| last.elapsed() > CALM)
    }

    /// A write was done; says how many there were in a row.
    fn done(&mut self) -> u32 {
        if self.is_calm() {
            self.gap.reset();
            self.in_a_row = 0;
        }
        self.retry.reset();
        let now = Instant::now();
        self.last = Some(now);
        self.next = Some(now + self.gap.next_wait());
        self.in_a_row += 1;
        self.in_a_row
    }

    /// A write failed. That changed nothing, and tells nothing of others who write.
    fn failed(&mut self) {
        self.next = Some(Instant::now() + self.retry.next_wait());
    }
}

/// The next change; never, once nobody can make one any more.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn changed_if_any<T>(receiver: Option<&mut watch::Receiver<T>>) {
    match receiver {
        Some(receiver) => changed(receiver).await,
        None => std::future::pending().await,
    }
}
