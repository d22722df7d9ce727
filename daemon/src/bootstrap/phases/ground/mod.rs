//! What init and join have in common: the machine, its runtime, its kubelet, and the journal.

mod helpers;
mod kubelet;
mod machine;
mod without_balancer;

pub(super) use helpers::HELPERS;
pub(super) use machine::{PREFLIGHT, weft_name};

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

use super::error::PhaseError;
use super::runtime;
use super::tell::Teller;
use crate::balancer::StandIn;
use crate::bootstrap::api::{self, CoreDns, Server};
use crate::bootstrap::config;
use crate::bootstrap::config::WeftOptions;
use crate::bootstrap::cri::{Cri, CriError, Health};
use crate::bootstrap::host::facts::RuntimeTold;
use crate::bootstrap::host::tools::System;
use crate::bootstrap::host::{Ignored, KubeletNeeds, SwapPolicy, Wanted, checks};
use crate::bootstrap::journal::{Change, EntryId, Journal, Stage};
use crate::bootstrap::kubelet::service::ServiceManager;
use crate::bootstrap::patches::Patches;
use crate::bootstrap::pki::{Outcome, Step};
use crate::bootstrap::resolved::{Cluster, Limits, Node, Paths};

/// What `--patches` calls CoreDNS's Deployment.
const COREDNS_PATCHES: &str = "corednsdeployment";

/// A run on this machine.
pub(super) struct Ground<'a> {
    pub(super) node: &'a Node,
    pub(super) limits: Limits,
    pub(super) weft: &'a WeftOptions,
    pub(super) paths: &'a Paths,
    pub(super) tell: &'a Teller,
    pub(super) journal: Journal,
    pub(super) tools: System,
    pub(super) services: ServiceManager,
    pub(super) patches: Patches,
    pub(super) wanted: Wanted,
    /// Whether files go elsewhere, and nothing is started, asked or waited for (`--dry-run`).
    pub(super) dry: bool,
    /// Checks whose errors only warn.
    ignored: Ignored,
    /// Warnings of the checks that were told.
    warned: BTreeSet<String>,
    began: SystemTime,
    /// What the configuration comes to: a phase that ended well with another has to be written down again.
    hash: String,
    runtime: Option<(RuntimeTold, Option<(Cri, Health)>)>,
    needs: Option<KubeletNeeds>,
    /// The end of the first sandbox.
    rehearsal: Option<JoinHandle<Result<(), CriError>>>,
    /// The balancer of this process, until the node's own takes over.
    stand_in: Option<StandIn>,
}

/// What a run is given.
pub(super) struct Given<'a> {
    pub(super) node: &'a Node,
    pub(super) limits: Limits,
    pub(super) weft: &'a WeftOptions,
    /// Directory of patches.
    pub(super) patches: Option<PathBuf>,
    /// What comes onto the machine; swap, preparation and kubelet are filled in.
    pub(super) wanted: Wanted,
    /// `ignorePreflightErrors`.
    pub(super) ignored: &'a [String],
    /// Stands for the whole configuration.
    pub(super) hash: String,
}

impl<'a> Ground<'a> {
    /// Opens the journal: nobody else may run init, join or reset meanwhile. Whoever is not root is told so instead.
    pub(super) fn new(
        given: Given<'a>,
        paths: &'a Paths,
        services: ServiceManager,
        tell: &'a Teller,
    ) -> Result<Self, PhaseError> {
        let Given { node, limits, weft, patches, wanted, ignored, hash } = given;
        let ignored = Ignored::parse(ignored).map_err(|error| PhaseError::Usage(error.to_string()))?;
        // Such a user cannot open the journal either, and is to learn why.
        if let Some(report) = checks::privileged(nix::unistd::geteuid().as_raw(), &ignored) {
            return Err(PhaseError::Preflight(Box::new(report)));
        }
        let patches = patches.map(|directory| Patches::load(&directory)).transpose()?.unwrap_or_default();
        let wanted = Wanted {
            swap: match weft.swap {
                config::Swap::Disable => SwapPolicy::Disable,
                config::Swap::Tolerate => SwapPolicy::Tolerate,
                config::Swap::Limited => SwapPolicy::Limited,
            },
            prepare: weft.prepare_host,
            fix: weft.fix,
            api_balancer_port: weft.api_balancer.then_some(weft.api_balancer_port),
            brings_kubelet: weft.kubernetes_bin.as_ref().is_some_and(|folder| folder.join("kubelet").is_file()),
            ..wanted
        };
        let hash = with_files(&hash, weft);
        let journal = Journal::open(paths)?;
        let (tools, began) = (System, SystemTime::now());
        Ok(Self {
            node,
            limits,
            weft,
            paths,
            tell,
            journal,
            tools,
            services,
            patches,
            dry: wanted.paths != *paths,
            wanted,
            ignored,
            warned: BTreeSet::new(),
            began,
            hash,
            runtime: None,
            needs: None,
            rehearsal: None,
            stand_in: None,
        })
    }

    /// Takes note of the cluster that is joined, of which nothing was known before it was found.
    pub(super) fn learn(&mut self, cluster: &Cluster) {
        self.wanted.learn(cluster);
    }

    /// Says where a run that was ended goes on.
    pub(super) fn tell_of_earlier_run(&self, verb: &str, phases: &[String]) {
        let is_begun = |phase: &&String| {
            let stage = self.journal.entries().rev().find_map(|entry| match &entry.change {
                Change::Phase { name, .. } if name == *phase => Some(entry.stage),
                _ => None,
            });
            stage == Some(Stage::Begun)
        };
        let is_done = |phase: &String| self.journal.phase(phase) == Some(self.hash.as_str());
        // Ended between two phases, or before it could write down that the next one begins.
        let next = |phases: &[String]| {
            let is_known = |phase: &String| self.journal.phase(phase).is_some();
            phases.iter().any(is_known).then(|| phases.iter().find(|phase| !is_known(phase)).cloned())?
        };
        if let Some(phase) = phases.iter().find(is_begun) {
            self.tell.step(verb, format!("an earlier run was ended in phase {phase}; going on from there"));
        } else if let Some(phase) = next(phases) {
            self.tell.step(verb, format!("an earlier run was ended before phase {phase}; going on from there"));
        } else if phases.iter().all(is_done) {
            self.tell.step(verb, "done already by an earlier run; looking whether all is as it should be");
        }
    }

    /// Writes down that a phase begins; `None` if it has ended well with the same before: a run that finds everything done
    /// writes nothing.
    pub(super) fn begin(&mut self, phase: &str) -> Result<Option<EntryId>, PhaseError> {
        if self.journal.phase(phase) == Some(self.hash.as_str()) {
            return Ok(None);
        }
        let change = Change::Phase { name: phase.to_owned(), config_hash: self.hash.clone() };
        Ok(Some(self.journal.begin(change)?))
    }

    /// Writes down that what was begun has ended well.
    pub(super) fn end(&mut self, entry: Option<EntryId>) -> Result<(), PhaseError> {
        Ok(entry.map_or(Ok(()), |entry| self.journal.done(entry))?)
    }

    /// CoreDNS, with the user's patches.
    pub(super) async fn coredns(&self, server: &Server, dns: &CoreDns<'_>) -> Result<api::Outcome, PhaseError> {
        let patch = |mut object: Value| match self.patches.apply(COREDNS_PATCHES, &mut object) {
            Ok(_) => Ok(object),
            Err(error) => Err(error.to_string()),
        };
        Ok(api::apply_coredns(server, dns, &patch).await?)
    }

    /// Whether this run or an earlier one has begun a phase.
    pub(super) fn has_begun(&self, phase: &str) -> bool {
        let mut entries = self.journal.entries().filter(|entry| entry.stage != Stage::Undone);
        entries.any(|entry| matches!(&entry.change, Change::Phase { name, .. } if name == phase))
    }

    /// The runtime, asked once.
    pub(super) async fn runtime(&mut self) -> &(RuntimeTold, Option<(Cri, Health)>) {
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => runtime::ask(&self.node.cri_socket).await,
        };
        self.runtime.insert(runtime)
    }

    /// Says what became of a certificate or kubeconfig.
    pub(super) fn say_step(&self, phase: &str, step: &Step) {
        let item = &step.item;
        let words = match step.outcome {
            Outcome::Made => Some(format!("Generating \"{item}\"")),
            Outcome::Changed => Some(format!("Generating \"{item}\" anew")),
            Outcome::External => Some(format!("Using external \"{item}\"")),
            Outcome::Kept => None,
        };
        if let Some(words) = words {
            self.tell.step(phase, words);
        }
        match (&step.note, step.outcome) {
            // For whom it holds.
            (Some(note), Outcome::Made) => self.tell.step(phase, format!("{item}: {note}")),
            (Some(note), _) => self.tell.warning(phase, format!("{item}: {note}")),
            (None, _) => {}
        }
    }

    /// Says what became of an object of the API.
    pub(super) fn say(&self, phase: &str, what: &str, outcome: api::Outcome) {
        match outcome {
            api::Outcome::Kept => {}
            api::Outcome::Made => self.tell.step(phase, format!("Created {what}")),
            api::Outcome::Changed => self.tell.step(phase, format!("Updated {what}")),
            api::Outcome::Retained => self.tell.warning(phase, format!("{what} was changed by others, and stays")),
        }
    }
}

/// A hash that changes with the files that images are made of, told by their size and time.
fn with_files(hash: &str, weft: &WeftOptions) -> String {
    let programs = weft.kubernetes_bin.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let mut files: Vec<PathBuf> = programs.map(|entry| entry.path()).chain(weft.images.iter().cloned()).collect();
    files.sort();
    let stamp = |path: &PathBuf| fs::metadata(path).ok().map(|file| (file.len(), file.mtime(), file.mtime_nsec()));
    let mut all = Sha256::new();
    all.update(hash);
    all.update(format!("{:?}", files.iter().map(|path| (path, stamp(path))).collect::<Vec<_>>()));
    all.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Seconds, for people.
fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
