//! A further node of the control plane.

use std::net::SocketAddr;

use jiff::Timestamp;

use super::Join;
use crate::bootstrap::api::{self, CertificateKey, EtcdAccess, EtcdCluster, Server};
use crate::bootstrap::converge::Outcome;
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::resolved::{Cluster, EtcdPlace};
use crate::bootstrap::static_pods::{self, Facts, Manifest, Part, ca_directories};
use crate::bootstrap::{kubeconfig, pki};

/// Where members of etcd reach each other.
const PEER_PORT: u16 = 2380;

impl Join<'_> {
    async fn cluster(&mut self) -> Result<Cluster, PhaseError> {
        Ok(self.found().await?.uploaded.cluster.clone())
    }

    pub(super) async fn download_certs(&mut self) -> Result<(), PhaseError> {
        let key = self.config.join.control_plane.as_ref().and_then(|part| part.certificate_key.as_deref());
        let Some(key) = key else { return Ok(()) };
        let key: CertificateKey = key.parse()?;
        let cluster = self.cluster().await?;
        let files = api::certificate_files(self.ground.paths, &cluster.etcd);
        let written = api::download_certs(&self.found().await?.server, &files, &key).await?;
        for (path, _) in written.iter().filter(|(_, outcome)| *outcome != api::Outcome::Kept) {
            self.ground.tell.step("download-certs", format!("Saved {}", path.display()));
        }
        Ok(())
    }

    pub(super) async fn certificates(&mut self) -> Result<(), PhaseError> {
        let cluster = self.cluster().await?;
        let (node, paths) = (&self.config.node, self.ground.paths);
        for step in pki::ensure_join(&cluster, node, paths, &pki::Options::default(), Timestamp::now())? {
            self.ground.say_step("certs", &step);
        }
        Ok(())
    }

    pub(super) async fn kubeconfigs(&mut self) -> Result<(), PhaseError> {
        let cluster = self.cluster().await?;
        let (node, paths) = (&self.config.node, self.ground.paths);
        for step in kubeconfig::ensure(&kubeconfig::JOIN, &cluster, node, paths, Timestamp::now())? {
            self.ground.say_step("kubeconfig", &step);
        }
        Ok(())
    }

    pub(super) async fn static_pods(&mut self) -> Result<(), PhaseError> {
        for part in [Part::ApiServer, Part::ControllerManager, Part::Scheduler] {
            self.static_pod(part, Vec::new()).await?;
        }
        Ok(())
    }

    async fn static_pod(&mut self, part: Part, etcd_members: Vec<(String, String)>) -> Result<(), PhaseError> {
        let cluster = self.cluster().await?;
        let facts = Facts {
            ca_directories: ca_directories(&self.ground.paths.root),
            external_ca: !self.ground.paths.pki.join("ca.key").exists(),
            etcd_members,
            etcd_version: self.ground.etcd_version(),
            start_limit: self.config.limits.component,
            ..Facts::default()
        };
        let Some(pod) = static_pods::pod(part, &cluster, &self.config.node, &facts) else { return Ok(()) };
        let manifest = Manifest { part, pod };
        if static_pods::write(self.ground.paths, &cluster, &manifest, &self.ground.patches)? != Outcome::Kept {
            self.ground.tell.step("control-plane", format!("Creating static Pod manifest for \"{}\"", part.name()));
        }
        Ok(())
    }

    pub(super) async fn etcd_join(&mut self) -> Result<(), PhaseError> {
        let EtcdPlace::Local { data_dir, .. } = self.cluster().await?.etcd else { return Ok(()) };
        let paths = self.ground.paths;
        let etcd = self.etcd().await?;
        let node = &self.config.node;
        let peer = format!("https://{}", SocketAddr::new(node.address, PEER_PORT));
        let data = paths.root.join(data_dir.strip_prefix("/").unwrap_or(&data_dir));
        let has_data = data.join("member").is_dir();
        let entry = etcd.enter(&node.name, &peer, has_data).await?;
        let member = |text: &str| text.split_once('=').map(|(name, url)| (name.to_owned(), url.to_owned()));
        let members = entry.initial_cluster.split(',').filter_map(member).collect();
        let id = entry.id;
        self.member = Some(entry);
        self.static_pod(Part::Etcd, members).await?;
        self.ground.tell.step("etcd-join", "waiting for the new member to catch up");
        etcd.promote(id).await?;
        self.ground.tell.step("etcd-join", "the new member votes");
        // From here on it is one of them, whatever comes.
        self.member = None;
        Ok(())
    }

    async fn etcd(&mut self) -> Result<EtcdCluster, PhaseError> {
        let access = EtcdAccess::healthcheck(self.ground.paths);
        // Pods of kube-system are not a newcomer's to see: admin.conf is there by now.
        let server = self.admin().await?;
        let endpoints = api::etcd_endpoints(&server).await?;
        Ok(EtcdCluster::connect(&endpoints, Some(&access), &self.config.limits).await?)
    }

    /// An administrator at an API server that is there already.
    async fn admin(&mut self) -> Result<Server, PhaseError> {
        let endpoint = self.found().await?.discovered.as_ref().map(|discovered| discovered.info.server.clone());
        let admin = self.ground.paths.kubernetes.join("admin.conf");
        Ok(Server::connect(&admin, endpoint.as_deref(), &self.config.limits).await?)
    }

    pub(super) async fn mark_control_plane(&mut self) -> Result<(), PhaseError> {
        let server = self.admin().await?;
        let node = &self.config.node;
        let outcome = api::mark_control_plane(&server, &node.name, &node.taints).await?;
        self.ground.say("mark-control-plane", &format!("labels and taints of node {}", node.name), outcome);
        Ok(())
    }

    /// Takes the member back that this run has made: one that never starts would cost the others their majority.
    pub(super) async fn take_member_back(&mut self) {
        let Some(member) = self.member.take() else { return };
        let taken = async {
            static_pods::remove(self.ground.paths, Part::Etcd)?;
            Ok::<_, PhaseError>(self.etcd().await?.take_back(&member).await?)
        };
        match taken.await {
            Ok(_) => self.ground.tell.step("etcd-join", "the new member of etcd is taken back"),
            Err(error) => {
                self.ground.tell.warning("etcd-join", format!("the new member of etcd is still there: {error}"));
            }
        }
    }
}
