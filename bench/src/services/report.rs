//! Figures, ratios, promises.

use std::time::Duration;

use serde::Serialize;

use super::Options;
use super::cluster::Shape;
use super::contenders::Mode;
use super::rounds::Sample;
use crate::flow::Outcome;
use crate::machine::Facts;
use crate::promise::Promise;
use crate::stats::{Latency, Spread};

/// Own time from cold with 10,000 Services of 4 endpoints, and with 30,000 of 10, in seconds.
const OWN: [(Shape, f64); 2] =
    [(Shape { services: 10_000, endpoints: 4 }, 1.0), (Shape { services: 30_000, endpoints: 10 }, 5.0)];
/// The same over that of kube-proxy, with 10,000.
const OWN_OVER_PEER: f64 = 0.1;
/// With IPVS, from cold and at a change, over kube-proxy.
const IPVS_OVER_PEER: f64 = 0.2;
/// The 99th percentile of a change with 30,000 Services, in milliseconds.
const CHANGE: f64 = 20.0;
/// Netlink messages of it.
const MESSAGES: f64 = 10.0;
/// Resident memory with 10,000 Services of 4 endpoints, in MiB.
const MEMORY: f64 = 60.0;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Facts,
    /// Where both keep Services.
    pub(crate) mode: Mode,
    pub(crate) rounds: u16,
    pub(crate) seed: u64,
    /// How weft is given the cluster, and how its peer.
    pub(crate) sources: &'static str,
    /// What to know about the peer; empty if it is kube-proxy.
    pub(crate) remark: &'static str,
    pub(crate) results: Vec<Figures>,
    pub(crate) promises: Vec<Promise>,
}

/// What was measured of one contender with one cluster, over all rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) shape: Shape,
    pub(crate) name: &'static str,
    /// From the start of the process to the last transaction; nothing if it did not end within the limit.
    pub(crate) cold: Option<Spread>,
    /// Its own account of that.
    pub(crate) own: Option<Spread>,
    /// Processor time for it.
    pub(crate) cpu: Option<Spread>,
    /// Single changes of all rounds, and how many.
    pub(crate) change: Option<Latency>,
    pub(crate) changes: usize,
    /// The most netlink messages of one change, by the contender's own account.
    pub(crate) messages: Option<f64>,
    /// After them, the largest of all rounds.
    pub(crate) rss_kib: Option<u64>,
    pub(crate) peak_kib: Option<u64>,
    /// Restarted with an unchanged cluster: until it was done, and the most transactions.
    pub(crate) restart: Option<Spread>,
    pub(crate) restart_transactions: Option<u32>,
    /// Restarted with every endpoint changed, and what the flow through another Service has lost in all rounds.
    pub(crate) resync: Option<Spread>,
    pub(crate) flow: Option<Outcome>,
}

impl Figures {
    /// Of the samples of all rounds.
    pub(crate) fn new(shape: Shape, name: &'static str, samples: &[Sample]) -> Self {
        let cold = || samples.iter().filter_map(|sample| sample.cold);
        let changes: Vec<Duration> = samples.iter().flat_map(|sample| sample.changes.took.iter().copied()).collect();
        let messages = samples.iter().filter_map(|sample| sample.changes.messages);
        let usage = || samples.iter().filter_map(|sample| sample.usage);
        let restart = || samples.iter().filter_map(|sample| sample.restart);
        let resync = || samples.iter().filter_map(|sample| sample.resync);
        Self {
            shape,
            name,
            cold: Spread::of(cold().map(|cold| cold.took)),
            own: Spread::of(cold().filter_map(|cold| cold.own)),
            cpu: Spread::of(cold().filter_map(|cold| cold.cpu)),
            changes: changes.len(),
            change: Latency::of(changes),
            messages: messages.reduce(f64::max),
            rss_kib: usage().map(|usage| usage.rss_kib).max(),
            peak_kib: usage().map(|usage| usage.peak_kib).max(),
            restart: Spread::of(restart().map(|restart| restart.took)),
            restart_transactions: restart().map(|restart| restart.transactions).max(),
            resync: Spread::of(resync().map(|resync| resync.took)),
            flow: resync().map(|resync| resync.flow).reduce(Outcome::and),
        }
    }
}

impl Report {
    /// Of all figures; those of weft and of its peer come in turn.
    pub(crate) fn new(machine: Facts, options: &Options, remark: &'static str, results: Vec<Figures>) -> Self {
        let promises = results
            .chunk_by(|one, next| one.shape == next.shape)
            .flat_map(|contenders| promises(options.mode, contenders))
            .collect();
        let sources = "weft: the etcd source, a real etcd on a tmpfs; kube-proxy: lists and watches in JSON from a stand-in for \
                       the API server, without TLS. Own time leaves both out";
        Self {
            machine,
            mode: options.mode,
            rounds: options.rounds,
            seed: options.seed,
            sources,
            remark,
            results,
            promises,
        }
    }

    /// Whether weft keeps all of its promises.
    pub(crate) fn promises_kept(&self) -> bool {
        self.promises.iter().all(|promise| promise.kept)
    }
}

/// What is promised of weft with a cluster of this shape. A figure that is missing is a promise broken.
fn promises(mode: Mode, contenders: &[Figures]) -> Vec<Promise> {
    let [weft, rest @ ..] = contenders else { return Vec::new() };
    let peer = rest.first();
    let mut promises = match mode {
        Mode::Nftables => nftables(weft, peer),
        Mode::Ipvs => peer.map_or_else(Vec::new, |peer| ipvs(weft, peer)),
    };
    let transactions = weft.restart_transactions.map_or(f64::INFINITY, f64::from);
    promises.push(Promise::new(format!("{}: transactions of a restart, unchanged", weft.shape), transactions, 0.0));
    let lost = weft.flow.map(|flow| flow.lost + flow.fresh_lost);
    let lost = lost.and_then(|lost| u32::try_from(lost).ok()).map_or(f64::INFINITY, f64::from);
    promises.push(Promise::new(format!("{}: datagrams lost in a full resync", weft.shape), lost, 0.0));
    promises
}

fn nftables(weft: &Figures, peer: Option<&Figures>) -> Vec<Promise> {
    let Shape { services, .. } = weft.shape;
    let mut promises = Vec::new();
    let own = weft.own.map_or(f64::INFINITY, |own| own.median.as_secs_f64());
    for (_, limit) in OWN.iter().filter(|(shape, _)| *shape == weft.shape) {
        promises.push(Promise::new(format!("{}: own time from cold, s", weft.shape), own, *limit));
    }
    // The stand-in gives no account of itself. If the peer was not done within the limit, there is nothing to compare.
    if services >= 10_000
        && let Some(peer) = peer
        && let Some(theirs) = peer.own.or(peer.cold)
    {
        let ratio = own / theirs.median.as_secs_f64();
        promises.push(Promise::new(format!("{}: the same over {}", weft.shape, peer.name), ratio, OWN_OVER_PEER));
    }
    if services >= 30_000 {
        let p99 = weft.change.map_or(f64::INFINITY, |change| change.p99.as_secs_f64() * 1000.0);
        promises.push(Promise::new(format!("{}: one endpoint changed, p99, ms", weft.shape), p99, CHANGE));
        let messages = weft.messages.unwrap_or(f64::INFINITY);
        promises.push(Promise::new(format!("{}: the same, most netlink messages", weft.shape), messages, MESSAGES));
    }
    if weft.shape == OWN[0].0 {
        let mebibytes =
            weft.rss_kib.and_then(|kib| u32::try_from(kib).ok()).map_or(f64::INFINITY, |kib| f64::from(kib) / 1024.0);
        promises.push(Promise::new(format!("{}: resident memory, MiB", weft.shape), mebibytes, MEMORY));
    }
    promises
}

fn ipvs(weft: &Figures, peer: &Figures) -> Vec<Promise> {
    let ratio = |ours: Option<Duration>, theirs: Option<Duration>| {
        Some(ours.map_or(f64::INFINITY, |ours| ours.as_secs_f64()) / theirs?.as_secs_f64())
    };
    let cold = ratio(weft.cold.map(|cold| cold.median), peer.cold.map(|cold| cold.median));
    let change = ratio(weft.change.map(|change| change.p50), peer.change.map(|change| change.p50));
    let promise =
        |what, ratio| Promise::new(format!("{}: {what}, over {}", weft.shape, peer.name), ratio, IPVS_OVER_PEER);
    let cold = cold.map(|ratio| promise("from cold", ratio));
    cold.into_iter().chain(change.map(|ratio| promise("one endpoint changed, p50", ratio))).collect()
}
