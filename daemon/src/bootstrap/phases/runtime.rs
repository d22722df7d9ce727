//! What the container runtime tells the checks and the waiting.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::bootstrap::cri::{self, Cri, CriError, Health, labels};
use crate::bootstrap::host::facts::RuntimeTold;
use crate::bootstrap::static_pods::Part;
use crate::bootstrap::waiting::evidence::{Container, ContainerState, Evidence};

/// Lines of a container that are looked at.
const LINES: usize = 40;

/// The label that holds a container's name in its pod.
const CONTAINER: &str = "io.kubernetes.container.name";

/// Asks the runtime at a socket how it is.
pub(super) async fn ask(socket: &str) -> (RuntimeTold, Option<(Cri, Health)>) {
    let asked = async {
        let cri = Cri::connect(socket).await?;
        let health = cri.health().await?;
        Ok::<_, CriError>((cri, health))
    };
    match asked.await {
        Ok((cri, health)) => {
            let told = RuntimeTold::Answers {
                version: format!("{} {}", health.name, health.version),
                unready: health.not_ready.clone(),
                driver: health.cgroup_driver,
                sandbox_image: health.sandbox_image.clone(),
            };
            (told, Some((cri, health)))
        }
        Err(CriError::Missing { .. }) => (RuntimeTold::NoSocket, None),
        Err(CriError::NoCri { .. }) => (RuntimeTold::NoCri, None),
        Err(error) => (RuntimeTold::Failed(error.to_string()), None),
    }
}

/// Which containers tell of what is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Since {
    /// Those that were made since then: what kubelet has ended for a new manifest tells nothing of that one.
    Made(SystemTime),
    /// All but those that ended before: they tell of a cause that may be gone.
    NotEnded(SystemTime),
}

impl Since {
    fn counts(self, container: &cri::Container, ended: &cri::Ended) -> bool {
        let nanos = |at: SystemTime| {
            at.duration_since(UNIX_EPOCH).map_or(0, |at| i64::try_from(at.as_nanos()).unwrap_or(i64::MAX))
        };
        match self {
            Self::Made(at) => container.created >= nanos(at),
            Self::NotEnded(at) => container.state != cri::ContainerState::Exited || ended.finished >= nanos(at),
        }
    }
}

/// Adds the containers of kube-system's pods to what the host has told.
pub(super) async fn with_containers(cri: &Cri, mut evidence: Evidence, since: Since) -> Evidence {
    match containers(cri, since).await {
        Ok(containers) => evidence.containers = containers,
        Err(error) => evidence.runtime_error = Some(error.to_string()),
    }
    evidence
}

/// Whether a static pod of the control plane has ended and does not run again yet: kubelet waits longer each time before it
/// starts it.
pub(super) async fn is_resting(cri: &Cri) -> bool {
    let Ok(containers) = cri.containers(&system()).await else { return false };
    Part::ALL.iter().any(|part| {
        let name = |it: &&cri::Container| it.labels.get(CONTAINER).is_some_and(|name| name == part.name());
        let mut own = containers.iter().filter(name).peekable();
        own.peek().is_some() && own.all(|it| it.state == cri::ContainerState::Exited)
    })
}

/// The label of what is in kube-system.
fn system() -> BTreeMap<String, String> {
    BTreeMap::from([(labels::NAMESPACE.to_owned(), "kube-system".to_owned())])
}

async fn containers(cri: &Cri, since: Since) -> Result<Vec<Container>, CriError> {
    let mut found = Vec::new();
    for container in cri.containers(&system()).await? {
        // One that is removed meanwhile has nothing to tell.
        let Ok(ended) = cri.ended(&container.id).await else { continue };
        if !since.counts(&container, &ended) {
            continue;
        }
        let state = match container.state {
            cri::ContainerState::Created => ContainerState::Created,
            cri::ContainerState::Exited => {
                ContainerState::Exited { code: ended.exit_code, reason: ended.reason, message: ended.message }
            }
            cri::ContainerState::Running | cri::ContainerState::Unknown => ContainerState::Running,
        };
        found.push(Container {
            name: container.labels.get(CONTAINER).cloned().unwrap_or(container.name),
            attempt: container.attempt,
            state,
            lines: cri::last_lines(&ended.log, LINES).unwrap_or_default(),
        });
    }
    Ok(found)
}
