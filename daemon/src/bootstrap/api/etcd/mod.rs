//! etcd's members: a new control-plane node comes in as a learner, and goes out again if anything fails (contract
//! sections 1.15, 1.16; kubeadm's `util/etcd`).

mod plan;
mod survey;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use etcd_client::{Client, MemberAddOptions};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::error::ApiError;
use super::object::Outcome;
use super::server::{PAUSE, Server};
use crate::bootstrap::resolved::{Limits, Paths};
use crate::cluster::etcd::{ConnectError, EtcdOptions, connect, explain};
use crate::cluster::kube::api::Refusal;
use plan::{Entry, Leave, entry, initial_cluster, leave};

pub use plan::EtcdMember;
pub use survey::EtcdHealth;

/// Of each etcd pod: where clients reach it.
const ANNOTATION: &str = "kubeadm.kubernetes.io/etcd.advertise-client-urls";

/// All etcd pods of the control plane.
const PODS: &str = "/api/v1/namespaces/kube-system/pods?labelSelector=component%3Detcd%2Ctier%3Dcontrol-plane";

/// What went wrong with etcd.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// No client can be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It refused, or did not answer, for as long as is waited for that.
    #[error("etcd: cannot {verb}: {words}")]
    Refused {
        /// What was tried.
        verb: &'static str,
        /// What was said last.
        words: String,
    },
    /// Less than a majority of its members is well.
    #[error("etcd: only {well} of {all} members are well, a majority is needed; not: {ill}")]
    Unhealthy {
        /// How many are.
        well: usize,
        /// How many there are that vote.
        all: usize,
        /// The others, and what is wrong with them.
        ill: String,
    },
}

/// The client certificate for etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdAccess {
    /// Its authority.
    pub ca: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl EtcdAccess {
    /// With the certificate that a control-plane node checks etcd's health with.
    #[must_use]
    pub fn healthcheck(paths: &Paths) -> Self {
        let file = |name: &str| paths.pki.join("etcd").join(name);
        Self { ca: file("ca.crt"), cert: file("healthcheck-client.crt"), key: file("healthcheck-client.key") }
    }
}

/// Where etcd's members are, as the annotations of their pods say.
///
/// # Errors
/// [`ApiError::Refused`] if there is none, or one that does not say so.
pub async fn etcd_endpoints(server: &Server) -> Result<Vec<String>, ApiError> {
    let none = |words: String| Refusal { code: None, words };
    server
        .persist("find", "etcd's pods", || async {
            let pods = server.list_once(PODS).await?;
            let mut endpoints = Vec::new();
            for pod in &pods {
                let urls = pod["metadata"]["annotations"][ANNOTATION].as_str().unwrap_or_default();
                if urls.is_empty() {
                    return Err(none(format!("pod {} has no annotation {ANNOTATION}", pod["metadata"]["name"])));
                }
                endpoints.extend(urls.split(',').map(str::to_owned));
            }
            if endpoints.is_empty() { Err(none("there is none in kube-system".to_owned())) } else { Ok(endpoints) }
        })
        .await
}

/// etcd's members, through those of them that are known.
#[derive(Clone)]
pub struct EtcdCluster {
    client: Client,
    options: EtcdOptions,
    limit: Duration,
}

impl std::fmt::Debug for EtcdCluster {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("EtcdCluster").field("endpoints", &self.options.endpoints).finish_non_exhaustive()
    }
}

/// A member that this node is to become, and what it takes to begin, go on, or take that back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdEntry {
    /// Its number.
    pub id: u64,
    /// etcd's `--initial-cluster`; `--initial-cluster-state` is `existing`.
    pub initial_cluster: String,
    /// `Made`, `Kept` from an earlier attempt, or `Changed`: one that has lost its data has been replaced.
    pub outcome: Outcome,
    /// Whether nothing is lost with it: it has never started with data of this node.
    pub may_go: bool,
}

/// What became of a member that was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtcdLeft {
    /// It is gone.
    Removed,
    /// It was none.
    Absent,
    /// It is the last one, and stays: with its data goes the cluster.
    Last,
}

impl EtcdCluster {
    /// Connects. Nothing is asked yet. `access` is for https.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub async fn connect(
        endpoints: &[String],
        access: Option<&EtcdAccess>,
        limits: &Limits,
    ) -> Result<Self, EtcdError> {
        let options = EtcdOptions {
            endpoints: endpoints.to_vec(),
            cafile: access.map(|it| it.ca.clone()),
            certfile: access.map(|it| it.cert.clone()),
            keyfile: access.map(|it| it.key.clone()),
            user: None,
        };
        Ok(Self { client: connect(&options).await?, options, limit: limits.etcd_call })
    }

    /// Its members.
    ///
    /// # Errors
    /// [`EtcdError::Refused`].
    pub async fn members(&self) -> Result<Vec<EtcdMember>, EtcdError> {
        self.persist("list members", || self.list()).await
    }

    /// Checks that a majority of those that vote is well; says how many are, and of how many.
    ///
    /// # Errors
    /// [`EtcdError::Unhealthy`] with what is wrong with the others, [`EtcdError::Refused`].
    pub async fn check(&self) -> Result<(usize, usize), EtcdError> {
        let voters: Vec<EtcdMember> = self.members().await?.into_iter().filter(|member| !member.is_learner).collect();
        let states = join_all(voters.iter().map(|member| self.state_of(member))).await;
        let ill: Vec<String> = states.into_iter().filter_map(Result::err).collect();
        let (all, well) = (voters.len(), voters.len() - ill.len());
        if well > all / 2 { Ok((well, all)) } else { Err(EtcdError::Unhealthy { well, all, ill: ill.join("; ") }) }
    }

    async fn state_of(&self, member: &EtcdMember) -> Result<(), String> {
        let named = |words: &str| format!("{} ({:x}): {words}", member.name, member.id);
        if member.clients.is_empty() {
            return Err(named("it has not started"));
        }
        let options = EtcdOptions { endpoints: member.clients.clone(), ..self.options.clone() };
        let mut client = connect(&options).await.map_err(|error| named(&error.to_string()))?;
        let status = client.status().await.map_err(|error| named(&explain(&error)))?;
        if status.errors().is_empty() { Ok(()) } else { Err(named(&status.errors().join(", "))) }
    }

    /// Sees to it that this node is a member, at first one without a vote. `has_data` says whether its data directory
    /// holds a member's data: one that is listed and has lost them is replaced.
    ///
    /// # Errors
    /// [`EtcdError::Refused`].
    pub async fn enter(&self, name: &str, peer_url: &str, has_data: bool) -> Result<EtcdEntry, EtcdError> {
        let replaced = AtomicBool::new(false);
        let (id, outcome, may_go) = self
            .persist("add this node's member", || async {
                let members = self.list().await?;
                match entry(&members, peer_url, has_data) {
                    Entry::Reuse(id) => {
                        let never_started = members.iter().any(|member| member.id == id && member.name.is_empty());
                        Ok((id, Outcome::Kept, never_started))
                    }
                    Entry::Replace(id) => {
                        self.drop_member(id).await?;
                        replaced.store(true, Relaxed);
                        Err("the old one has just been removed".to_owned())
                    }
                    Entry::Add => {
                        let options = Some(MemberAddOptions::new().with_is_learner());
                        let added = self.client.clone().member_add([peer_url], options).await;
                        let added = added.map_err(|error| explain(&error))?;
                        let outcome = if replaced.load(Relaxed) { Outcome::Changed } else { Outcome::Made };
                        let id = added.member().map(etcd_client::Member::id);
                        id.map(|id| (id, outcome, true)).ok_or_else(|| "it was added without a number".to_owned())
                    }
                }
            })
            .await?;
        let members = self.members().await?;
        Ok(EtcdEntry { id, initial_cluster: initial_cluster(&members, id, name), outcome, may_go })
    }

    /// Gives the member its vote once it has started and caught up, and waits until etcd is well.
    ///
    /// # Errors
    /// [`EtcdError::Refused`] with what it is waiting for, [`EtcdError::Unhealthy`].
    pub async fn promote(&self, id: u64) -> Result<Outcome, EtcdError> {
        let outcome = self
            .persist("give this node's member its vote", || async {
                let members = self.list().await?;
                let own = members.iter().find(|member| member.id == id);
                match own.ok_or("somebody has removed it; run join again")? {
                    member if member.name.is_empty() => {
                        Err("it has not started; its container's log tells why".to_owned())
                    }
                    member if !member.is_learner => Ok(Outcome::Kept),
                    _ => {
                        let promoted = self.client.clone().member_promote(id).await;
                        promoted.map(|_| Outcome::Changed).map_err(|error| explain(&error))
                    }
                }
            })
            .await?;
        let end = Instant::now() + self.limit;
        loop {
            match self.check().await {
                Ok(_) => return Ok(outcome),
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Takes an entry back when something later has failed. A member that has this node's data stays.
    ///
    /// # Errors
    /// [`EtcdError::Refused`]: the member is still there, and `weft reset` on this node, or `etcdctl member remove`, removes it.
    pub async fn take_back(&self, made: &EtcdEntry) -> Result<Outcome, EtcdError> {
        if !made.may_go {
            return Ok(Outcome::Kept);
        }
        self.persist("remove this node's member", || self.drop_member(made.id)).await?;
        Ok(Outcome::Changed)
    }

    /// Removes the member at this node's address, unless it is the last.
    ///
    /// # Errors
    /// [`EtcdError::Refused`].
    pub async fn leave(&self, peer_url: &str) -> Result<EtcdLeft, EtcdError> {
        self.persist("remove this node's member", || async {
            match leave(&self.list().await?, peer_url) {
                Leave::Absent => Ok(EtcdLeft::Absent),
                Leave::Last => Ok(EtcdLeft::Last),
                Leave::Remove(id) => self.drop_member(id).await.map(|()| EtcdLeft::Removed),
            }
        })
        .await
    }

    /// One that is gone already is no error.
    async fn drop_member(&self, id: u64) -> Result<(), String> {
        match self.client.clone().member_remove(id).await {
            Ok(_) => Ok(()),
            Err(etcd_client::Error::GRpcStatus(status)) if status.message().contains("member not found") => Ok(()),
            Err(error) => Err(explain(&error)),
        }
    }

    async fn list(&self) -> Result<Vec<EtcdMember>, String> {
        let answer = self.client.clone().member_list().await.map_err(|error| explain(&error))?;
        let member = |member: &etcd_client::Member| EtcdMember {
            id: member.id(),
            name: member.name().to_owned(),
            peers: member.peer_urls().to_vec(),
            clients: member.client_urls().to_vec(),
            is_learner: member.is_learner(),
        };
        Ok(answer.members().iter().map(member).collect())
    }

    /// Tries until it succeeds or the time is over.
    async fn persist<T, F: Future<Output = Result<T, String>>>(
        &self,
        verb: &'static str,
        attempt: impl Fn() -> F,
    ) -> Result<T, EtcdError> {
        let end = Instant::now() + self.limit;
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(words) if Instant::now() >= end => return Err(EtcdError::Refused { verb, words }),
                Err(words) => tracing::debug!(verb, "{words}"),
            }
            sleep(PAUSE).await;
        }
    }
}
