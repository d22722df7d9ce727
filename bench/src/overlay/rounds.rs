//! What is done with a contender, and what is measured of it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use weft_tests::etcd::Etcd;
use weft_tests::process::ProcessId;
use weft_tests::trace::{self, Attached, Request, Trace};

use super::Options;
use super::contenders::Contender;
use super::leases::{self, Change, Peer};
use super::watch::{Watch, objects};
use crate::site::Site;
use crate::usage::Usage;

/// How long a single change may take.
const CHANGE_LIMIT: Duration = Duration::from_secs(30);
/// Leases that are renewed at a time.
const RENEWED_AT_ONCE: u16 = 20;

/// What was measured of one contender in one round.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// `None`: not within the limit. Then nothing more was measured.
    pub(crate) cold: Option<Cold>,
    /// Of each kind, how long single changes took.
    pub(crate) changes: Vec<Duration>,
    /// The most messages to the kernel that write, over all kinds of change.
    pub(crate) messages: Option<usize>,
    pub(crate) idle: Option<Idle>,
    /// After the changes.
    pub(crate) usage: Option<Usage>,
    pub(crate) restart: Option<Restart>,
}

/// A start with an empty kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cold {
    /// From before the start of the process to the last object.
    pub(crate) took: Duration,
    /// Its passes, by its own account.
    pub(crate) own: Option<Duration>,
    /// Processor time.
    pub(crate) cpu: Duration,
}

/// Every other node has renewed its lease once, and nothing else has happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    /// The part of a core that it took, in percent.
    pub(crate) percent: f64,
    /// Kernel objects that have changed.
    pub(crate) changes: usize,
    /// Messages to the kernel that write, when all leases were renewed once more.
    pub(crate) messages: Option<usize>,
}

/// A kill and a start with unchanged leases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Restart {
    /// Until it says that it is ready.
    pub(crate) took: Duration,
    /// Kernel objects that have changed until it was quiet.
    pub(crate) changes: usize,
    /// Messages to the kernel that write, in another such restart.
    pub(crate) messages: Option<usize>,
}

/// One contender on one node.
pub(crate) struct Round<'a> {
    pub(crate) contender: &'a mut dyn Contender,
    pub(crate) site: &'a Site,
    pub(crate) etcd: &'a Etcd,
    pub(crate) folder: &'a Path,
    pub(crate) peers: u16,
    pub(crate) options: &'a Options,
}

impl Round<'_> {
    /// Measures a contender that has not been started yet.
    ///
    /// # Errors
    /// When it ends, or does not do what it was timed for.
    pub(crate) fn run(mut self) -> Result<Sample> {
        let mut sample = Sample::default();
        leases::provide(self.etcd, self.peers)?;
        let mut watch = Watch::open(&self.site.node)?;
        sample.cold = self.cold(&mut watch)?;
        let Some(Cold { took, .. }) = sample.cold else {
            self.tell(&format!("not programmed within {} s", self.options.limit));
            return Ok(sample);
        };
        self.tell(&format!("cold in {:.3} s", took.as_secs_f64()));
        self.changes(&mut watch, &mut sample)?;
        let longest = sample.changes.iter().max().copied().unwrap_or_default();
        self.tell(&format!("{} changes, the longest {:.4} s", sample.changes.len(), longest.as_secs_f64()));
        let idle = self.idle(&mut watch)?;
        self.tell(&format!("leases renewed: {:.2} % of a core, {} changes", idle.percent, idle.changes));
        sample.idle = Some(idle);
        sample.usage = Some(Usage::of(self.process()?)?);
        let restart = self.restart(&mut watch)?;
        self.tell(&format!("restarted: {:.3} s, {} changes", restart.took.as_secs_f64(), restart.changes));
        sample.restart = Some(restart);
        Ok(sample)
    }

    fn tell(&self, what: &str) {
        eprintln!("{} peers, {}: {what}", self.peers, self.contender.name());
    }

    fn process(&self) -> Result<ProcessId> {
        self.contender.process().context("not started")
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.options.limit)
    }

    fn alive(&self) -> Result<()> {
        ensure!(self.process()?.alive(), "{} has ended", self.contender.name());
        Ok(())
    }

    fn cold(&mut self, watch: &mut Watch) -> Result<Option<Cold>> {
        let wanted = usize::from(self.peers) * 3;
        let begin = Instant::now();
        self.contender.start(self.etcd, &[])?;
        let seen = watch.settle(self.limit(), |seen| seen.changes >= wanted)?;
        self.alive()?;
        let Some(last) = seen.and_then(|seen| seen.last) else { return Ok(None) };
        let there = objects(&self.site.node)?;
        ensure!(there == [usize::from(self.peers); 3], "there are {there:?} neighbours, FDB entries and routes");
        let (own, usage) = (self.contender.own_time()?, Usage::of(self.process()?)?);
        Ok(Some(Cold { took: last.saturating_duration_since(begin), own, cpu: usage.cpu }))
    }

    /// Another node comes, changes and goes, again and again.
    fn changes(&self, watch: &mut Watch, sample: &mut Sample) -> Result<()> {
        let mut peer = Peer::new(self.peers + 1);
        for _ in 0..self.options.changes {
            for change in Change::ALL {
                let begin = Instant::now();
                peer = leases::apply(self.etcd, peer, change)?;
                let seen = watch.settle(CHANGE_LIMIT, |seen| seen.changes > 0)?;
                let last = seen.and_then(|seen| seen.last).with_context(|| format!("{change:?}: nothing happens"))?;
                sample.changes.push(last.saturating_duration_since(begin));
            }
        }
        if !trace::is_available() {
            return Ok(());
        }
        for change in Change::ALL {
            let attached = Attached::to(self.process()?, &self.folder.join("trace"))?;
            peer = leases::apply(self.etcd, peer, change)?;
            watch.settle(CHANGE_LIMIT, |seen| seen.changes > 0)?.with_context(|| format!("{change:?}, traced"))?;
            let count = writes(&attached.finish()?);
            sample.messages = Some(sample.messages.map_or(count, |most| most.max(count)));
        }
        Ok(())
    }

    /// All leases are renewed once, spread over the time; then once more, all at once and traced.
    fn idle(&self, watch: &mut Watch) -> Result<Idle> {
        let (process, etcd, peers) = (self.process()?, self.etcd, self.peers);
        let (before, begin) = (Usage::of(process)?, Instant::now());
        let span = Duration::from_secs(self.options.idle);
        let ((), seen) = watch.during(|| renew_over(etcd, peers, span))?;
        let (used, took) = (Usage::of(process)?.cpu.saturating_sub(before.cpu), begin.elapsed());
        let mut messages = None;
        if trace::is_available() {
            let attached = Attached::to(process, &self.folder.join("trace"))?;
            watch.during(|| leases::renew(etcd, 1..=peers))?;
            messages = Some(writes(&attached.finish()?));
        }
        Ok(Idle { percent: used.as_secs_f64() / took.as_secs_f64() * 100.0, changes: seen.changes, messages })
    }

    fn restart(&mut self, watch: &mut Watch) -> Result<Restart> {
        self.process()?.kill();
        let begin = Instant::now();
        self.contender.start(self.etcd, &[])?;
        let (contender, mut took) = (&*self.contender, None);
        let seen = watch.settle(self.limit(), |_| {
            let ready = contender.is_ready();
            if ready && took.is_none() {
                took = Some(begin.elapsed());
            }
            // What is begun only once it is ready belongs to the restart.
            took.is_some_and(|took| begin.elapsed() > took + AFTERWARDS)
        })?;
        let (Some(seen), Some(took)) = (seen, took) else { bail!("not ready again within {} s", self.options.limit) };
        self.alive()?;
        Ok(Restart { took, changes: seen.changes, messages: self.traced_restart(watch)? })
    }

    fn traced_restart(&mut self, watch: &mut Watch) -> Result<Option<usize>> {
        if !trace::is_available() {
            return Ok(None);
        }
        self.process()?.kill();
        let folder = self.folder.join("trace");
        self.contender.start(self.etcd, &trace::wrapper(&folder)?)?;
        let (contender, mut ready) = (&*self.contender, None);
        watch.settle(self.limit(), |_| {
            if ready.is_none() && contender.is_ready() {
                ready = Some(Instant::now());
            }
            ready.is_some_and(|ready| ready.elapsed() > AFTERWARDS)
        })?;
        let strace = self.process()?;
        child_of(strace)?.kill();
        ensure!(strace.end(CHANGE_LIMIT), "strace goes on without its process");
        Ok(Some(writes(&trace::read(&folder)?)))
    }
}

/// How long a restarted daemon is watched once it is ready.
const AFTERWARDS: Duration = Duration::from_secs(2);

fn writes(trace: &Trace) -> usize {
    trace.requests.iter().filter(|request| Request::is_write(request)).count()
}

/// Renews each lease once.
fn renew_over(etcd: &Etcd, peers: u16, span: Duration) -> Result<()> {
    let begin = Instant::now();
    let batches = u32::from(peers.div_ceil(RENEWED_AT_ONCE));
    for batch in 0..batches {
        let first = u16::try_from(batch)? * RENEWED_AT_ONCE + 1;
        leases::renew(etcd, first..=(first + RENEWED_AT_ONCE - 1).min(peers))?;
        let due = span * (batch + 1) / batches;
        crate::pause::pause(due.saturating_sub(begin.elapsed()));
    }
    Ok(())
}

/// The only process that another has started.
fn child_of(process: ProcessId) -> Result<ProcessId> {
    let path = format!("/proc/{pid}/task/{pid}/children", pid = process.pid);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let child = text.split_whitespace().next().and_then(|word| word.parse().ok()).and_then(ProcessId::of);
    child.with_context(|| format!("{} has no child", process.pid))
}
