//! The life of the node's lease as a step function: what happened goes in, what to announce and what to do next comes out.
//!
//! There is no clock and no I/O in here, and one thing only is under way at a time. Whatever goes wrong on the way (a lost
//! reply, a lost race, an expired etcd lease, a wiped store), the answer is to read the store again and to plan from
//! what it says; so there is nothing to remember that could be wrong.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::plan::{Asking, Holding, Plan, Usage, plan};
use super::transaction::Transaction;
use crate::cluster::key::SubnetKey;
use crate::cluster::layout::Layout;
use crate::cluster::lease_value::LeaseValue;
use crate::cluster::netconf::NetConf;
use crate::cluster::node::{NodeName, NodeRecord};
use crate::cluster::view::StoreView;

/// How many writes in a row may be done without the lease then being as it should.
const MAX_WRITES: u32 = 2;

/// How a lease that the node holds is.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The subnets, which are also the lease's key.
    pub key: SubnetKey,
    /// What the store says about the node; may have come from an earlier life.
    pub published: LeaseValue,
    /// The network configuration that the lease belongs to.
    pub config: Arc<NetConf>,
    /// How full the network is.
    pub usage: Usage,
    /// Something that someone should see to, although the lease stands.
    pub notice: Option<String>,
}

/// What the rest of the agent is told about the lease.
#[derive(Debug, Clone, PartialEq)]
pub enum LeaseState {
    /// There is no lease yet, for this reason.
    Acquiring {
        /// Why not, in words.
        reason: String,
    },
    /// The subnets are this node's.
    Held(Held),
    /// Another node has the subnets that this node runs. Its dataplane stays as it is until other subnets are `Held`.
    Lost {
        /// What was held.
        previous: SubnetKey,
        /// What happened, and what stands in the way of another lease.
        reason: String,
    },
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The store was read, or could not be.
    View(Result<StoreView, String>),
    /// An etcd lease was granted, or was not.
    Granted(Result<i64, String>),
    /// A transaction came to this end.
    Committed(Outcome),
    /// A keep-alive came to this end.
    KeptAlive(Alive),
    /// The sleep is over.
    Wake,
    /// The lease's entry in the store is not as it was.
    Changed,
    /// The lease is to say something else.
    Wanted(LeaseValue),
}

/// How a transaction ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It was done, and the store now holds this.
    Done(StoreView),
    /// Its conditions did not hold; the store holds this.
    Conflict(StoreView),
    /// The etcd lease that it wanted to attach keys to does not exist.
    EtcdLeaseGone,
    /// It may or may not have been done.
    Unknown(String),
}

/// How a keep-alive ended.
#[derive(Debug, Clone)]
pub enum Alive {
    /// The etcd lease lives for so long from now.
    For(Duration),
    /// There is no such etcd lease.
    Gone,
    /// There was no answer.
    Unknown(String),
}

/// The one thing to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Read the store; answered by [`Input::View`].
    Read,
    /// Grant an etcd lease; answered by [`Input::Granted`].
    Grant,
    /// Commit; answered by [`Input::Committed`].
    Commit(Transaction),
    /// Keep this etcd lease alive; answered by [`Input::KeptAlive`].
    KeepAlive(i64),
    /// Sleep; answered by [`Input::Wake`], or earlier by [`Input::Changed`] or [`Input::Wanted`].
    Sleep(Sleep),
}

/// How long to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sleep {
    /// A back-off after a failure, longer each time.
    Retry,
    /// A back-off after a lost race: shorter, because the store works and others get on.
    Contended,
    /// A back-off before taking the lease back from another node of the same name: much longer, as it ends with one of
    /// the two being renamed.
    Contested,
    /// [`super::driver::GRACE`].
    Grace,
    /// Until the etcd lease, which lives for so long, is due for renewal.
    UntilRenewal(Duration),
    /// Until something changes.
    Forever,
}

/// One step's result.
#[derive(Debug)]
pub struct Step {
    /// The machine after the step.
    pub machine: Machine,
    /// What to do next.
    pub next: Next,
    /// Something that happened once and that someone should know of.
    pub warning: Option<String>,
}

/// The lease of one node.
#[derive(Debug, Clone)]
pub struct Machine {
    layout: Layout,
    node: NodeName,
    wanted: LeaseValue,
    previous: Option<SubnetKey>,
    network: Vec<u8>,
    etcd_lease: Option<i64>,
    running: Option<Holding>,
    grace_over: bool,
    /// Number of the etcd lease that the current sleep ends with renewing.
    renewal: Option<i64>,
    /// Whether the current sleep is [`Sleep::Contested`].
    contested: bool,
    /// Whether the lease may be taken back from another node of the same name, after a wait.
    may_take_back: bool,
    /// Every address that the lease was to say in this process.
    own_addresses: BTreeSet<IpAddr>,
    /// Conflicts in a row.
    conflicts: u32,
    /// Writes that were done since the lease was last found as it should be.
    writes: u32,
    /// What was missing in the store of the lease that runs, until it is held again.
    missing: Option<&'static str>,
    state: LeaseState,
}

impl Machine {
    /// A machine that has done nothing yet; the first thing to do is [`Next::Read`]. `previous` are the subnets that the
    /// node ran in an earlier life, `network` the configuration to put into a store that has none.
    #[must_use]
    pub fn new(
        layout: Layout,
        node: NodeName,
        wanted: LeaseValue,
        previous: Option<SubnetKey>,
        network: String,
    ) -> Self {
        Self {
            layout,
            node,
            own_addresses: wanted.public_ips.values().copied().collect(),
            wanted,
            previous,
            network: network.into_bytes(),
            etcd_lease: None,
            running: None,
            grace_over: false,
            renewal: None,
            contested: false,
            may_take_back: false,
            conflicts: 0,
            writes: 0,
            missing: None,
            state: LeaseState::Acquiring { reason: "the store has not been read yet".to_owned() },
        }
    }

    /// What the rest of the agent is to be told.
    #[must_use]
    pub const fn state(&self) -> &LeaseState {
        &self.state
    }

    /// The lease that the node runs, as it was found in the store.
    #[must_use]
    pub(super) const fn running(&self) -> Option<&Holding> {
        self.running.as_ref()
    }

    /// Takes in what happened and says what to do.
    #[must_use]
    pub fn step(mut self, input: Input) -> Step {
        let renewal = self.renewal.take();
        let contested = std::mem::take(&mut self.contested);
        let missing = self.missing;
        let next = match input {
            Input::View(Ok(view)) => self.plan(&view),
            Input::View(Err(reason)) => self.retry(format!("cannot read the store: {reason}")),
            Input::Granted(Ok(id)) => {
                // The view is read after the grant, never before: a write on what was read from a store that has been
                // wiped since then is refused, because the new store does not know the etcd lease.
                self.etcd_lease = Some(id);
                Next::Read
            }
            Input::Granted(Err(reason)) => self.retry(format!("cannot get an etcd lease: {reason}")),
            Input::Committed(outcome) => self.committed(outcome),
            Input::KeptAlive(alive) => self.kept_alive(&alive, renewal),
            Input::Wake => {
                self.may_take_back = contested;
                match renewal {
                    Some(id) => self.renew(id),
                    None => Next::Read,
                }
            }
            Input::Changed => Next::Read,
            Input::Wanted(wanted) => {
                self.own_addresses.extend(wanted.public_ips.values());
                self.wanted = wanted;
                self.writes = 0;
                Next::Read
            }
        };
        let made_again = missing.zip(self.running.as_ref()).filter(|_| self.missing.is_none());
        let warning = made_again.map(|(what, running)| {
            format!("{what} {} was deleted from the store, or had expired; claimed again", running.key)
        });
        Step { machine: self, next, warning }
    }

    fn committed(&mut self, outcome: Outcome) -> Next {
        match outcome {
            Outcome::Done(view) => {
                self.conflicts = 0;
                self.writes += 1;
                self.plan(&view)
            }
            Outcome::Conflict(view) => {
                // The first lost race is worth another try at once, as what it lost to is known. Then they are too many.
                self.conflicts += 1;
                if self.conflicts == 1 {
                    return self.plan(&view);
                }
                self.explain("other nodes are taking subnets, too".to_owned());
                Next::Sleep(Sleep::Contended)
            }
            Outcome::EtcdLeaseGone => {
                self.etcd_lease = None;
                Next::Read
            }
            Outcome::Unknown(reason) => self.retry(format!("cannot write the lease: {reason}")),
        }
    }

    fn kept_alive(&mut self, alive: &Alive, renewal: Option<i64>) -> Next {
        match alive {
            Alive::For(ttl) if renewal.is_some() => {
                self.renewal = renewal;
                Next::Sleep(Sleep::UntilRenewal(*ttl))
            }
            // The lease was kept alive only while something else stands in the way.
            Alive::For(_) => Next::Sleep(Sleep::Retry),
            Alive::Gone => {
                self.etcd_lease = None;
                Next::Read
            }
            Alive::Unknown(_) => {
                self.renewal = renewal;
                Next::Sleep(Sleep::Retry)
            }
        }
    }

    fn renew(&mut self, id: i64) -> Next {
        self.renewal = Some(id);
        Next::KeepAlive(id)
    }

    /// Plans from what the store says, and announces what that means.
    fn plan(&mut self, view: &StoreView) -> Next {
        let running = self.running.as_ref();
        let network = running.map_or(self.network.as_slice(), |running| running.config_text.as_slice());
        let asking = Asking {
            layout: &self.layout,
            node: &self.node,
            wanted: &self.wanted,
            running: running.map(|running| running.key),
            previous: self.previous,
            network,
            etcd_lease: self.etcd_lease,
            grace_over: self.grace_over,
        };
        let plan = plan(view, &asking);
        self.missing = running.and_then(|running| missing(view, running, &self.node)).or(self.missing);
        match plan {
            Plan::Hold(holding) => self.hold(holding),
            Plan::Write(..) if self.writes >= MAX_WRITES => {
                // One more is tried after each wait.
                self.writes = MAX_WRITES - 1;
                self.stuck("the lease that was written does not read back as wanted".to_owned())
            }
            Plan::Write(key, transaction) => {
                if let Some(other) = self.namesake(view, &key).filter(|_| !self.may_take_back) {
                    return self.contest(other);
                }
                if running.is_some_and(|running| running.key != key) {
                    self.lose("another node has taken them".to_owned());
                }
                Next::Commit(transaction)
            }
            Plan::Configure(transaction) => Next::Commit(transaction),
            Plan::Grant => Next::Grant,
            Plan::Grace => {
                self.grace_over = true;
                self.explain("the store has no leases; nodes that run a subnet may claim it first".to_owned());
                Next::Sleep(Sleep::Grace)
            }
            Plan::Stuck(reason, lost) => {
                if lost {
                    self.lose(reason.clone());
                }
                self.stuck(reason)
            }
        }
    }

    /// Where the node is that has the same name as this one: the lease that this node runs, and its record, say an
    /// address that is not and never was this node's.
    fn namesake(&self, view: &StoreView, key: &SubnetKey) -> Option<IpAddr> {
        self.running.as_ref().filter(|running| running.key == *key)?;
        let record =
            NodeRecord::parse(&view.nodes.get(self.node.as_str())?.value).filter(|record| record.key == *key)?;
        record.public_ips.values().copied().find(|ip| !self.own_addresses.contains(ip))
    }

    /// Leaves the lease for a while to the other node of this name. Neither can know which of them is to be renamed; if
    /// both wrote at once whenever they lost it, they would write without end.
    fn contest(&mut self, other: IpAddr) -> Next {
        let notice = format!("node name {} is also used by the node at {other}", self.node);
        if let LeaseState::Held(held) = &mut self.state {
            held.notice = Some(notice.clone());
        }
        self.explain(notice);
        self.contested = true;
        Next::Sleep(Sleep::Contested)
    }

    fn hold(&mut self, holding: Holding) -> Next {
        self.conflicts = 0;
        self.writes = 0;
        self.may_take_back = false;
        self.missing = None;
        self.previous = None;
        self.state = LeaseState::Held(Held {
            key: holding.key,
            published: holding.published.clone(),
            config: Arc::clone(&holding.config),
            usage: holding.usage,
            notice: holding.notice.clone(),
        });
        let id = holding.etcd_lease;
        self.running = Some(holding);
        if id == 0 {
            return Next::Sleep(Sleep::Forever);
        }
        // Keeping it alive at once costs one message and no write, and says how long it lives, whoever granted it.
        self.etcd_lease = Some(id);
        self.renew(id)
    }

    /// The subnets are no longer mine: stop saying so, and remember them only as what would be nice to have back.
    fn lose(&mut self, reason: String) {
        self.missing = None;
        if let Some(running) = self.running.take() {
            self.previous = Some(running.key);
            self.state = LeaseState::Lost { previous: running.key, reason };
        }
    }

    /// Nothing can be planned. A lease that is held is kept alive all the same.
    fn stuck(&mut self, reason: String) -> Next {
        let etcd_lease = self.running.as_ref().map_or(0, |running| running.etcd_lease);
        if let LeaseState::Held(held) = &mut self.state {
            held.notice = Some(reason.clone());
        }
        let sleep = self.retry(reason);
        if etcd_lease == 0 { sleep } else { Next::KeepAlive(etcd_lease) }
    }

    fn retry(&mut self, reason: String) -> Next {
        self.explain(reason);
        Next::Sleep(Sleep::Retry)
    }

    /// Says why there is no lease, if there is none.
    fn explain(&mut self, why: String) {
        match &mut self.state {
            LeaseState::Acquiring { reason } | LeaseState::Lost { reason, .. } => *reason = why,
            LeaseState::Held(_) => {}
        }
    }
}

/// What the store does not have of the lease that the node runs.
fn missing(view: &StoreView, running: &Holding, node: &NodeName) -> Option<&'static str> {
    if !view.subnets.contains_key(&running.key.to_string()) {
        Some("the lease")
    } else if !view.nodes.contains_key(node.as_str()) {
        Some("the node's record of its lease")
    } else {
        None
    }
}
