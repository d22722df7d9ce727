//! Many questions, and what became of them in sum.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::dialogue::{Answer, Dialogue, Question};
use crate::netns::Netns;

/// What one server got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many questions it answered.
    pub count: usize,
    /// The clients' addresses, as it saw them.
    pub sources: BTreeSet<IpAddr>,
    /// At which of its ports.
    pub ports: BTreeSet<u16>,
}

/// What became of many questions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// By the name of the server that answered.
    pub by: BTreeMap<String, Tally>,
    /// How many were refused at once.
    pub refused: usize,
    /// To how many nothing came back.
    pub timed_out: usize,
    /// How many were connected, then broken off.
    pub reset: usize,
    /// What else went wrong.
    pub failed: Vec<String>,
    /// The longest that an answer of any kind took.
    pub slowest: Duration,
}

impl Outcome {
    /// Counts an answer in.
    pub fn add(&mut self, answer: Answer, took: Duration) {
        self.slowest = self.slowest.max(took);
        match answer {
            Answer::Served { by, port, seen } => {
                let tally = self.by.entry(by).or_default();
                tally.count += 1;
                tally.sources.insert(seen.ip());
                tally.ports.insert(port);
            }
            Answer::Refused => self.refused += 1,
            Answer::TimedOut => self.timed_out += 1,
            Answer::Reset => self.reset += 1,
            Answer::Failed(reason) => self.failed.push(reason),
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: Self) {
        for (name, tally) in other.by {
            let mine = self.by.entry(name).or_default();
            mine.count += tally.count;
            mine.sources.extend(tally.sources);
            mine.ports.extend(tally.ports);
        }
        self.refused += other.refused;
        self.timed_out += other.timed_out;
        self.reset += other.reset;
        self.failed.extend(other.failed);
        self.slowest = self.slowest.max(other.slowest);
    }

    /// How many were answered.
    #[must_use]
    pub fn served(&self) -> usize {
        self.by.values().map(|tally| tally.count).sum()
    }

    /// How many were asked.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.served() + self.refused + self.timed_out + self.reset + self.failed.len()
    }

    /// Every client address that a server saw.
    #[must_use]
    pub fn sources(&self) -> BTreeSet<IpAddr> {
        self.by.values().flat_map(|tally| tally.sources.iter().copied()).collect()
    }
}

/// Asks a question many times from inside a namespace, each on a connection of its own, so many at a time.
///
/// # Errors
/// When the namespace cannot be entered. What becomes of a question is no error.
pub fn ask(netns: &Netns, question: &Question, times: usize, at_a_time: usize) -> Result<Outcome> {
    let asked = AtomicUsize::new(0);
    netns.run(|| {
        std::thread::scope(|scope| {
            let lane = || {
                let mut outcome = Outcome::default();
                while asked.fetch_add(1, Ordering::Relaxed) < times {
                    let begin = Instant::now();
                    let answer = Dialogue::open(question).map_or_else(|answer| answer, |open| open.ask());
                    outcome.add(answer, begin.elapsed());
                }
                outcome
            };
            // Threads stay in the namespace of the one that starts them.
            let lanes: Vec<_> = (0..at_a_time.min(times)).map(|_| scope.spawn(lane)).collect();
            let mut sum = Outcome::default();
            for lane in lanes {
                sum.merge(lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            sum
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::OwnedNetns;
    use crate::probe::ProbeServer;
    use crate::scratch::unique_name;

    #[test]
    fn many_questions_are_summed_up() {
        let netns = OwnedNetns::new(unique_name());
        let _server = ProbeServer::start(&netns, "here", &[8080]).unwrap();
        let question = Question::new("127.0.0.1:8080".parse().unwrap());
        let outcome = ask(&netns, &question, 50, 4).unwrap();
        assert_eq!((outcome.asked(), outcome.by["here"].count), (50, 50), "{outcome:?}");
        assert_eq!(outcome.sources().into_iter().collect::<Vec<_>>(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        let nobody = ask(&netns, &Question::new("127.0.0.1:1".parse().unwrap()), 3, 8).unwrap();
        assert_eq!((nobody.asked(), nobody.refused), (3, 3), "{nobody:?}");
    }
}
