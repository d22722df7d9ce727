//! `weft reset`: the machine as it was before init or join.
//!
//! Mounts that are in use end it before anything is removed; after that each failure is told, and the rest is done.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::error::PhaseError;
use super::runtime;
use super::tell::Teller;
use crate::bootstrap::api::{self, EtcdAccess, EtcdCluster, EtcdLeft, Server};
use crate::bootstrap::cri::Removal;
use crate::bootstrap::host::facts::RuntimeTold;
use crate::bootstrap::host::reset::{self, Plan, ResetOptions, plan, see};
use crate::bootstrap::host::tools::System;
use crate::bootstrap::journal::Journal;
use crate::bootstrap::kubelet::service::{Service, ServiceManager};
use crate::bootstrap::resolved::{Limits, Paths};

/// How long etcd and the API server may take to let this node go. A machine must be resettable without them.
const LEAVE: Duration = Duration::from_secs(20);

/// A reset of this machine.
pub struct Reset<'a> {
    options: ResetOptions,
    paths: &'a Paths,
    services: ServiceManager,
    socket: String,
    tell: &'a Teller,
}

impl<'a> Reset<'a> {
    /// A reset that has not begun. `change` says what is other than usual.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn new(
        paths: &'a Paths,
        services: ServiceManager,
        socket: String,
        tell: &'a Teller,
        change: impl FnOnce(&mut ResetOptions),
    ) -> Result<Self, PhaseError> {
        let mut options = ResetOptions::new(paths.clone(), &Journal::read(paths)?);
        change(&mut options);
        Ok(Self { options, paths, services, socket, tell })
    }

    /// What would be done.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn plan(&self) -> Result<Plan, PhaseError> {
        let entries = Journal::read(self.paths)?;
        Ok(plan(&self.options, &see(&self.options, &entries)?))
    }

    /// Takes the node out of etcd, and ends kubelet and its pods. Says whether none of them is left.
    pub async fn end(&self) -> bool {
        self.leave_etcd().await;
        if let Err(error) = self.services.stop(Service::Kubelet) {
            self.tell.warning("cleanup-node", format!("kubelet cannot be stopped: {error}"));
        }
        self.remove_pods().await
    }

    /// Gives the machine back. Says whether all of it is done.
    ///
    /// # Errors
    /// A mount below kubelet's directory that is in use: then no file has been touched.
    pub fn give_back(&self) -> Result<bool, PhaseError> {
        // Looked at again: kubelet and its pods have gone.
        let done = reset::run(&self.plan()?, &self.options, &System)?;
        done.changes.iter().for_each(|change| self.tell.step("cleanup-node", change));
        done.left.iter().for_each(|left| self.tell.step("cleanup-node", format!("left: {left}")));
        done.warnings.iter().for_each(|warning| self.tell.warning("cleanup-node", warning));
        Ok(done.warnings.is_empty())
    }

    /// Takes this node's member out of etcd, so that the others do not wait for it. The last one stays.
    async fn leave_etcd(&self) {
        let Some(peer) = self.peer_url() else { return };
        let leaving = async {
            let server = Server::connect(&self.paths.kubernetes.join("admin.conf"), None, &LIMITS).await?;
            let endpoints = api::etcd_endpoints(&server).await?;
            let access = EtcdAccess::healthcheck(self.paths);
            Ok::<_, PhaseError>(EtcdCluster::connect(&endpoints, Some(&access), &LIMITS).await?.leave(&peer).await?)
        };
        let phase = "remove-etcd-member";
        match timeout(LEAVE, leaving).await {
            Ok(Ok(EtcdLeft::Removed)) => self.tell.step(phase, "this node's member of etcd is removed"),
            Ok(Ok(EtcdLeft::Absent)) => {}
            Ok(Ok(EtcdLeft::Last)) => {
                self.tell.step(phase, "this node's member of etcd is the last: the cluster ends with it");
            }
            Ok(Err(error)) => self.warn_of_member(phase, &peer, &error.to_string()),
            Err(_) => self.warn_of_member(phase, &peer, "nobody answers"),
        }
    }

    fn warn_of_member(&self, phase: &str, peer: &str, why: &str) {
        let words = format!(
            "whether etcd still counts on {peer} is not known ({why}); if there are other members: etcdctl member remove"
        );
        self.tell.warning(phase, words);
    }

    /// Where this node's member is, as its static pod says.
    fn peer_url(&self) -> Option<String> {
        let text = fs::read_to_string(self.paths.manifests().join("etcd.yaml")).ok()?;
        let pod: Value = serde_saphyr::from_str(&text).ok()?;
        let command = pod.pointer("/spec/containers/0/command")?.as_array()?;
        let flag =
            |argument: &Value| argument.as_str()?.strip_prefix("--initial-advertise-peer-urls=").map(str::to_owned);
        command.iter().find_map(flag)
    }

    /// Ends and removes the pods of this node's kubelet. Says whether none is left.
    async fn remove_pods(&self) -> bool {
        let (told, answering) = runtime::ask(&self.socket).await;
        if told == RuntimeTold::NoSocket {
            // Where there is no runtime there are no pods.
            return true;
        }
        let Some((cri, _)) = answering else {
            self.tell
                .warning("cleanup-node", format!("pods cannot be ended, as the runtime does not answer: {told:?}"));
            return false;
        };
        match cri.remove_kubelet_pods(|_| true).await {
            Ok(removals) => {
                let count = |wanted: fn(&Removal) -> bool| removals.iter().filter(|removal| wanted(removal)).count();
                let removed = count(|removal| matches!(removal, Removal::Removed(_)));
                if removed > 0 {
                    self.tell.step("cleanup-node", format!("{removed} pods are ended and removed"));
                }
                for removal in &removals {
                    if let Removal::Stuck(sandbox, error) = removal {
                        let name = format!("{}/{}", sandbox.namespace, sandbox.name);
                        self.tell.warning("cleanup-node", format!("pod {name} cannot be removed: {error}"));
                    }
                }
                count(|removal| matches!(removal, Removal::Stuck(..))) == 0
            }
            Err(error) => {
                self.tell.warning("cleanup-node", format!("pods cannot be ended: {error}"));
                false
            }
        }
    }
}

/// Shorter than elsewhere: a cluster that is down is not waited for.
const LIMITS: Limits = Limits {
    component: LEAVE,
    kubelet: LEAVE,
    api_call: Duration::from_secs(10),
    etcd_call: Duration::from_secs(10),
    tls_bootstrap: LEAVE,
    discovery: LEAVE,
    upgrade: LEAVE,
};
