//! Figures, ratios, promises, and how they are shown.

use std::time::Duration;

use serde::Serialize;

use super::Options;
use super::weft::Restart;
use crate::flow::Outcome;
use crate::machine::Facts;
use crate::promise::Promise;
use crate::stats::Latency;
use crate::table::{numbers_to_the_right, promises, table};

/// weft's throughput is at least so much of that of the same devices made by iproute2.
const THROUGHPUT: f64 = 0.97;
/// And of flannel's, whose devices are the same: rounds differ by more than this.
const THROUGHPUT_OF_FLANNEL: f64 = 0.99;
/// weft's latency is at most so many times theirs.
const LATENCY: f64 = 1.03;

/// What was measured of one network, in all rounds.
pub(crate) struct Sample {
    name: &'static str,
    /// Bits a second.
    pub(crate) rates: Vec<f64>,
    pub(crate) trips: Vec<Duration>,
}

impl Sample {
    /// Nothing yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, rates: Vec::new(), trips: Vec::new() }
    }
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Facts,
    rounds: u16,
    seconds: u16,
    results: Vec<Figures>,
    /// Restarts of both agents, and the flow meanwhile, all taken together.
    restarts: u16,
    flow: Outcome,
    /// Kernel objects that they have changed.
    changes: usize,
    promises: Vec<Promise>,
}

/// Of one network.
#[derive(Debug, Serialize)]
struct Figures {
    name: &'static str,
    /// Gbit/s: the median of all rounds, the least, the most.
    throughput: [f64; 3],
    round_trip: Option<Latency>,
}

impl Figures {
    fn of(sample: Sample) -> Self {
        let Sample { name, mut rates, trips } = sample;
        rates.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| rates.get(index).copied().unwrap_or_default() / 1e9;
        // Of an even number the lower of the two in the middle, as with latencies: a value that did occur.
        let middle = rates.len().saturating_sub(1) / 2;
        let throughput = [at(middle), at(0), at(rates.len().saturating_sub(1))];
        Self { name, throughput, round_trip: Latency::of(trips) }
    }

    fn median(&self) -> f64 {
        let [median, ..] = self.throughput;
        median
    }
}

impl Report {
    /// Of all samples, weft's first and iproute2's second.
    pub(crate) fn new(machine: Facts, options: &Options, samples: Vec<Sample>, restarts: &[Restart]) -> Self {
        let results: Vec<Figures> = samples.into_iter().map(Figures::of).collect();
        let flow = restarts.iter().map(|restart| restart.flow).fold(Outcome::default(), Outcome::and);
        let changes = restarts.iter().map(|restart| restart.changes).sum();
        let mut promises = ratios(&results);
        if !restarts.is_empty() {
            let count = |count: u64| u32::try_from(count).map_or(f64::INFINITY, f64::from);
            let lost = count(flow.lost + flow.fresh_lost);
            promises.push(Promise::new("datagrams lost while agents restart", lost, 0.0));
            let changes = u64::try_from(changes).map_or(f64::INFINITY, count);
            promises.push(Promise::new("kernel objects that they change", changes, 0.0));
        }
        let Options { rounds, seconds, restarts, .. } = *options;
        Self { machine, rounds, seconds, results, restarts, flow, changes, promises }
    }

    /// Whether weft keeps all of its promises.
    pub(crate) fn promises_kept(&self) -> bool {
        self.promises.iter().all(|promise| promise.kept)
    }

    /// Tables, for people and for the README.
    pub(crate) fn tables(&self) -> String {
        let Self { machine, rounds, seconds, restarts, flow, changes, .. } = self;
        let mut figures = table(&["", "Gbit/s", "least", "most", "round trip p50, µs", "p90", "p99"]);
        for Figures { name, throughput, round_trip } in &self.results {
            let micros = |pick: fn(&Latency) -> Duration| {
                round_trip.as_ref().map_or_else(|| "-".to_owned(), |it| format!("{:.1}", pick(it).as_secs_f64() * 1e6))
            };
            let [median, least, most] = throughput.map(|rate| format!("{rate:.2}"));
            let trips = [micros(|it| it.p50), micros(|it| it.p90), micros(|it| it.p99)];
            figures.add_row([name.to_string(), median, least, most].into_iter().chain(trips));
        }
        numbers_to_the_right(&mut figures, 1);
        let (sent, lost) = (flow.sent + flow.fresh, flow.lost + flow.fresh_lost);
        let restarted =
            format!("{restarts} restarts: {lost} of {sent} datagrams lost, {changes} kernel objects changed.");
        let head = format!("{machine}\n{rounds} rounds of {seconds} s, interleaved; the median of the rounds");
        [head, figures.to_string(), restarted, promises(&self.promises).to_string()].join("\n\n") + "\n"
    }
}

fn ratios(results: &[Figures]) -> Vec<Promise> {
    let [weft, plain, rest @ ..] = results else { return Vec::new() };
    let mut promises = vec![Promise::new(
        format!("throughput, {} over weft", plain.name),
        plain.median() / weft.median(),
        1.0 / THROUGHPUT,
    )];
    for other in rest {
        let ratio = other.median() / weft.median();
        promises.push(Promise::new(
            format!("throughput, {} over weft", other.name),
            ratio,
            1.0 / THROUGHPUT_OF_FLANNEL,
        ));
    }
    if let (Some(ours), Some(theirs)) = (&weft.round_trip, &plain.round_trip) {
        let ratio = ours.p50.as_secs_f64() / theirs.p50.as_secs_f64();
        promises.push(Promise::new(format!("round trip p50, weft over {}", plain.name), ratio, LATENCY));
    }
    promises
}
