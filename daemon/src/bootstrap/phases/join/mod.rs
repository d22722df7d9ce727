//! `weft join`: a further node.

mod control_plane;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::error::PhaseError;
use super::ground::{Given, Ground, PREFLIGHT, weft_name};
use super::tell::Teller;
use crate::balancer::first_reachable;
use crate::bootstrap::api::{self, Discovered, EtcdEntry, Server};
use crate::bootstrap::config::model::EncryptionAlgorithm;
use crate::bootstrap::config::{self, JoinConfig, UploadedConfig};
use crate::bootstrap::converge;
use crate::bootstrap::host::facts::HostFacts;
use crate::bootstrap::host::{Role, Wanted};
use crate::bootstrap::images::Names;
use crate::bootstrap::kubeconfig::joined;
use crate::bootstrap::kubelet::flags;
use crate::bootstrap::kubelet::service::ServiceManager;
use crate::bootstrap::pki::{Key, PkiError};
use crate::bootstrap::resolved::Paths;
use crate::bootstrap::stable_name;

/// The cluster, once it is found.
struct Found {
    /// How; `None` on a node that is in it already and asks with kubelet's own credentials.
    discovered: Option<Discovered>,
    server: Server,
    uploaded: UploadedConfig,
    /// Its KubeletConfiguration.
    kubelet: Value,
}

/// A run of `weft join`.
pub struct Join<'a> {
    ground: Ground<'a>,
    config: &'a JoinConfig,
    found: Option<Found>,
    /// The etcd member that this run has made, to be taken back if it fails.
    member: Option<EtcdEntry>,
}

impl<'a> Join<'a> {
    /// A run that has not begun. Nobody else may run init, join or reset meanwhile. With `--dry-run`, `dry_run_on` is the machine
    /// that is looked at, and `paths` are others.
    ///
    /// # Errors
    /// This is not root, the journal cannot be opened, or patches cannot be read.
    pub fn new(
        config: &'a JoinConfig,
        dry_run_on: Option<&Paths>,
        paths: &'a Paths,
        services: ServiceManager,
        tell: &'a Teller,
    ) -> Result<Self, PhaseError> {
        let control_plane = config.join.control_plane.is_some();
        let endpoints = config.join.discovery.bootstrap_token.as_ref();
        let endpoints = endpoints.and_then(|token| token.api_server_endpoint.as_deref()).unwrap_or_default();
        let wanted = Wanted {
            role: Role::Join { control_plane },
            endpoints: endpoints
                .split(',')
                .filter_map(|text| text.trim().parse().ok())
                .map(|at: std::net::SocketAddr| at.ip())
                .collect(),
            ..Wanted::worker(&config.node, dry_run_on.unwrap_or(paths))
        };
        let given = Given {
            node: &config.node,
            limits: config.limits,
            weft: &config.weft,
            patches: config.join.patches.as_ref().and_then(|patches| patches.directory.as_ref()).map(Into::into),
            wanted,
            ignored: &config.join.node_registration.ignore_preflight_errors,
            hash: hash(config),
        };
        Ok(Self { ground: Ground::new(given, paths, services, tell)?, config, found: None, member: None })
    }

    /// Runs these phases (full names, from [`super::select`]) in their order. An etcd member that was made goes again if one fails.
    ///
    /// # Errors
    /// The first phase that does not come to its end, by its name, and why.
    pub async fn run(&mut self, phases: &[String]) -> Result<(), (String, PhaseError)> {
        if self.ground.dry {
            return self.rehearse(phases).await.map_err(|error| ("preflight".to_owned(), error));
        }
        self.ground.tell_of_earlier_run("join", phases);
        let mut outcome = Ok(());
        for phase in phases {
            if let Err(error) = self.phase(phase).await {
                self.take_member_back().await;
                outcome = Err((phase.clone(), error));
                break;
            }
        }
        let is_over = self.ground.rehearsal_is_over().await;
        outcome.and(is_over.map_err(|error| (PREFLIGHT.to_owned(), error)))
    }

    async fn phase(&mut self, phase: &str) -> Result<(), PhaseError> {
        self.ground.tell.begins(phase);
        // Before the journal knows of it: where nothing was done nothing is to be taken back.
        let facts = if phase == PREFLIGHT { Some(self.check().await?) } else { None };
        let entry = self.ground.begin(phase)?;
        match facts {
            Some(facts) => self.preflight(&facts).await?,
            None => self.work(phase).await?,
        }
        self.ground.end(entry)
    }

    async fn work(&mut self, phase: &str) -> Result<(), PhaseError> {
        let control_plane = self.config.join.control_plane.is_some();
        match phase {
            "control-plane-prepare/download-certs" if control_plane => self.download_certs().await,
            "control-plane-prepare/certs" if control_plane => self.certificates().await,
            "control-plane-prepare/kubeconfig" if control_plane => self.kubeconfigs().await,
            "control-plane-prepare/control-plane" if control_plane => self.static_pods().await,
            "weft-helpers" => self.helpers().await,
            "kubelet-start" => self.kubelet_start().await,
            "etcd-join" if control_plane => self.etcd_join().await,
            "kubelet-wait-bootstrap" => self.ground.wait(false).await,
            // A control-plane node asks its own API server.
            // While it is waited for the node, its balancer has the time to start.
            "kubelet-finalize" if self.config.weft.wait && self.ground.stands_in() => Ok(()),
            "kubelet-finalize" if !control_plane => self.kubelet_finalize().await,
            "control-plane-join/mark-control-plane" if control_plane => self.mark_control_plane().await,
            "wait-control-plane" if control_plane => self.ground.wait(true).await,
            "await-ready" => self.await_ready().await,
            // What is about the control plane is not a worker's.
            _ => Ok(()),
        }
    }

    /// Whether the node may join, and what would be done then.
    async fn rehearse(&mut self, phases: &[String]) -> Result<(), PhaseError> {
        self.check().await?;
        self.ground.tell.step("dry-run", format!("would go through {}", phases.join(", ")));
        Ok(())
    }

    /// Nothing is written before it is known that the node may join.
    async fn check(&mut self) -> Result<HostFacts, PhaseError> {
        // First what needs no cluster: it is told at once.
        self.ground.check().await?;
        let name = self.config.node.name.clone();
        let has_joined = self.has_joined();
        let found = self.found().await?;
        if !has_joined {
            api::refuse_ready_node(&found.server, &name).await?;
        }
        // And once more against the cluster's ranges, families and version.
        self.ground.check().await
    }

    async fn preflight(&mut self, facts: &HostFacts) -> Result<(), PhaseError> {
        let registration = &self.config.join.node_registration;
        let names = Names::of(&self.found().await?.uploaded.cluster, &weft_name());
        self.ground.make_ready(facts).await?;
        self.ground.images(&names, self.config.join.control_plane.is_some(), registration).await
    }

    /// Whether an earlier run has come so far that kubelet has an identity.
    fn has_joined(&self) -> bool {
        // It has the file before we come to write down that the phase is done.
        self.ground.has_begun("kubelet-start") && self.ground.paths.kubernetes.join("kubelet.conf").is_file()
    }

    /// The cluster; looked for once. A node that is in it already needs no token any more.
    async fn found(&mut self) -> Result<&Found, PhaseError> {
        let found = match self.found.take() {
            Some(found) => found,
            None => self.find().await?,
        };
        self.ground.learn(&found.uploaded.cluster);
        Ok(self.found.insert(found))
    }

    async fn find(&self) -> Result<Found, PhaseError> {
        let (limits, tell) = (&self.config.limits, self.ground.tell);
        let (discovered, server) = match self.has_joined() {
            true => {
                let kubeconfig = self.ground.paths.kubernetes.join("kubelet.conf");
                // The balancer runs no sooner than kubelet, and kubelet may have to be started by this very run.
                let server = first_reachable(&stable_name::directory(self.ground.paths)).await;
                (None, Server::connect(&kubeconfig, server.as_deref(), limits).await?)
            }
            false => {
                let mut say = |why: &api::DiscoveryError| tell.step("discovery", format!("not found yet: {why}"));
                let discovered = api::discover(&self.config.join.discovery, limits, &mut say).await?;
                tell.step("discovery", format!("found the cluster at {}", discovered.info.server));
                let server = discovered.server(limits).await?;
                (Some(discovered), server)
            }
        };
        let uploaded = config::read_uploaded(&api::read_kubeadm_config(&server).await?)?;
        uploaded.notices.iter().for_each(|notice| tell.warning("discovery", notice.to_string()));
        let kubelet = api::read_kubelet_config(&server).await?;
        let kubelet = serde_saphyr::from_str(&kubelet)
            .map_err(|error| PhaseError::Usage(format!("ConfigMap kube-system/kubelet-config: {error}")))?;
        Ok(Found { discovered, server, uploaded, kubelet })
    }

    /// weft's own static pods, which kubelet finds when it starts.
    async fn helpers(&mut self) -> Result<(), PhaseError> {
        let found = self.found().await?;
        let cluster = found.uploaded.cluster.clone();
        let servers =
            found.discovered.iter().flat_map(|it| [it.info.server.clone(), it.reached.clone()]).collect::<Vec<_>>();
        self.ground.helpers(&cluster, &servers, self.config.join.control_plane.is_some()).await
    }

    async fn kubelet_finalize(&mut self) -> Result<(), PhaseError> {
        let found = self.found().await?;
        let cluster = found.uploaded.cluster.clone();
        let direct = found.discovered.as_ref().map(|discovered| discovered.info.server.clone());
        self.ground.kubelet_through_balancer(&cluster, direct.as_deref()).await
    }

    async fn kubelet_start(&mut self) -> Result<(), PhaseError> {
        let control_plane = self.config.join.control_plane.is_some();
        if let Some(discovered) = self.found().await?.discovered.clone() {
            self.identity(&discovered).await?;
        }
        let wide = self.found().await?.kubelet.clone();
        let role = if control_plane { flags::Role::ControlPlane } else { flags::Role::Worker };
        self.ground.kubelet_start(role, &wide).await
    }

    /// kubelet's credentials and its way to the API, before it starts for the first time.
    async fn identity(&mut self, discovered: &Discovered) -> Result<(), PhaseError> {
        let (node, paths, tell) = (&self.config.node, self.ground.paths, self.ground.tell);
        let found = self.found().await?;
        let (server, cluster) = (found.server.clone(), found.uploaded.cluster.clone());
        let authority = paths.pki.join("ca.crt");
        if !authority.exists() {
            converge::directory(&paths.pki, 0o700)?;
            converge::put(&authority, discovered.info.ca.as_bytes(), 0o644)?;
        }
        let key = Key::generate(EncryptionAlgorithm::EcdsaP256).map_err(PkiError::from)?;
        let hear = |words: &str| tell.step("kubelet-start", words);
        let request = joined::request(node, &key)?;
        let certificate = api::first_certificate(&server, &request, &self.config.limits, &hear).await?;
        // A control-plane node asks its own API server.
        let own = self.config.join.control_plane.is_some().then(|| node.local_endpoint());
        let balancer = if own.is_none() { self.ground.way_by_balancer(&cluster) } else { None };
        let name = balancer.is_some().then_some(stable_name::NAME);
        let server = own.or(balancer).unwrap_or_else(|| discovered.info.server.clone());
        let way = joined::Way { cluster: &cluster.name, server: &server, name, authority: &discovered.info.ca };
        Ok(joined::write(paths, node, &way, &certificate, &key)?)
    }

    async fn await_ready(&mut self) -> Result<(), PhaseError> {
        if !self.config.weft.wait {
            return Ok(());
        }
        let (name, limits) = (&self.config.node.name, &self.config.limits);
        let server = Server::connect(&self.ground.paths.kubernetes.join("kubelet.conf"), None, limits).await?;
        let tell = self.ground.tell;
        let hear = |words: &str| tell.step("join", format!("waiting for node {name}: {words}"));
        api::await_node(&server.within(limits.component), name, &hear).await?;
        tell.step("join", format!("node {name} is Ready"));
        if self.ground.stands_in() { self.kubelet_finalize().await } else { Ok(()) }
    }
}

/// Stands for what the phases work from; by which token the cluster was found is no part of it.
fn hash(config: &JoinConfig) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", (&config.node, &config.join.control_plane.is_some(), &config.weft)));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
