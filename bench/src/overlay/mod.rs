//! The other nodes: how a daemon brings them into the kernel, and what it costs to keep them there. weft's agent and flanneld,
//! each with an etcd of its own, and the floor: the same messages to the kernel and nothing else.
//!
//! ```text
//!   leases       the other nodes, and how they change
//!   contenders   what all are asked; weft, flanneld: who they are
//!   floor        the least that it takes
//!   watch        the judge: what the kernel says that was changed
//!   rounds       what is done with each, timed
//!   report       figures, ratios, promises
//!   show         tables
//! ```

mod contenders;
mod flanneld;
mod floor;
mod leases;
mod report;
mod rounds;
mod show;
mod watch;
mod weft;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use weft_tests::etcd::Etcd;
use weft_tests::lab::tail;
use weft_tests::{node, trace};

use crate::machine::{Facts, Machine};
use crate::site::Site;
use crate::{Output, agent, flannel};
pub(crate) use watch::{Seen, Watch};

use contenders::Contender;
use report::{Figures, Report};
use rounds::{Round, Sample};

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Clusters to measure with: other nodes of each, at most 8000.
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000,5000", value_parser = clap::value_parser!(u16).range(2..=8000))]
    pub(crate) peers: Vec<u16>,
    /// Rounds with each: all contenders in turn, the first of them alternating.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) rounds: u16,
    /// Single changes of each kind in a round.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) changes: u16,
    /// Seconds of each round in which nothing happens but that every other node renews its lease.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) idle: u64,
    /// Seconds after which a contender that is not done is given up.
    #[arg(long, default_value_t = 300)]
    pub(crate) limit: u64,
    /// Measure weft without a peer: nothing is said of how it compares.
    #[arg(long)]
    pub(crate) alone: bool,
}

/// Measures and shows. Says whether all promises are kept.
pub(crate) fn run(options: &Options, output: Output) -> Result<bool> {
    // Before there are threads.
    let machine = Machine::new()?;
    let facts = Facts::gather()?;
    let flanneld = node::peers::find(flannel::BINARY).filter(|_| !options.alone);
    if flanneld.is_none() && !options.alone {
        eprintln!(
            "There is no flanneld (WEFT_PEERS names no folder that holds it): weft is measured beside the floor only."
        );
    }
    if !trace::is_available() {
        eprintln!("There is no strace: messages are not counted.");
    }
    let mut results = Vec::new();
    for &peers in &options.peers {
        let mut floors: Vec<Duration> = Vec::new();
        let mut samples: [Vec<Sample>; 2] = Default::default();
        let names = ["weft", "flanneld"];
        for round in 0..options.rounds {
            let order: &[usize] = match (flanneld.is_some(), round % 2) {
                (false, _) => &[0],
                (true, 0) => &[0, 1],
                (true, _) => &[1, 0],
            };
            for &who in order {
                samples[who].push(measure(&machine, peers, who, flanneld.as_ref(), options)?);
            }
            floors.push(floor::time(peers)?);
        }
        results.push(Figures::floor(peers, floors));
        let measured = names.into_iter().zip(&samples).filter(|(_, samples)| !samples.is_empty());
        results.extend(measured.map(|(name, samples)| Figures::of(peers, name, samples)));
    }
    let report = Report::new(facts, options, results);
    match output {
        Output::Table => print!("{}", show::tables(&report)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report.promises_kept())
}

/// One round of weft (0) or of flanneld (1), on a new node.
fn measure(machine: &Machine, peers: u16, who: usize, flanneld: Option<&PathBuf>, options: &Options) -> Result<Sample> {
    let site = Site::new()?;
    let folder = machine.path("contender");
    std::fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let etcd = Etcd::start(&site.node, "127.0.0.1:2379".parse()?, &folder.join("etcd"))?;
    let mut contender: Box<dyn Contender> = match (who, flanneld) {
        (1, Some(binary)) => Box::new(flanneld::Flanneld::new(binary.clone(), &site.node, &folder)),
        _ => Box::new(weft::Weft::new(&site.node, &folder)),
    };
    let round = Round { contender: &mut *contender, site: &site, etcd: &etcd, folder: &folder, peers, options };
    let sample =
        round.run().with_context(|| format!("{peers} peers, {}: {}", contender.name(), last_lines(&folder)))?;
    // First the processes, then their files.
    drop(site);
    std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    Ok(sample)
}

/// The end of the logs: the folder goes away with the process.
fn last_lines(folder: &std::path::Path) -> String {
    [agent::LOG, flannel::LOG].map(|name| tail(&folder.join(name), 10)).concat()
}
