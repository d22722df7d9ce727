//! Figures, ratios, promises.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::chain::Chain;
use crate::machine::Facts;
use crate::promise::Promise;
use crate::stats::Latency;
use crate::table::{milliseconds, numbers_to_the_right, promises, table};

/// With 1000 pods an ADD takes at most so many times what it takes with 10 (medians).
const FULL_OVER_FEW: f64 = 1.3;
/// With 60,000 addresses given away it takes at most so long (median), in milliseconds.
const GIVEN_AWAY: f64 = 3.0;

/// A node and what was measured on it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) pods: u16,
    pub(super) reservations: u16,
    pub(super) chain: Chain,
    /// Of the first ADD, which finds the pool of addresses missing.
    pub(super) first: Option<Duration>,
    pub(super) add: Vec<Duration>,
    pub(super) del: Vec<Duration>,
}

impl Node {
    /// One on which nothing was measured yet.
    pub(super) fn new(name: &'static str, pods: u16, reservations: u16, chain: Chain) -> Self {
        Self { name, pods, reservations, chain, first: None, add: Vec::new(), del: Vec::new() }
    }
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Facts,
    rounds: u16,
    nodes: Vec<Figures>,
    promises: Vec<Promise>,
}

#[derive(Debug, Serialize)]
struct Figures {
    name: &'static str,
    pods: u16,
    reservations: u16,
    first_ms: f64,
    add: Latency,
    del: Latency,
}

impl Report {
    /// Of the nodes in the order of [`super::run`]: few pods, many, many addresses given away.
    pub(super) fn new(machine: Facts, rounds: u16, nodes: &[Node; 3]) -> Result<Self> {
        let latency = |samples: &[Duration]| Latency::of(samples.to_vec()).context("nothing was measured");
        let figures = |node: &Node| {
            let (add, del) = (latency(&node.add)?, latency(&node.del)?);
            let first_ms = node.first.unwrap_or_default().as_secs_f64() * 1000.0;
            Ok::<_, anyhow::Error>(Figures {
                name: node.name,
                pods: node.pods,
                reservations: node.reservations,
                first_ms,
                add,
                del,
            })
        };
        let [few, full, given] = nodes;
        let (few, full, given) = (figures(few)?, figures(full)?, figures(given)?);
        let ratio = full.add.p50.as_secs_f64() / few.add.p50.as_secs_f64();
        let milliseconds = given.add.p50.as_secs_f64() * 1000.0;
        let promises = vec![
            Promise::new(format!("ADD p50, {} pods over {}", full.pods, few.pods), ratio, FULL_OVER_FEW),
            Promise::new(format!("ADD p50, {} addresses given away, ms", given.reservations), milliseconds, GIVEN_AWAY),
        ];
        Ok(Self { machine, rounds, nodes: vec![few, full, given], promises })
    }

    /// Whether weft keeps all of its promises.
    pub(super) fn promises_kept(&self) -> bool {
        self.promises.iter().all(|promise| promise.kept)
    }

    /// For people, and for the README.
    pub(super) fn tables(&self) -> String {
        let mut rows =
            table(&["pods", "given away", "first ADD", "ADD min", "p50", "p90", "p99", "DEL min", "p50", "p90", "p99"]);
        for node in &self.nodes {
            let figures = [node.add, node.del].into_iter().flat_map(|of| [of.min, of.p50, of.p90, of.p99]);
            let counts = [node.pods.to_string(), node.reservations.to_string(), format!("{:.2}", node.first_ms)];
            rows.add_row(counts.into_iter().chain(figures.map(milliseconds)));
        }
        numbers_to_the_right(&mut rows, 0);
        [
            format!("{}\n{} rounds, times in ms from start to reaped", self.machine, self.rounds),
            rows.to_string(),
            promises(&self.promises).to_string(),
        ]
        .join("\n\n")
            + "\n"
    }
}
