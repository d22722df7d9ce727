//! Every pod asks every other.

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::{Node, PodRecord};
use crate::probe;

/// How many pods ask at the same time: more would measure the machine's scheduler.
const ASKING: usize = 8;
/// How long the second question waits, which is the one that is timed.
const WARM_LIMIT: Duration = Duration::from_millis(200);

/// One pod's way to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// The pod that asked.
    pub from: String,
    /// The node of the pod that asked.
    pub from_node: String,
    /// The pod that was asked.
    pub to: String,
    /// Its node.
    pub to_node: String,
    /// Whether it answered on each of its addresses.
    pub reachable: bool,
    /// The round-trip time to its first address, in microseconds, if it answered there.
    pub rtt_us: Option<u64>,
}

/// All pairs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Matrix {
    /// By asking pod, then by asked pod.
    pub pairs: Vec<Pair>,
}

impl Matrix {
    /// How many pairs are reachable.
    #[must_use]
    pub fn reachable(&self) -> usize {
        self.pairs.iter().filter(|pair| pair.reachable).count()
    }

    /// Whether all are. A lab without pairs shows nothing, and is not complete.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.reachable() == self.pairs.len() && !self.pairs.is_empty()
    }

    /// The pairs that are not, in words.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        self.pairs.iter().filter(|pair| !pair.reachable).map(|pair| format!("{} -> {}", pair.from, pair.to)).collect()
    }
}

pub(super) fn measure(nodes: &[Node], limit: Duration) -> Result<Matrix> {
    let pods: Vec<(&Node, &PodRecord)> =
        nodes.iter().flat_map(|node| node.pods.iter().map(move |pod| (node, pod))).collect();
    let waiting = Mutex::new((0..pods.len()).collect::<Vec<_>>());
    let next = || waiting.lock().ok().and_then(|mut left| left.pop());
    let rows = std::thread::scope(|scope| {
        let ask_until_none_is_left = || {
            let mut rows = Vec::new();
            while let Some(index) = next() {
                rows.push((index, row(&pods, index, limit)?));
            }
            Ok(rows)
        };
        let askers: Vec<_> = (0..ASKING.min(pods.len())).map(|_| scope.spawn(ask_until_none_is_left)).collect();
        let done =
            askers.into_iter().map(|asker| asker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        done.collect::<Result<Vec<Vec<(usize, Vec<Pair>)>>>>()
    })?;
    let mut rows: Vec<(usize, Vec<Pair>)> = rows.into_iter().flatten().collect();
    rows.sort_by_key(|(index, _)| *index);
    Ok(Matrix { pairs: rows.into_iter().flat_map(|(_, pairs)| pairs).collect() })
}

/// What one pod finds.
fn row(pods: &[(&Node, &PodRecord)], asking: usize, limit: Duration) -> Result<Vec<Pair>> {
    let Some((home, from)) = pods.get(asking) else { return Ok(Vec::new()) };
    let others: Vec<&(&Node, &PodRecord)> =
        pods.iter().enumerate().filter(|(index, _)| *index != asking).map(|(_, pod)| pod).collect();
    let targets: Vec<IpAddr> = others.iter().flat_map(|(_, pod)| pod.ips.clone()).collect();
    // The first question finds the way (and has neighbours resolved), the second is timed.
    let first = probe::sweep(&from.netns, &targets, limit)?;
    let second = probe::sweep(&from.netns, &targets, WARM_LIMIT)?;
    let mut times = first.into_iter().zip(second).map(|(cold, warm)| cold.map(|time| warm.unwrap_or(time)));
    let pair = |(node, to): &(&Node, &PodRecord)| {
        let answers: Vec<Option<Duration>> = times.by_ref().take(to.ips.len()).collect();
        Pair {
            from: from.name.clone(),
            from_node: home.name.clone(),
            to: to.name.clone(),
            to_node: node.name.clone(),
            reachable: !answers.is_empty() && answers.iter().all(Option::is_some),
            rtt_us: answers.first().copied().flatten().and_then(|time| u64::try_from(time.as_micros()).ok()),
        }
    };
    Ok(others.into_iter().map(pair).collect())
}
