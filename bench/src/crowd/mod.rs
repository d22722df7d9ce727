//! What an ADD costs on a node that is full: weft-cni with 10 pods, with 1000, and with 60,000 addresses given away.
//!
//! ```text
//!   reservations   a store as 60,000 ADDs leave it
//!   report         figures, ratios, promises
//! ```

mod report;
mod reservations;

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use weft_tests::binaries;

use crate::Output;
use crate::chain::{BRIDGE, Chain, Plugin};
use crate::machine::{Facts, Machine};
use report::{Node, Report};

/// A bridge has 1023 ports at most (`BR_MAX_PORTS`, net/bridge/br_private.h), and one is for the pod that is measured.
const MOST_PODS: u16 = 1022;
/// Addresses of a /16 that can be given away, less those for the pods that are really there.
const MOST_RESERVATIONS: u16 = 65_000;
/// How many pods a node has that is not full.
const FEW: u16 = 10;
/// Prefix length of the pods' subnet.
const PREFIX: u8 = 16;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds that count: each an ADD and a DEL on every node.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=5000))]
    rounds: u16,
    /// Rounds before those, that do not count.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(..=5000))]
    warm_up: u16,
    /// Pods on the full node.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_PODS)))]
    pods: u16,
    /// Addresses that are given away on the third node.
    #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_RESERVATIONS)))]
    reservations: u16,
    /// Quiet time after each DEL, in milliseconds: the kernel goes on with it, and the next call shall not pay for that.
    #[arg(long, default_value_t = 40)]
    pause: u64,
}

/// Measures and shows. Says whether all promises are kept.
pub(crate) fn run(options: &Options, output: Output) -> Result<bool> {
    // Before there are threads.
    let machine = Machine::new()?;
    let facts = Facts::gather()?;
    let mut nodes = [
        Node::new("few", FEW, 0, node(&machine, "few")?),
        Node::new("full", options.pods, 0, node(&machine, "full")?),
        Node::new("given away", FEW, options.reservations, node(&machine, "given-away")?),
    ];
    for node in &mut nodes {
        eprintln!("{}: {} pods, {} reservations …", node.name, node.pods, node.reservations);
        if node.reservations > 0 {
            reservations::make(&machine.path("given-away"), node.reservations)?;
        }
        for number in 0..node.pods {
            let pod = node.chain.pod(&format!("standing{number}"), None)?;
            let (took, _) = node.chain.add(&pod)?;
            node.first.get_or_insert(took);
        }
    }
    for round in 0..options.warm_up + options.rounds {
        let first = usize::from(round) % nodes.len();
        nodes.rotate_left(first);
        for node in &mut nodes {
            let pod = node.chain.pod(&format!("pod{round}"), None)?;
            let (add, result) = node.chain.add(&pod)?;
            let del = node.chain.del(&pod, &result)?;
            pod.netns.delete()?;
            rest(options);
            if round >= options.warm_up {
                node.add.push(add);
                node.del.push(del);
            }
        }
        nodes.rotate_right(first);
    }
    let report = Report::new(facts, options.rounds, &nodes)?;
    match output {
        Output::Table => print!("{}", report.tables()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report.promises_kept())
}

fn node(machine: &Machine, name: &str) -> Result<Chain> {
    let folder = machine.path(name);
    let subnet = format!("10.244.0.0/{PREFIX}");
    let conf = json!({
        "type": "weft-cni", "bridge": BRIDGE, "isDefaultGateway": true, "hairpinMode": true,
        "stateDir": folder, "subnetFile": folder.join("subnet.env"),
        "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]]},
    });
    Chain::new("weft-cni", vec![Plugin { path: binaries::find("weft-cni")?, conf }])
}

#[expect(
    clippy::disallowed_methods,
    reason = "quiet between measurements is the purpose; the kernel tells nobody of it"
)]
fn rest(options: &Options) {
    std::thread::sleep(Duration::from_millis(options.pause));
}
