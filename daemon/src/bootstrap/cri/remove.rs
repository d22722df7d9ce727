//! Ending kubelet's pods, and nobody else's.

use std::collections::BTreeMap;

use super::connect::Cri;
use super::error::CriError;
use super::pods::{Sandbox, labels};

/// What has become of a sandbox.
#[derive(Debug)]
pub enum Removal {
    /// It is gone.
    Removed(Sandbox),
    /// It is not kubelet's and stays.
    Foreign(Sandbox),
    /// The runtime could not end it.
    Stuck(Sandbox, CriError),
}

/// Whether kubelet has made this sandbox: its labels name the pod that its metadata names. Others who use the runtime
/// (crictl, a build tool) label otherwise, or not at all.
#[must_use]
pub fn belongs_to_kubelet(sandbox: &Sandbox) -> bool {
    let pairs = [(labels::NAME, &sandbox.name), (labels::NAMESPACE, &sandbox.namespace), (labels::UID, &sandbox.uid)];
    pairs.into_iter().all(|(label, value)| !value.is_empty() && sandbox.labels.get(label) == Some(value))
}

impl Cri {
    /// Stops and removes every sandbox that kubelet has made and that `wanted` chooses; goes on past one that sticks. kubelet
    /// itself has to be stopped before, or it makes new ones.
    ///
    /// # Errors
    /// When the runtime does not even list them.
    pub async fn remove_kubelet_pods(&self, wanted: impl Fn(&Sandbox) -> bool) -> Result<Vec<Removal>, CriError> {
        let mut removals = Vec::new();
        for sandbox in self.sandboxes(&BTreeMap::new()).await? {
            if !belongs_to_kubelet(&sandbox) || !wanted(&sandbox) {
                removals.push(Removal::Foreign(sandbox));
                continue;
            }
            removals.push(match self.end_sandbox(&sandbox.id).await {
                Ok(()) => Removal::Removed(sandbox),
                Err(error) => Removal::Stuck(sandbox, error),
            });
        }
        Ok(removals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(labels: &[(&str, &str)]) -> Sandbox {
        Sandbox {
            id: "1".into(),
            name: "etcd-n1".into(),
            namespace: "kube-system".into(),
            uid: "u".into(),
            attempt: 0,
            ready: true,
            labels: labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn r09_only_what_kubelet_labelled_is_kubelets() {
        let own = [(labels::NAME, "etcd-n1"), (labels::NAMESPACE, "kube-system"), (labels::UID, "u")];
        assert!(belongs_to_kubelet(&sandbox(&own)));
        assert!(!belongs_to_kubelet(&sandbox(&[])));
        assert!(!belongs_to_kubelet(&sandbox(&own[..2])));
        let mut other = own;
        other[2].1 = "another";
        assert!(!belongs_to_kubelet(&sandbox(&other)));
    }
}
