//! What an upgrade would change, for people and for programs. Pure.

use serde::Serialize;

use super::policy::Situation;
use crate::bootstrap::api::{NodeSeen, PodSeen};
use crate::bootstrap::pki::expiry::Expiry;
use crate::bootstrap::version::Version;
use crate::status::table::columns;

const DAY: i64 = 24 * 3600;

/// What is known of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What the rules are about.
    pub situation: Situation,
    /// The Nodes.
    pub nodes: Vec<NodeSeen>,
    /// The control plane's pods.
    pub pods: Vec<PodSeen>,
    /// Image of CoreDNS, where it runs.
    pub coredns: Option<String>,
    /// Images that a cluster of a version would have: CoreDNS's and etcd's, as far as it has them.
    pub wanted: Wanted,
    /// This node's certificates.
    pub certificates: Expiry,
    /// What is not well, and has to be before anything is changed.
    pub problems: Vec<String>,
}

/// Images that go with this build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// CoreDNS's; `None` without it.
    pub coredns: Option<String>,
    /// etcd's; `None` where somebody else runs it.
    pub etcd: Option<String>,
}

/// A component, before and after. As kubeadm's `ComponentUpgradePlan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// `kube-apiserver`.
    pub name: String,
    /// The version that runs.
    pub current_version: String,
    /// The version that would.
    pub new_version: String,
    /// The node; empty for what has none.
    pub node_name: String,
}

/// A version that may be gone to. As kubeadm's `AvailableUpgrade`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Upgrade {
    /// What it is, for people.
    pub description: String,
    /// What would change.
    pub components: Vec<Component>,
}

/// A certificate of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Its name.
    pub name: String,
    /// Whole days that it still holds.
    pub days: i64,
}

/// The plan. As JSON it is kubeadm's `UpgradePlan` with more members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    kind: &'static str,
    api_version: &'static str,
    /// The versions that may be gone to.
    pub available_upgrades: Vec<Upgrade>,
    /// Nothing: weft changes no configuration of components.
    config_versions: [(); 0],
    /// Version of the API server.
    pub running_version: String,
    /// The version that this build is made for.
    pub build_version: String,
    /// This node's certificates.
    pub certificates: Vec<Certificate>,
    /// What has to be well first, or speaks against the version that was asked for.
    pub problems: Vec<String>,
    /// Why there is no version to go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The plan; with `asked` only for that version.
#[must_use]
pub fn plan(seen: &Seen, asked: Option<&Version>) -> Plan {
    let situation = &seen.situation;
    let mut problems = seen.problems.clone();
    let targets: Vec<(String, String)> = match asked {
        Some(target) => {
            let objections = situation.objections(target);
            let is_barred = objections.iter().any(|objection| !objection.forcible);
            problems.extend(objections.into_iter().map(|objection| match objection.forcible {
                true => format!("{} (--force passes over it)", objection.words),
                false => objection.words,
            }));
            if is_barred { Vec::new() } else { vec![(target.to_string(), "as asked".to_owned())] }
        }
        None => situation.offers().into_iter().map(|offer| (offer.version, offer.description)).collect(),
    };
    let note = (targets.is_empty() && asked.is_none()).then(|| situation.nothing_to_offer());
    let certificates = seen.certificates.certificates.iter().filter(|row| !row.missing);
    Plan {
        kind: "UpgradePlan",
        api_version: "output.kubeadm.k8s.io/v1alpha3",
        available_upgrades: targets
            .into_iter()
            .map(|(version, description)| Upgrade {
                description: format!("{version}: {description}"),
                components: components(seen, &version),
            })
            .collect(),
        config_versions: [],
        running_version: situation.running.to_string(),
        build_version: situation.build.to_string(),
        certificates: certificates
            .map(|row| Certificate { name: row.name.clone(), days: row.residual_time.div_euclid(DAY) })
            .collect(),
        problems,
        note,
    }
}

/// In kubeadm's order: the control plane by component, then what is one for the cluster, then etcd and the kubelets.
fn components(seen: &Seen, version: &str) -> Vec<Component> {
    let entry = |name: &str, current: String, new: String, node: &str| Component {
        name: name.to_owned(),
        current_version: current,
        new_version: new,
        node_name: node.to_owned(),
    };
    let mut found = Vec::new();
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let pods = seen.pods.iter().filter(|pod| pod.component == name);
        found.extend(pods.map(|pod| entry(name, tag(&pod.image), version.to_owned(), &pod.node)));
    }
    if let (Some(current), Some(new)) = (&seen.coredns, &seen.wanted.coredns) {
        found.push(entry("CoreDNS", tag(current), tag(new), ""));
    }
    if let Some(new) = &seen.wanted.etcd {
        let pods = seen.pods.iter().filter(|pod| pod.component == "etcd");
        found.extend(pods.map(|pod| entry("etcd", tag(&pod.image), tag(newer(&pod.image, new)), &pod.node)));
    }
    let kubelets = seen.nodes.iter().filter(|node| !node.kubelet.is_empty());
    found.extend(kubelets.map(|node| entry("kubelet", node.kubelet.clone(), version.to_owned(), &node.name)));
    found
}

/// What of an image is its version: its tag, as it is.
fn tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split('@')
        .next()
        .and_then(|name| name.split_once(':'))
        .map_or_else(|| "?".to_owned(), |(_, tag)| tag.to_owned())
}

/// The image with the newer version: etcd cannot go back to data that a newer one has written.
pub(super) fn newer<'a>(present: &'a str, wanted: &'a str) -> &'a str {
    match (Version::of_image(present), Version::of_image(wanted)) {
        (Some(has), Some(new)) if has > new => present,
        _ => wanted,
    }
}

impl Plan {
    /// Whether an upgrade could be begun.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text =
            format!("The API server is {}; this weft is made for {}.\n", self.running_version, self.build_version);
        for upgrade in &self.available_upgrades {
            let version = upgrade.description.split(':').next().unwrap_or_default();
            text.push_str(&format!("\n{}\n\n", upgrade.description));
            let head = ["COMPONENT", "NODE", "CURRENT", "TARGET"].map(str::to_owned).to_vec();
            let row = |part: &Component| {
                let node = if part.node_name.is_empty() { "-" } else { &part.node_name };
                vec![part.name.clone(), node.to_owned(), part.current_version.clone(), part.new_version.clone()]
            };
            text.push_str(&columns(
                &std::iter::once(head).chain(upgrade.components.iter().map(row)).collect::<Vec<_>>(),
            ));
            text.push_str(&format!(
                "\nOn this node:            weft upgrade apply {version}\n\
                 On each other node then: weft upgrade node\n\
                 kubelets are not changed by either: install {version} on each node and restart kubelet.\n"
            ));
        }
        if let Some(note) = &self.note {
            text.push_str(&format!("\nNothing to upgrade to: {note}.\n"));
        }
        if let Some(first) = self.certificates.iter().min_by_key(|certificate| certificate.days) {
            text.push_str(&format!(
                "\nThe certificate that runs out first is {}, in {} days.\n",
                first.name, first.days
            ));
        }
        for problem in &self.problems {
            text.push_str(&format!("\nproblem: {problem}"));
        }
        if !self.problems.is_empty() {
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::pki::expiry;
    use crate::bootstrap::resolved::Paths;
    use jiff::Timestamp;

    fn seen(running: &str) -> Seen {
        let root = tempfile::tempdir().unwrap();
        let pod = |component: &str, image: &str| PodSeen {
            component: component.into(),
            node: "n1".into(),
            image: format!("registry.k8s.io/{image}"),
            ready: true,
            config_hash: None,
        };
        let node = |name: &str, kubelet: &str| NodeSeen {
            name: name.into(),
            ready: true,
            control_plane: name == "n1",
            kubelet: kubelet.into(),
            cri_socket: None,
        };
        Seen {
            situation: Situation {
                running: running.parse().unwrap(),
                kubelets: Vec::new(),
                build: "v1.36.2".parse().unwrap(),
            },
            nodes: vec![node("n1", "v1.35.3"), node("n2", "v1.35.0")],
            pods: vec![pod("kube-apiserver", "kube-apiserver:v1.35.3"), pod("etcd", "etcd:3.6.9-0")],
            coredns: Some("registry.k8s.io/coredns/coredns:v1.13.1".into()),
            wanted: Wanted {
                coredns: Some("registry.k8s.io/coredns/coredns:v1.14.2".into()),
                etcd: Some("registry.k8s.io/etcd:3.6.8-0".into()),
            },
            certificates: expiry::look(&Paths::under(root.path()), Timestamp::now()),
            problems: Vec::new(),
        }
    }

    #[test]
    fn u01_each_component_is_told_before_and_after() {
        let plan = plan(&seen("v1.35.3"), Some(&"v1.36.2".parse().unwrap()));
        assert!(plan.is_sound() && plan.available_upgrades.len() == 1, "{plan:?}");
        let rows: Vec<String> = plan.available_upgrades[0]
            .components
            .iter()
            .map(|it| format!("{} {} {} {}", it.name, it.node_name, it.current_version, it.new_version))
            .collect();
        assert_eq!(
            rows,
            [
                "kube-apiserver n1 v1.35.3 v1.36.2",
                "CoreDNS  v1.13.1 v1.14.2",
                "etcd n1 3.6.9-0 3.6.9-0",
                "kubelet n1 v1.35.3 v1.36.2",
                "kubelet n2 v1.35.0 v1.36.2",
            ]
        );
        let json = serde_json::to_value(&plan).unwrap();
        assert_eq!((&json["kind"], &json["configVersions"]), (&"UpgradePlan".into(), &serde_json::json!([])));
        assert_eq!(json["availableUpgrades"][0]["components"][0]["newVersion"], "v1.36.2");
        let text = plan.text();
        assert!(text.contains("weft upgrade apply v1.36.2") && text.contains("COMPONENT"), "{text}");
    }

    #[test]
    fn what_speaks_against_it_is_a_problem() {
        let barred = plan(&seen("v1.34.0"), Some(&"v1.36.2".parse().unwrap()));
        assert!(!barred.is_sound() && barred.available_upgrades.is_empty());
        let forced = plan(&seen("v1.36.2"), Some(&"v1.36.9".parse().unwrap()));
        assert!(forced.problems[0].contains("--force") && forced.available_upgrades.len() == 1, "{forced:?}");
        let none = plan(&seen("v1.36.2"), None);
        assert!(none.is_sound() && none.text().contains("Nothing to upgrade to"), "{}", none.text());
    }
}
