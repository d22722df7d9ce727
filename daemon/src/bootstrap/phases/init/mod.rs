//! `weft init`: the first node of a cluster.

mod addons;
mod cluster;
mod files;
mod kubelet;
mod machine;

use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::error::PhaseError;
use super::runtime;
use super::tell::Teller;
use crate::bootstrap::api::{self, CertificateKey, Server, TokenSpec};
use crate::bootstrap::config::InitConfig;
use crate::bootstrap::cri::{Cri, Health};
use crate::bootstrap::host::facts::RuntimeTold;
use crate::bootstrap::host::tools::System;
use crate::bootstrap::host::{KubeletNeeds, Role, SwapPolicy, Wanted};
use crate::bootstrap::journal::{Change, Journal, Stage};
use crate::bootstrap::kubelet::service::ServiceManager;
use crate::bootstrap::patches::Patches;
use crate::bootstrap::resolved::Paths;

/// What the command line says that is no part of the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct InitOptions {
    /// Whether the control plane's certificates are uploaded.
    pub upload_certs: bool,
    /// Whether the token is kept out of what is printed.
    pub skip_token_print: bool,
    /// Whether the certificates' key is.
    pub skip_certificate_key_print: bool,
}

/// A run of `weft init`.
pub struct Init<'a> {
    config: &'a InitConfig,
    options: InitOptions,
    paths: &'a Paths,
    tell: &'a Teller,
    journal: Journal,
    tools: System,
    services: ServiceManager,
    patches: Patches,
    wanted: Wanted,
    began: SystemTime,
    /// What the configuration comes to: a phase that ended with another has to be told of.
    hash: String,
    runtime: Option<(RuntimeTold, Option<(Cri, Health)>)>,
    needs: Option<KubeletNeeds>,
    server: Option<Server>,
    token: Option<TokenSpec>,
    key: Option<CertificateKey>,
}

impl<'a> Init<'a> {
    /// A run that has not begun. Nobody else may run init, join or reset meanwhile.
    ///
    /// # Errors
    /// The journal cannot be opened, or patches cannot be read.
    pub fn new(
        config: &'a InitConfig,
        options: InitOptions,
        paths: &'a Paths,
        services: ServiceManager,
        tell: &'a Teller,
    ) -> Result<Self, PhaseError> {
        let directory = config.init.patches.as_ref().and_then(|patches| patches.directory.as_ref());
        let patches = directory.map(|directory| Patches::load(directory.as_ref())).transpose()?.unwrap_or_default();
        let wanted = Wanted {
            swap: match config.weft.swap {
                crate::bootstrap::config::Swap::Disable => SwapPolicy::Disable,
                crate::bootstrap::config::Swap::Tolerate => SwapPolicy::Tolerate,
                crate::bootstrap::config::Swap::Limited => SwapPolicy::Limited,
            },
            prepare: config.weft.prepare_host,
            fix: config.weft.fix,
            brings_kubelet: config.weft.kubernetes_bin.as_ref().is_some_and(|folder| folder.join("kubelet").is_file()),
            ..Wanted::control_plane(Role::Init, &config.cluster, &config.node, paths)
        };
        Ok(Self {
            config,
            options,
            paths,
            tell,
            journal: Journal::open(paths)?,
            tools: System,
            services,
            patches,
            wanted,
            began: SystemTime::now(),
            hash: hash(config),
            runtime: None,
            needs: None,
            server: None,
            token: None,
            key: None,
        })
    }

    /// Runs these phases (full names, from [`super::select`]) in their order.
    ///
    /// # Errors
    /// The first phase that does not come to its end, by its name, and why.
    pub async fn run(&mut self, phases: &[String]) -> Result<(), (String, PhaseError)> {
        self.tell_of_earlier_run(phases);
        for phase in phases {
            self.tell.begins(phase);
            self.phase(phase).await.map_err(|error| (phase.clone(), error))?;
        }
        Ok(())
    }

    /// Says where a run that was ended goes on.
    fn tell_of_earlier_run(&self, phases: &[String]) {
        let begun = |phase: &&String| {
            self.journal.entries().rev().find_map(|entry| match &entry.change {
                Change::Phase { name, .. } if name == *phase => Some(entry.stage == Stage::Begun),
                _ => None,
            })
        };
        if let Some(phase) = phases.iter().find(|phase| begun(phase) == Some(true)) {
            self.tell.step("init", format!("an earlier run was ended in phase {phase}; going on from there"));
        } else if !phases.is_empty() && phases.iter().all(|phase| self.journal.phase(phase) == Some(self.hash.as_str()))
        {
            self.tell.step("init", "this node is initialised already; looking whether all is as it should be");
        }
    }

    async fn phase(&mut self, phase: &str) -> Result<(), PhaseError> {
        // A second run that finds everything done writes nothing.
        let entry = match self.journal.phase(phase) == Some(self.hash.as_str()) {
            true => None,
            false => {
                let change = Change::Phase { name: phase.to_owned(), config_hash: self.hash.clone() };
                Some(self.journal.begin(change)?)
            }
        };
        self.work(phase).await?;
        if let Some(id) = entry {
            self.journal.done(id)?;
        }
        Ok(())
    }

    async fn work(&mut self, phase: &str) -> Result<(), PhaseError> {
        let (room, part) = phase.split_once('/').unwrap_or((phase, ""));
        match room {
            "preflight" => self.preflight().await,
            "certs" => self.certificate(part),
            "kubeconfig" => self.kubeconfig(part),
            "etcd" | "control-plane" => self.static_pod(part),
            "kubelet-start" => self.kubelet_start().await,
            "wait-control-plane" => self.wait_control_plane().await,
            "upload-config" => self.upload_config(part).await,
            "upload-certs" => self.upload_certs().await,
            "mark-control-plane" => self.mark_control_plane().await,
            "bootstrap-token" => self.bootstrap_token().await,
            "kubelet-finalize" => self.kubelet_finalize(),
            "addon" => self.addon(part).await,
            "await-ready" => self.await_ready().await,
            "show-join-command" => self.show_join_command(),
            // Only names of the tree come here.
            _ => Ok(()),
        }
    }

    /// The runtime, asked once.
    async fn runtime(&mut self) -> &(RuntimeTold, Option<(Cri, Health)>) {
        if self.runtime.is_none() {
            self.runtime = Some(runtime::ask(&self.config.node.cri_socket).await);
        }
        self.runtime.get_or_insert((RuntimeTold::NotAsked, None))
    }

    /// The API server on this node, as an administrator; connected once.
    async fn server(&mut self) -> Result<&Server, PhaseError> {
        let server = match self.server.take() {
            Some(server) => server,
            None => {
                let endpoint = self.config.node.local_endpoint();
                let (server, outcome) = api::admin(self.paths, &endpoint, &self.config.limits).await?;
                if outcome == api::Outcome::Made {
                    self.tell.step("wait-control-plane", "administrators have their rights (kubeadm:cluster-admins)");
                }
                server
            }
        };
        Ok(self.server.insert(server))
    }
}

/// Stands for all that the phases work from. The token is not part of it: a new one is made for each run.
fn hash(config: &InitConfig) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", (&config.cluster, &config.node, &config.kubelet, &config.weft)));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
