//! The lease of a node in Kubernetes: its podCIDR, announced by flannel's annotations on its Node.
//!
//! Level-triggered: whatever the Node says is compared with what it is to say, after every change of either, and only the
//! difference is written. A Node that others keep changing back is written ever more slowly.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::driver::{LeaseHandle, log};
use super::kube_plan::{Known, state, value};
use super::machine::LeaseState;
use crate::cluster::backoff::Backoff;
use crate::cluster::kube::annotations::Annotations;
use crate::cluster::kube::nodes::OwnNode;
use crate::cluster::kube::patch::{self, Patch, apply};
use crate::cluster::lease_value::LeaseValue;
use crate::cluster::model::Snapshot;
use crate::cluster::netconf::NetConf;
use crate::cluster::node::NodeName;

/// Shortest and longest wait from one write to the next. What was written takes a moment to come back by the watch; and two
/// machines of one name would write in turns.
const GAP: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// After so long without a write the waits start over.
const CALM: Duration = Duration::from_secs(300);

/// Writes in a row that are no accident any more.
const QUARREL: u32 = 4;

/// Whose lease, and what it is to say.
#[derive(Debug)]
pub struct KubeLeaseRequest {
    /// The node.
    pub node: NodeName,
    /// The names of the annotations.
    pub annotations: Annotations,
    /// The network configuration.
    pub network: Arc<NetConf>,
    /// What the Node is to say; each change is published. `BackendData::None` leaves what it says.
    pub value: watch::Receiver<LeaseValue>,
    /// What the Node says.
    pub own: watch::Receiver<OwnNode>,
    /// All nodes.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Whether the node's network is there, so that its condition may say so; `None` if the condition is left to others.
    pub ready: Option<watch::Receiver<bool>>,
}

/// Keeps the lease from now on, on the current runtime.
#[must_use]
pub fn spawn(client: Client, request: KubeLeaseRequest) -> LeaseHandle {
    let acquiring = LeaseState::Acquiring { reason: "the Node has not been read yet".to_owned() };
    let state = watch::Sender::new(acquiring);
    let handle = state.subscribe();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let keeper = Keeper { client, request, state, failure: None, writes: Writes::default() };
    let task = tokio::spawn(async move {
        tokio::select! {
            () = stopped.cancelled() => {}
            () = keeper.run() => {}
        }
    });
    LeaseHandle::new(handle, stop, task)
}

struct Keeper {
    client: Client,
    request: KubeLeaseRequest,
    state: watch::Sender<LeaseState>,
    /// Why the last write failed.
    failure: Option<String>,
    writes: Writes,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            self.tell();
            let due = match self.needed() {
                // All is said; a failure that is left is one of the past.
                None => {
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
            let KubeLeaseRequest { value, own, snapshots, ready, .. } = &mut self.request;
            tokio::select! {
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
        let before = self.state.borrow().clone();
        let running = if let LeaseState::Held(held) = &before { Some(held) } else { None };
        let now = state(&Known {
            name: &self.request.node,
            own: &own,
            running,
            network: &self.request.network,
            nodes,
            failure: self.failure.as_deref(),
        });
        if before != now {
            log(&before, &now);
            self.state.send_replace(now);
        }
    }

    /// What has to be written, if anything. The condition comes last: it says that all else is done.
    fn needed(&mut self) -> Option<Patch> {
        let wanted = self.request.value.borrow_and_update().clone();
        let ready = self.request.ready.as_mut().is_some_and(|ready| *ready.borrow_and_update());
        let own = self.request.own.borrow();
        let OwnNode::Known(node) = &*own else { return None };
        patch::annotations(node, &value(node, &wanted), &self.request.annotations)
            .or_else(|| ready.then(|| patch::condition(node, &patch::now())).flatten())
    }

    async fn write(&mut self, patch: &Patch) {
        let node = &self.request.node;
        self.writes.begin();
        match apply(&self.client, node, patch).await {
            Ok(()) => {
                self.failure = None;
                tracing::debug!(%node, ?patch, "wrote to the Node");
                if self.writes.done() == QUARREL {
                    tracing::warn!(%node, "the Node is changed back again and again: does another machine have its name?");
                }
            }
            Err(reason) => self.failure = Some(format!("cannot write to Node {node}: {reason}")),
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
}

impl Default for Writes {
    fn default() -> Self {
        Self { last: None, next: None, in_a_row: 0, gap: Backoff::new(GAP.0, GAP.1) }
    }
}

impl Writes {
    fn due(&self) -> Instant {
        self.next.unwrap_or_else(Instant::now)
    }

    /// A write begins.
    fn begin(&mut self) {
        let now = Instant::now();
        if self.last.is_none_or(|last| now.duration_since(last) > CALM) {
            self.gap.reset();
            self.in_a_row = 0;
        }
        self.last = Some(now);
        self.next = Some(now + self.gap.next_wait());
    }

    /// It was done; says how many there were in a row.
    fn done(&mut self) -> u32 {
        self.in_a_row += 1;
        self.in_a_row
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
