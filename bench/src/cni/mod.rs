//! CNI ADD and DEL: weft-cni, Debian's bridge with host-local, and the floor under both.
//!
//! ```text
//!   contenders   who is measured, and how each is called
//!   rounds       the calls in turn, timed
//!   verify       that each has done what it was timed for
//!   report       figures, ratios, promises
//!   show         tables
//! ```

mod contenders;
mod report;
mod rounds;
mod show;
mod verify;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use crate::Output;
use crate::machine::{self, Facts, Machine};
use crate::memory;
use crate::trace;
use contenders::{Contender, Verb};
use report::{Program, Report, Traces};

/// Standing pods at most: a /24 has 253 addresses, and some are left for the measurements.
const MOST_STANDING: u16 = 200;
/// Rounds at most: each takes three namespaces, which are made in advance.
const MOST_ROUNDS: u16 = 5000;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds that count: each is an ADD and a DEL of every program.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_ROUNDS)))]
    rounds: u16,
    /// Rounds before those, that do not count.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(..=i64::from(MOST_ROUNDS)))]
    warm_up: u16,
    /// Pods that each program has attached already, and that stay.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_STANDING)))]
    standing: u16,
    /// Prefix length of the subnet that pods get addresses of. flannel gives a node a /24.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u8).range(16..=24))]
    prefix: u8,
    /// Quiet time after each DEL, in milliseconds: the kernel goes on with it, and the next call shall not pay for that.
    #[arg(long, default_value_t = 40)]
    pause: u64,
    /// The folder of Debian's plugins.
    #[arg(long, default_value = "/usr/lib/cni")]
    peer_dir: PathBuf,
}

/// Measures and shows. Says whether all promises are kept.
pub(crate) fn run(options: &Options, output: Output) -> Result<bool> {
    // Before there are threads, and before time is spent on something that cannot be finished.
    let machine = Machine::new()?;
    let facts = Facts::gather()?;
    let contenders = contenders::all(&machine, &options.peer_dir, options.prefix)?;

    let timings = rounds::run(&contenders, options)?;
    let mut programs = Vec::new();
    for (contender, timings) in contenders.iter().zip(timings) {
        let (peak_kib, traces) = look_into(contender, &machine)?;
        programs.push(Program::new(contender, timings, peak_kib, traces)?);
    }
    let report = Report::new(facts, options, programs)?;
    match output {
        Output::Table => print!("{}", show::tables(&report)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report.promises_kept())
}

/// The memory of one ADD, and the system calls of an ADD and a DEL if there is strace.
fn look_into(contender: &Contender, machine: &Machine) -> Result<(u64, Option<Traces>)> {
    let pod = contender.pod("memory", 2)?;
    machine::enter(contender.host())?;
    let peak = memory::peak(&contender.call(Verb::Add, &pod))?;
    contender.call(Verb::Del, &pod).time()?;
    if !weft_tests::trace::is_available() {
        return Ok((peak, None));
    }
    let pod = contender.pod("trace", 3)?;
    let folder = machine.path("trace");
    machine::enter(contender.host())?;
    let add = trace::trace(&contender.call(Verb::Add, &pod), &folder)?;
    let del = trace::trace(&contender.call(Verb::Del, &pod), &folder)?;
    ensure!(!add.requests.is_empty(), "strace shows no netlink request of {}: is it too old?", contender.name());
    Ok((peak, Some(Traces { add, del })))
}
