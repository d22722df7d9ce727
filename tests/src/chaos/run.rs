//! Carries a plan out on a lab.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::aftermath::aftermath;
use super::observe::{Seen, in_store, of_agent, overlaps, watch_agents, watch_store};
use super::plan::{Fault, Step, plan};
use crate::lab::{Lab, OwnedLab, Spec, traces};
use crate::netns::Netns;
use crate::wait;

/// How long all may take to find each other when everything is whole again.
const CALM: Duration = Duration::from_secs(90);

/// What to do to a lab.
#[derive(Debug, Clone, Copy)]
pub struct Chaos {
    /// What the faults are drawn from.
    pub seed: u64,
    /// How many nodes.
    pub nodes: u16,
    /// For how long there are faults.
    pub duration: Duration,
}

/// How it went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was done.
    pub steps: Vec<Step>,
    /// How often the store was seen, and how often an agent.
    pub looks: (usize, usize),
    /// How long all pods took to reach each other when everything was whole again.
    pub calm_after: Duration,
    /// How many pairs of pods then did.
    pub pairs: usize,
}

/// What must not be, and when.
#[derive(Debug)]
pub struct Failure {
    seed: u64,
    step: String,
    what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, {}: {}", self.seed, self.step, self.what)
    }
}

impl std::error::Error for Failure {}

/// Brings a lab up, breaks it as planned, and looks whether all is well in the end and nothing is left of it.
///
/// # Errors
/// [`Failure`] names the seed, the step and what was wrong.
pub fn run(chaos: Chaos) -> Result<Outcome, Failure> {
    let Chaos { seed, nodes, duration } = chaos;
    let steps = plan(seed, nodes, duration);
    let at = |step: &str| {
        let step = step.to_owned();
        move |what: String| Failure { seed, step, what }
    };
    let mut lab = OwnedLab::up(Spec::test(nodes));
    let name = lab.spec().name.clone();
    let whole = lab.matrix(CALM).map_err(|error| at("before all")(format!("{error:#}")))?;
    if !whole.complete() {
        return Err(at("before all")(whole.broken().join(", ")));
    }
    let before = subnets(&lab);
    let looks = broken(&mut lab, seed, &steps)?;
    let (calm_after, pairs) = calm(&mut lab, &before).map_err(|error| at("at the end")(format!("{error:#}")))?;
    drop(lab);
    let left = traces(&name).map_err(|error| at("afterwards")(format!("{error:#}")))?;
    if !left.is_empty() {
        return Err(at("afterwards")(format!("left over: {}", left.join(", "))));
    }
    Ok(Outcome { steps, looks, calm_after, pairs })
}

/// The faults one after the other, while somebody looks. Says how often he has seen something.
fn broken(lab: &mut Lab, seed: u64, steps: &[Step]) -> Result<(usize, usize), Failure> {
    let of = |step: &Step, number: usize| format!("step {} of {}, {step}", number + 1, steps.len());
    let beginning =
        |error: anyhow::Error| Failure { seed, step: "at the beginning".into(), what: format!("{error:#}") };
    let etcd = lab.etcd().map_err(beginning)?.clone();
    let nodes: Vec<(String, Netns)> = lab.nodes().iter().map(|node| (node.name.clone(), node.netns.clone())).collect();
    let (seen, stop) = (Seen::default(), AtomicBool::new(false));
    let done = std::thread::scope(|scope| {
        scope.spawn(|| watch_store(&etcd, &seen, &stop));
        scope.spawn(|| watch_agents(&etcd, &nodes, &seen, &stop));
        let begin = Instant::now();
        let carry_out = || {
            for (number, step) in steps.iter().enumerate() {
                let failed = |what: String| Failure { seed, step: of(step, number), what };
                wait::throughout(step.at.saturating_sub(begin.elapsed()), || seen.judge(failed))?;
                eprintln!("[{:6.2}s] {}", begin.elapsed().as_secs_f64(), step.fault);
                apply(lab, step.fault).map_err(|error| failed(format!("{error:#}")))?;
                seen.judge(failed)?;
            }
            Ok(())
        };
        // A closure that is called at once: an early return must still stop the observer.
        let done = { carry_out }();
        stop.store(true, Ordering::Relaxed);
        done
    });
    done.map(|()| (seen.store.load(Ordering::Relaxed), seen.agents.load(Ordering::Relaxed)))
}

fn apply(lab: &mut Lab, fault: Fault) -> Result<()> {
    let name = |node: u16| format!("node{node}");
    match fault {
        // Fails if none runs: an agent never ends by itself.
        Fault::KillAgent(node) => lab.kill_agent(&name(node)),
        Fault::StartAgent(node) => lab.start_agent(&name(node)),
        Fault::Cut(node) => lab.cut(&name(node)),
        Fault::Heal(node) => lab.heal(Some(&name(node))),
        Fault::StopEtcd => lab.kill_etcd(),
        Fault::StartEtcd => lab.start_etcd(),
        Fault::StartEtcdEmpty => {
            lab.wipe_etcd()?;
            lab.start_etcd()
        }
    }
}

/// The subnets of each node.
fn subnets(lab: &Lab) -> Vec<(String, Vec<String>)> {
    lab.nodes().iter().map(|node| (node.name.clone(), node.subnets())).collect()
}

/// Waits until all is as it was, and says how long that took and how many pairs of pods reach each other.
fn calm(lab: &mut Lab, before: &[(String, Vec<String>)]) -> Result<(Duration, usize)> {
    let begin = Instant::now();
    for name in lab.nodes().iter().map(|node| node.name.clone()).collect::<Vec<_>>() {
        lab.await_ready(&name)?;
    }
    let matrix = lab.matrix(CALM)?;
    anyhow::ensure!(
        matrix.complete(),
        "{} pairs do not reach each other: {}",
        matrix.pairs.len() - matrix.reachable(),
        matrix.broken().join(", ")
    );
    let reached = begin.elapsed();
    wait::until_ok(CALM, "all nodes to be whole", || {
        let mut wrong = aftermath(lab).unwrap_or_else(|error| vec![format!("{error:#}")]);
        let mut claims =
            in_store(lab.etcd().map_err(|error| error.to_string())?).map_err(|error| format!("{error:#}"))?;
        let leases: Vec<(Option<String>, String)> =
            claims.iter().map(|claim| (claim.node.clone(), claim.subnet.clone())).collect();
        for (name, subnets) in before {
            let held = |subnet: &String| leases.contains(&(Some(name.clone()), subnet.clone()));
            wrong.extend(
                subnets
                    .iter()
                    .filter(|subnet| !held(subnet))
                    .map(|subnet| format!("{subnet} is not {name}'s any more")),
            );
        }
        let wanted: usize = before.iter().map(|(_, subnets)| subnets.len()).sum();
        if leases.len() != wanted {
            wrong.push(format!("{} leases for {wanted} subnets: {leases:?}", leases.len()));
        }
        claims.extend(lab.nodes().iter().flat_map(|node| of_agent(&node.name, &node.netns)));
        wrong.extend(overlaps(&claims));
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    })
    .context("not as before")?;
    Ok((reached, matrix.pairs.len()))
}
