//! `kubelet-start`, `wait-control-plane` and `kubelet-finalize`.

use std::fs;
use std::net::IpAddr;

use serde_json::Value;

use super::{Ground, seconds};
use crate::bootstrap::config::Swap;
use crate::bootstrap::converge::Outcome as FileOutcome;
use crate::bootstrap::cri::CgroupDriver;
use crate::bootstrap::journal::Change;
use crate::bootstrap::kubelet::config::{self as kubelet_config, Host};
use crate::bootstrap::kubelet::files::{self, Told};
use crate::bootstrap::kubelet::flags::Role;
use crate::bootstrap::kubelet::service::{self, Service};
use crate::bootstrap::kubelet::unit;
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::phases::runtime;
use crate::bootstrap::waiting::evidence::Evidence;
use crate::bootstrap::waiting::poll::{self, Progress};
use crate::bootstrap::waiting::probe::Client;
use crate::bootstrap::waiting::targets::{self, Component};
use crate::bootstrap::{kubeconfig, pki};

const START: &str = "kubelet-start";
const WAIT: &str = "control-plane-check";

impl Ground<'_> {
    /// Writes kubelet's files and starts it, or starts it anew if they are others.
    pub(in crate::bootstrap::phases) async fn kubelet_start(
        &mut self,
        role: Role,
        cluster_wide: &Value,
    ) -> Result<(), PhaseError> {
        let needs = self.needs().await;
        let swap = match self.weft.swap {
            Swap::Disable if needs.tolerate_swap => kubelet_config::Swap::Tolerated,
            Swap::Disable => kubelet_config::Swap::Off,
            Swap::Tolerate => kubelet_config::Swap::Tolerated,
            Swap::Limited => kubelet_config::Swap::Limited,
        };
        let host = Host::detect(&self.paths.root, &self.services, needs.cgroup_driver, swap);
        let given = cluster_wide.get("cgroupDriver").and_then(Value::as_str);
        if let (Some(given), Some(driver)) = (given, host.cgroup_driver.map(CgroupDriver::name))
            && given != driver
        {
            let words = format!(
                "cgroupDriver: \"{given}\" is given, and the runtime of this node has {driver}; so has kubelet here"
            );
            self.tell.warning(START, words);
        }
        // Named even if nobody chose it: kubelet would look its host's name up, for seconds where no resolver answers, and
        // might find another address than the one that certificates and the overlay have.
        let addresses = self.node_addresses();
        let told = Told { role, addresses: &addresses, cluster_wide, host: &host, patches: &self.patches };
        let written = files::write(self.paths, self.node, &told)?;
        for (name, outcome) in [
            ("kubeadm-flags.env", &written.flags),
            ("instance-config.yaml", &written.instance),
            ("config.yaml", &written.config),
        ] {
            if let FileOutcome::Changed(difference) = outcome {
                self.tell.step(START, format!("Changing {name} of kubelet:\n{difference}"));
            }
        }
        if self.dry {
            return Ok(());
        }
        let is_new = written.is_new() | self.unit()?;
        if is_new {
            self.services.reload();
        }
        let runs = self.services.is_active(Service::Kubelet)?;
        // What ended in an earlier run is started again at once by a kubelet that starts itself.
        let is_resting = match &self.runtime().await.1 {
            Some((cri, _)) if runs && !is_new => runtime::is_resting(cri).await,
            _ => false,
        };
        if runs && !is_new && !is_resting {
            return Ok(());
        }
        // Of units a reset has to know; what is kept running otherwise it stops anyway.
        let unit = Service::Kubelet.name().to_owned();
        let is_unit = self.services.has_units();
        let enabled = (is_unit && !self.services.is_enabled(Service::Kubelet))
            .then(|| self.journal.begin(Change::ServiceEnabled { unit: unit.clone() }))
            .transpose()?;
        if let Some(notice) = self.services.enable(Service::Kubelet) {
            self.tell.warning(START, notice);
        }
        self.tell.step(START, "Starting the kubelet");
        let started = (is_unit && !runs).then(|| self.journal.begin(Change::ServiceStarted { unit })).transpose()?;
        if runs {
            self.services.restart(Service::Kubelet)?;
        } else {
            self.services.start(Service::Kubelet)?;
        }
        for id in enabled.into_iter().chain(started) {
            self.journal.done(id)?;
        }
        Ok(())
    }

    /// By what the node is known: its address, and in a cluster of both families the other family's as well, which pods in the
    /// node's network and NodePorts are reached at.
    fn node_addresses(&self) -> Vec<IpAddr> {
        let first = self.weft.node_ip.unwrap_or(self.node.address);
        let second = self.node.second_address.filter(|_| self.wanted.families() == (true, true));
        let second = second.filter(|second| second.is_ipv4() != first.is_ipv4());
        [first].into_iter().chain(second).collect()
    }

    /// kubelet's unit and drop-in, where systemd reads them. Says whether one is new.
    fn unit(&mut self) -> Result<bool, PhaseError> {
        if !self.services.has_units() {
            return Ok(false);
        }
        let search_path = std::env::var_os("PATH").unwrap_or_default();
        let program = service::find(&search_path, "kubelet").unwrap_or_else(|| "/usr/bin/kubelet".into());
        let installed = unit::install(&self.paths.root, &program)?;
        for (path, is_new) in [&installed.unit, &installed.drop_in] {
            if *is_new {
                let id = self.journal.begin(Change::FileMade { path: path.clone(), sha256: None })?;
                self.journal.done(id)?;
                self.tell.step(START, format!("Wrote {}", path.display()));
            }
        }
        installed.notices.iter().for_each(|notice| self.tell.warning(START, notice));
        Ok(installed.is_new())
    }

    /// Waits until kubelet is well and, if asked for, the static pods that there are; says why they are not.
    pub(in crate::bootstrap::phases) async fn wait(&mut self, with_pods: bool) -> Result<(), PhaseError> {
        let mut targets = targets::all(self.paths, &self.limits)?;
        targets.retain(|target| with_pods || target.component == Component::Kubelet);
        let admin = self.paths.kubernetes.join("admin.conf");
        let client = match fs::read_to_string(&admin) {
            Ok(text) => Client::from_kubeconfig(&text)?,
            Err(_) => Client::anonymous()?,
        };
        let cri = self.runtime().await.1.as_ref().map(|(cri, _)| cri.clone());
        let (services, paths, began, tell) = (&self.services, self.paths, self.began, self.tell);
        let gather = move || -> futures_util::future::BoxFuture<'_, Evidence> {
            let cri = cri.clone();
            Box::pin(async move {
                let host = Evidence::of_host(services, paths, began);
                match &cri {
                    Some(cri) => runtime::with_containers(cri, host, runtime::Since::NotEnded(began)).await,
                    None => host,
                }
            })
        };
        let mut progress = |progress: Progress| match progress {
            Progress::Healthy { component, after } => {
                tell.step(WAIT, format!("{component} is healthy after {}", seconds(after)));
            }
            Progress::Waiting { after, missing } => {
                let missing: Vec<String> = missing.iter().map(|(who, last)| format!("{who} ({last})")).collect();
                tell.step(WAIT, format!("{:.0} s, waiting for {}", after.as_secs_f64(), missing.join(", ")));
            }
            Progress::Suspicion(diagnosis) => tell.warning(WAIT, diagnosis.to_string()),
        };
        poll::wait(&targets, &client, &gather, &mut progress).await.map_err(|error| PhaseError::Unwell(Box::new(error)))
    }

    /// Leaves kubelet to the certificate that it rotates.
    pub(in crate::bootstrap::phases) fn kubelet_finalize(&mut self) -> Result<(), PhaseError> {
        let step = kubeconfig::finalize(self.paths)?;
        if step.outcome == pki::Outcome::Changed {
            // kubelet took the certificate that was in the file into its own store when it started, and rotates it there; the
            // file is read when it starts next.
            self.tell.step("kubelet-finalize", "kubelet.conf points to kubelet's own certificate, which rotates");
        }
        Ok(())
    }
}
