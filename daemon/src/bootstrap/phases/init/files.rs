//! `certs`, `kubeconfig`, `etcd`, `control-plane` and `weft-helpers`: files that kubelet and the control plane read.

use jiff::Timestamp;

use super::Init;
use crate::bootstrap::converge::Outcome as FileOutcome;
use crate::bootstrap::kubeconfig;
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::pki::{self, table};
use crate::bootstrap::resolved::EtcdPlace;
use crate::bootstrap::static_pods::{self, Facts, Manifest, Part, ca_directories};

impl Init<'_> {
    pub(super) fn certificate(&mut self, name: &str) -> Result<(), PhaseError> {
        let external = matches!(self.config.cluster.etcd, EtcdPlace::External(_));
        if external && name != table::SERVICE_ACCOUNTS && table::find(name)?.is_of_etcd() {
            return Ok(());
        }
        let options = pki::Options::default();
        let (cluster, node) = (&self.config.cluster, &self.config.node);
        let step = pki::ensure_one(name, cluster, node, self.ground.paths, &options, Timestamp::now())?;
        self.ground.say_step("certs", &step);
        Ok(())
    }

    pub(super) fn kubeconfig(&mut self, part: &str) -> Result<(), PhaseError> {
        let name = format!("{part}.conf");
        let (cluster, node) = (&self.config.cluster, &self.config.node);
        for step in kubeconfig::ensure(&[&name], cluster, node, self.ground.paths, Timestamp::now())? {
            self.ground.say_step("kubeconfig", &step);
        }
        Ok(())
    }

    pub(super) fn static_pod(&mut self, part: &str) -> Result<(), PhaseError> {
        let part = match part {
            "local" => Part::Etcd,
            "apiserver" => Part::ApiServer,
            "controller-manager" => Part::ControllerManager,
            _ => Part::Scheduler,
        };
        let (cluster, node) = (&self.config.cluster, &self.config.node);
        let facts = self.pod_facts();
        let Some(pod) = static_pods::pod(part, cluster, node, &facts) else { return Ok(()) };
        let phase = if part == Part::Etcd { "etcd" } else { "control-plane" };
        match static_pods::write(self.ground.paths, cluster, &Manifest { part, pod }, &self.ground.patches)? {
            FileOutcome::Kept => {}
            FileOutcome::Made => {
                self.ground.tell.step(phase, format!("Creating static Pod manifest for \"{}\"", part.name()));
            }
            FileOutcome::Changed(difference) => {
                self.ground
                    .tell
                    .step(phase, format!("Changing static Pod manifest for \"{}\":\n{difference}", part.name()));
            }
        }
        Ok(())
    }

    /// weft's own static pods.
    pub(super) async fn helpers(&mut self) -> Result<(), PhaseError> {
        let (cluster, node) = (&self.config.cluster, &self.config.node);
        let servers = [node.local_endpoint(), cluster.public_endpoint(node)];
        self.ground.helpers(cluster, &servers, true).await
    }

    fn pod_facts(&self) -> Facts {
        Facts {
            ca_directories: ca_directories(&self.ground.paths.root),
            external_ca: !self.ground.paths.pki.join("ca.key").exists(),
            etcd_version: self.ground.etcd_version(),
            start_limit: self.config.limits.component,
            ..Facts::default()
        }
    }
}
