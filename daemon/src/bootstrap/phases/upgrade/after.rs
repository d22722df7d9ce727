//! What follows once the control plane has its version: the cluster's configuration, this node's kubelet, the addons.

use std::fs;

use jiff::Timestamp;
use serde_json::Value;

use super::{Upgrade, backup, own, survey};
use crate::bootstrap::api::{self, ClusterInfo, CoreDns, Outcome, WeftAddon};
use crate::bootstrap::config;
use crate::bootstrap::converge::{self, FileError};
use crate::bootstrap::images::What;
use crate::bootstrap::kubelet::config::{Host, cluster_wide, dns_server, for_node};
use crate::bootstrap::kubelet::service::Service;
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::phases::ground::weft_name;
use crate::bootstrap::yaml;

const UPLOAD: &str = "upload-config";
const KUBELET: &str = "kubelet-config";
const ADDONS: &str = "addons";
/// As kubeadm makes it.
const KUBELET_MODE: u32 = 0o644;

impl Upgrade<'_> {
    pub(super) async fn upload_kubeadm(&mut self) -> Result<(), PhaseError> {
        let text = config::uploaded(&self.uploaded().await?.configuration)?;
        let outcome = api::upload_kubeadm_config(self.server().await?, &text).await?;
        self.ground.say(UPLOAD, "ConfigMap kube-system/kubeadm-config", outcome);
        Ok(())
    }

    /// One that was generated is generated anew; a user's stays.
    pub(super) async fn upload_kubelet(&mut self) -> Result<(), PhaseError> {
        let cluster = self.cluster().await?;
        let server = self.server().await?.clone();
        if !api::is_kubelet_config_generated(&server).await? {
            self.ground.tell.step(UPLOAD, "ConfigMap kube-system/kubelet-config is a user's, and stays");
            return Ok(());
        }
        let text = yaml::to_string(&cluster_wide(&cluster, None).value);
        let outcome = api::upload_kubelet_config(&server, &text, true).await?;
        self.ground.say(UPLOAD, "ConfigMap kube-system/kubelet-config", outcome);
        Ok(())
    }

    /// What was decided of this node when it came about stays: the runtime's socket, who makes control groups, swap.
    pub(super) async fn kubelet_config(&mut self) -> Result<(), PhaseError> {
        let text = api::read_kubelet_config(self.server().await?).await?;
        let wide: Value = serde_saphyr::from_str(&text)
            .map_err(|error| PhaseError::Usage(format!("ConfigMap kube-system/kubelet-config: {error}")))?;
        let paths = self.ground.paths;
        let path = paths.kubelet.join("config.yaml");
        let old = own::read(&path)?.unwrap_or_default();
        let services = &self.ground.services;
        let host = Host::detect(&paths.root, services, own::cgroup_driver(&old), own::swap(&old));
        let new = for_node(&wide, &host, &self.config.node, &self.ground.patches)?;
        if new == old {
            return Ok(());
        }
        if let Ok(text) = fs::read(&path) {
            let kept = backup::keep_kubelet(paths, &mut self.ground.journal, &text, Timestamp::now())?;
            self.ground.tell.step(KUBELET, format!("the old configuration of kubelet is in {}", kept.display()));
        }
        let converge::Outcome::Changed(lines) = converge::put(&path, yaml::to_string(&new).as_bytes(), KUBELET_MODE)?
        else {
            return Ok(());
        };
        self.ground.tell.step(KUBELET, format!("{} has changed; starting kubelet anew:\n{lines}", path.display()));
        self.ground.services.restart(Service::Kubelet)?;
        self.ground.wait(false).await
    }

    pub(super) async fn bootstrap_token(&mut self) -> Result<(), PhaseError> {
        let cluster = self.cluster().await?;
        let path = self.ground.paths.pki.join("ca.crt");
        let ca = fs::read_to_string(&path).map_err(FileError::of("read", &path))?;
        let info = ClusterInfo { server: cluster.public_endpoint(&self.config.node), ca };
        let outcome = api::publish_cluster_info(self.server().await?, &info).await?;
        self.ground.say("bootstrap-token", "ConfigMap kube-public/cluster-info and the rights to join", outcome);
        Ok(())
    }

    /// Whether this is the last API server that gets the version: addons are for the cluster, and not before it.
    async fn is_last(&mut self) -> Result<bool, PhaseError> {
        if !self.config.control_plane {
            return Ok(false);
        }
        let wanted = survey::image_of(&self.cluster().await?, What::ApiServer);
        let pods = api::control_plane_pods(self.server().await?).await?;
        let others = pods.iter().filter(|pod| pod.component == "kube-apiserver" && Some(&pod.image) != wanted.as_ref());
        let others: Vec<&str> = others.map(|pod| pod.node.as_str()).collect();
        if !others.is_empty() {
            let words = format!("not before the API servers of {} have the version", others.join(", "));
            self.ground.tell.step(ADDONS, words);
        }
        Ok(others.is_empty())
    }

    pub(super) async fn coredns(&mut self) -> Result<(), PhaseError> {
        let cluster = self.cluster().await?;
        let (image, address) = (survey::image_of(&cluster, What::CoreDns), dns_server(&cluster.service_subnets));
        let (Some(image), Some(address)) = (image, address) else { return Ok(()) };
        if !self.is_last().await? {
            return Ok(());
        }
        let dns = CoreDns { image: &image, dns_domain: &cluster.dns_domain, address };
        let server = self.server().await?.clone();
        let outcome = self.ground.coredns(&server, &dns).await?;
        self.ground.say(ADDONS, "CoreDNS", outcome);
        Ok(())
    }

    pub(super) async fn weft(&mut self) -> Result<(), PhaseError> {
        let cluster = self.cluster().await?;
        let Some(settings) = api::read_weft_settings(self.server().await?).await? else { return Ok(()) };
        if !self.is_last().await? {
            return Ok(());
        }
        let endpoint = cluster.public_endpoint(&self.config.node);
        // What the cluster has been given stays: an upgrade is not the time to serve Services by other means.
        let told = |key: &str| settings.get(key).and_then(Value::as_str);
        let addon = WeftAddon {
            image: &weft_name(),
            pod_subnets: &cluster.pod_subnets,
            service_subnets: &cluster.service_subnets,
            api_server: told("kube-api-server").unwrap_or(&endpoint),
            proxy_mode: told("proxy-mode").unwrap_or("auto"),
            settings: &settings,
        };
        let applied = api::apply_weft(self.server().await?, &addon).await?;
        for (object, outcome) in applied {
            if outcome != Outcome::Kept {
                self.ground.say(ADDONS, &object, outcome);
            }
        }
        Ok(())
    }

    pub(super) async fn post_upgrade(&mut self) -> Result<(), PhaseError> {
        let version = self.cluster().await?.kubernetes_version;
        let node = self.config.node.name.clone();
        if self.config.control_plane {
            self.ground.tell.step("upgrade", format!("the control plane of {node} is at {version}"));
        }
        let kubelet = api::node_seen(self.server().await?, &node).await?.map(|seen| seen.kubelet).unwrap_or_default();
        if kubelet == version {
            self.ground.tell.step("upgrade", format!("kubelet of {node} is at {version}"));
        } else {
            let words = format!(
                "kubelet of {node} is at {kubelet} and is to follow: install {version}, then start kubelet anew"
            );
            self.ground.tell.step("upgrade", words);
        }
        Ok(())
    }
}
