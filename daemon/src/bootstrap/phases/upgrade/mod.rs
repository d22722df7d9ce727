//! `weft upgrade`: another version of Kubernetes, one node after the other, and back if it does not get well.
//!
//! [`policy`] says to which versions a cluster may go, [`plan`] what would change (both pure). A run renders the [`manifests`] of
//! the new version, keeps the old ones ([`backup`]), and swaps them one by one ([`sequence`]), watching kubelet ([`watch`]).
//! Nothing is asked of a network but the cluster itself and, for images that are not there, the runtime.

mod after;
mod backup;
mod control_plane;
mod error;
mod helpers;
mod manifests;
mod own;
pub mod plan;
pub mod policy;
mod sequence;
mod survey;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

pub use error::UpgradeError;

use super::error::PhaseError;
use super::ground::{Given, Ground, weft_name};
use super::tell::Teller;
use super::tree::Phase;
use crate::bootstrap::api::{self, Server};
use crate::bootstrap::config::model::NodeRegistration;
use crate::bootstrap::config::{self, Facts, UploadedConfig, WeftOptions};
use crate::bootstrap::host::{Role, Wanted};
use crate::bootstrap::images::Names;
use crate::bootstrap::kubelet::service::ServiceManager;
use crate::bootstrap::resolved::{Cluster, Limits, Node, Paths};
use crate::bootstrap::static_pods::Part;
use crate::bootstrap::version::Version;
use crate::status::control_plane::Place;

const fn leaf(name: &'static str, about: &'static str) -> Phase {
    Phase { name, about, parts: &[] }
}

/// How long something that is not well is looked at again before a plan is made.
const PATIENCE: Duration = Duration::from_secs(10);

/// Late, as a worker's kubelet, and with it this very run, reaches the API through one of them.
const HELPERS: Phase = leaf("weft-helpers", "Give those of weft's static pods that this node has their new manifests");

/// The phases of `weft upgrade apply`.
pub const APPLY: &[Phase] = &[
    leaf("preflight", "Look whether the cluster may go to that version, and is well"),
    leaf("images", "Have the new images"),
    leaf("control-plane", "Give the control plane its new manifests, and renew its certificates"),
    Phase {
        name: "upload-config",
        about: "Put the configuration into the cluster",
        parts: &[leaf("kubeadm", "ClusterConfiguration"), leaf("kubelet", "KubeletConfiguration")],
    },
    leaf("kubelet-config", "Give this node's kubelet the cluster's configuration"),
    leaf("bootstrap-token", "Renew what lets others join"),
    Phase {
        name: "addon",
        about: "Renew what each cluster needs, once all API servers have the version",
        parts: &[leaf("coredns", "CoreDNS"), leaf("weft", "Pod network and Services")],
    },
    HELPERS,
    leaf("post-upgrade", "Say what is left to do"),
];

/// The phases of `weft upgrade node`. A worker goes through those that are not about the control plane.
pub const NODE: &[Phase] = &[
    leaf("preflight", "Look whether the cluster is well"),
    leaf("images", "Have the new images"),
    leaf("control-plane", "Give the control plane its new manifests, and renew its certificates"),
    leaf("kubelet-config", "Give this node's kubelet the cluster's configuration"),
    Phase {
        name: "addon",
        about: "Renew what each cluster needs, once all API servers have the version",
        parts: &[leaf("coredns", "CoreDNS"), leaf("weft", "Pod network and Services")],
    },
    HELPERS,
    leaf("post-upgrade", "Say what is left to do"),
];

/// This node, and from where it gets what it needs.
#[derive(Debug, Clone)]
pub struct UpgradeConfig {
    /// This node.
    pub node: Node,
    /// Whether it has a control plane.
    pub control_plane: bool,
    /// How long is waited for what.
    pub limits: Limits,
    /// Images, programs and mirrors.
    pub weft: WeftOptions,
    /// How images are pulled, and which checks are passed over.
    pub registration: NodeRegistration,
    /// Directory of patches.
    pub patches: Option<PathBuf>,
}

impl UpgradeConfig {
    /// What the files under `paths` say of this node. `socket` is the runtime's, if the user has named it.
    ///
    /// # Errors
    /// It is no node of a cluster, or a file cannot be read.
    pub fn here(paths: &Paths, facts: &Facts, socket: Option<&str>) -> Result<Self, PhaseError> {
        let (node, control_plane) = own::node(paths, &facts.hostname.trim().to_lowercase(), socket)?;
        Ok(Self {
            node,
            control_plane,
            limits: Limits::default(),
            weft: WeftOptions::default(),
            registration: NodeRegistration::default(),
            patches: None,
        })
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeOptions {
    /// The version to go to; `None` for that which the cluster has gone to already (`weft upgrade node`).
    pub target: Option<Version>,
    /// Whether objections that may be passed over are.
    pub force: bool,
    /// Whether etcd is upgraded, too.
    pub etcd: bool,
    /// Whether certificates are renewed.
    pub renew: bool,
    /// Whether it is only said what would be done.
    pub dry_run: bool,
}

/// What an upgrade would change; `asked` is the version to go to, if it is one in particular.
///
/// # Errors
/// The cluster cannot be asked.
pub async fn plan(paths: &Paths, kubeconfig: Option<&Path>, asked: Option<&Version>) -> Result<plan::Plan, PhaseError> {
    let admin = paths.kubernetes.join("admin.conf");
    let kubeconfig = kubeconfig.unwrap_or(&admin);
    let server = Server::connect(kubeconfig, None, &Limits { api_call: PATIENCE, ..Limits::default() }).await?;
    let uploaded = uploaded(&server, asked).await?;
    let Some(place) = Place::find(paths.clone(), Some(kubeconfig.to_owned())) else {
        return Err(
            UpgradeError::NoNode("there is no control plane here, and no kubeconfig leads to one".into()).into()
        );
    };
    let seen = survey::seen(&place, paths, &server, &uploaded, PATIENCE, &|_| ()).await?;
    Ok(plan::plan(&seen, asked))
}

/// The cluster's configuration, with another version if one is given.
async fn uploaded(server: &Server, target: Option<&Version>) -> Result<UploadedConfig, PhaseError> {
    let uploaded = config::read_uploaded(&api::read_kubeadm_config(server).await?)?;
    let Some(target) = target else { return Ok(uploaded) };
    let mut configuration = uploaded.configuration;
    configuration.kubernetes_version = Some(target.to_string());
    let again = config::read_uploaded(&config::uploaded(&configuration)?)?;
    Ok(UploadedConfig { notices: uploaded.notices, ..again })
}

/// A run of `weft upgrade apply` or `weft upgrade node`.
pub struct Upgrade<'a> {
    ground: Ground<'a>,
    config: &'a UpgradeConfig,
    options: &'a UpgradeOptions,
    server: Option<Server>,
    uploaded: Option<UploadedConfig>,
    /// The parts that have got new manifests.
    swapped: Vec<Part>,
}

impl<'a> Upgrade<'a> {
    /// A run that has not begun. Nobody else may run init, join, reset or upgrade meanwhile.
    ///
    /// # Errors
    /// The journal cannot be opened, or patches cannot be read; this node has no control plane and a version is asked for.
    pub fn new(
        config: &'a UpgradeConfig,
        options: &'a UpgradeOptions,
        paths: &'a Paths,
        services: ServiceManager,
        tell: &'a Teller,
    ) -> Result<Self, PhaseError> {
        if options.target.is_some() && !config.control_plane {
            let words = "this node has no control plane: weft upgrade apply is for the first node that is upgraded, weft \
                         upgrade node for each other";
            return Err(UpgradeError::NoNode(words.to_owned()).into());
        }
        let wanted =
            Wanted { role: Role::Join { control_plane: config.control_plane }, ..Wanted::worker(&config.node, paths) };
        let given = Given {
            node: &config.node,
            limits: config.limits,
            weft: &config.weft,
            patches: config.patches.clone(),
            wanted,
            ignored: &[],
            hash: hash(config, options),
        };
        let ground = Ground::new(given, paths, services, tell)?;
        Ok(Self { ground, config, options, server: None, uploaded: None, swapped: Vec::new() })
    }

    /// Runs these phases (full names, from [`super::select`] of [`APPLY`] or [`NODE`]) in their order.
    ///
    /// # Errors
    /// The first phase that does not come to its end, by its name, and why.
    pub async fn run(&mut self, phases: &[String]) -> Result<(), (String, PhaseError)> {
        for phase in phases {
            self.ground.tell.begins(phase);
            self.work(phase).await.map_err(|error| (phase.clone(), error))?;
        }
        Ok(())
    }

    async fn work(&mut self, phase: &str) -> Result<(), PhaseError> {
        match phase {
            "preflight" => self.preflight().await,
            "control-plane" => self.control_plane().await,
            "weft-helpers" => self.helpers(),
            _ if self.options.dry_run => {
                self.ground.tell.step(phase, "would be done");
                Ok(())
            }
            "images" => self.images().await,
            "upload-config/kubeadm" => self.upload_kubeadm().await,
            "upload-config/kubelet" => self.upload_kubelet().await,
            "kubelet-config" => self.kubelet_config().await,
            "bootstrap-token" => self.bootstrap_token().await,
            "addon/coredns" => self.coredns().await,
            "addon/weft" => self.weft().await,
            // Only names of the trees come here.
            _ => self.post_upgrade().await,
        }
    }

    async fn preflight(&mut self) -> Result<(), PhaseError> {
        if !self.config.control_plane {
            return self.cluster().await.map(drop);
        }
        if !self.options.dry_run {
            self.recover().await?;
        }
        let paths = self.ground.paths;
        let uploaded = self.uploaded().await?.clone();
        let server = self.server().await?.clone();
        let Some(place) = Place::find(paths.clone(), None) else {
            return Err(UpgradeError::NoNode("there is no control plane on this node".to_owned()).into());
        };
        // An upgrade that was ended in between may have left a control plane that is not well, and is what mends it.
        let is_resumed = backup::Backup::find(paths, jiff::Timestamp::now())?.is_resumed();
        let patience = if is_resumed { Duration::ZERO } else { self.config.limits.api_call };
        let tell = self.ground.tell;
        let say = |words: String| tell.step("preflight", words);
        let seen = survey::seen(&place, paths, &server, &uploaded, patience, &say).await?;
        if let Some(target) = &self.options.target {
            self.permit(&seen, target)?;
        }
        let ignored = &self.config.registration.ignore_preflight_errors;
        let is_ignored =
            is_resumed || ignored.iter().any(|name| ["all", "health"].contains(&name.to_lowercase().as_str()));
        if !is_ignored && !seen.problems.is_empty() {
            return Err(UpgradeError::Unwell(seen.problems).into());
        }
        seen.problems.iter().for_each(|problem| self.ground.tell.warning("preflight", problem));
        Ok(())
    }

    fn permit(&self, seen: &plan::Seen, target: &Version) -> Result<(), PhaseError> {
        let objections = seen.situation.objections(target);
        let (passed, barring): (Vec<_>, Vec<_>) =
            objections.into_iter().partition(|objection| objection.forcible && self.options.force);
        passed.iter().for_each(|objection| self.ground.tell.warning("preflight", &objection.words));
        if barring.is_empty() {
            let running = &seen.situation.running;
            self.ground.tell.step("preflight", format!("the cluster is at {running} and goes to {target}"));
            return Ok(());
        }
        let words = |objection: policy::Objection| match objection.forcible {
            true => format!("{} (--force passes over it)", objection.words),
            false => objection.words,
        };
        Err(UpgradeError::Policy(barring.into_iter().map(words).collect()).into())
    }

    async fn images(&mut self) -> Result<(), PhaseError> {
        let names = Names::of(&self.cluster().await?, &weft_name());
        self.ground.images(&names, self.config.control_plane, &self.config.registration).await
    }

    /// The API server: this node's own, as an administrator, or the cluster's, as this node's kubelet.
    async fn server(&mut self) -> Result<&Server, PhaseError> {
        let server = match self.server.take() {
            Some(server) => server,
            None => {
                let (file, endpoint) = match self.config.control_plane {
                    true => ("admin.conf", Some(self.config.node.local_endpoint())),
                    false => ("kubelet.conf", None),
                };
                let kubeconfig = self.ground.paths.kubernetes.join(file);
                Server::connect(&kubeconfig, endpoint.as_deref(), &self.config.limits).await?
            }
        };
        Ok(self.server.insert(server))
    }

    /// The cluster's configuration, as it is to be.
    async fn uploaded(&mut self) -> Result<&UploadedConfig, PhaseError> {
        let uploaded = match self.uploaded.take() {
            Some(uploaded) => uploaded,
            None => {
                let target = self.options.target.clone();
                let found = uploaded(self.server().await?, target.as_ref()).await?;
                found.notices.iter().for_each(|notice| self.ground.tell.warning("preflight", notice.to_string()));
                found
            }
        };
        Ok(self.uploaded.insert(uploaded))
    }

    async fn cluster(&mut self) -> Result<Cluster, PhaseError> {
        Ok(self.uploaded().await?.cluster.clone())
    }
}

/// Stands for what the run works from.
fn hash(config: &UpgradeConfig, options: &UpgradeOptions) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", (&config.node, &config.weft, &config.patches, options)));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::phases::select;

    #[test]
    fn the_phases_are_kubeadms() {
        let names = select(APPLY, &["addon/weft".to_owned()], None).unwrap();
        let expected = [
            "preflight",
            "images",
            "control-plane",
            "upload-config/kubeadm",
            "upload-config/kubelet",
            "kubelet-config",
            "bootstrap-token",
            "addon/coredns",
            "weft-helpers",
            "post-upgrade",
        ];
        assert_eq!(names, expected);
        let all = select(APPLY, &[], None).unwrap();
        let node = select(NODE, &[], None).unwrap();
        assert!(node.iter().all(|phase| all.contains(phase)));
        assert!(!node.iter().any(|phase| phase.starts_with("upload-config")), "it is the first node's to say");
    }
}
