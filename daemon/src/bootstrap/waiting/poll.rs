//! Asking all at once until all are well, telling what happens, and giving up as soon as it is certain to be in vain.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};

use super::diagnosis::{Cause, Diagnosis, diagnose};
use super::evidence::Evidence;
use super::probe::Client;
use super::targets::{Component, Target};

/// Between two questions to the same.
const PAUSE: Duration = Duration::from_millis(100);
/// When evidence is first looked at; a control plane that is well needs some seconds.
const FIRST_LOOK: Duration = Duration::from_secs(3);
/// Between two looks at the evidence. A cause that two of them show, and that is certain, ends the waiting.
const LOOK: Duration = Duration::from_secs(2);
/// Between two times that somebody is told to be waited for.
const REMIND: Duration = Duration::from_secs(5);

/// What happens while waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Somebody is well.
    Healthy {
        /// Who.
        component: Component,
        /// Since the waiting began.
        after: Duration,
    },
    /// Somebody is still waited for.
    Waiting {
        /// Since the waiting began.
        after: Duration,
        /// Who, with his last answer or why there is none.
        missing: Vec<(Component, String)>,
    },
    /// Something looks wrong and may pass.
    Suspicion(Diagnosis),
}

/// Not all are well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitError {
    /// Since the waiting began.
    pub after: Duration,
    /// Who is not well, with his last answer.
    pub missing: Vec<(Component, String)>,
    /// Why, if that is known.
    pub diagnosis: Option<Box<Diagnosis>>,
    /// kubelet's last lines, if nothing better is known.
    pub kubelet_lines: Vec<String>,
}

impl std::error::Error for WaitError {}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.missing.iter().map(|(who, last)| format!("{who} ({last})")).collect();
        let certain = self.diagnosis.as_ref().is_some_and(|diagnosis| diagnosis.certain);
        let verb = if certain { "will not get well" } else { "not well" };
        writeln!(f, "{verb} after {:.1} s: {}", self.after.as_secs_f64(), names.join(", "))?;
        match &self.diagnosis {
            Some(diagnosis) => write!(f, "{diagnosis}"),
            None => {
                writeln!(f, "the cause is unknown; kubelet's last lines:")?;
                self.kubelet_lines.iter().try_for_each(|line| writeln!(f, "  kubelet | {line}"))
            }
        }
    }
}

/// Collects evidence; the caller knows the host and the runtime.
pub type Gather<'a> = dyn Fn() -> BoxFuture<'a, Evidence> + Send + Sync + 'a;

/// Waits until each target has been well once, each within its own limit.
///
/// # Errors
/// [`WaitError`] when a limit is over, or earlier when two looks at the evidence in a row show the same certain cause.
pub async fn wait(
    targets: &[Target],
    client: &Client,
    gather: &Gather<'_>,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<(), WaitError> {
    let begin = Instant::now();
    let (sender, mut answers) = mpsc::channel(16);
    // Ends its tasks when it is dropped.
    let mut asking = JoinSet::new();
    for target in targets.iter().cloned() {
        asking.spawn(ask(target, client.clone(), sender.clone()));
    }
    drop(sender);
    let mut state = State {
        begin,
        reminded: Duration::ZERO,
        missing: targets.iter().map(|target| (target.component, Missing::new(target.limit))).collect(),
    };
    let mut looks = interval_at((begin + FIRST_LOOK).into(), LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut suspected = None;
    while !state.missing.is_empty() {
        tokio::select! {
            answer = answers.recv() => match answer {
                Some((component, Ok(()))) => {
                    if state.missing.remove(&component).is_some() {
                        progress(Progress::Healthy { component, after: begin.elapsed() });
                    }
                }
                Some((component, Err(last))) => state.heard(component, last, progress),
                // Nobody asks any more: his task has ended without an answer, and there is none to come.
                None => return Err(state.error(&Evidence::default(), None)),
            },
            _ = looks.tick() => {
                let evidence = gather().await;
                let waiting: Vec<Component> = state.missing.keys().copied().collect();
                let found = diagnose(&evidence, &waiting);
                let kind = found.as_ref().map(|found| (found.cause, found.component));
                if state.is_late() || (found.as_ref().is_some_and(|found| found.certain) && suspected == kind) {
                    return Err(state.error(&evidence, found));
                }
                if let Some(found) = found.filter(|_| suspected != kind) {
                    progress(Progress::Suspicion(found));
                }
                suspected = kind;
            }
        }
    }
    Ok(())
}

async fn ask(target: Target, client: Client, answers: mpsc::Sender<(Component, Result<(), String>)>) {
    loop {
        let answer = client.ask(&target).await;
        let well = answer.is_ok();
        if answers.send((target.component, answer)).await.is_err() || well {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One who is waited for.
struct Missing {
    limit: Duration,
    last: String,
}

impl Missing {
    fn new(limit: Duration) -> Self {
        Self { limit, last: "not asked yet".into() }
    }
}

struct State {
    begin: Instant,
    /// When it was last told who is waited for, since the beginning.
    reminded: Duration,
    missing: BTreeMap<Component, Missing>,
}

impl State {
    fn heard(&mut self, component: Component, last: String, progress: &mut (dyn FnMut(Progress) + Send)) {
        let after = self.begin.elapsed();
        let Some(missing) = self.missing.get_mut(&component) else { return };
        missing.last = last;
        if after >= self.reminded + REMIND {
            self.reminded = after;
            progress(Progress::Waiting { after, missing: self.missing() });
        }
    }

    fn missing(&self) -> Vec<(Component, String)> {
        self.missing.iter().map(|(component, missing)| (*component, missing.last.clone())).collect()
    }

    fn is_late(&self) -> bool {
        self.missing.values().any(|missing| self.begin.elapsed() >= missing.limit)
    }

    fn error(&self, evidence: &Evidence, diagnosis: Option<Diagnosis>) -> WaitError {
        let lines = &evidence.kubelet_lines;
        WaitError {
            after: self.begin.elapsed(),
            missing: self.missing(),
            diagnosis: diagnosis.map(Box::new),
            kubelet_lines: lines[lines.len().saturating_sub(20)..].to_vec(),
        }
    }
}

impl WaitError {
    /// The kind of the cause, for machines and exit codes.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.diagnosis.as_ref().map(|diagnosis| diagnosis.cause)
    }
}
