//! The phases of a command as a tree, and which of them a run goes through (kubeadm `phases/workflow/runner.go`).

use std::collections::BTreeSet;

/// A phase, and those that it is made of.
#[derive(Debug)]
pub struct Phase {
    /// Its name below its parent's.
    pub name: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    /// Its parts in their order; a phase without any does something itself.
    pub parts: &'static [Phase],
}

const fn leaf(name: &'static str, about: &'static str) -> Phase {
    Phase { name, about, parts: &[] }
}

/// The phases of `weft init`.
pub const INIT: &[Phase] = &[
    leaf("preflight", "Check the machine, make it ready, and have the images"),
    Phase {
        name: "certs",
        about: "Make certificates and keys",
        parts: &[
            leaf("ca", "The cluster's certificate authority"),
            leaf("apiserver", "The API server's certificate"),
            leaf("apiserver-kubelet-client", "The API server's certificate for kubelets"),
            leaf("front-proxy-ca", "The certificate authority of API extensions"),
            leaf("front-proxy-client", "The API server's certificate for API extensions"),
            leaf("etcd-ca", "etcd's certificate authority"),
            leaf("etcd-server", "etcd's certificate"),
            leaf("etcd-peer", "etcd's certificate for other members"),
            leaf("etcd-healthcheck-client", "The certificate of etcd's probes"),
            leaf("apiserver-etcd-client", "The API server's certificate for etcd"),
            leaf("sa", "The keys of service accounts"),
        ],
    },
    Phase {
        name: "kubeconfig",
        about: "Make kubeconfigs",
        parts: &[
            leaf("admin", "The administrator's"),
            leaf("super-admin", "That of the one who is above all rules"),
            leaf("kubelet", "kubelet's"),
            leaf("controller-manager", "The controller manager's"),
            leaf("scheduler", "The scheduler's"),
        ],
    },
    Phase { name: "etcd", about: "Make etcd's static pod", parts: &[leaf("local", "A member on this node")] },
    Phase {
        name: "control-plane",
        about: "Make the control plane's static pods",
        parts: &[
            leaf("apiserver", "kube-apiserver"),
            leaf("controller-manager", "kube-controller-manager"),
            leaf("scheduler", "kube-scheduler"),
        ],
    },
    leaf("weft-helpers", "Make weft's static pods: the balancer of the API, and the renewal of certificates"),
    leaf("kubelet-start", "Configure and start kubelet"),
    leaf("wait-control-plane", "Wait until kubelet and the control plane are well"),
    Phase {
        name: "upload-config",
        about: "Put the configuration into the cluster",
        parts: &[leaf("kubeadm", "ClusterConfiguration"), leaf("kubelet", "KubeletConfiguration")],
    },
    leaf("upload-certs", "Put the control plane's certificates into the cluster, encrypted (with --upload-certs)"),
    leaf("mark-control-plane", "Label and taint the node"),
    leaf("bootstrap-token", "Let others join"),
    Phase {
        name: "kubelet-finalize",
        about: "Leave kubelet to its own certificate",
        parts: &[leaf("enable-client-cert-rotation", "Have kubelet.conf point to the one that rotates")],
    },
    Phase {
        name: "addon",
        about: "Install what each cluster needs",
        parts: &[
            leaf("coredns", "CoreDNS"),
            leaf("kube-proxy", "Nothing: weft serves Services"),
            leaf("weft", "Pod network and Services"),
        ],
    },
    leaf("await-ready", "Wait until the node is Ready and CoreDNS is there"),
    leaf("show-join-command", "Say how others join"),
];

/// The phases of `weft join`. A worker goes through those that are not about the control plane.
pub const JOIN: &[Phase] = &[
    leaf("preflight", "Check the machine, find the cluster, make the machine ready, and have the images"),
    Phase {
        name: "control-plane-prepare",
        about: "Make what a control plane is made of",
        parts: &[
            leaf("download-certs", "Fetch the certificates that init has uploaded (with --certificate-key)"),
            leaf("certs", "This node's certificates"),
            leaf("kubeconfig", "This node's kubeconfigs"),
            leaf("control-plane", "Its static pods, etcd's aside"),
        ],
    },
    leaf(
        "weft-helpers",
        "Make weft's static pods: the balancer of the API and, for a control plane, the renewal of certificates",
    ),
    leaf("kubelet-start", "Configure and start kubelet"),
    leaf("etcd-join", "Become a member of etcd"),
    leaf("kubelet-wait-bootstrap", "Wait until kubelet is well and has its certificate"),
    leaf("kubelet-finalize", "Have kubelet reach the API through this node's balancer"),
    Phase {
        name: "control-plane-join",
        about: "Take part in the control plane",
        parts: &[leaf("mark-control-plane", "Label and taint the node")],
    },
    leaf("wait-control-plane", "Wait until the control plane is well"),
    leaf("await-ready", "Wait until the node is Ready"),
];

/// Phases that make no sense without others.
const NEEDS: &[(&str, &[&str])] = &[("show-join-command", &["bootstrap-token", "upload-certs"])];

/// Phases cannot be chosen so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// There is none of that name.
    #[error("invalid phase name: {name}; expected one of {}", .known.join(", "))]
    Unknown {
        /// The name.
        name: String,
        /// All names.
        known: Vec<String>,
    },
    /// One that is to run needs one that is not.
    #[error("unresolved dependencies: phase {phase} needs {needed}, which is skipped; skip {phase}, too")]
    Unresolved {
        /// The one that is to run.
        phase: &'static str,
        /// The one that is not.
        needed: &'static str,
    },
}

/// The full names (`certs/ca`) of the phases without parts that a run goes through, in their order: all but those that are
/// skipped, or those of `only`. Names may be of phases with parts, which are meant with all of them; `all` is such a part, too.
///
/// # Errors
/// [`SelectError`].
pub fn select(tree: &'static [Phase], skip: &[String], only: Option<&str>) -> Result<Vec<String>, SelectError> {
    let mut leaves = Vec::new();
    let mut known = BTreeSet::new();
    collect(tree, "", &mut leaves, &mut known);
    let named = |name: &str| -> Result<String, SelectError> {
        let asked = name.trim().to_lowercase();
        let whole = asked.strip_suffix("/all").unwrap_or(&asked).to_owned();
        match known.contains(&whole) {
            true => Ok(whole),
            false => Err(SelectError::Unknown { name: name.to_owned(), known: known.iter().cloned().collect() }),
        }
    };
    let within =
        |leaf: &str, phase: &str| leaf == phase || leaf.strip_prefix(phase).is_some_and(|rest| rest.starts_with('/'));
    let skipped = skip.iter().map(|name| named(name)).collect::<Result<Vec<_>, _>>()?;
    let only = only.map(named).transpose()?;
    leaves.retain(|leaf| {
        only.as_ref().is_none_or(|only| within(leaf, only)) && !skipped.iter().any(|phase| within(leaf, phase))
    });
    if only.is_none() {
        let runs = |phase: &str| leaves.iter().any(|leaf| within(leaf, phase));
        for (phase, needed) in NEEDS.iter().filter(|(phase, _)| runs(phase)) {
            if let Some(needed) = needed.iter().find(|needed| !runs(needed)) {
                return Err(SelectError::Unresolved { phase, needed });
            }
        }
    }
    Ok(leaves)
}

fn collect(tree: &'static [Phase], above: &str, leaves: &mut Vec<String>, known: &mut BTreeSet<String>) {
    for phase in tree {
        let name = if above.is_empty() { phase.name.to_owned() } else { format!("{above}/{}", phase.name) };
        known.insert(name.clone());
        if phase.parts.is_empty() {
            leaves.push(name);
        } else {
            collect(phase.parts, &name, leaves, known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(skip: &[&str], only: Option<&str>) -> Result<Vec<String>, SelectError> {
        select(INIT, &skip.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), only)
    }

    #[test]
    fn all_run_in_kubeadms_order_unless_skipped() {
        let all = names(&[], None).unwrap();
        let top: Vec<&str> = all.iter().filter_map(|name| name.split('/').next()).collect();
        let mut order = top.clone();
        order.dedup();
        assert_eq!(order.len(), INIT.len());
        assert_eq!(order.first().copied(), Some("preflight"));
        let some = names(&["certs", "Addon/CoreDNS"], None).unwrap();
        assert!(!some.iter().any(|name| name.starts_with("certs/")) && !some.contains(&"addon/coredns".to_owned()));
        assert!(some.contains(&"addon/weft".to_owned()));
    }

    #[test]
    fn one_runs_with_all_of_its_parts() {
        assert_eq!(names(&[], Some("kubeconfig/all")).unwrap().len(), 5);
        assert_eq!(names(&[], Some("control-plane/scheduler")).unwrap(), ["control-plane/scheduler"]);
        assert_eq!(names(&["kubeconfig/admin"], Some("kubeconfig")).unwrap().len(), 4);
    }

    #[test]
    fn i04_an_unknown_phase_and_one_that_lacks_what_it_needs() {
        assert!(names(&["nope"], None).unwrap_err().to_string().starts_with("invalid phase name: nope"));
        assert!(names(&[], Some("cert")).unwrap_err().to_string().starts_with("invalid phase name: cert"));
        let error = names(&["bootstrap-token"], None).unwrap_err();
        assert_eq!(error, SelectError::Unresolved { phase: "show-join-command", needed: "bootstrap-token" });
        assert!(names(&["bootstrap-token", "show-join-command"], None).is_ok());
    }
}
