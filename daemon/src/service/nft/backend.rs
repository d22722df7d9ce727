//! The back end: keeps the kernel as the plans say.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::AddAssign;
use std::sync::Arc;

use weft_netlink::Error;
use weft_netlink::nft::{Batch, CommitError, Socket, Table};

use super::changes::Changes;
use super::class::Class;
use super::entry::{Datum, Key};
use super::image::{Adoption, Image};
use super::job::Job;
use super::options::Options;
use super::preflight::Missing;
use super::skeleton;
use super::state::{Draft, State};
use super::structure::{self, Known, Structure};
use crate::filter::agent_table;
use crate::service::model::{FrontendKey, PortKey, PortPlan, urgency};

/// A transaction has about so many elements: nothing else can change any table of the machine meanwhile.
pub(super) const ELEMENTS_PER_TRANSACTION: usize = 2500;
/// So many chains of classes that no list is of are kept, as sizes come back.
const SPARE_CLASSES: usize = 64;
/// So often is everything read at most until what is pending is done: once, and all of it after a refusal.
const LOOKS: u32 = 4;

/// What a call has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Transactions.
    pub transactions: usize,
    /// Netlink messages in them.
    pub messages: usize,
    /// Elements deleted and added.
    pub elements: usize,
    /// Chains and sets made or mended.
    pub chains: usize,
    /// Ports that the kernel refused; see [`NftServices::failures`].
    pub failed: usize,
}

impl AddAssign for Applied {
    fn add_assign(&mut self, other: Self) {
        self.transactions += other.transactions;
        self.messages += other.messages;
        self.elements += other.elements;
        self.chains += other.chains;
        self.failed += other.failed;
    }
}

/// Why nothing more can be done now.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The kernel's tables could not be read.
    #[error(transparent)]
    Read(#[from] Error),
    /// A transaction failed that is no single port's fault; it changed nothing.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The kernel is built without something, or lacks a module.
    #[error("the kernel lacks what the rules of Services need: {0}; load the modules, or use a kernel that has them")]
    Lacks(Missing),
    /// Everything was read and written again and again, and still is not as it should be.
    #[error(
        "nf_tables is not as it should be after {looks} comparisons; somebody else keeps writing to table inet weft"
    )]
    Unsettled {
        /// How often.
        looks: u32,
    },
}

/// What there is to be of a port; `None`: nothing.
type Target = Option<Arc<PortPlan>>;

/// The nftables back end.
///
/// All of it blocks, for as long as a transaction of bounded size takes. While [`is_busy`](Self::is_busy) says so there is
/// more to do: call [`proceed`](Self::proceed). After an error nothing is lost; wait a little, then proceed.
#[derive(Debug)]
pub struct NftServices {
    pub(super) socket: Socket,
    pub(super) table: Table,
    pub(super) options: Options,
    pub(super) state: State,
    pub(super) doors: BTreeSet<FrontendKey>,
    /// The classes whose chains are there.
    pub(super) built: BTreeSet<Class>,
    known: Known,
    /// Chains to which no element leads any more.
    doomed: BTreeSet<Class>,
    queue: VecDeque<PortKey>,
    targets: HashMap<PortKey, Target>,
    pub(super) failures: BTreeMap<PortKey, (Target, String)>,
    pub(super) job: Option<Job>,
    /// The kernel may not be as the state says, and is compared before anything else happens.
    pub(super) dirty: bool,
    /// The next comparison has to read everything, also what no list leads to.
    pub(super) thorough: bool,
    /// As [`dirty`](Self::dirty), but time enough at the next audit.
    pub(super) stale: bool,
    /// A refusal has made us compare, so that the next one is the fault of what we write.
    pub(super) doubted: bool,
    /// How often all that the kernel has was read.
    looks: u32,
    /// So many ports go into one transaction at most: less than all while it is searched which one the kernel refuses.
    pub(super) width: usize,
    /// What [`Socket::generation`] was at the last comparison.
    generation: Option<u32>,
    /// Our transactions since then.
    commits: u32,
}

impl NftServices {
    /// Opens the way to nf_tables in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel lacks nf_tables.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            socket: Socket::open()?,
            table: agent_table(),
            options: Options::default(),
            state: State::default(),
            doors: BTreeSet::new(),
            built: BTreeSet::new(),
            known: Known::new(),
            doomed: BTreeSet::new(),
            queue: VecDeque::new(),
            targets: HashMap::new(),
            failures: BTreeMap::new(),
            job: None,
            dirty: false,
            thorough: false,
            stale: false,
            doubted: false,
            looks: 0,
            width: usize::MAX,
            generation: None,
            commits: 0,
        })
    }

    /// Whether the kernel has nothing of Services.
    ///
    /// # Errors
    /// As all dumps of [`Socket`].
    pub fn is_untouched(&mut self) -> Result<bool, Error> {
        Ok(Structure::read(&mut self.socket, &self.table)?.is_empty())
    }

    /// Takes over: adopts what the kernel has of these ports, and begins to write what is different. The rules are complete
    /// when this returns; the ports follow, the cluster's own Services first.
    ///
    /// # Errors
    /// [`NftError`]; then it has to be called again.
    pub fn start(
        &mut self,
        plans: impl IntoIterator<Item = Arc<PortPlan>>,
        options: Options,
    ) -> Result<Applied, NftError> {
        self.options = options;
        self.queue.clear();
        self.targets.clear();
        self.failures.clear();
        (self.doubted, self.stale, self.width) = (false, false, usize::MAX);
        self.state = State::new(self.options.proxy_cluster_ips);
        let (applied, mut job) = self.look(false)?;
        self.doors = job.image.doors().collect();
        let mut plans: Vec<_> = plans.into_iter().collect();
        plans.sort_by_cached_key(|plan| (urgency(&plan.key), plan.key.clone()));
        let adoption = Adoption::of(&job.image);
        self.state.adoption_begins(adoption.highest(plans.len()));
        for plan in plans {
            adoption.put(plan, &mut self.state);
        }
        job.adopts = true;
        self.job = Some(job);
        Ok(applied)
    }

    /// Takes new plans for some ports, and takes others out. Where nothing else is pending and there is not much of it, it has
    /// happened when this returns, in one transaction.
    ///
    /// # Errors
    /// [`NftError`]; the changes stay pending.
    pub fn sync(&mut self, changed: &[Arc<PortPlan>], removed: &[PortKey]) -> Result<Applied, NftError> {
        for key in removed {
            self.aim(key, None);
        }
        for plan in changed {
            self.aim(&plan.key, Some(Arc::clone(plan)));
        }
        self.proceed()
    }

    fn aim(&mut self, key: &PortKey, target: Target) {
        self.failures.remove(key);
        if self.targets.insert(key.clone(), target).is_none() {
            self.queue.push_back(key.clone());
        }
    }

    /// Whether there is something pending.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.job.is_some() || self.dirty || !self.queue.is_empty()
    }

    /// Does a piece of what is pending: one transaction, or a look at all that the kernel has.
    ///
    /// # Errors
    /// [`NftError`]; what is pending stays so.
    pub fn proceed(&mut self) -> Result<Applied, NftError> {
        if let Some(job) = self.job.take() {
            return self.proceed_job(job);
        }
        if self.dirty {
            let (applied, job) = self.look(self.thorough)?;
            self.job = Some(job);
            return Ok(applied);
        }
        self.proceed_targets()
    }

    /// Does all that is pending.
    ///
    /// # Errors
    /// As [`proceed`](Self::proceed); [`NftError::Unsettled`] if it goes round in circles, and a pause is in order.
    pub fn finish(&mut self) -> Result<Applied, NftError> {
        let mut applied = Applied::default();
        let begin = self.looks;
        while self.is_busy() {
            if self.looks.wrapping_sub(begin) > LOOKS {
                return Err(NftError::Unsettled { looks: LOOKS });
            }
            applied += self.proceed()?;
        }
        Ok(applied)
    }

    /// Changes what the rules depend on beside the Services.
    ///
    /// # Errors
    /// [`NftError`]; the change stays pending.
    pub fn set_options(&mut self, options: Options) -> Result<Applied, NftError> {
        if options == self.options {
            return Ok(Applied::default());
        }
        if options.proxy_cluster_ips != self.options.proxy_cluster_ips {
            let plans: Vec<_> = self.state.plans().cloned().collect();
            let pending: Vec<_> = self.queue.drain(..).filter_map(|key| self.targets.remove_entry(&key)).collect();
            let applied = self.start(plans, options)?;
            pending.into_iter().for_each(|(key, target)| self.aim(&key, target));
            return Ok(applied);
        }
        self.options = options;
        self.begin_comparison(false);
        self.proceed()
    }

    /// Looks whether somebody has changed anything, and if so begins to repair it. Tries again what was refused.
    ///
    /// # Errors
    /// [`NftError`]; the repair stays pending.
    pub fn audit(&mut self) -> Result<Applied, NftError> {
        for (key, (target, _)) in std::mem::take(&mut self.failures) {
            self.targets.insert(key.clone(), target);
            self.queue.push_back(key);
        }
        if !self.is_busy() {
            let now = self.socket.generation()?;
            if !self.stale && self.generation.is_some_and(|then| then.wrapping_add(self.commits) == now) {
                return self.prune();
            }
        }
        if self.job.is_none() && self.queue.is_empty() || self.stale {
            self.begin_comparison(self.stale);
        }
        self.proceed()
    }

    /// The ports that the kernel refused, with what it said. They are tried again at each [`audit`](Self::audit).
    pub fn failures(&self) -> impl Iterator<Item = (&PortKey, &str)> {
        self.failures.iter().map(|(key, (_, error))| (key, error.as_str()))
    }

    /// ipvs mode: the cluster IPs that packets reach IPVS at.
    #[must_use]
    pub fn open_doors(&self) -> &BTreeSet<FrontendKey> {
        &self.doors
    }

    /// ipvs mode: opens and closes doors. Whatever else is pending is done first.
    ///
    /// # Errors
    /// [`NftError`]; the doors are as before.
    pub fn doors(&mut self, open: &[FrontendKey], close: &[FrontendKey]) -> Result<Applied, NftError> {
        let mut applied = Applied::default();
        while self.job.is_some() || self.dirty {
            applied += self.proceed()?;
        }
        for part in close.chunks(ELEMENTS_PER_TRANSACTION) {
            let part: Vec<_> = part.iter().filter(|door| self.doors.contains(door)).copied().collect();
            applied += self.change_doors(&part, false)?;
        }
        for part in open.chunks(ELEMENTS_PER_TRANSACTION) {
            let part: Vec<_> = part.iter().filter(|door| !self.doors.contains(door)).copied().collect();
            applied += self.change_doors(&part, true)?;
        }
        Ok(applied)
    }

    fn change_doors(&mut self, doors: &[FrontendKey], open: bool) -> Result<Applied, NftError> {
        let mut changes = Changes::default();
        for door in doors {
            let (before, after) = if open { (None, Some(Datum::None)) } else { (Some(Datum::None), None) };
            changes.change(Key::Door(*door), before, after);
        }
        let applied = self.commit_changes(&changes).inspect_err(|_| self.begin_comparison(true))?;
        if open {
            self.doors.extend(doors);
        } else {
            self.doors.retain(|door| !doors.contains(door));
        }
        Ok(applied)
    }

    /// Takes everything of Services out of the kernel. The table stays.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn remove_all(&mut self) -> Result<Applied, NftError> {
        let found = Structure::read(&mut self.socket, &self.table)?;
        let mut applied = Applied::default();
        for batch in structure::removal(&found, &self.table) {
            applied += self.commit(batch, 0, 0)?;
        }
        self.state = State::new(self.options.proxy_cluster_ips);
        self.built.clear();
        self.known.clear();
        self.doors.clear();
        (self.job, self.dirty) = (None, false);
        Ok(applied)
    }

    pub(super) fn begin_comparison(&mut self, thorough: bool) {
        self.job = None;
        (self.dirty, self.thorough) = (true, thorough);
    }

    /// Reads all that the kernel has, and mends sets, chains and rules.
    fn look(&mut self, thorough: bool) -> Result<(Applied, Job), NftError> {
        self.looks = self.looks.wrapping_add(1);
        let generation = self.socket.generation()?;
        let found = Structure::read(&mut self.socket, &self.table)?;
        let skeleton = skeleton::chains(&self.options);
        let mending = found.mend(&self.table, &skeleton, &self.state.classes(), &mut self.known);
        (self.generation, self.commits) = (Some(generation), 0);
        let applied = self.commit(mending.batch, 0, mending.written)?;
        self.built = mending.classes;
        self.doomed.clear();
        let image = Image::read(&mut self.socket, &self.table, thorough)?;
        (self.dirty, self.stale) = (false, false);
        self.thorough = false;
        Ok((applied, Job::new(image, mending.strays)))
    }

    fn proceed_targets(&mut self) -> Result<Applied, NftError> {
        let mut draft = Draft::default();
        let mut taken = Vec::new();
        while let Some((key, target)) = self.queue.pop_front().and_then(|key| self.targets.remove_entry(&key)) {
            self.state.set(&key, target.clone(), &mut draft);
            taken.push((key, target));
            if draft.changes.keys() >= ELEMENTS_PER_TRANSACTION || taken.len() >= self.width {
                break;
            }
        }
        let error = match self.commit_changes(&draft.changes) {
            Ok(applied) => {
                if self.queue.is_empty() {
                    (self.doubted, self.width) = (false, usize::MAX);
                }
                return Ok(applied);
            }
            Err(error) => error,
        };
        self.state.undo(draft);
        if let (CommitError::Refused { .. }, [(key, target)], true) = (&error, taken.as_slice(), self.doubted) {
            self.failures.insert(key.clone(), (target.clone(), error.to_string()));
            self.stale = true;
            self.width = usize::MAX;
            return Ok(Applied { failed: 1, ..Applied::default() });
        }
        if self.doubted {
            self.width = taken.len().div_ceil(2);
        }
        for (key, target) in taken.into_iter().rev() {
            self.queue.push_front(key.clone());
            self.targets.insert(key, target);
        }
        let lost = matches!(error, CommitError::Failed(_));
        if lost || !self.doubted {
            self.begin_comparison(true);
        }
        self.doubted = true;
        if lost { Err(error.into()) } else { Ok(Applied::default()) }
    }

    /// Takes out chains that nobody has needed for a while: first the elements that lead to them, then they themselves, as
    /// kernels before 6.2 refuse to do both at once.
    fn prune(&mut self) -> Result<Applied, NftError> {
        if !self.doomed.is_empty() {
            let mut batch = Batch::new();
            let doomed = std::mem::take(&mut self.doomed);
            for class in doomed.difference(&self.built) {
                batch.delete_chain(&self.table, &class.to_string());
            }
            return Ok(self.commit(batch, 0, doomed.len())?);
        }
        // What is used is only looked for, among all ports, if there is that much that may not be.
        if self.built.len() <= SPARE_CLASSES {
            return Ok(Applied::default());
        }
        let unused: BTreeSet<Class> = self.built.difference(&self.state.classes()).copied().collect();
        if unused.len() <= SPARE_CLASSES {
            return Ok(Applied::default());
        }
        let mut changes = Changes::default();
        unused.iter().for_each(|class| changes.change(Key::Balancer(*class), Some(Datum::Chain), None));
        let applied = self.commit_changes(&changes)?;
        self.built.retain(|class| !unused.contains(class));
        self.doomed = unused;
        Ok(applied)
    }

    pub(super) fn commit_changes(&mut self, changes: &Changes) -> Result<Applied, CommitError> {
        if changes.is_empty() {
            return Ok(Applied::default());
        }
        let new: BTreeSet<Class> = changes.classes().filter(|class| !self.built.contains(class)).collect();
        let mut batch = Batch::new();
        changes.write(&mut batch, &self.table, &new);
        let applied = self.commit(batch, changes.len() + new.len(), new.len())?;
        for class in new {
            self.known.remove(&class.to_string());
            self.built.insert(class);
        }
        Ok(applied)
    }

    pub(super) fn commit(&mut self, batch: Batch, elements: usize, chains: usize) -> Result<Applied, CommitError> {
        if batch.is_empty() {
            return Ok(Applied::default());
        }
        let messages = batch.message_count();
        self.socket.commit(batch)?;
        self.commits = self.commits.wrapping_add(1);
        Ok(Applied { transactions: 1, messages, elements, chains, failed: 0 })
    }
}
