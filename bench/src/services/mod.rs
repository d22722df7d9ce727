//! Services: weft's agent and kube-proxy, both with the same back end, each on a node of its own.
//!
//! ```text
//!   cluster      the objects that all are given, and how they change
//!   contenders   what all are asked; weft, kube_proxy, layout: who they are
//!   api          an API server for kube-proxy
//!   kernel       the judge: what is there, and since when
//!   rounds       what is done with each, timed
//!   report       figures, ratios, promises
//!   show         tables
//! ```

mod api;
mod cluster;
mod contenders;
mod kernel;
mod kube_proxy;
mod layout;
mod report;
mod rounds;
mod show;
mod weft;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::Output;
use crate::machine::{Facts, Machine};
use crate::site::Site;
use cluster::{Cluster, Shape};
use contenders::{Contender, Mode};
use kernel::Kernel;
use report::{Figures, Report};
use rounds::{Round, Sample};

/// What is said where kube-proxy is not there.
const STAND_IN: &str = "THERE IS NO kube-proxy (WEFT_PEERS names no folder that holds it): in its place nft(8) loads the same \
                        layout from a file. No daemon, no list, no diff: its figures are a lower bound of kube-proxy's.";

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where both keep Services. With ipvs there has to be a kube-proxy, and a kernel that has IPVS.
    #[arg(long, default_value = "nftables")]
    mode: Mode,
    /// Clusters to measure with: services x endpoints of each.
    #[arg(long, value_delimiter = ',', default_value = "1000x4,10000x4,30000x10")]
    shapes: Vec<Shape>,
    /// Rounds with each: weft and its peer in turn, the first of them alternating.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Single changes of a round, at most.
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// Seconds that they may take in a round.
    #[arg(long, default_value_t = 60)]
    budget: u64,
    /// Seconds after which a contender that has not programmed everything is given up.
    #[arg(long, default_value_t = 300)]
    limit: u64,
    /// What the changes follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder that holds kube-proxy 1.36.
    #[arg(long, env = "WEFT_PEERS")]
    peers: Option<PathBuf>,
    /// Measure weft without a peer: quick, and nothing is said of how it compares.
    #[arg(long)]
    alone: bool,
}

/// Measures and shows. Says whether all promises are kept.
pub(crate) fn run(options: &Options, output: Output) -> Result<bool> {
    // Before there are threads.
    let machine = Machine::new()?;
    let facts = Facts::gather()?;
    let peer = options.peers.as_ref().map(|folder| folder.join(kube_proxy::BINARY)).filter(|path| path.is_file());
    ensure!(
        peer.is_some() || options.alone || options.mode == Mode::Nftables,
        "no kube-proxy: WEFT_PEERS has to name the folder that holds it"
    );
    let remark = if peer.is_some() || options.alone { "" } else { STAND_IN };
    if !remark.is_empty() {
        eprintln!("{remark}");
    }
    let mut results = Vec::new();
    for shape in &options.shapes {
        let mut samples: [Vec<Sample>; 2] = Default::default();
        let mut names = [""; 2];
        for round in 0..options.rounds {
            let order: &[usize] = match (options.alone, round % 2) {
                (true, _) => &[0],
                (false, 0) => &[0, 1],
                (false, _) => &[1, 0],
            };
            for &who in order {
                let (name, sample) = measure(&machine, *shape, who, peer.as_deref(), options)?;
                names[who] = name;
                samples[who].push(sample);
            }
        }
        let measured = names.into_iter().zip(&samples).filter(|(_, samples)| !samples.is_empty());
        results.extend(measured.map(|(name, samples)| Figures::new(*shape, name, samples)));
    }
    let report = Report::new(facts, options, remark, results);
    match output {
        Output::Table => print!("{}", show::tables(&report)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report.promises_kept())
}

/// One round of weft (0) or of its peer (1), on a new node.
fn measure(
    machine: &Machine,
    shape: Shape,
    who: usize,
    peer: Option<&Path>,
    options: &Options,
) -> Result<(&'static str, Sample)> {
    let site = Site::new()?;
    let folder = machine.path("contender");
    std::fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut contender: Box<dyn Contender> = match (who, peer) {
        (0, _) => Box::new(weft::Weft::new(options.mode, &site.node, folder.clone())?),
        (_, Some(binary)) => {
            Box::new(kube_proxy::KubeProxy::new(binary.to_owned(), options.mode, &site.node, folder.clone())?)
        }
        (_, None) => Box::new(layout::Layout::new(&site.node, folder.clone())),
    };
    let mut cluster = Cluster::new(shape, options.seed);
    let kernel = Kernel::open(&site.node, options.mode)?;
    let round = Round { contender: &mut *contender, site: &site, cluster: &mut cluster, options, kernel };
    let sample = round.run().with_context(|| format!("{shape}, {}: {}", contender.name(), last_lines(&folder)))?;
    let name = contender.name();
    // First the processes, then their files.
    drop(site);
    std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    Ok((name, sample))
}

/// The end of the logs: the folder goes away with the process.
fn last_lines(folder: &Path) -> String {
    let logs = ["agent.log", "kube-proxy.log", "nft.log"].map(|name| std::fs::read_to_string(folder.join(name)));
    let ends = logs.into_iter().flatten().map(|log| {
        let lines: Vec<&str> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(10)).fold(String::new(), |end, line| format!("{end}\n  {line}"))
    });
    ends.collect()
}
