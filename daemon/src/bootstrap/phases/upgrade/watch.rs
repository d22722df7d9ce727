//! kubelet as the API server and the components themselves tell of it: the real one that an upgrade waits for.

use std::fs;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout};

use super::error::UpgradeError;
use super::sequence::Kubelet;
use crate::bootstrap::api::{self, Server};
use crate::bootstrap::cri::Cri;
use crate::bootstrap::kubelet::service::ServiceManager;
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::phases::runtime;
use crate::bootstrap::phases::tell::Teller;
use crate::bootstrap::resolved::{Limits, Paths};
use crate::bootstrap::static_pods::Part;
use crate::bootstrap::waiting::evidence::Evidence;
use crate::bootstrap::waiting::poll::{self, Progress};
use crate::bootstrap::waiting::probe::Client;
use crate::bootstrap::waiting::targets::{self, Component, Target};

const PHASE: &str = "upgrade/static-pods";
/// Between two looks at the mirror pod.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two times that the mirror pod is told to be waited for.
const REMIND: Duration = Duration::from_secs(5);
/// How long the API server may take to show the mirror pod.
const ANSWER: Duration = Duration::from_secs(5);

/// kubelet of this node.
pub(super) struct Watch<'a> {
    pub(super) paths: &'a Paths,
    pub(super) limits: Limits,
    pub(super) node: &'a str,
    /// This node's own API server.
    pub(super) server: Server,
    pub(super) services: &'a ServiceManager,
    pub(super) cri: Option<Cri>,
    pub(super) tell: &'a Teller,
    /// When the manifest that is waited for was written: what ended before tells nothing of it.
    pub(super) since: SystemTime,
}

impl Watch<'_> {
    /// What the mirror pod says; an error if nobody can be asked.
    async fn mirrored(&self, part: Part) -> Result<Option<String>, String> {
        let server = self.server.within(Duration::ZERO);
        let pods = match timeout(ANSWER, api::control_plane_pods(&server)).await {
            Ok(answer) => answer.map_err(|error| error.to_string())?,
            Err(_) => return Err(format!("the API server does not answer within {} s", ANSWER.as_secs())),
        };
        let own = pods.into_iter().find(|pod| pod.component == part.name() && pod.node == self.node);
        Ok(own.and_then(|pod| pod.config_hash))
    }

    fn targets(&self, parts: &[Part]) -> Result<Vec<Target>, PhaseError> {
        let mut targets = targets::all(self.paths, &self.limits)?;
        targets.retain(|target| matches!(target.component, Component::Part(part) if parts.contains(&part)));
        Ok(targets)
    }

    async fn wait(&self, targets: &[Target]) -> Result<(), PhaseError> {
        let client = match fs::read_to_string(self.paths.kubernetes.join("admin.conf")) {
            Ok(text) => Client::from_kubeconfig(&text)?,
            Err(_) => Client::anonymous()?,
        };
        let (services, paths, since, cri) = (self.services, self.paths, self.since, self.cri.clone());
        let gather = move || -> BoxFuture<'_, Evidence> {
            let cri = cri.clone();
            Box::pin(async move {
                let host = Evidence::of_host(services, paths, since);
                match &cri {
                    Some(cri) => runtime::with_containers(cri, host, runtime::Since::Made(since)).await,
                    None => host,
                }
            })
        };
        let tell = self.tell;
        let mut progress = |progress: Progress| match progress {
            Progress::Healthy { .. } => {}
            Progress::Waiting { after, missing } => {
                let missing: Vec<String> = missing.iter().map(|(who, last)| format!("{who} ({last})")).collect();
                tell.step(PHASE, format!("{:.0} s, waiting for {}", after.as_secs_f64(), missing.join(", ")));
            }
            Progress::Suspicion(diagnosis) => tell.warning(PHASE, diagnosis.to_string()),
        };
        let waited = poll::wait(targets, &client, &gather, &mut progress).await;
        waited.map_err(|error| PhaseError::Unwell(Box::new(error)))
    }
}

impl Kubelet for Watch<'_> {
    async fn hash(&mut self, part: Part) -> Result<Option<String>, PhaseError> {
        let end = Instant::now() + self.limits.api_call;
        let found = loop {
            match self.mirrored(part).await {
                Ok(found) => break found,
                Err(last) if Instant::now() >= end => {
                    let words = format!("it cannot be seen what kubelet runs of {}: {last}", part.name());
                    return Err(PhaseError::Usage(words));
                }
                Err(_) => sleep(PAUSE).await,
            }
        };
        self.since = SystemTime::now();
        Ok(found)
    }

    async fn await_new(&mut self, part: Part, before: Option<&str>) -> Result<(), PhaseError> {
        let begin = Instant::now();
        let end = begin + self.limits.upgrade;
        let mut remind = begin + REMIND;
        loop {
            let last = match self.mirrored(part).await {
                Ok(Some(now)) if Some(now.as_str()) != before => break,
                Ok(Some(_)) => "its mirror pod is still that of the old manifest".to_owned(),
                Ok(None) => "it has no mirror pod".to_owned(),
                Err(words) => {
                    // That part, or the one that it stands on, is just being started; or it does not start.
                    self.wait(&self.targets(&[part, Part::ApiServer])?).await?;
                    words
                }
            };
            if Instant::now() >= end {
                let seconds = self.limits.upgrade.as_secs();
                return Err(UpgradeError::NotTakenUp { part: part.name(), seconds, last }.into());
            }
            if Instant::now() >= remind {
                remind += REMIND;
                let after = begin.elapsed().as_secs();
                let words = format!("{after} s, waiting for kubelet to run {}'s new manifest: {last}", part.name());
                self.tell.step(PHASE, words);
            }
            sleep(PAUSE).await;
        }
        self.await_well(&[part]).await
    }

    async fn await_well(&mut self, parts: &[Part]) -> Result<(), PhaseError> {
        // Whatever is changed, the API has to be there behind it.
        let parts: Vec<Part> = parts.iter().copied().chain([Part::ApiServer]).collect();
        self.wait(&self.targets(&parts)?).await
    }

    async fn await_old(&mut self, parts: &[Part]) -> Result<(), PhaseError> {
        self.since = SystemTime::now();
        self.await_well(parts).await
    }
}
