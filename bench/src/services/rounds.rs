//! What is done with a contender, and what is measured of it.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use weft_tests::process::ProcessId;
use weft_tests::wait;

use super::Options;
use super::cluster::{Cluster, FLOW_ADDRESS, FLOW_PORT};
use super::contenders::{Contender, Mode};
use super::kernel::Kernel;
use crate::flow::{Flow, Outcome};
use crate::pause::pause;
use crate::site::{SERVER, Site};
use crate::usage::Usage;

/// How long the flow runs before anything happens to it, and after.
const CALM: Duration = Duration::from_secs(1);

/// What was measured of one contender in one round.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// `None`: not within the limit. Then nothing more was measured.
    pub(crate) cold: Option<Cold>,
    pub(crate) changes: Changes,
    /// After the changes; `None` of what is no daemon, as the rest.
    pub(crate) usage: Option<Usage>,
    pub(crate) restart: Option<Restart>,
    pub(crate) resync: Option<Resync>,
}

/// Single endpoints that moved.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// From before the object is handed to the store to the transaction, of each.
    pub(crate) took: Vec<Duration>,
    /// The most netlink messages of one, if the contender counts them.
    pub(crate) messages: Option<f64>,
}

/// A start with an empty kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cold {
    /// From before the start of the process to the last transaction.
    pub(crate) took: Duration,
    /// Its passes, by its own account.
    pub(crate) own: Option<Duration>,
    /// Processor time, that of children included.
    pub(crate) cpu: Option<Duration>,
}

/// A kill and a start with an unchanged cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Restart {
    /// Until it says that it is done.
    pub(crate) took: Duration,
    /// Transactions that it made.
    pub(crate) transactions: u32,
}

/// A kill, all endpoints of all Services changed, and a start, while the background flow runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resync {
    /// From the start to the last transaction.
    pub(crate) took: Duration,
    pub(crate) flow: Outcome,
}

/// One contender on one node.
pub(crate) struct Round<'a> {
    pub(crate) contender: &'a mut dyn Contender,
    pub(crate) site: &'a Site,
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) options: &'a Options,
    pub(crate) kernel: Kernel,
}

impl Round<'_> {
    /// Measures a contender that has not been started yet.
    ///
    /// # Errors
    /// When it ends, or does not do what it was timed for.
    pub(crate) fn run(mut self) -> Result<Sample> {
        let mut sample = Sample::default();
        self.contender.provide(self.cluster)?;
        let Some(took) = self.start()? else {
            self.tell(&format!("not programmed within {} s", self.options.limit));
            return Ok(sample);
        };
        self.tell(&format!("cold in {:.3} s", took.as_secs_f64()));
        let usage = self.usage()?;
        sample.cold = Some(Cold { took, own: self.contender.own_time()?, cpu: usage.map(|usage| usage.cpu) });

        sample.changes = self.changes()?;
        let longest = sample.changes.took.iter().max().copied().unwrap_or_default();
        self.tell(&format!("{} changes, the longest {:.4} s", sample.changes.took.len(), longest.as_secs_f64()));
        sample.usage = self.usage()?;
        if self.contender.is_daemon() {
            let restart = self.restart()?;
            self.tell(&format!(
                "unchanged: {:.3} s, {} transactions",
                restart.took.as_secs_f64(),
                restart.transactions
            ));
            let resync = self.resync()?;
            let Outcome { sent, lost, fresh, fresh_lost } = resync.flow;
            self.tell(&format!(
                "all changed: {:.3} s; lost {lost} of {sent} datagrams, {fresh_lost} of {fresh} new flows",
                resync.took.as_secs_f64()
            ));
            (sample.restart, sample.resync) = (Some(restart), Some(resync));
        }
        Ok(sample)
    }

    fn tell(&self, what: &str) {
        eprintln!("{} {}: {what}", self.cluster.shape(), self.contender.name());
    }

    fn usage(&self) -> Result<Option<Usage>> {
        if !self.contender.is_daemon() {
            return Ok(None);
        }
        Usage::of(self.contender.process().context("not started")?).map(Some)
    }

    /// Starts it. Returns the time until the last transaction, after which all Services are there and it says so itself.
    fn start(&mut self) -> Result<Option<Duration>> {
        let services = self.cluster.shape().services as usize;
        let begin = Instant::now();
        self.contender.start()?;
        let (contender, cluster) = (&*self.contender, &*self.cluster);
        let alive = || contender.process().is_some_and(ProcessId::alive);
        // It may not listen yet.
        let synced = || contender.synced().unwrap_or_default() || !alive();
        let last = self.kernel.settle(Duration::from_secs(self.options.limit), synced, |kernel| {
            let count = kernel.services(contender.frontends(), cluster)?;
            if count < services && !alive() {
                bail!("{} has ended with {count} of {services} Services there", contender.name());
            }
            Ok(count >= services)
        })?;
        Ok(last.map(|last| last.saturating_duration_since(begin)))
    }

    /// One endpoint after the other moves, until there were enough changes or the time for them is over.
    fn changes(&mut self) -> Result<Changes> {
        let (mut done, begin) = (Changes::default(), Instant::now());
        let limit = Duration::from_secs(self.options.limit);
        self.await_calm()?;
        let mut messages = self.contender.messages()?;
        while done.took.len() < self.options.changes && begin.elapsed() < Duration::from_secs(self.options.budget) {
            let number = self.cluster.change();
            let slice = self.cluster.slice(number, done.took.len() as u64 + 2, Some(&now()));
            let (contender, cluster, kernel) = (&*self.contender, &*self.cluster, &mut self.kernel);
            let before = kernel.generation()?;
            let start = Instant::now();
            let end = std::thread::scope(|scope| {
                let publishing = scope.spawn(|| contender.publish(number, &slice));
                let end = kernel.await_change(before, cluster, number, limit);
                match publishing.join() {
                    Ok(published) => published.and(end),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            })?;
            done.took.push(end.saturating_duration_since(start));
            if done.took.len() == 1 {
                self.verify(number)?;
            }
            self.await_calm()?;
            let sent = self.contender.messages()?;
            let more = sent.zip(messages).map(|(sent, before)| sent - before);
            done.messages = more.map(|more| done.messages.map_or(more, |most| most.max(more)));
            messages = sent;
        }
        Ok(done)
    }

    /// kube-proxy deletes some time after a change what the change has made superfluous; that is not the next change.
    fn await_calm(&mut self) -> Result<()> {
        let limit = Duration::from_secs(self.options.limit);
        self.kernel.await_calm(self.contender.pause(), limit).with_context(|| self.contender.name())
    }

    /// That a change has arrived: nobody is fast by doing something else. Only where listing everything is quick; in IPVS
    /// the judge has looked.
    fn verify(&self, number: u32) -> Result<()> {
        const LISTABLE: u32 = 2000;
        if self.cluster.shape().services > LISTABLE || self.options.mode == Mode::Ipvs {
            return Ok(());
        }
        let rules = self.site.node.tool("nft", &["list", "ruleset"])?;
        for address in self.cluster.endpoints(number) {
            let text = format!("{address} . 8080");
            ensure!(rules.contains(&text), "{} has not programmed {address}", self.contender.name());
        }
        Ok(())
    }

    /// Kills it and starts it again. Nothing has changed.
    fn restart(&mut self) -> Result<Restart> {
        self.kill()?;
        let (before, begin) = (self.kernel.generation()?, Instant::now());
        self.contender.start()?;
        let contender = &*self.contender;
        wait::until(Duration::from_secs(self.options.limit), "a restarted daemon to be done", || {
            contender.synced().unwrap_or_default()
        })?;
        let took = begin.elapsed();
        self.await_calm()?;
        Ok(Restart { took, transactions: self.kernel.generation()?.wrapping_sub(before) })
    }

    /// Kills it, changes everything, and starts it again, while the flow runs.
    fn resync(&mut self) -> Result<Resync> {
        let Site { client, server, .. } = self.site;
        let flow = Flow::start(client, (FLOW_ADDRESS, FLOW_PORT).into(), server, (SERVER, FLOW_PORT).into())?;
        pause(CALM);
        self.kill()?;
        self.cluster.change_all();
        self.contender.provide(self.cluster)?;
        let took = self.start()?;
        pause(CALM);
        let flow = flow.finish()?;
        let took = took.with_context(|| format!("not programmed again within {} s", self.options.limit))?;
        ensure!(flow.lost < flow.sent, "{}: nothing of the background flow was answered", self.contender.name());
        Ok(Resync { took, flow })
    }

    fn kill(&self) -> Result<()> {
        self.contender.process().context("not started")?.kill();
        Ok(())
    }
}

/// This moment, RFC 3339 in UTC, as controllers write it into a slice.
fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

/// The date that so many days after 1970-01-01 is.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(19_783), (2024, 3, 1));
        assert_eq!(civil(20_453), (2025, 12, 31));
        assert_eq!(now().len(), "2026-01-01T00:00:00.000000Z".len());
    }
}
