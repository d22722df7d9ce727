//! What runs, for diagnosis: sandboxes (pods) and their containers.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use k8s_cri::v1::{
    ContainerFilter, ContainerStatusRequest, ListContainersRequest, ListPodSandboxRequest, PodSandboxFilter,
    PodSandboxState,
};

use super::connect::{ASK_LIMIT, Cri};
use super::error::CriError;

/// Labels that kubelet puts on whatever it starts (`pkg/kubelet/types/labels.go`): those of a pod's name.
pub mod labels {
    /// The pod's name.
    pub const NAME: &str = "io.kubernetes.pod.name";
    /// Its namespace.
    pub const NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// Its UID; a static pod's is a hash of its manifest.
    pub const UID: &str = "io.kubernetes.pod.uid";
}

/// The labels of a pod of that name, for [`Cri::sandboxes`] and [`Cri::containers`].
#[must_use]
pub fn pod_labels(namespace: &str, name: &str) -> BTreeMap<String, String> {
    let pairs = [(labels::NAMESPACE, namespace), (labels::NAME, name)];
    pairs.into_iter().map(|(label, value)| (label.to_owned(), value.to_owned())).collect()
}

/// A pod's sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's name of it.
    pub id: String,
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's UID.
    pub uid: String,
    /// How many it had before.
    pub attempt: u32,
    /// Whether it runs.
    pub ready: bool,
    /// Its labels.
    pub labels: HashMap<String, String>,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// It runs.
    Running,
    /// It has ended.
    Exited,
    /// The runtime does not know.
    Unknown,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The runtime's name of it.
    pub id: String,
    /// The sandbox that it is in.
    pub sandbox: String,
    /// Its name in the pod.
    pub name: String,
    /// How often it was restarted: the number of its predecessors.
    pub attempt: u32,
    /// What it is doing.
    pub state: ContainerState,
    /// Unix time at which it was made, in nanoseconds.
    pub created: i64,
    /// Its labels.
    pub labels: HashMap<String, String>,
}

/// How a container stands, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; 0 while it runs.
    pub exit_code: i32,
    /// `OOMKilled`, `Error`, `Completed`, …
    pub reason: String,
    /// The runtime's words.
    pub message: String,
    /// The file with what it wrote; see [`super::last_lines`].
    pub log: PathBuf,
    /// Unix time of its start, in nanoseconds; 0 if it never ran.
    pub started: i64,
    /// Unix time of its end, likewise.
    pub finished: i64,
}

impl Cri {
    /// The sandboxes that carry all these labels, the youngest first.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub async fn sandboxes(&self, labels: &BTreeMap<String, String>) -> Result<Vec<Sandbox>, CriError> {
        let filter = PodSandboxFilter { label_selector: to_map(labels), ..Default::default() };
        let request = ListPodSandboxRequest { filter: Some(filter) };
        let answer = self.answer("ListPodSandbox", "", ASK_LIMIT, self.runtime().list_pod_sandbox(request)).await?;
        let mut found = answer.items;
        found.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at));
        Ok(found.into_iter().map(Into::into).collect())
    }

    /// The containers that carry all these labels, the youngest first; ended ones, too.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub async fn containers(&self, labels: &BTreeMap<String, String>) -> Result<Vec<Container>, CriError> {
        let filter = ContainerFilter { label_selector: to_map(labels), ..Default::default() };
        let request = ListContainersRequest { filter: Some(filter) };
        let answer = self.answer("ListContainers", "", ASK_LIMIT, self.runtime().list_containers(request)).await?;
        let mut found: Vec<Container> = answer.containers.into_iter().map(Into::into).collect();
        found.sort_by_key(|container| std::cmp::Reverse(container.created));
        Ok(found)
    }

    /// How a container stands, or how it ended.
    ///
    /// # Errors
    /// When the runtime does not answer, or there is no such container.
    pub async fn ended(&self, container: &str) -> Result<Ended, CriError> {
        let request = ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
        let mut runtime = self.runtime();
        let asking = runtime.container_status(request);
        let answer = self.answer("ContainerStatus", container, ASK_LIMIT, asking).await?;
        let status = answer.status.ok_or(CriError::Incomplete { call: "ContainerStatus", field: "status" })?;
        Ok(Ended {
            exit_code: status.exit_code,
            reason: status.reason,
            message: status.message,
            log: status.log_path.into(),
            started: status.started_at,
            finished: status.finished_at,
        })
    }
}

fn to_map(labels: &BTreeMap<String, String>) -> HashMap<String, String> {
    labels.iter().map(|(label, value)| (label.clone(), value.clone())).collect()
}

impl From<k8s_cri::v1::PodSandbox> for Sandbox {
    fn from(sandbox: k8s_cri::v1::PodSandbox) -> Self {
        let ready = sandbox.state() == PodSandboxState::SandboxReady;
        let metadata = sandbox.metadata.unwrap_or_default();
        Self {
            id: sandbox.id,
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            attempt: metadata.attempt,
            ready,
            labels: sandbox.labels,
        }
    }
}

impl From<k8s_cri::v1::Container> for Container {
    fn from(container: k8s_cri::v1::Container) -> Self {
        use k8s_cri::v1::ContainerState as Wire;
        let state = match container.state() {
            Wire::ContainerCreated => ContainerState::Created,
            Wire::ContainerRunning => ContainerState::Running,
            Wire::ContainerExited => ContainerState::Exited,
            Wire::ContainerUnknown => ContainerState::Unknown,
        };
        let metadata = container.metadata.unwrap_or_default();
        Self {
            id: container.id,
            sandbox: container.pod_sandbox_id,
            name: metadata.name,
            attempt: metadata.attempt,
            state,
            created: container.created_at,
            labels: container.labels,
        }
    }
}
