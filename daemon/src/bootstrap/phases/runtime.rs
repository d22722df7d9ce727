//! What the container runtime tells the checks and the waiting.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::bootstrap::cri::{self, Cri, CriError, Health, labels};
use crate::bootstrap::host::facts::RuntimeTold;
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

/// Adds the containers of kube-system's pods to what the host has told.
pub(super) async fn with_containers(cri: &Cri, evidence: Evidence) -> Evidence {
    with_containers_since(cri, evidence, SystemTime::UNIX_EPOCH).await
}

/// The same of those alone that were made since then: what kubelet has ended for a new manifest tells nothing of that one.
pub(super) async fn with_containers_since(cri: &Cri, mut evidence: Evidence, since: SystemTime) -> Evidence {
    match containers(cri, since).await {
        Ok(containers) => evidence.containers = containers,
        Err(error) => evidence.runtime_error = Some(error.to_string()),
    }
    evidence
}

async fn containers(cri: &Cri, since: SystemTime) -> Result<Vec<Container>, CriError> {
    let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let wanted = BTreeMap::from([(labels::NAMESPACE.to_owned(), "kube-system".to_owned())]);
    let mut found = Vec::new();
    let all = cri.containers(&wanted).await?;
    for container in all.into_iter().filter(|it| u128::try_from(it.created).is_ok_and(|created| created >= since)) {
        // One that is removed meanwhile has nothing to tell.
        let Ok(ended) = cri.ended(&container.id).await else { continue };
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
