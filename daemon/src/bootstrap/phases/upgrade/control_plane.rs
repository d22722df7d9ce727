//! `control-plane`: the static pods of this node, and the certificates that they use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::Value;

use super::Upgrade;
use super::backup::Backup;
use super::manifests::{self, flag};
use super::sequence::{self, Kubelet as _, Swap};
use super::watch::Watch;
use crate::bootstrap::api::{self, EtcdAccess, EtcdCluster, Server};
use crate::bootstrap::converge::{FileError, difference};
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::phases::tell::Teller;
use crate::bootstrap::pki::PkiError;
use crate::bootstrap::pki::renew::{RenewOptions, Renewal, names_here, renew};
use crate::bootstrap::pki::restart::affected;
use crate::bootstrap::pki::rollout::roll_out;
use crate::bootstrap::resolved::Paths;
use crate::bootstrap::static_pods::{Facts, Part, ca_directories};
use crate::bootstrap::yaml;

const PHASE: &str = "upgrade/static-pods";
const RENEWAL: &str = "renew-certs";
/// How long an API server may take to answer before it is taken for one that an earlier upgrade has broken.
const ANSWER: Duration = Duration::from_secs(20);

/// A manifest that is there: as text, and what it says.
type Present = BTreeMap<Part, (String, Value)>;

impl Upgrade<'_> {
    pub(super) async fn control_plane(&mut self) -> Result<(), PhaseError> {
        if !self.config.control_plane {
            return Ok(());
        }
        let backup = Backup::find(self.ground.paths, Timestamp::now())?;
        let present = present(self.ground.paths)?;
        let swaps = self.swaps(&present, &backup).await?;
        if self.options.dry_run {
            self.show(&swaps, &present);
            return Ok(());
        }
        if swaps.is_empty() {
            self.ground.tell.step(PHASE, "the manifests are as they should be");
        } else {
            self.swap(&swaps, &present, &backup).await?;
        }
        self.renew_rest().await
    }

    /// Takes back what an upgrade that was ended has left, where no API answers any more to go on with it.
    pub(super) async fn recover(&mut self) -> Result<(), PhaseError> {
        let backup = Backup::find(self.ground.paths, Timestamp::now())?;
        let server = self.server().await?.clone();
        if !backup.is_resumed() || api::server_version(&server.within(ANSWER)).await.is_ok() {
            return Ok(());
        }
        let folder = backup.folder().display();
        let words = format!("an earlier upgrade was ended, and no API answers: putting the manifests of {folder} back");
        self.ground.tell.warning(PHASE, words);
        let mut parts = Vec::new();
        for part in Part::ALL {
            if let Some(old) = backup.old(part)? {
                let new = String::new();
                sequence::put_back(&Swap { part, old: Some(old), new }, self.ground.paths)?;
                parts.push(part);
            }
        }
        self.watch(server).await.await_well(&parts).await?;
        backup.finish()?;
        self.ground.tell.step(PHASE, "the old control plane is well again");
        Ok(())
    }

    async fn watch(&mut self, server: Server) -> Watch<'_> {
        let cri = self.ground.runtime().await.1.as_ref().map(|(cri, _)| cri.clone());
        Watch {
            paths: self.ground.paths,
            limits: self.config.limits,
            node: &self.config.node.name,
            server,
            services: &self.ground.services,
            cri,
            tell: self.ground.tell,
            since: SystemTime::now(),
        }
    }

    /// The manifests that have to be others, or had to be when an earlier run was ended.
    async fn swaps(&mut self, present: &Present, backup: &Backup) -> Result<Vec<Swap>, PhaseError> {
        let cluster = self.cluster().await?;
        let said: BTreeMap<Part, Value> = present.iter().map(|(part, (_, value))| (*part, value.clone())).collect();
        let start_limit = said.get(&Part::ApiServer).and_then(manifests::start_limit);
        let facts = Facts {
            ca_directories: ca_directories(&self.ground.paths.root),
            external_ca: !self.ground.paths.pki.join("ca.key").exists(),
            etcd_version: self.etcd_version(&said),
            start_limit: start_limit.unwrap_or(self.config.limits.component),
            ..Facts::default()
        };
        let (node, patches) = (&self.config.node, &self.ground.patches);
        let wanted = manifests::wanted(&cluster, node, &facts, patches, &said, self.options.etcd)?;
        let mut swaps = Vec::new();
        for (part, pod) in wanted {
            let now = present.get(&part);
            let before = if backup.is_resumed() { backup.old(part)? } else { None };
            let is_same = now.is_some_and(|(_, value)| manifests::is_same(value, &pod));
            match (is_same, before) {
                (true, None) => {}
                // Its text is what is compared with what the file holds: nothing is written again.
                (true, Some(old)) => {
                    let new = now.map(|(text, _)| text.clone()).unwrap_or_default();
                    swaps.push(Swap { part, old: Some(old), new });
                }
                (false, before) => {
                    let old = before.or_else(|| now.map(|(text, _)| text.clone()));
                    swaps.push(Swap { part, old, new: yaml::to_string(&pod) });
                }
            }
        }
        Ok(swaps)
    }

    /// The kind of etcd that runs then: what programs that are given say themselves, else what runs now, as long as its image
    /// is not another.
    fn etcd_version(&self, present: &BTreeMap<Part, Value>) -> crate::bootstrap::static_pods::EtcdVersion {
        let brings = self.config.weft.kubernetes_bin.as_ref().is_some_and(|folder| folder.join("etcd").is_file());
        match present.get(&Part::Etcd) {
            Some(old) if !brings => manifests::etcd_version(old),
            _ => self.ground.etcd_version(),
        }
    }

    /// Says in which lines the manifests would be others.
    fn show(&self, swaps: &[Swap], present: &Present) {
        if swaps.is_empty() {
            self.ground.tell.step(PHASE, "the manifests are as they should be");
        }
        for swap in swaps {
            let path = self.ground.paths.manifest(swap.part);
            let old = present.get(&swap.part).map(|(_, value)| yaml::to_string(value)).unwrap_or_default();
            let lines = difference(&old, &swap.new);
            self.ground.tell.step(PHASE, format!("{} would be changed:\n{lines}", path.display()));
        }
    }

    async fn swap(&mut self, swaps: &[Swap], present: &Present, backup: &Backup) -> Result<(), PhaseError> {
        if backup.is_resumed() {
            let folder = backup.folder().display();
            self.ground.tell.step(PHASE, format!("an earlier upgrade was ended; what was before it is in {folder}"));
        }
        for swap in swaps {
            backup.keep(&mut self.ground.journal, swap.part, swap.old.as_deref(), &swap.new)?;
        }
        self.snapshot(present, backup).await?;
        let server = self.server().await?.clone();
        let (paths, tell, renewing) = (self.ground.paths, self.ground.tell, self.options.renew);
        let mut watch = self.watch(server).await;
        // It is started anew in any case: with new certificates, as kubeadm has it.
        let mut prepare = |part: Part| {
            let names = names_here(paths).into_iter().filter(|name| affected(name).contains(&part.name()));
            let mut all = names.filter(|_| renewing).map(|name| renew_one(name, paths, false, tell));
            all.try_for_each(|renewed| renewed.map(drop)).map_err(PhaseError::from)
        };
        let say = |words: String| tell.step(PHASE, words);
        let ended = sequence::run(swaps, paths, backup.folder(), &mut watch, &mut prepare, &say).await;
        // Also after a roll-back: what was before is what is.
        if ended.is_ok() || matches!(&ended, Err(PhaseError::Upgrade(super::UpgradeError::RolledBack { .. }))) {
            backup.finish()?;
        }
        ended?;
        self.swapped = swaps.iter().map(|swap| swap.part).collect();
        Ok(())
    }

    /// What etcd holds, before another version writes in it.
    async fn snapshot(&self, present: &Present, backup: &Backup) -> Result<(), PhaseError> {
        let path = backup.snapshot();
        let Some((_, etcd)) = present.get(&Part::Etcd) else { return Ok(()) };
        if path.exists() {
            return Ok(());
        }
        let urls = flag(etcd, "listen-client-urls").unwrap_or_default();
        let endpoints: Vec<String> = urls.split(',').take(1).map(str::to_owned).collect();
        let access = EtcdAccess::healthcheck(self.ground.paths);
        let cluster = EtcdCluster::connect(&endpoints, Some(&access), &self.config.limits).await?;
        cluster.snapshot(&path).await?;
        self.ground.tell.step(PHASE, format!("a snapshot of etcd is in {}", path.display()));
        Ok(())
    }

    /// Certificates that no new manifest has brought: those that are due, and administrators' where anything is new.
    async fn renew_rest(&self) -> Result<(), PhaseError> {
        if !self.options.renew {
            return Ok(());
        }
        let (paths, tell) = (self.ground.paths, self.ground.tell);
        let mut concerned: BTreeSet<&'static str> = BTreeSet::new();
        for name in names_here(paths) {
            let users = affected(name);
            if users.iter().any(|user| self.swapped.iter().any(|part| part.name() == *user)) {
                continue;
            }
            let only_due = !users.is_empty() || self.swapped.is_empty();
            if renew_one(name, paths, only_due, tell)? {
                concerned.extend(users);
            }
        }
        for component in Part::ALL.map(Part::name).into_iter().filter(|name| concerned.contains(name)) {
            let (paths, limit) = (paths.clone(), self.config.limits.component);
            let rolled =
                tokio::task::spawn_blocking(move || roll_out(component, &paths, limit, Timestamp::now())).await;
            match rolled {
                Ok(Ok(_)) => tell.step(RENEWAL, format!("{component} was restarted with its new certificates")),
                Ok(Err(error)) => tell.warning(RENEWAL, error.to_string()),
                Err(error) => tell.warning(RENEWAL, format!("{component}: {error}")),
            }
        }
        Ok(())
    }
}

/// Renews a certificate; whether it is a new one.
fn renew_one(name: &str, paths: &Paths, only_due: bool, tell: &Teller) -> Result<bool, PkiError> {
    let options = RenewOptions { only_due, ..RenewOptions::default() };
    match renew(name, paths, options, Timestamp::now())? {
        Renewal::Renewed { until, .. } => {
            tell.step(RENEWAL, format!("{name}: renewed, holds until {until}"));
            Ok(true)
        }
        Renewal::External => {
            tell.step(RENEWAL, format!("{name}: not renewed, its authority's key is not here"));
            Ok(false)
        }
        Renewal::NotDue { .. } | Renewal::Missing => Ok(false),
    }
}

/// The manifests that are there.
fn present(paths: &Paths) -> Result<Present, PhaseError> {
    let mut found = BTreeMap::new();
    for part in Part::ALL {
        let path = paths.manifest(part);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(FileError::of("read", &path)(error).into()),
        };
        let value =
            serde_saphyr::from_str(&text).map_err(|error| PhaseError::Usage(format!("{}: {error}", path.display())))?;
        found.insert(part, (text, value));
    }
    Ok(found)
}
