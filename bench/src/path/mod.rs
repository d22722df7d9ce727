//! From a pod to a pod on another node: weft, the same devices made by iproute2, and flannel with its chain of plugins.
//!
//! ```text
//!   pair         two nodes with a pod each
//!   networks     what all are asked; weft, plain, flannel: who they are
//!   measure      throughput and latency
//!   report       figures, ratios, promises, tables
//! ```

mod flannel;
mod measure;
mod networks;
mod pair;
mod plain;
mod report;
mod weft;

use anyhow::{Context, Result};
use clap::Args;
use weft_tests::node::peers;

use crate::Output;
use crate::machine::{Facts, Machine};
use networks::Network;
use report::{Report, Sample};

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds: all networks in turn, each of them first as often as the others.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: u16,
    /// Seconds of each transfer.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=60))]
    pub(crate) seconds: u16,
    /// Round trips of each round.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) trips: u32,
    /// Restarts of weft's agent, during which a thousand datagrams a second go through its network.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(0..=100))]
    pub(crate) restarts: u16,
}

/// Measures and shows. Says whether all promises are kept.
pub(crate) fn run(options: &Options, output: Output) -> Result<bool> {
    // Before there are threads.
    let machine = Machine::new()?;
    let facts = Facts::gather()?;
    peers::need("iperf3").context("Debian's package of the same name has it")?;
    let weft = weft::Weft::new(&machine.path("weft"))?;
    let plain = plain::Plain::new()?;
    let flannel = match peers::check(&flannel::PROGRAMS) {
        Ok(()) => Some(flannel::Flannel::new(&machine.path("flannel"))?),
        Err(missing) => {
            eprintln!("flannel is not measured: {missing}");
            None
        }
    };
    let networks: Vec<&dyn Network> =
        [Some(&weft as &dyn Network), Some(&plain), flannel.as_ref().map(|it| it as _)].into_iter().flatten().collect();
    for network in &networks {
        measure::verify(*network).with_context(|| network.name())?;
        measure::serve(*network, &machine.path(&format!("iperf3-{}.log", network.name())))?;
        // The first transfer finds caches cold and windows small.
        measure::throughput(*network, 1).with_context(|| network.name())?;
    }
    let mut samples: Vec<Sample> = networks.iter().map(|network| Sample::new(network.name())).collect();
    for round in 0..options.rounds {
        for turn in 0..networks.len() {
            let who = (usize::from(round) + turn) % networks.len();
            let (Some(network), Some(sample)) = (networks.get(who), samples.get_mut(who)) else { continue };
            let rate = measure::throughput(*network, options.seconds).with_context(|| network.name())?;
            sample.rates.push(rate);
            sample.trips.extend(measure::trips(*network, options.trips).with_context(|| network.name())?);
            eprintln!("round {}: {}: {:.2} Gbit/s", round + 1, network.name(), rate / 1e9);
        }
    }
    let restarts = (0..options.restarts).map(|_| weft.restart()).collect::<Result<Vec<_>>>()?;
    let report = Report::new(facts, options, samples, &restarts);
    match output {
        Output::Table => print!("{}", report.tables()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report.promises_kept())
}
