//! `preflight`: the machine is checked and made ready, and has the images and programs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Ground, seconds};
use crate::bootstrap::config::model::NodeRegistration;
use crate::bootstrap::cri::{Cri, CriError, Rehearsal};
use crate::bootstrap::host::containerd::mirrors::Mirror;
use crate::bootstrap::host::facts::HostFacts;
use crate::bootstrap::host::tools::Tools as _;
use crate::bootstrap::host::{Finding, Hand, KubeletNeeds, Severity, checks, gather, prepare};
use crate::bootstrap::images::binaries::{self, Installed, Outcome};
use crate::bootstrap::images::{
    Event, Names, Own, Pulls, Sources, Wanted as WantedImage, name_sandbox_image, provide, weft_image,
};
use crate::bootstrap::journal::{Change, Journal};
use crate::bootstrap::kubelet::service::Service;
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::static_pods::EtcdVersion;

/// Name of the phase.
pub(in crate::bootstrap::phases) const PREFLIGHT: &str = "preflight";

/// Where weft's own image is, unless the user has said otherwise.
const REPOSITORY: &str = "localhost";

/// How long containerd may take to serve again after it was started anew.
const RUNTIME_START: Duration = Duration::from_secs(30);

/// Where runtimes remember what plugins have answered (`CacheDir` of libcni).
const CNI_CACHE: &str = "var/lib/cni/results";

/// Where kubelet and the controller manager look for volume plugins: kubelet and the static pod make it.
const PLUGINS: &str = "usr/libexec/kubernetes/kubelet-plugins/volume/exec";

/// The name of weft's image.
pub(in crate::bootstrap::phases) fn weft_name() -> String {
    weft_image(REPOSITORY)
}

impl Ground<'_> {
    /// Makes the machine ready, and installs what a node needs.
    pub(in crate::bootstrap::phases) async fn make_ready(&mut self, facts: &HostFacts) -> Result<(), PhaseError> {
        self.prepare(facts).await?;
        self.directories()?;
        self.install()
    }

    /// What is going to be filled, by weft, by kubelet and by static pods: made here, so that a reset knows which of them were
    /// not there before.
    fn directories(&mut self) -> Result<(), PhaseError> {
        let paths = self.paths;
        let mut wanted = vec![paths.kubernetes.clone(), paths.manifests(), paths.pki.clone(), paths.kubelet.clone()];
        wanted.extend(self.wanted.etcd_data.clone());
        wanted.extend(["etc/cni/net.d", "opt/cni/bin", CNI_CACHE, PLUGINS].map(|path| paths.root.join(path)));
        let mut hand = Hand::new(paths, &mut self.journal, &self.tools);
        for path in wanted {
            hand.directory(&path, if path.starts_with(&paths.pki) { 0o700 } else { 0o755 })?;
        }
        Ok(())
    }

    /// The checks; what is found is told, and errors end the run. The facts are what the machine is made ready by.
    pub(in crate::bootstrap::phases) async fn check(&mut self) -> Result<HostFacts, PhaseError> {
        let facts = self.facts().await;
        let report = checks::judge(&facts, &self.wanted, &self.ignored);
        if !report.is_passed() {
            return Err(PhaseError::Preflight(Box::new(report)));
        }
        for finding in report.findings.iter().filter(|finding| finding.severity == Severity::Warning) {
            let Finding { name, cause, fix, .. } = finding;
            let advice = if fix.is_empty() { String::new() } else { format!("; {fix}") };
            let words = format!("{name}: {cause}{advice}");
            // A machine that is looked at again, as more is known of the cluster, has the same warnings.
            if self.warned.insert(words.clone()) {
                self.tell.warning(PREFLIGHT, words);
            }
        }
        self.needs = Some(report.kubelet);
        Ok(facts)
    }

    async fn facts(&mut self) -> HostFacts {
        let told = self.runtime().await.0.clone();
        let entries = match self.dry {
            // The machine's own, which one that goes elsewhere does not have.
            true => Journal::read(&self.wanted.paths).unwrap_or_default(),
            false => self.journal.entries().cloned().collect(),
        };
        gather::facts(&self.wanted, told, &entries, &self.tools)
    }

    async fn prepare(&mut self, facts: &HostFacts) -> Result<(), PhaseError> {
        let mirrors = self.weft.image_mirrors.iter().map(|text| text.parse::<Mirror>());
        let mirrors = mirrors.collect::<Result<Vec<_>, _>>().map_err(|error| PhaseError::Usage(error.to_string()))?;
        let mut hand = Hand::new(self.paths, &mut self.journal, &self.tools);
        let prepared = prepare(&mut hand, facts, &self.wanted, &mirrors)?;
        prepared.changes.iter().for_each(|change| self.tell.step(PREFLIGHT, change));
        prepared.warnings.iter().for_each(|warning| self.tell.warning(PREFLIGHT, warning));
        if prepared.restart_runtime {
            // Another one beside the one that somebody else has started would only be in its way.
            if !self.services.is_in_charge(Service::Containerd)? {
                return Err(PhaseError::RuntimeToRestart);
            }
            self.tell.step(PREFLIGHT, "starting containerd anew, so that it reads its configuration");
            self.services.restart(Service::Containerd)?;
        }
        if prepared.restart_runtime || prepared.runtime_restarted {
            self.runtime = None;
            let end = Instant::now() + RUNTIME_START;
            while self.runtime().await.1.is_none() && Instant::now() < end {
                self.runtime = None;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        Ok(())
    }

    /// kubelet, kubectl and weft's plugin, where there are none.
    fn install(&mut self) -> Result<(), PhaseError> {
        let mut wanted: Vec<(PathBuf, PathBuf)> = Vec::new();
        let root = self.paths.root.clone();
        if let Some(folder) = &self.weft.kubernetes_bin {
            let target = root.join("usr/bin");
            wanted.extend(["kubelet", "kubectl"].map(|name| (folder.join(name), target.join(name))));
        }
        // Written down before they are there, so that a run that is killed in between leaves nothing unknown.
        let mut ids = Vec::new();
        for (_, to) in wanted.iter().filter(|(from, to)| from.is_file() && !to.exists()) {
            ids.push(self.journal.begin(Change::FileMade { path: to.clone(), sha256: None })?);
        }
        let mut installed: Vec<Installed> = Vec::new();
        if let Some(folder) = &self.weft.kubernetes_bin {
            installed.extend(binaries::install_programs(folder, &root)?);
        }
        let own = Own::find(self.weft.kubernetes_bin.as_deref())?;
        for name in ["weft-cni", "loopback"] {
            let path = root.join("opt/cni/bin").join(name);
            if !path.exists() {
                ids.push(self.journal.begin(Change::FileMade { path, sha256: None })?);
            }
        }
        installed.extend(binaries::install_plugins(&own, &root)?);
        for id in ids {
            self.journal.done(id)?;
        }
        for program in installed {
            let path = program.path.display();
            match program.what {
                Outcome::Made => self.tell.step(PREFLIGHT, format!("installed {path}")),
                Outcome::Kept => {}
                Outcome::Foreign => self.tell.step(PREFLIGHT, format!("{path} is another one, and stays")),
            }
        }
        Ok(())
    }

    /// All images of a node, and a first pod that shows that the runtime can make one.
    pub(in crate::bootstrap::phases) async fn images(
        &mut self,
        names: &Names,
        control_plane: bool,
        registration: &NodeRegistration,
    ) -> Result<(), PhaseError> {
        let weft = self.weft;
        let policy = registration.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        let serial = registration.image_pull_serial.unwrap_or(true);
        let sources = Sources {
            archives: weft.images.clone(),
            programs: weft.kubernetes_bin.clone(),
            own: Own::find(weft.kubernetes_bin.as_deref()).ok(),
            // Nothing is asked of a network where programs are given.
            pull: (policy != "Never" && weft.kubernetes_bin.is_none()).then(|| Pulls {
                at_once: if serial { 1 } else { Pulls::default().at_once },
                certs_d: self.paths.root.join("etc/containerd/certs.d"),
                ..Pulls::default()
            }),
            always: policy == "Always",
            scratch: self.paths.state.clone(),
        };
        let tell = self.tell;
        let socket = self.node.cri_socket.clone();
        // An earlier run of the same, with the same files, has brought images and seen a first pod start.
        let is_known = self.journal.phase(PREFLIGHT) == Some(self.hash.as_str());
        let (told, answering) = self.runtime().await;
        let Some((cri, health)) = answering else {
            return Err(PhaseError::Usage(format!("the runtime at {socket} does not answer: {told:?}")));
        };
        let say = |event: &Event| {
            if let Some(words) = words(event) {
                tell.step(PREFLIGHT, words);
            }
        };
        let mut wanted = names.wanted(control_plane);
        // CoreDNS may come to run on any node, and none of them can pull it where programs are given.
        let has_dns = weft.kubernetes_bin.as_ref().is_some_and(|folder| folder.join("coredns").is_file());
        wanted.extend(names.coredns().filter(|_| has_dns && !control_plane));
        if is_known && policy != "Always" && are_there(cri, &wanted).await? {
            return Ok(());
        }
        provide(cri, &wanted, &sources, &say).await?;
        name_sandbox_image(cri, health, &names.pause()).await?;
        let sandbox = match cri.rehearse(health.cgroup_driver, None).await? {
            Rehearsal::Passed { sandbox } => sandbox,
            Rehearsal::Failed { cause, fix } => return Err(PhaseError::Rehearsal { cause, fix }),
        };
        let cri = cri.clone();
        self.rehearsal = Some(tokio::spawn(async move { cri.end_sandbox(&sandbox).await }));
        Ok(())
    }

    /// Waits until the sandbox of the rehearsal is gone, which it goes while other things are done.
    pub(in crate::bootstrap::phases) async fn rehearsal_is_over(&mut self) -> Result<(), PhaseError> {
        if let Some(end) = self.rehearsal.take() {
            // A task that was cut off has said so itself.
            end.await.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// The version of the etcd that runs here: one that the folder of programs brings says it itself.
    pub(in crate::bootstrap::phases) fn etcd_version(&self) -> EtcdVersion {
        let program = self.weft.kubernetes_bin.as_ref().map(|folder| folder.join("etcd"));
        let asked = program
            .filter(|program| program.is_file())
            .and_then(|program| self.tools.call(program.to_str()?, &["--version"]).ok());
        asked.and_then(|said| EtcdVersion::parse(&said.out)).unwrap_or(EtcdVersion::USUAL)
    }

    /// What this node's kubelet has to be told; a run that begins behind `preflight` looks by itself.
    pub(super) async fn needs(&mut self) -> KubeletNeeds {
        if let Some(needs) = self.needs {
            return needs;
        }
        let facts = self.facts().await;
        let needs = checks::needs(&facts, &self.wanted);
        self.needs = Some(needs);
        needs
    }
}

/// Whether the runtime has all of them.
async fn are_there(cri: &Cri, wanted: &[WantedImage]) -> Result<bool, CriError> {
    for image in wanted {
        if cri.find_image(&image.name).await?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An event in words; `None` for one that people need not see.
fn words(event: &Event) -> Option<String> {
    Some(match event {
        Event::Present(_) | Event::Wrote { .. } => return None,
        Event::Reading(path) => format!("reading images from {}", path.display()),
        Event::Imported(imported) => format!("image {}: {:?}", imported.name, imported.change).to_lowercase(),
        Event::Pulling { name, attempt: 1 } => format!("pulling {name}"),
        Event::Pulling { name, attempt } => format!("pulling {name}, attempt {attempt}"),
        Event::Waiting { name, wait, cause } => format!("{name}: {cause}; again in {}", seconds(*wait)),
        Event::Pulled { name, size, took } => format!("pulled {name}, {} MiB in {}", size >> 20, seconds(*took)),
    })
}
