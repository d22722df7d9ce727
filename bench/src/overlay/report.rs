//! Figures, ratios, promises.

use std::time::Duration;

use serde::Serialize;

use super::Options;
use super::rounds::Sample;
use crate::machine::Facts;
use crate::promise::Promise;
use crate::stats::{Latency, Spread};

/// Own time from cold with so many other nodes, in seconds.
const OWN: [(u16, f64); 2] = [(1000, 0.2), (5000, 1.0)];
/// Messages for one changed node.
const MESSAGES: f64 = 6.0;
/// The part of a core that it takes while 1000 leases are being renewed, in percent.
const IDLE_PERCENT: f64 = 0.5;
/// Resident memory with 1000 other nodes, in MiB.
const MEMORY: f64 = 20.0;
/// The number of other nodes for which these hold.
const USUAL: u16 = 1000;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Facts,
    pub(crate) rounds: u16,
    /// Seconds in which all leases were renewed once.
    pub(crate) renewed_within: u64,
    pub(crate) results: Vec<Figures>,
    pub(crate) promises: Vec<Promise>,
}

/// What was measured of one contender with one cluster, over all rounds. What it has none of is left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) peers: u16,
    pub(crate) name: &'static str,
    /// From the start of the process to the last object; nothing if it did not end within the limit.
    pub(crate) cold: Option<Spread>,
    /// Its own account of that; of the floor, all that it takes.
    pub(crate) own: Option<Spread>,
    /// Processor time for it.
    pub(crate) cpu: Option<Spread>,
    /// Single changes of all rounds, and how many.
    pub(crate) change: Option<Latency>,
    pub(crate) changes: usize,
    /// The most messages of one change.
    pub(crate) messages: Option<usize>,
    /// The largest part of a core while leases were renewed, in percent.
    pub(crate) idle_percent: Option<f64>,
    /// Kernel objects that have changed meanwhile, and messages that should change some, the most of all rounds.
    pub(crate) idle_changes: Option<usize>,
    pub(crate) idle_messages: Option<usize>,
    /// The largest of all rounds.
    pub(crate) rss_kib: Option<u64>,
    pub(crate) peak_kib: Option<u64>,
    /// Restarted with unchanged leases: until it was ready; objects that have changed, and messages, the most of all rounds.
    pub(crate) restart: Option<Spread>,
    pub(crate) restart_changes: Option<usize>,
    pub(crate) restart_messages: Option<usize>,
}

impl Figures {
    /// Of the floor.
    pub(crate) fn floor(peers: u16, times: Vec<Duration>) -> Self {
        Self { peers, name: "floor", own: Spread::of(times.into_iter()), ..Self::default() }
    }

    /// Of the samples of all rounds.
    pub(crate) fn of(peers: u16, name: &'static str, samples: &[Sample]) -> Self {
        let cold = || samples.iter().filter_map(|sample| sample.cold);
        let idle = || samples.iter().filter_map(|sample| sample.idle);
        let usage = || samples.iter().filter_map(|sample| sample.usage);
        let restart = || samples.iter().filter_map(|sample| sample.restart);
        let changes: Vec<Duration> = samples.iter().flat_map(|sample| sample.changes.iter().copied()).collect();
        Self {
            peers,
            name,
            cold: Spread::of(cold().map(|cold| cold.took)),
            own: Spread::of(cold().filter_map(|cold| cold.own)),
            cpu: Spread::of(cold().map(|cold| cold.cpu)),
            changes: changes.len(),
            change: Latency::of(changes),
            messages: samples.iter().filter_map(|sample| sample.messages).max(),
            idle_percent: idle().map(|idle| idle.percent).reduce(f64::max),
            idle_changes: idle().map(|idle| idle.changes).max(),
            idle_messages: idle().filter_map(|idle| idle.messages).max(),
            rss_kib: usage().map(|usage| usage.rss_kib).max(),
            peak_kib: usage().map(|usage| usage.peak_kib).max(),
            restart: Spread::of(restart().map(|restart| restart.took)),
            restart_changes: restart().map(|restart| restart.changes).max(),
            restart_messages: restart().filter_map(|restart| restart.messages).max(),
        }
    }
}

impl Report {
    /// Of all figures.
    pub(crate) fn new(machine: Facts, options: &Options, results: Vec<Figures>) -> Self {
        let promises = results.iter().filter(|figures| figures.name == "weft").flat_map(promises).collect();
        Self { machine, rounds: options.rounds, renewed_within: options.idle, results, promises }
    }

    /// Whether weft keeps all of its promises.
    pub(crate) fn promises_kept(&self) -> bool {
        self.promises.iter().all(|promise| promise.kept)
    }
}

/// What is promised of weft with so many other nodes. A figure that is missing is a promise broken, but for those that want strace.
fn promises(weft: &Figures) -> Vec<Promise> {
    let peers = weft.peers;
    let promise = |what: &str, value: Option<f64>, limit| {
        Promise::new(format!("{peers} peers: {what}"), value.unwrap_or(f64::INFINITY), limit)
    };
    let counted = |count: Option<usize>| count.and_then(|count| u32::try_from(count).ok()).map(f64::from);
    let own = weft.own.map(|own| own.median.as_secs_f64());
    let mut promises: Vec<Promise> = OWN
        .iter()
        .filter(|(peers, _)| *peers == weft.peers)
        .map(|(_, limit)| promise("own time from cold, s", own, *limit))
        .collect();
    promises.push(promise("kernel objects changed while leases are renewed", counted(weft.idle_changes), 0.0));
    promises.push(promise("kernel objects changed by a restart", counted(weft.restart_changes), 0.0));
    for (what, count, limit) in [
        ("most messages for one changed node", weft.messages, MESSAGES),
        ("messages that write while leases are renewed", weft.idle_messages, 0.0),
        ("messages that write in a restart", weft.restart_messages, 0.0),
    ] {
        promises.extend(counted(count).map(|count| promise(what, Some(count), limit)));
    }
    if peers == USUAL {
        let mebibytes = weft.rss_kib.and_then(|kib| u32::try_from(kib).ok()).map(|kib| f64::from(kib) / 1024.0);
        promises.push(promise("a core while leases are renewed, %", weft.idle_percent, IDLE_PERCENT));
        promises.push(promise("resident memory, MiB", mebibytes, MEMORY));
    }
    promises
}
