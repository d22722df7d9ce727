//! Pods with a host port each: weft-cni, and Debian's bridge with portmap; one after the other, and all at once.
//!
//! ```text
//!   contenders   the lists
//!   rounds       the calls, timed, and that they have done what they were timed for
//!   report       figures, ratios, promises
//! ```

mod contenders;
mod report;
mod rounds;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::Output;
use crate::machine::{Facts, Machine};
use report::Report;

/// Pods at once at most: host ports follow from their numbers, and a /16 has room for more.
const MOST_AT_ONCE: u16 = 1000;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Pods one after the other that count: each an ADD and a DEL of every list.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Rounds before those, that do not count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(..=1000))]
    warm_up: u16,
    /// Pods at once. 110 are what kubelet starts on a node at most.
    #[arg(long, default_value_t = 110, value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_AT_ONCE)))]
    burst: u16,
    /// How often.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    bursts: u16,
    /// Quiet time after each DEL and each burst, in milliseconds: the kernel goes on with it, and the next shall not pay for
    /// that.
    #[arg(long, default_value_t = 40)]
    pause: u64,
    /// The folder of Debian's plugins.
    #[arg(long, default_value = "/usr/lib/cni")]
    peer_dir: PathBuf,
}

/// Measures and shows. Says whether all promises are kept.
pub(crate) fn run(options: &Options, output: Output) -> Result<bool> {
    // Before there are threads.
    let machine = Machine::new()?;
    let facts = Facts::gather()?;
    let serial = rounds::serial(&contenders::serial(&machine, &options.peer_dir)?, options)?;
    let bursts = rounds::bursts(&contenders::burst(&machine, &options.peer_dir)?, options)?;
    let report = Report::new(facts, options, &serial, &bursts)?;
    match output {
        Output::Table => print!("{}", report.tables()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report.promises_kept())
}
