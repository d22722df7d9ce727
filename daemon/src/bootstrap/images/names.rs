//! Which images a node needs, and their names: exactly kubeadm's (`cmd/kubeadm/app/images`), with weft in kube-proxy's place.

use crate::bootstrap::resolved::{Cluster, EtcdPlace};

/// The version of Kubernetes that weft brings up unless it is told otherwise: no label of the Internet is ever asked.
pub const KUBERNETES_VERSION: &str = "v1.36.2";
/// The tag of the pause image that goes with it.
pub const PAUSE_TAG: &str = "3.10.2";
const ETCD_TAG: &str = "3.6.8-0";
const COREDNS_TAG: &str = "v1.14.2";
/// Where Kubernetes' own images are.
const UPSTREAM: &str = "registry.k8s.io";

/// What an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// weft's agent.
    Weft,
    /// CoreDNS.
    CoreDns,
    /// The first container of each pod.
    Pause,
    /// etcd.
    Etcd,
}

impl What {
    /// The program that the image is made of, as upstream's archives name it; `None` for weft's own.
    #[must_use]
    pub const fn program(self) -> Option<&'static str> {
        match self {
            Self::ApiServer => Some("kube-apiserver"),
            Self::ControllerManager => Some("kube-controller-manager"),
            Self::Scheduler => Some("kube-scheduler"),
            Self::CoreDns => Some("coredns"),
            Self::Etcd => Some("etcd"),
            Self::Weft | Self::Pause => None,
        }
    }

    /// Whether a node without a control plane needs it. CoreDNS comes where its pods come.
    #[must_use]
    pub const fn on_workers(self) -> bool {
        matches!(self, Self::Weft | Self::Pause)
    }
}

/// An image that has to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What it is for.
    pub what: What,
    /// Its whole name with a tag.
    pub name: String,
}

/// What the names are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Where images come from, `registry.k8s.io`.
    pub repository: String,
    /// Version of the control plane, `v1.36.2`.
    pub kubernetes_version: String,
    /// CoreDNS's image without its tag, and the tag; `None` without CoreDNS.
    pub dns: Option<(String, String)>,
    /// etcd's whole name; `None` if somebody else runs it.
    pub etcd: Option<String>,
    /// weft's whole name; see [`weft_image`].
    pub weft: String,
}

impl Names {
    /// The usual ones of a repository and a version.
    #[must_use]
    pub fn usual(repository: &str, kubernetes_version: &str) -> Self {
        // Upstream's CoreDNS lies in a folder of its own; mirrors are flat.
        let folder = if repository == UPSTREAM { "/coredns" } else { "" };
        let dns = format!("{repository}{folder}/coredns");
        Self {
            repository: repository.to_owned(),
            kubernetes_version: kubernetes_version.to_owned(),
            dns: Some((dns, COREDNS_TAG.to_owned())),
            etcd: Some(format!("{repository}/etcd:{ETCD_TAG}")),
            weft: weft_image("localhost"),
        }
    }

    /// Those of a cluster; `weft` is the whole name of weft's image.
    #[must_use]
    pub fn of(cluster: &Cluster, weft: &str) -> Self {
        let etcd = match &cluster.etcd {
            EtcdPlace::Local { image, .. } => Some(image.clone()),
            EtcdPlace::External(_) => None,
        };
        Self {
            repository: cluster.image_repository.clone(),
            kubernetes_version: cluster.kubernetes_version.clone(),
            dns: cluster.dns.clone(),
            etcd,
            weft: weft.to_owned(),
        }
    }

    /// The pause image's whole name.
    #[must_use]
    pub fn pause(&self) -> String {
        format!("{}/pause:{PAUSE_TAG}", self.repository)
    }

    /// CoreDNS's image.
    #[must_use]
    pub fn coredns(&self) -> Option<Wanted> {
        let (image, tag) = self.dns.as_ref()?;
        Some(Wanted { what: What::CoreDns, name: format!("{image}:{tag}") })
    }

    /// What a node needs, in kubeadm's order.
    #[must_use]
    pub fn wanted(&self, control_plane: bool) -> Vec<Wanted> {
        let tag = tag(&self.kubernetes_version);
        let component = |what: What| {
            let program = what.program().unwrap_or_default();
            Some(Wanted { what, name: format!("{}/{program}:{tag}", self.repository) })
        };
        let all = [
            component(What::ApiServer),
            component(What::ControllerManager),
            component(What::Scheduler),
            Some(Wanted { what: What::Weft, name: self.weft.clone() }),
            self.coredns(),
            Some(Wanted { what: What::Pause, name: self.pause() }),
            self.etcd.clone().map(|name| Wanted { what: What::Etcd, name }),
        ];
        all.into_iter().flatten().filter(|wanted| control_plane || wanted.what.on_workers()).collect()
    }
}

/// weft's own image in a repository, in the version of this program.
#[must_use]
pub fn weft_image(repository: &str) -> String {
    format!("{repository}/weft:{}", env!("CARGO_PKG_VERSION"))
}

/// Whether an image is one that clusters of any version need, so that kubelet shall not make room by removing it.
#[must_use]
pub fn is_wanted_name(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    let base = last.split([':', '@']).next().unwrap_or_default();
    let programs = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns", "etcd", "pause", "weft"];
    programs.contains(&base)
}

/// A version as a tag: what a tag cannot hold becomes `_`.
fn tag(version: &str) -> String {
    version.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &Names, control_plane: bool) -> Vec<String> {
        names.wanted(control_plane).into_iter().map(|wanted| wanted.name).collect()
    }

    #[test]
    fn upstreams_names_with_weft_in_kube_proxys_place() {
        let usual = Names::usual("registry.k8s.io", "v1.36.2");
        let weft = weft_image("localhost");
        assert_eq!(
            names(&usual, true),
            [
                "registry.k8s.io/kube-apiserver:v1.36.2",
                "registry.k8s.io/kube-controller-manager:v1.36.2",
                "registry.k8s.io/kube-scheduler:v1.36.2",
                &weft,
                "registry.k8s.io/coredns/coredns:v1.14.2",
                "registry.k8s.io/pause:3.10.2",
                "registry.k8s.io/etcd:3.6.8-0",
            ]
        );
        assert_eq!(names(&usual, false), [weft.as_str(), "registry.k8s.io/pause:3.10.2"]);
    }

    #[test]
    fn a_mirror_is_flat_and_versions_become_tags() {
        let mut mirror = Names::usual("mirror.example/google_containers", "v1.36.2+build.1");
        let all = names(&mirror, true);
        assert_eq!(all[0], "mirror.example/google_containers/kube-apiserver:v1.36.2_build.1");
        assert_eq!(all[4], "mirror.example/google_containers/coredns:v1.14.2");
        mirror.dns = Some(("registry.k8s.io/coredns/coredns".into(), "v1".into()));
        mirror.etcd = None;
        let all = names(&mirror, true);
        assert_eq!((all[4].as_str(), all.len()), ("registry.k8s.io/coredns/coredns:v1", 6));
    }

    #[test]
    fn names_that_kubelet_shall_keep() {
        for name in ["registry.k8s.io/pause:3.10.2", "a.b:5000/x/kube-apiserver:v1", "localhost/weft@sha256:00"] {
            assert!(is_wanted_name(name), "{name}");
        }
        assert!(!is_wanted_name("docker.io/library/nginx:1") && !is_wanted_name("etcd.example/nginx:1"));
    }
}
