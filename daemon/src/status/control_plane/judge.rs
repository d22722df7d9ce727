//! From what the control plane's parts have answered to what is right and wrong with it. Pure.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::bootstrap::api::{EtcdHealth, NodeSeen, PodSeen};
use crate::bootstrap::pki::expiry::Expiry;
use crate::bootstrap::version::Version;
use crate::status::judge::Verdict;

/// A certificate that holds for less than so many days is noted: `weft certs renew all --if-due` is not run, it seems.
pub const SOON: i64 = 30;
/// A kubelet may be so many minor versions behind the API server (Kubernetes' version skew policy).
pub const SKEW: i64 = 3;
const DAY: i64 = 24 * 3600;

/// A component of this node, and what it has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `kube-apiserver`.
    pub component: String,
    /// Where it was asked: `192.0.2.10:6443`.
    pub at: String,
    /// What the tag of its image says.
    pub version: Option<String>,
    /// The paths that it was asked for, and why it is not well, if it is not.
    pub answers: Vec<(String, Result<(), String>)>,
}

/// What the API server says of the cluster; each may be refused by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its version.
    pub version: Result<String, String>,
    /// The Nodes.
    pub nodes: Result<Vec<NodeSeen>, String>,
    /// The control plane's pods.
    pub pods: Result<Vec<PodSeen>, String>,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Name of this node, if it is one.
    pub node: Option<String>,
    /// The components of this node.
    pub asked: Vec<Asked>,
    /// What the API server says; why nobody could be asked.
    pub told: Result<Told, String>,
    /// etcd's members; `None` where nothing here leads to them.
    pub etcd: Option<Result<Vec<EtcdHealth>, String>>,
    /// The certificates of this node; `None` where there are none.
    pub certificates: Option<Expiry>,
    /// What could not even be looked at.
    pub odd: Vec<String>,
}

/// A component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentRow {
    /// `kube-apiserver`.
    pub component: String,
    /// Its node.
    pub node: Option<String>,
    /// Where it was asked; nothing for another node's, of which the API server tells.
    pub at: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// How it is.
    pub verdict: Verdict,
    /// What is wrong with it.
    pub reason: Option<String>,
}

/// A member of etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberRow {
    /// Its name; empty as long as it has not started.
    pub name: String,
    /// Its number, in hexadecimal digits as etcdctl has it.
    pub id: String,
    /// Where clients reach it, else where other members do.
    pub address: String,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it has no vote yet.
    pub learner: bool,
    /// Whether it is well.
    pub healthy: bool,
    /// Its version.
    pub version: Option<String>,
    /// What is wrong with it.
    pub reason: Option<String>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRow {
    /// Its name, as `weft certs check` has it.
    pub name: String,
    /// Whole days that it still holds; negative once it has run out.
    pub days: Option<i64>,
    /// Why it cannot be read.
    pub reason: Option<String>,
}

/// A node's kubelet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeletRow {
    /// The node.
    pub node: String,
    /// Version of its kubelet.
    pub version: String,
    /// Whether the node is Ready.
    pub ready: bool,
}

/// Versions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// That of the API server that was asked.
    pub api_server: Option<String>,
    /// Those of the kubelets.
    pub kubelets: Vec<KubeletRow>,
    /// Those of etcd's members.
    pub etcd: BTreeSet<String>,
}

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlane {
    /// The worst of all.
    pub verdict: Verdict,
    /// The components: those of this node first.
    pub components: Vec<ComponentRow>,
    /// etcd's members; nothing where nothing here leads to them.
    pub etcd: Option<Vec<MemberRow>>,
    /// The certificates of this node.
    pub certificates: Vec<CertificateRow>,
    /// Versions.
    pub versions: Versions,
    /// What is wrong.
    pub wrong: Vec<String>,
    /// What could not be asked.
    pub unknown: Vec<String>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<String>,
}

/// The section.
#[must_use]
pub fn judge(found: &Found) -> ControlPlane {
    let mut plane = ControlPlane {
        verdict: Verdict::Well,
        components: found.asked.iter().map(|asked| own(asked, found.node.as_deref())).collect(),
        etcd: None,
        certificates: Vec::new(),
        versions: Versions::default(),
        wrong: Vec::new(),
        unknown: found.odd.clone(),
        notes: Vec::new(),
    };
    match &found.told {
        Ok(told) => plane.hear(told, found.node.as_deref()),
        Err(reason) => plane.unknown.push(format!("the API server: {reason}")),
    }
    plane.look_at_etcd(found.etcd.as_ref());
    if let Some(expiry) = &found.certificates {
        plane.look_at_certificates(expiry);
    }
    for row in plane.components.iter().filter(|row| row.verdict == Verdict::Wrong) {
        let place = row.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
        plane.wrong.push(format!("{}{place}: {}", row.component, row.reason.as_deref().unwrap_or("not well")));
    }
    plane.verdict = match (plane.wrong.is_empty(), plane.unknown.is_empty()) {
        (false, _) => Verdict::Wrong,
        (true, false) => Verdict::Unknown,
        (true, true) => Verdict::Well,
    };
    plane
}

fn own(asked: &Asked, node: Option<&str>) -> ComponentRow {
    let bad = |(path, answer): &(String, Result<(), String>)| Some((path.clone(), answer.clone().err()?));
    let bad: Vec<(String, String)> = asked.answers.iter().filter_map(bad).collect();
    // Who does not answer at all does so on each path in the same words.
    let same = bad.len() == asked.answers.len() && bad.windows(2).all(|pair| pair[0].1 == pair[1].1);
    let reason = match bad.first() {
        None => None,
        Some((_, words)) if same => Some(words.clone()),
        Some(_) => Some(bad.iter().map(|(path, words)| format!("{path}: {words}")).collect::<Vec<_>>().join("; ")),
    };
    ComponentRow {
        component: asked.component.clone(),
        node: node.map(str::to_owned),
        at: Some(asked.at.clone()),
        version: asked.version.clone(),
        verdict: if reason.is_none() { Verdict::Well } else { Verdict::Wrong },
        reason,
    }
}

impl ControlPlane {
    fn hear(&mut self, told: &Told, own_node: Option<&str>) {
        // One that cannot answer has been named with the reason, and each question that it does not answer is no news.
        let is_down =
            self.components.iter().any(|row| row.component == "kube-apiserver" && row.verdict != Verdict::Well);
        let mut missed = |what: &str, reason: &str| {
            if !is_down {
                self.unknown.push(format!("{what}: {reason}"));
            }
        };
        match &told.version {
            Ok(version) => self.versions.api_server = Some(version.clone()),
            Err(reason) => missed("the API server's version", reason),
        }
        match &told.pods {
            Ok(pods) => {
                let others = pods.iter().filter(|pod| !pod.node.is_empty() && Some(pod.node.as_str()) != own_node);
                self.components.extend(others.map(of_pod));
            }
            Err(reason) => missed("the control plane's pods", reason),
        }
        match &told.nodes {
            Ok(nodes) => {
                let row = |node: &NodeSeen| KubeletRow {
                    node: node.name.clone(),
                    version: node.kubelet.clone(),
                    ready: node.ready,
                };
                self.versions.kubelets = nodes.iter().map(row).collect();
                self.skew();
            }
            Err(reason) => missed("the Nodes", reason),
        }
    }

    /// Kubelets that are newer than the API server, or too old for it.
    fn skew(&mut self) {
        let Some(server) = self.versions.api_server.as_ref().and_then(|text| text.parse::<Version>().ok()) else {
            return;
        };
        for row in &self.versions.kubelets {
            let Ok(kubelet) = row.version.parse::<Version>() else { continue };
            let behind = server.minors_ahead_of(&kubelet);
            let what = format!("kubelet of {} is {kubelet}, and the API server is {server}", row.node);
            if behind < 0 {
                self.wrong.push(format!("{what}: a kubelet must not be newer"));
            } else if behind > SKEW {
                self.wrong.push(format!("{what}: a kubelet may be {SKEW} minor versions behind at most"));
            }
        }
    }

    fn look_at_etcd(&mut self, etcd: Option<&Result<Vec<EtcdHealth>, String>>) {
        let members = match etcd {
            None => return,
            Some(Err(reason)) => {
                // Where its own member has been asked and is not well, that says it.
                if !self.components.iter().any(|row| row.component == "etcd" && row.verdict == Verdict::Wrong) {
                    self.wrong.push(format!("etcd: {reason}"));
                }
                return;
            }
            Some(Ok(members)) => members,
        };
        self.versions.etcd = members.iter().filter_map(|health| health.version.clone()).collect();
        for health in members {
            if let Some(problem) = &health.problem {
                let name = if health.member.name.is_empty() { "(not started)" } else { &health.member.name };
                self.wrong.push(format!("etcd member {name} ({:x}): {problem}", health.member.id));
            }
        }
        self.etcd = Some(members.iter().map(member).collect());
    }

    fn look_at_certificates(&mut self, expiry: &Expiry) {
        let all = expiry.certificates.iter().chain(&expiry.certificate_authorities).filter(|row| !row.missing);
        for row in all {
            let days = row.expiration_date.map(|_| row.residual_time.div_euclid(DAY));
            match (&row.problem, days) {
                (Some(problem), _) => self.wrong.push(format!("certificate {}: {problem}", row.name)),
                (None, Some(days)) if days < 0 => {
                    self.wrong.push(format!("certificate {} has run out; weft certs renew {}", row.name, row.name));
                }
                (None, Some(days)) if days < SOON => {
                    self.notes.push(format!("certificate {} runs out in {days} days; weft certs renew all", row.name));
                }
                _ => {}
            }
            self.certificates.push(CertificateRow { name: row.name.clone(), days, reason: row.problem.clone() });
        }
    }
}

fn of_pod(pod: &PodSeen) -> ComponentRow {
    ComponentRow {
        component: pod.component.clone(),
        node: Some(pod.node.clone()),
        at: None,
        version: Version::of_image(&pod.image).map(|version| version.to_string()),
        verdict: if pod.ready { Verdict::Well } else { Verdict::Wrong },
        reason: (!pod.ready).then(|| "its pod is not Ready".to_owned()),
    }
}

fn member(health: &EtcdHealth) -> MemberRow {
    let EtcdHealth { member, is_leader, version, problem } = health;
    MemberRow {
        name: member.name.clone(),
        id: format!("{:x}", member.id),
        address: member.clients.first().or(member.peers.first()).cloned().unwrap_or_default(),
        leader: *is_leader,
        learner: member.is_learner,
        healthy: problem.is_none(),
        version: version.clone(),
        reason: problem.clone(),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
