//! Doing what the lease machine says: the etcd calls, the sleeps, and telling the rest of the agent.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp};
use tokio::sync::watch;
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::machine::{Alive, Held, Input, LeaseState, Machine, Next, Outcome, Sleep};
use super::sight::Sight;
use super::transaction::{Transaction, Write};
use crate::cluster::backoff::Backoff;
use crate::cluster::etcd::Store;
use crate::cluster::etcd::explain::is_lease_gone;
use crate::cluster::etcd::read::{view_of, view_operations};
use crate::cluster::key::SubnetKey;
use crate::cluster::layout::Layout;
use crate::cluster::lease_value::LeaseValue;
use crate::cluster::model::Snapshot;
use crate::cluster::netconf::NetConf;
use crate::cluster::node::{NodeName, NodeRecord};

/// How long a lease outlives its node, but in tests: flannel's 24 hours.
pub const LEASE_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a node without a subnet leaves an empty store to the nodes that run one.
pub const GRACE: Duration = Duration::from_secs(2);

/// Shortest and longest wait after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Shortest and longest wait after a lost race.
const CONTENTION: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Shortest and longest wait before taking the lease back from another node of the same name; half of it is random.
const CONTEST: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

/// Longest time that a keep-alive may take; it is a stream, which the connection's own time-out does not cover.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a write that is under way is waited for by whoever stops: most often it is over at once, and then it is known how
/// things are. A store that does not answer keeps nobody.
const LAST_WRITE: Duration = Duration::from_millis(500);

/// Who wants a lease, and what it is to say.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// Where things stand in the store.
    pub layout: Layout,
    /// The node's identity.
    pub node: NodeName,
    /// The configuration to put into a store that has none.
    pub network: NetConf,
    /// The subnets that the node ran in an earlier life.
    pub previous: Option<SubnetKey>,
    /// How long the lease outlives its node: [`LEASE_TTL`]. Whole seconds.
    pub ttl: Duration,
    /// How long before its end the etcd lease is renewed.
    pub renew_margin: Duration,
    /// What the lease is to say; each change is published. One without a back end leaves the back-end data that is there,
    /// so that an agent that starts again says nothing new until it knows better.
    pub value: watch::Receiver<LeaseValue>,
    /// What the cluster's source sees; a change of the own lease is noticed here.
    pub snapshots: Option<watch::Receiver<Option<Arc<Snapshot>>>>,
}

/// A lease that is being kept. Dropping the handle stops the keeping, and leaves the lease until it expires.
#[derive(Debug)]
pub struct LeaseHandle {
    state: watch::Receiver<LeaseState>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl LeaseHandle {
    /// The handle of a task that ends when `stop` is cancelled.
    pub(super) const fn new(
        state: watch::Receiver<LeaseState>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    ) -> Self {
        Self { state, stop, task }
    }

    /// How the lease is, now and whenever that changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.state.clone()
    }

    /// Stops keeping the lease, and waits a moment for a write that is under way. The lease itself stays, see [`release`].
    pub async fn stop(mut self) {
        self.stop.cancel();
        // The task only ends; how it ended tells nothing.
        let _ = (&mut self.task).await;
    }
}

impl Drop for LeaseHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Why there is no lease after all the time there was.
#[derive(Debug, thiserror::Error)]
#[error("no subnet was leased within {limit:.1?}: {reason}")]
pub struct AcquireError {
    limit: Duration,
    reason: String,
}

/// Why a lease was not given back.
#[derive(Debug, thiserror::Error)]
#[error("the lease was not given back within {limit:.1?}: {reason}")]
pub struct ReleaseError {
    limit: Duration,
    reason: String,
}

/// Keeps a lease from now on, on the current runtime.
#[must_use]
pub fn spawn(store: Store, request: LeaseRequest) -> LeaseHandle {
    let mut driver = Driver::new(store, request);
    let state = driver.state.subscribe();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let mut next = Next::Read;
        loop {
            let patience = if matches!(next, Next::Commit(_)) { LAST_WRITE } else { Duration::ZERO };
            let input = tokio::select! {
                () = told_to_stop(&stopped, patience) => return,
                input = driver.perform(next) => input,
            };
            next = driver.step(input);
        }
    });
    LeaseHandle::new(state, stop, task)
}

/// Resolves so long after the keeping is to stop.
async fn told_to_stop(stop: &CancellationToken, patience: Duration) {
    stop.cancelled().await;
    sleep(patience).await;
}

/// Gets a lease and returns; the lease stays until it expires.
///
/// # Errors
/// If there is none within `limit`: the last reason.
pub async fn acquire_once(store: Store, request: LeaseRequest, limit: Duration) -> Result<Held, AcquireError> {
    let mut driver = Driver::new(store, request);
    let acquire = async {
        let mut next = Next::Read;
        loop {
            let input = driver.perform(next).await;
            next = driver.step(input);
            // Held, and kept alive once: what follows is a sleep until the renewal.
            if let (LeaseState::Held(held), Next::Sleep(_)) = (driver.machine.state(), &next) {
                return held.clone();
            }
        }
    };
    match timeout(limit, acquire).await {
        Ok(held) => Ok(held),
        Err(_) => Err(AcquireError { limit, reason: reason(driver.machine.state()) }),
    }
}

/// Gives the node's lease back: removes the lease that its record names, if it is still this node's, and the record.
/// Says which lease was removed; `None` if there was none.
///
/// # Errors
/// What the store said, in words, if it could not be reached or kept changing until `limit`.
pub async fn release(
    store: &Store,
    layout: &Layout,
    node: &NodeName,
    limit: Duration,
) -> Result<Option<SubnetKey>, ReleaseError> {
    let deadline = tokio::time::Instant::now() + limit;
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    let mut last = "no answer".to_owned();
    loop {
        match timeout_at(deadline, release_once(store, layout, node)).await {
            Ok(Ok(Some(released))) => return Ok(released),
            Ok(Ok(None)) => "the lease keeps changing".clone_into(&mut last),
            Ok(Err(words)) => last = words,
            Err(_) => return Err(ReleaseError { limit, reason: last }),
        }
        sleep(backoff.next_wait()).await;
    }
}

/// One try to give back; `None` if something changed between the reading and the writing.
async fn release_once(store: &Store, layout: &Layout, node: &NodeName) -> Result<Option<Option<SubnetKey>>, String> {
    let view = store.view(layout).await?;
    let Some(entry) = view.nodes.get(node.as_str()) else { return Ok(Some(None)) };
    let record_key = layout.node(node);
    let mut transaction = Transaction {
        no_lease_since: None,
        unchanged: vec![(record_key.clone(), entry.mod_revision)],
        writes: vec![Write::Delete { key: record_key }],
    };
    let mut released = None;
    if let Some(record) = NodeRecord::parse(&entry.value)
        && let Some(lease) = view.subnets.get(&record.key.to_string())
        && lease.etcd_lease == entry.etcd_lease
        && lease.etcd_lease != 0
    {
        let key = layout.subnet(&record.key);
        transaction.unchanged.push((key.clone(), lease.mod_revision));
        transaction.writes.push(Write::Delete { key });
        released = Some(record.key);
    }
    let client = store.client().await.map_err(|error| error.to_string())?;
    let answer = client.kv_client().txn(to_etcd(layout, &transaction)).await;
    let succeeded = answer.map_err(|error| store.explain(&error))?.succeeded();
    if succeeded && released.is_some() {
        // Nothing hangs on the etcd lease any more; left alone it would expire by itself.
        let _ = client.lease_client().revoke(entry.etcd_lease).await;
    }
    Ok(succeeded.then_some(released))
}

struct Driver {
    store: Store,
    layout: Layout,
    ttl: Duration,
    renew_margin: Duration,
    value: watch::Receiver<LeaseValue>,
    sight: Sight,
    machine: Machine,
    state: watch::Sender<LeaseState>,
    backoff: Backoff,
    contention: Backoff,
    /// Never starts over: each time that the lease is taken back is a short success only.
    contest: Backoff,
}

impl Driver {
    fn new(store: Store, mut request: LeaseRequest) -> Self {
        let wanted = request.value.borrow_and_update().clone();
        let machine =
            Machine::new(request.layout.clone(), request.node, wanted, request.previous, request.network.to_json());
        Self {
            store,
            layout: request.layout,
            ttl: request.ttl,
            renew_margin: request.renew_margin,
            value: request.value,
            sight: Sight::new(request.snapshots),
            state: watch::Sender::new(machine.state().clone()),
            machine,
            backoff: Backoff::new(BACKOFF.0, BACKOFF.1),
            contention: Backoff::new(CONTENTION.0, CONTENTION.1),
            contest: Backoff::new(CONTEST.0, CONTEST.1),
        }
    }

    /// Takes in what happened, tells the others, and says what is next.
    fn step(&mut self, input: Input) -> Next {
        let step = self.machine.clone().step(input);
        self.machine = step.machine;
        if let Some(warning) = &step.warning {
            tracing::warn!("{warning}");
        }
        if matches!(step.next, Next::Sleep(Sleep::UntilRenewal(_) | Sleep::Forever)) {
            self.backoff.reset();
            self.contention.reset();
        }
        let now = self.machine.state();
        let before = self.state.borrow().clone();
        if before != *now {
            log(&before, now);
            self.state.send_replace(now.clone());
        }
        step.next
    }

    async fn perform(&mut self, next: Next) -> Input {
        match next {
            Next::Read => Input::View(self.store.view(&self.layout).await),
            Next::Grant => Input::Granted(self.grant().await),
            Next::Commit(transaction) => Input::Committed(self.commit(&transaction).await),
            Next::KeepAlive(id) => Input::KeptAlive(self.keep_alive(id).await),
            Next::Sleep(how) => self.sleep(how).await,
        }
    }

    async fn client(&self) -> Result<Client, String> {
        self.store.client().await.map_err(|error| error.to_string())
    }

    async fn grant(&self) -> Result<i64, String> {
        let ttl = i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX);
        let granted = self.client().await?.lease_client().grant(ttl, None).await;
        granted.map(|granted| granted.id()).map_err(|error| self.store.explain(&error))
    }

    async fn commit(&self, transaction: &Transaction) -> Outcome {
        let client = match self.client().await {
            Ok(client) => client,
            Err(reason) => return Outcome::Unknown(reason),
        };
        let response = match client.kv_client().txn(to_etcd(&self.layout, transaction)).await {
            Ok(response) => response,
            Err(error) if is_lease_gone(&error) => return Outcome::EtcdLeaseGone,
            Err(error) => return Outcome::Unknown(self.store.explain(&error)),
        };
        match view_of(&self.layout, &response) {
            Ok(view) if response.succeeded() => Outcome::Done(view),
            Ok(view) => Outcome::Conflict(view),
            Err(error) => Outcome::Unknown(self.store.explain(&error)),
        }
    }

    async fn keep_alive(&self, id: i64) -> Alive {
        let client = match self.client().await {
            Ok(client) => client,
            Err(reason) => return Alive::Unknown(reason),
        };
        let once = async {
            let (mut keeper, mut answers) = client.lease_client().keep_alive(id).await?;
            keeper.keep_alive().await?;
            answers.message().await
        };
        match timeout(KEEP_ALIVE_TIMEOUT, once).await {
            Ok(Ok(Some(answer))) => match u64::try_from(answer.ttl()) {
                Ok(ttl) if ttl > 0 => Alive::For(Duration::from_secs(ttl)),
                _ => Alive::Gone,
            },
            Ok(Ok(None)) => Alive::Unknown("the keep-alive ended without an answer".to_owned()),
            Ok(Err(error)) if is_lease_gone(&error) => Alive::Gone,
            Ok(Err(error)) => Alive::Unknown(self.store.explain(&error)),
            Err(_) => Alive::Unknown("no answer to the keep-alive".to_owned()),
        }
    }

    async fn sleep(&mut self, how: Sleep) -> Input {
        let wait = match how {
            Sleep::Retry => Some(self.backoff.next_wait()),
            Sleep::Contended => Some(self.contention.next_wait()),
            Sleep::Contested => Some(self.contest.next_wait()),
            Sleep::Grace => Some(GRACE),
            Sleep::UntilRenewal(ttl) => {
                Some(ttl.checked_sub(self.renew_margin).filter(|w| !w.is_zero()).unwrap_or(ttl / 2))
            }
            Sleep::Forever => None,
        };
        let over = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => Input::Wake,
            wanted = changed_value(&mut self.value) => Input::Wanted(wanted),
            () = self.sight.of_another_state(self.machine.running()) => Input::Changed,
        }
    }
}

/// The next change of what the lease is to say; never, once nobody can change it any more.
async fn changed_value(value: &mut watch::Receiver<LeaseValue>) -> LeaseValue {
    match value.changed().await {
        Ok(()) => value.borrow_and_update().clone(),
        Err(_) => std::future::pending().await,
    }
}

fn reason(state: &LeaseState) -> String {
    match state {
        LeaseState::Acquiring { reason } | LeaseState::Lost { reason, .. } => reason.clone(),
        LeaseState::Held(held) => format!("{} was leased, but could not be kept alive", held.key),
    }
}

/// Logs what is news; how full the network is changes with every node that comes, and stands in the metrics.
pub(super) fn log(before: &LeaseState, now: &LeaseState) {
    let news = |held: &Held| match before {
        LeaseState::Held(old) => (old.key != held.key, old.notice != held.notice),
        LeaseState::Acquiring { .. } | LeaseState::Lost { .. } => (true, true),
    };
    match now {
        LeaseState::Acquiring { reason } => tracing::info!(reason, "no subnet yet"),
        LeaseState::Held(held) => {
            let (key, notice) = news(held);
            if key {
                tracing::info!(lease = %held.key, used = %held.usage.used, total = %held.usage.total, "subnet leased");
            }
            if let (true, Some(notice)) = (notice, &held.notice) {
                tracing::warn!(lease = %held.key, "{notice}");
            }
        }
        LeaseState::Lost { previous, reason } => {
            tracing::error!(lease = %previous, reason, "lost the subnet that this node runs");
        }
    }
}

/// The transaction as etcd takes it: conditions, writes, and in both cases the view that results.
fn to_etcd(layout: &Layout, transaction: &Transaction) -> Txn {
    let mut conditions: Vec<Compare> = transaction
        .unchanged
        .iter()
        .map(|(key, revision)| Compare::mod_revision(key.as_str(), CompareOp::Equal, *revision))
        .collect();
    if let Some(revision) = transaction.no_lease_since {
        let (first, end) = layout.leases_and_nodes();
        conditions.push(Compare::mod_revision(first, CompareOp::Less, revision + 1).with_range(end));
    }
    let writes = transaction.writes.iter().map(|write| match write {
        Write::Put { key, value, etcd_lease } => {
            TxnOp::put(key.as_str(), value.as_slice(), Some(PutOptions::new().with_lease(*etcd_lease)))
        }
        Write::Delete { key } => TxnOp::delete(key.as_str(), None),
    });
    let operations: Vec<TxnOp> = writes.chain(view_operations(layout)).collect();
    Txn::new().when(conditions).and_then(operations).or_else(view_operations(layout))
}
