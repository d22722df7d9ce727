//! `weft init`: the first node of a cluster.

mod addons;
mod cluster;
mod dry_run;
mod files;

use sha2::{Digest as _, Sha256};

use super::error::PhaseError;
use super::ground::{Given, Ground, PREFLIGHT, weft_name};
use super::tell::Teller;
use crate::bootstrap::api::{self, CertificateKey, Server, TokenSpec};
use crate::bootstrap::config::InitConfig;
use crate::bootstrap::host::facts::HostFacts;
use crate::bootstrap::host::{Role, Wanted};
use crate::bootstrap::images::Names;
use crate::bootstrap::kubelet::config::cluster_wide;
use crate::bootstrap::kubelet::flags;
use crate::bootstrap::kubelet::service::ServiceManager;
use crate::bootstrap::resolved::Paths;

/// What the command line says that is no part of the configuration.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// With `--dry-run` the machine that is looked at; files go to the paths that the run is given, which are others.
    pub dry_run_on: Option<Paths>,
    /// Whether the control plane's certificates are uploaded.
    pub upload_certs: bool,
    /// Whether the token is kept out of what is printed.
    pub skip_token_print: bool,
    /// Whether the certificates' key is.
    pub skip_certificate_key_print: bool,
}

/// A run of `weft init`.
pub struct Init<'a> {
    ground: Ground<'a>,
    config: &'a InitConfig,
    options: InitOptions,
    server: Option<Server>,
    token: Option<TokenSpec>,
    key: Option<CertificateKey>,
}

impl<'a> Init<'a> {
    /// A run that has not begun. Nobody else may run init, join or reset meanwhile.
    ///
    /// # Errors
    /// This is not root, the journal cannot be opened, or patches cannot be read.
    pub fn new(
        config: &'a InitConfig,
        options: InitOptions,
        paths: &'a Paths,
        services: ServiceManager,
        tell: &'a Teller,
    ) -> Result<Self, PhaseError> {
        let given = Given {
            node: &config.node,
            limits: config.limits,
            weft: &config.weft,
            patches: config.init.patches.as_ref().and_then(|patches| patches.directory.as_ref()).map(Into::into),
            wanted: Wanted::control_plane(
                Role::Init,
                &config.cluster,
                &config.node,
                options.dry_run_on.as_ref().unwrap_or(paths),
            ),
            ignored: &config.init.node_registration.ignore_preflight_errors,
            hash: hash(config),
        };
        let ground = Ground::new(given, paths, services, tell)?;
        Ok(Self { ground, config, options, server: None, token: None, key: None })
    }

    /// Runs these phases (full names, from [`super::select`]) in their order.
    ///
    /// # Errors
    /// The first phase that does not come to its end, by its name, and why.
    pub async fn run(&mut self, phases: &[String]) -> Result<(), (String, PhaseError)> {
        self.ground.tell_of_earlier_run("init", phases);
        let mut outcome = Ok(());
        for phase in phases {
            outcome = self.phase(phase).await.map_err(|error| (phase.clone(), error));
            if outcome.is_err() {
                break;
            }
        }
        let is_over = self.ground.rehearsal_is_over().await;
        outcome.and(is_over.map_err(|error| (PREFLIGHT.to_owned(), error)))?;
        if self.ground.dry {
            self.show_files().map_err(|error| ("dry-run".to_owned(), error))?;
        }
        Ok(())
    }

    async fn phase(&mut self, phase: &str) -> Result<(), PhaseError> {
        self.ground.tell.begins(phase);
        // Before the journal knows of it: on a machine that does not pass the checks nothing is to be taken back.
        let facts = if phase == PREFLIGHT { Some(self.ground.check().await?) } else { None };
        let entry = self.ground.begin(phase)?;
        match facts {
            Some(facts) => self.preflight(&facts).await?,
            None => self.work(phase).await?,
        }
        self.ground.end(entry)
    }

    async fn work(&mut self, phase: &str) -> Result<(), PhaseError> {
        let (room, part) = phase.split_once('/').unwrap_or((phase, ""));
        match room {
            "certs" => self.certificate(part),
            "kubeconfig" => self.kubeconfig(part),
            "etcd" | "control-plane" => self.static_pod(part),
            "weft-helpers" => self.helpers().await,
            "kubelet-start" => self.kubelet_start().await,
            "wait-control-plane" | "kubelet-finalize" | "await-ready" if self.ground.dry => Ok(()),
            "wait-control-plane" => {
                self.ground.wait(true).await?;
                self.server().await.map(drop)
            }
            "upload-config" => self.upload_config(part).await,
            "upload-certs" => self.upload_certs().await,
            "mark-control-plane" => self.mark_control_plane().await,
            "bootstrap-token" => self.bootstrap_token().await,
            "kubelet-finalize" => self.ground.kubelet_finalize(),
            "addon" => self.addon(part).await,
            "await-ready" => self.await_ready().await,
            "show-join-command" => self.show_join_command(),
            // Only names of the tree come here.
            _ => Ok(()),
        }
    }

    async fn preflight(&mut self, facts: &HostFacts) -> Result<(), PhaseError> {
        let registration = &self.config.init.node_registration;
        if self.ground.dry {
            return Ok(());
        }
        self.ground.make_ready(facts).await?;
        let names = Names::of(&self.config.cluster, &weft_name());
        self.ground.images(&names, true, registration).await
    }

    async fn kubelet_start(&mut self) -> Result<(), PhaseError> {
        let wide = cluster_wide(&self.config.cluster, self.config.kubelet.as_ref());
        wide.warnings.iter().for_each(|warning| self.ground.tell.warning("kubelet-start", warning));
        self.ground.kubelet_start(flags::Role::ControlPlane, &wide.value).await
    }

    /// The API server on this node, as an administrator; connected once.
    async fn server(&mut self) -> Result<&Server, PhaseError> {
        let server = match self.server.take() {
            Some(server) => server,
            None if self.ground.dry => self.dry_server(),
            None => {
                let endpoint = self.config.node.local_endpoint();
                let (server, outcome) = api::admin(self.ground.paths, &endpoint, &self.config.limits).await?;
                if outcome == api::Outcome::Made {
                    let words = "administrators have their rights (kubeadm:cluster-admins)";
                    self.ground.tell.step("wait-control-plane", words);
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
