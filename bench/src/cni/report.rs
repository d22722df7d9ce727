//! Figures, ratios, promises.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use weft_tests::trace::Trace;

use super::Options;
use super::contenders::Contender;
use super::rounds::Timings;
use crate::machine::Facts;
use crate::promise::Promise;
use crate::stats::Latency;

/// ADD takes at most so many times what the floor takes (medians).
const ADD_OVER_FLOOR: f64 = 1.5;
/// ADD takes at most this part of what Debian's plugins take (medians).
const ADD_OVER_PEER: f64 = 0.25;
/// The plugin's binary, in MiB.
const SIZE: f64 = 2.0;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Facts,
    pub(crate) rounds: u16,
    pub(crate) warm_up: u16,
    pub(crate) standing: u16,
    /// Prefix length of the pods' subnet.
    pub(crate) prefix: u8,
    pub(crate) programs: Vec<Program>,
    pub(crate) promises: Vec<Promise>,
    /// DEL of weft-cni over that of the others (medians). Nothing is promised.
    pub(crate) del_over_floor: f64,
    pub(crate) del_over_peer: f64,
    /// Whether the floor has sent the requests that weft-cni has sent; nothing without strace.
    pub(crate) floor_sends_the_same: Option<bool>,
}

/// What was measured of one program.
#[derive(Debug, Serialize)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) binaries: Vec<Binary>,
    /// The largest resident set during an ADD of the process that the runtime starts.
    pub(crate) peak_kib: u64,
    pub(crate) add: Latency,
    pub(crate) del: Latency,
    /// What it asks of the kernel; nothing without strace.
    pub(crate) traces: Option<Traces>,
}

/// A file that it takes.
#[derive(Debug, Serialize)]
pub(crate) struct Binary {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// What one ADD and one DEL ask of the kernel.
#[derive(Debug, Serialize)]
pub(crate) struct Traces {
    pub(crate) add: Trace,
    pub(crate) del: Trace,
}

impl Program {
    /// Of a contender's samples.
    pub(crate) fn new(contender: &Contender, timings: Timings, peak_kib: u64, traces: Option<Traces>) -> Result<Self> {
        let binaries = contender.sizes()?.into_iter().map(|(name, bytes)| Binary { name, bytes }).collect();
        let latency = |samples| Latency::of(samples).context("nothing was measured");
        let (add, del) = (latency(timings.add)?, latency(timings.del)?);
        Ok(Self { name: contender.name(), binaries, peak_kib, add, del, traces })
    }
}

impl Report {
    /// Of the programs in the order of [`super::contenders::all`].
    pub(crate) fn new(machine: Facts, options: &Options, programs: Vec<Program>) -> Result<Self> {
        let [weft, peer, floor] = &*programs else { anyhow::bail!("{} programs instead of 3", programs.len()) };
        let bytes = weft.binaries.iter().map(|binary| binary.bytes).sum::<u64>();
        let mebibytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / f64::from(1024 * 1024);
        let promises = vec![
            Promise::new("ADD p50, weft-cni over floor", ratio(weft.add.p50, floor.add.p50), ADD_OVER_FLOOR),
            Promise::new(
                "ADD p50, weft-cni over bridge + host-local",
                ratio(weft.add.p50, peer.add.p50),
                ADD_OVER_PEER,
            ),
            Promise::new("size of weft-cni, MiB", mebibytes, SIZE),
        ];
        let floor_sends_the_same =
            weft.traces.as_ref().zip(floor.traces.as_ref()).map(|(weft, floor)| {
                weft.add.requests == floor.add.requests && weft.del.requests == floor.del.requests
            });
        let del_over_floor = ratio(weft.del.p50, floor.del.p50);
        let del_over_peer = ratio(weft.del.p50, peer.del.p50);
        Ok(Self {
            machine,
            rounds: options.rounds,
            warm_up: options.warm_up,
            standing: options.standing,
            prefix: options.prefix,
            programs,
            promises,
            del_over_floor,
            del_over_peer,
            floor_sends_the_same,
        })
    }

    /// Whether weft keeps all of its promises, and the floor is still the floor.
    pub(crate) fn promises_kept(&self) -> bool {
        self.promises.iter().all(|promise| promise.kept) && self.floor_sends_the_same != Some(false)
    }
}

fn ratio(dividend: Duration, divisor: Duration) -> f64 {
    dividend.as_secs_f64() / divisor.as_secs_f64()
}
