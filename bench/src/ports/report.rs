//! Figures, ratios, promises.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Options;
use super::contenders::NAMES;
use super::rounds::Timings;
use crate::machine::Facts;
use crate::promise::Promise;
use crate::stats::Latency;
use crate::table::{milliseconds, numbers_to_the_right, promises, table};

/// One ADD takes at most this part of what Debian's plugins take (medians).
const ADD_OVER_PEER: f64 = 1.0 / 10.0;
/// The same of a DEL.
const DEL_OVER_PEER: f64 = 1.0 / 8.0;
/// All ADDs at once take at most this part of what Debian's plugins take (medians).
const BURST_OVER_PEER: f64 = 1.0 / 20.0;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Facts,
    rounds: u16,
    burst: u16,
    bursts: u16,
    lists: Vec<Figures>,
    promises: Vec<Promise>,
}

/// What was measured of one list.
#[derive(Debug, Serialize)]
struct Figures {
    name: &'static str,
    add: Latency,
    del: Latency,
    /// From the first start to the last end.
    burst_add: Latency,
    burst_del: Latency,
}

impl Report {
    /// Of the lists in the order of [`NAMES`].
    pub(crate) fn new(machine: Facts, options: &Options, serial: &[Timings; 2], bursts: &[Timings; 2]) -> Result<Self> {
        let latency = |samples: &[Duration]| Latency::of(samples.to_vec()).context("nothing was measured");
        let figures = |who: usize| {
            Ok::<_, anyhow::Error>(Figures {
                name: NAMES[who],
                add: latency(&serial[who].add)?,
                del: latency(&serial[who].del)?,
                burst_add: latency(&bursts[who].add)?,
                burst_del: latency(&bursts[who].del)?,
            })
        };
        let (weft, peer) = (figures(0)?, figures(1)?);
        let promise = |what: &str, ours: Latency, theirs: Latency, limit| {
            let ratio = ours.p50.as_secs_f64() / theirs.p50.as_secs_f64();
            Promise::new(format!("{what}, {} over {}", weft.name, peer.name), ratio, limit)
        };
        let at_once = format!("{} ADDs at once", options.burst);
        let promises = vec![
            promise("ADD p50", weft.add, peer.add, ADD_OVER_PEER),
            promise("DEL p50", weft.del, peer.del, DEL_OVER_PEER),
            promise(&at_once, weft.burst_add, peer.burst_add, BURST_OVER_PEER),
        ];
        let Options { rounds, burst, bursts, .. } = *options;
        Ok(Self { machine, rounds, burst, bursts, lists: vec![weft, peer], promises })
    }

    /// Whether weft keeps all of its promises.
    pub(crate) fn promises_kept(&self) -> bool {
        self.promises.iter().all(|promise| promise.kept)
    }

    /// For people, and for the README.
    pub(crate) fn tables(&self) -> String {
        let Self { machine, rounds, burst, bursts, .. } = self;
        let mut one = table(&["", "ADD min", "p50", "p90", "p99", "DEL min", "p50", "p90", "p99"]);
        let mut all = table(&["", "ADD min", "p50", "max", "DEL min", "p50", "max"]);
        for list in &self.lists {
            let figures = [list.add, list.del].into_iter().flat_map(|of| [of.min, of.p50, of.p90, of.p99]);
            one.add_row([list.name.to_owned()].into_iter().chain(figures.map(milliseconds)));
            let figures = [list.burst_add, list.burst_del].into_iter().flat_map(|of| [of.min, of.p50, of.max]);
            all.add_row([list.name.to_owned()].into_iter().chain(figures.map(milliseconds)));
        }
        numbers_to_the_right(&mut one, 1);
        numbers_to_the_right(&mut all, 1);
        [
            machine.to_string(),
            format!("one pod after the other, a host port each; {rounds} rounds, times in ms from start to reaped"),
            one.to_string(),
            format!(
                "{burst} pods at once, a host port each, both masquerading; {bursts} times, ms until the last was done"
            ),
            all.to_string(),
            promises(&self.promises).to_string(),
        ]
        .join("\n\n")
            + "\n"
    }
}
