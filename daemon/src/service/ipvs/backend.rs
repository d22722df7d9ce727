//! The back end as its driver sees it: changes of ports go in, changes of doors come out.
//!
//! It keeps in memory what the kernel has, so that a change costs only the messages that it needs, and looks only when it
//! starts, when it audits, and where something went wrong. Work is queued by virtual server and done in chunks: the caller
//! has other things to do between them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ipnetwork::IpNetwork;
use weft_netlink::ipvs::{Scheduler, Target, VirtualServer};
use weft_netlink::sysctl::Sysctl;

use super::diff::{Draining, Image, Rules};
use super::drain::DrainLimits;
use super::kernel::{Kernel, Machine, Op};
use super::ownership::Ownership;
use super::plan::{frontend, target};
use super::problem::{Error, Problem, Reason};
use super::scheduler::Schedulers;
use super::timeouts::{TimeoutSettings, differing};
use crate::service::model::{FrontendKey, PortKey, PortPlan};

/// How IPVS is to be used.
#[derive(Debug, Clone)]
pub struct IpvsConfig {
    /// Where the record of our virtual servers lies.
    pub run_dir: PathBuf,
    /// The node's name, by which the order of backends differs from node to node.
    pub node: Arc<str>,
    /// The service networks. Only cluster IPs inside are served, and only virtual servers inside are ever taken over.
    pub ranges: Vec<IpNetwork>,
    /// Networks inside of those whose virtual servers are never taken over (`ipvs-exclude-cidrs`).
    pub exclude: Vec<IpNetwork>,
    /// The scheduler of Services that ask for none.
    pub scheduler: Scheduler,
    /// How long real servers drain.
    pub drain: DrainLimits,
    /// How long connections last that say nothing.
    pub timeouts: TimeoutSettings,
    /// Where conntrack's timeouts are read.
    pub sysctl: Sysctl,
}

/// What becomes of a new connection to a cluster IP and port, before IPVS sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// It goes to the virtual server.
    Open,
    /// It is dropped: there are backends, but none that the policy admits.
    Blocked,
    /// It is refused, as at any port that is not served.
    Closed,
}

/// What a call has done, and what is to be done after it.
#[derive(Debug, Default)]
pub struct Applied {
    /// How many changes the kernel was asked for.
    pub messages: usize,
    /// Doors that must be so before the next call: only a virtual server whose door is not open is ever deleted.
    pub doors: Vec<(FrontendKey, Door)>,
    /// How many virtual servers were not as they had been left.
    pub repaired: usize,
    /// What is wrong, as far as it was not said before.
    pub problems: Vec<Problem>,
    /// There is more to be done at once: call [`IpvsServices::proceed`].
    pub more: bool,
}

/// The virtual servers of this node.
#[derive(Debug)]
pub struct IpvsServices {
    pub(super) kernel: Box<dyn Kernel + Send>,
    pub(super) config: IpvsConfig,
    pub(super) seed: u64,
    pub(super) schedulers: Schedulers,
    /// Schedulers that the kernel is known to have.
    pub(super) proven: BTreeSet<Scheduler>,
    pub(super) journal: Ownership,
    /// Where each port's virtual server stands.
    ports: HashMap<PortKey, Target>,
    /// What each virtual server is for.
    pub(super) plans: HashMap<Target, Arc<PortPlan>>,
    /// Our virtual servers as the kernel has them.
    pub(super) images: HashMap<Target, Image>,
    /// Those that are to be looked at before anything is done to them.
    pub(super) stale: HashSet<Target>,
    pub(super) draining: BTreeMap<Target, Draining>,
    /// Doors that are not closed.
    pub(super) doors: HashMap<Target, Door>,
    /// Doors of which it is not known whether nf_tables has them so.
    pub(super) assumed: HashSet<Target>,
    /// Virtual servers of others.
    pub(super) foreign: HashSet<Target>,
    /// Where the kernel has refused something.
    pub(super) failing: HashSet<Target>,
    /// What has been said of each.
    pub(super) told: HashMap<Target, Reason>,
    told_kube_proxy: bool,
    /// To be compared with what they should be.
    pub(super) work: VecDeque<Target>,
    /// To be deleted in the next call, when their doors are closed.
    pub(super) deferred: BTreeSet<Target>,
    /// Whose connections are to be counted.
    pub(super) poll: VecDeque<Target>,
    /// To be looked at for what others may have done.
    pub(super) check: VecDeque<Target>,
    /// When the last audit began.
    checking_since: Option<Instant>,
    next_poll: Option<Instant>,
    /// Not yet handed out; outlives a failed call.
    pub(super) applied: Applied,
}

impl IpvsServices {
    /// Opens the way to IPVS in the network namespace of the calling thread; loads the module if need be. Changes nothing.
    ///
    /// # Errors
    /// [`Error`]; see [`Error::is_unsupported`].
    pub fn open(config: IpvsConfig) -> Result<Self, Error> {
        Self::with(config, Box::new(Machine::open()?))
    }

    pub(super) fn with(config: IpvsConfig, kernel: Box<dyn Kernel + Send>) -> Result<Self, Error> {
        let mut hasher = DefaultHasher::new();
        config.node.hash(&mut hasher);
        Ok(Self {
            kernel,
            seed: hasher.finish(),
            schedulers: Schedulers::new(config.scheduler.clone()),
            proven: BTreeSet::new(),
            journal: Ownership::load(&config.run_dir)?,
            config,
            ports: HashMap::new(),
            plans: HashMap::new(),
            images: HashMap::new(),
            stale: HashSet::new(),
            draining: BTreeMap::new(),
            doors: HashMap::new(),
            assumed: HashSet::new(),
            foreign: HashSet::new(),
            failing: HashSet::new(),
            told: HashMap::new(),
            told_kube_proxy: false,
            work: VecDeque::new(),
            deferred: BTreeSet::new(),
            poll: VecDeque::new(),
            check: VecDeque::new(),
            checking_since: None,
            next_poll: None,
            applied: Applied::default(),
        })
    }

    /// Whether the kernel has no virtual server, nor has had one of ours since it booted.
    ///
    /// # Errors
    /// [`Error`].
    pub fn is_untouched(&mut self) -> Result<bool, Error> {
        Ok(self.journal.is_blank() && self.kernel.virtual_servers()?.is_empty())
    }

    /// Takes all ports, reads what the kernel has, and begins to write the differences, in the order given.
    ///
    /// # Errors
    /// [`Error`]; start again then.
    pub fn start(&mut self, ports: &[Arc<PortPlan>], now: Instant) -> Result<Applied, Error> {
        self.images.clear();
        self.draining.clear();
        for port in ports {
            self.take(port);
        }
        self.ensure_timeouts()?;
        let found = self.kernel.virtual_servers()?;
        self.adopt(&found)?;
        for server in found.into_iter().filter(|server| self.journal.owns(&server.target)) {
            let target = server.target;
            // Before a restart it was open; whether it should be is found out.
            self.doors.insert(target, Door::Open);
            self.assumed.insert(target);
            self.images.insert(target, Image { server, reals: Vec::new() });
            self.stale.insert(target);
            if !self.plans.contains_key(&target) {
                self.work.push_back(target);
            }
        }
        let gone: Vec<Target> =
            self.journal.owned().filter(|target| !self.images.contains_key(target)).copied().collect();
        self.journal.release(gone)?;
        self.advance(now)
    }

    /// Takes ports that have changed or are new, and gives up others.
    ///
    /// # Errors
    /// [`Error`]; the changes are kept, and made by later calls.
    pub fn sync(&mut self, changed: &[Arc<PortPlan>], gone: &[PortKey], now: Instant) -> Result<Applied, Error> {
        for key in gone {
            self.give_up(key);
        }
        for port in changed {
            self.take(port);
        }
        self.advance(now)
    }

    /// Begins to compare everything with what the kernel has: virtual servers now, their real servers chunk by chunk in calls
    /// of [`tick`](Self::tick), so that changes come in between. See [`is_checking`](Self::is_checking).
    ///
    /// # Errors
    /// [`Error`].
    pub fn audit(&mut self, now: Instant) -> Result<Applied, Error> {
        self.applied.repaired += usize::from(self.ensure_timeouts()?);
        let found = self.kernel.virtual_servers()?;
        self.adopt(&found)?;
        let mut unseen: HashSet<Target> = self.images.keys().copied().collect();
        for server in found {
            if self.journal.owns(&server.target) {
                unseen.remove(&server.target);
                self.compare(server);
            }
        }
        for target in unseen {
            self.applied.repaired += 1;
            self.forget(&target);
            self.work.push_back(target);
        }
        self.work.extend(self.failing.iter().copied());
        if self.check.is_empty() {
            self.check = self.images.keys().copied().collect();
            self.checking_since = Some(now);
        }
        self.advance(now)
    }

    /// Whether an audit has real servers left to look at.
    #[must_use]
    pub fn is_checking(&self) -> bool {
        !self.check.is_empty()
    }

    /// Counts the connections of those real servers that drain, and deletes those that have none, or had their time. Goes on
    /// with an audit.
    ///
    /// # Errors
    /// [`Error`].
    pub fn tick(&mut self, now: Instant) -> Result<Applied, Error> {
        if self.poll.is_empty() && self.drains_wake().is_some_and(|wake| wake <= now) {
            self.poll = self.draining.keys().copied().collect();
            self.next_poll = now.checked_add(self.config.drain.poll);
        }
        self.advance(now)
    }

    /// Does the next chunk of what is to be done.
    ///
    /// # Errors
    /// [`Error`].
    pub fn proceed(&mut self, now: Instant) -> Result<Applied, Error> {
        self.advance(now)
    }

    /// How many real servers drain.
    #[must_use]
    pub fn draining(&self) -> usize {
        self.draining.values().map(BTreeMap::len).sum()
    }

    /// When [`tick`](Self::tick) has something to do; in the past while an audit goes on.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        let checks = self.checking_since.filter(|_| self.is_checking());
        self.drains_wake().into_iter().chain(checks).min()
    }

    /// When the connections of those that drain are to be counted.
    fn drains_wake(&self) -> Option<Instant> {
        let deadlines = self.draining.values().flat_map(BTreeMap::values).flatten();
        self.next_poll.into_iter().chain(deadlines.copied()).min().filter(|_| !self.draining.is_empty())
    }

    /// Whether no virtual server of ours is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.images.is_empty() && self.work.is_empty() && self.deferred.is_empty()
    }

    /// Every door that is not closed.
    pub fn doors(&self) -> impl Iterator<Item = (FrontendKey, Door)> {
        self.doors.iter().filter_map(|(target, door)| Some((frontend(target)?, *door)))
    }

    /// Deletes every virtual server of ours at once, with its connections, puts the timeouts back, and forgets the record.
    /// The doors must be closed.
    ///
    /// # Errors
    /// All that went wrong; what is not mentioned is gone.
    pub fn remove_all(mut self) -> Result<(), Vec<Error>> {
        remove(self.kernel.as_mut(), &mut self.journal)
    }

    /// Takes other service networks. Ports are judged by them the next time that they are given.
    pub fn set_ranges(&mut self, ranges: Vec<IpNetwork>) {
        self.config.ranges = ranges;
    }

    fn take(&mut self, port: &Arc<PortPlan>) {
        let found = target(port);
        let inside = found.filter(|target| self.is_in_range(target));
        if self.ports.get(&port.key) != inside.as_ref() {
            self.give_up(&port.key);
        }
        if let Some(target) = inside {
            self.ports.insert(port.key.clone(), target);
            self.plans.insert(target, Arc::clone(port));
            self.work.push_back(target);
        } else if let Some(target @ Target::Address { address, .. }) = found {
            self.tell(target, Some(port.key.clone()), Reason::OutOfRange(address));
        }
    }

    fn give_up(&mut self, key: &PortKey) {
        let Some(target) = self.ports.remove(key) else { return };
        // Another port may have taken its place before.
        if self.plans.get(&target).is_some_and(|plan| plan.key == *key) {
            self.plans.remove(&target);
        }
        self.work.push_back(target);
    }

    fn is_in_range(&self, target: &Target) -> bool {
        matches!(target, Target::Address { address, .. } if self.config.ranges.iter().any(|range| range.contains(*address)))
    }

    /// Decides whose the virtual servers are that are not recorded as ours. Those in the service networks that were there
    /// before the record are taken over, once kube-proxy is gone; all others are foreign.
    fn adopt(&mut self, found: &[VirtualServer]) -> Result<(), Error> {
        let strange: Vec<Target> =
            found.iter().map(|server| server.target).filter(|target| !self.journal.owns(target)).collect();
        let excluded = |target: &Target| match target {
            Target::Address { address, .. } => self.config.exclude.iter().any(|network| network.contains(*address)),
            Target::Mark { .. } => false,
        };
        let takes = |target: &&Target| self.is_in_range(target) && !excluded(target);
        let inside: Vec<Target> = strange.iter().filter(takes).copied().collect();
        if !self.journal.adopted() {
            if !self.kernel.has_kube_proxy()? {
                self.journal.claim(inside)?;
                self.journal.set_adopted()?;
            } else if !inside.is_empty() && !std::mem::replace(&mut self.told_kube_proxy, true) {
                self.applied.problems.push(Problem { port: None, reason: Reason::KubeProxy(inside.len()) });
            }
        }
        let foreign: HashSet<Target> = strange.into_iter().filter(|target| !self.journal.owns(target)).collect();
        let changed: Vec<Target> = foreign.symmetric_difference(&self.foreign).copied().collect();
        self.foreign = foreign;
        // The doors of those outside are none of ours.
        let changed: Vec<Target> = changed.into_iter().filter(|target| self.is_in_range(target)).collect();
        self.work.extend(changed);
        Ok(())
    }

    /// Takes note of what a virtual server of ours is.
    fn compare(&mut self, server: VirtualServer) {
        let target = server.target;
        match self.images.get_mut(&target) {
            Some(image) if image.server == server => return,
            Some(image) => image.server = server,
            None => {
                self.images.insert(target, Image { server, reals: Vec::new() });
                if !self.stale.insert(target) {
                    // It is on the way to be looked at.
                    return;
                }
            }
        }
        self.applied.repaired += 1;
        self.work.push_back(target);
    }

    /// Whether a timeout had to be set.
    fn ensure_timeouts(&mut self) -> Result<bool, Error> {
        let actual = self.kernel.timeouts()?;
        let wanted = self.config.timeouts.resolve(&self.config.sysctl)?;
        let Some(differing) = differing(&wanted, &actual) else { return Ok(false) };
        self.journal.remember_timeouts(&actual)?;
        self.kernel.set_timeouts(&differing)?;
        self.applied.messages += 1;
        Ok(true)
    }

    pub(super) fn rules(&self, now: Instant) -> Rules {
        Rules { now, limit: self.config.drain.limit, seed: self.seed }
    }

    /// Sees to it that somebody counts the connections of those that drain.
    pub(super) fn schedule_poll(&mut self, now: Instant) {
        if self.draining.is_empty() {
            self.next_poll = None;
        } else if self.next_poll.is_none() {
            self.next_poll = now.checked_add(self.config.drain.poll);
        }
    }
}

/// Removes what the record in a run directory says to be ours, for a machine on which no agent runs any more.
///
/// # Errors
/// All that went wrong; what is not mentioned is gone.
pub fn cleanup(run_dir: &Path) -> Result<(), Vec<Error>> {
    let mut journal = Ownership::load(run_dir).map_err(|error| vec![error.into()])?;
    if journal.is_blank() {
        // Nothing of ours: to ask would load the module.
        return journal.destroy().map_err(|error| vec![error.into()]);
    }
    let mut kernel = Machine::open().map_err(|error| vec![error.into()])?;
    remove(&mut kernel, &mut journal)
}

fn remove(kernel: &mut dyn Kernel, journal: &mut Ownership) -> Result<(), Vec<Error>> {
    let ops: Vec<Op> = journal.owned().map(|target| Op::DeleteVirtual(*target)).collect();
    let mut errors = Vec::new();
    match kernel.run(&ops) {
        Ok(verdicts) => {
            let refused = verdicts.into_iter().filter_map(Result::err).filter(|error| !error.is_absent());
            errors.extend(refused.map(|error| Error::Kernel(error.into())));
        }
        Err(error) => errors.push(error.into()),
    }
    if let Some(timeouts) = journal.timeouts() {
        errors.extend(kernel.set_timeouts(&timeouts).err().map(Error::from));
    }
    if errors.is_empty() {
        errors.extend(journal.destroy().err().map(Error::from));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}
