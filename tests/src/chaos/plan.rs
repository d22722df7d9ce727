//! Which fault comes when: a function of the seed, the number of nodes and the time there is.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// What is done to the lab. Nodes have numbers from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A node's agent is killed with SIGKILL.
    KillAgent(u16),
    /// A node's agent is started again.
    StartAgent(u16),
    /// A node is cut off from the others and from etcd.
    Cut(u16),
    /// A node is connected again.
    Heal(u16),
    /// etcd is killed.
    StopEtcd,
    /// etcd is started again with its data.
    StartEtcd,
    /// etcd is started again without any data.
    StartEtcdEmpty,
}

/// A fault and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// When it comes, from the beginning.
    pub at: Duration,
    /// What it is.
    pub fault: Fault,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillAgent(node) => write!(f, "kill the agent of node{node}"),
            Self::StartAgent(node) => write!(f, "start the agent of node{node}"),
            Self::Cut(node) => write!(f, "cut node{node} off"),
            Self::Heal(node) => write!(f, "connect node{node} again"),
            Self::StopEtcd => f.write_str("kill etcd"),
            Self::StartEtcd => f.write_str("start etcd"),
            Self::StartEtcdEmpty => f.write_str("start etcd without its data"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.2} s: {}", self.at.as_secs_f64(), self.fault)
    }
}

/// Milliseconds between two faults.
const PAUSE: Range<u64> = 200..1200;
/// How long a fault lasts, in milliseconds: some are over before anybody notices, others not before the store's watch has ended.
const LASTS: Range<u64> = 100..12_000;
/// Of so many faults one is etcd's.
const ETCDS: u64 = 12;

/// Draws the faults. Each is undone within the time, never are more than half of the nodes without an agent or cut off, and
/// once, in the middle, etcd loses its data.
#[must_use]
pub fn plan(seed: u64, nodes: u16, duration: Duration) -> Vec<Step> {
    let end = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut random = Random(seed);
    let mut timeline = Timeline::default();
    // The wipe first: nothing else may need etcd meanwhile.
    let wiped_at = end / 2 + random.below(end / 10 + 1);
    let wiped_for = random.within(100..(end / 8).clamp(200, 6000));
    timeline.add(wiped_at, Fault::StopEtcd);
    timeline.add(wiped_at + wiped_for, Fault::StartEtcdEmpty);
    let mut etcd_busy = vec![(wiped_at, wiped_at + wiped_for)];
    // When the agent of each node, and its link, are whole again.
    let mut agents = vec![0; usize::from(nodes)];
    let mut links = vec![0; usize::from(nodes)];
    let mut now = 0;
    loop {
        now += random.within(PAUSE);
        if now >= end {
            break;
        }
        let until = (now + random.within(LASTS)).min(end);
        if random.below(ETCDS) == 0 {
            if etcd_busy.iter().all(|(begin, end)| until < *begin || now > *end) {
                timeline.add(now, Fault::StopEtcd);
                timeline.add(until, Fault::StartEtcd);
                etcd_busy.push((now, until));
            }
            continue;
        }
        let number = u16::try_from(random.below(u64::from(nodes)) + 1).unwrap_or(1);
        let is_kill = random.below(5) < 3;
        let away = if is_kill { &mut agents } else { &mut links };
        let many = away.iter().filter(|until| **until >= now).count() >= usize::from(nodes / 2);
        let Some(back) = away.get_mut(usize::from(number) - 1).filter(|back| **back < now && !many) else { continue };
        *back = until;
        timeline.add(now, if is_kill { Fault::KillAgent(number) } else { Fault::Cut(number) });
        timeline.add(until, if is_kill { Fault::StartAgent(number) } else { Fault::Heal(number) });
    }
    timeline.steps()
}

/// Faults in the order of their times, those of one time in the order in which they were added.
#[derive(Default)]
struct Timeline(BTreeMap<(u64, usize), Fault>);

impl Timeline {
    fn add(&mut self, at: u64, fault: Fault) {
        self.0.insert((at, self.0.len()), fault);
    }

    fn steps(self) -> Vec<Step> {
        self.0.into_iter().map(|((at, _), fault)| Step { at: Duration::from_millis(at), fault }).collect()
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): the same numbers from a seed with every compiler and version.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_paper() {
        // The reference implementation's first numbers from seed 1234567.
        let mut random = Random(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn a_seed_is_a_plan() {
        let of = |seed| plan(seed, 6, Duration::from_secs(30));
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn everything_is_undone_and_etcd_loses_its_data_once() {
        for seed in 0..200 {
            for (nodes, seconds) in [(2, 5), (6, 20), (20, 600)] {
                let steps = plan(seed, nodes, Duration::from_secs(seconds));
                assert!(steps.is_sorted_by_key(|step| step.at));
                assert!(steps.iter().all(|step| step.at <= Duration::from_secs(seconds)));
                let (mut killed, mut cut, mut etcd, mut wiped) = (vec![], vec![], true, 0);
                for step in &steps {
                    let told = format!("seed {seed}, {step}");
                    match step.fault {
                        Fault::KillAgent(node) => {
                            assert!(!killed.contains(&node), "{told}");
                            killed.push(node);
                        }
                        Fault::Cut(node) => {
                            assert!(!cut.contains(&node), "{told}");
                            cut.push(node);
                        }
                        Fault::StartAgent(node) => {
                            killed.remove(killed.iter().position(|known| *known == node).expect(&told));
                        }
                        Fault::Heal(node) => {
                            cut.remove(cut.iter().position(|known| *known == node).expect(&told));
                        }
                        Fault::StopEtcd => {
                            assert!(etcd, "{told}");
                            etcd = false;
                        }
                        Fault::StartEtcd | Fault::StartEtcdEmpty => {
                            assert!(!etcd, "{told}");
                            etcd = true;
                            wiped += u32::from(step.fault == Fault::StartEtcdEmpty);
                        }
                    }
                    let half = usize::from(nodes / 2);
                    assert!(killed.len() <= half && cut.len() <= half, "{told}");
                }
                assert!(killed.is_empty() && cut.is_empty() && etcd && wiped == 1, "seed {seed}: {steps:?}");
                assert!(seconds < 20 || steps.len() > 10, "seed {seed}: too quiet");
            }
        }
    }
}
