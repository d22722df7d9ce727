//! How a lab is right now: what was made, and what the kernel says about it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::state::State;
use super::{Node, agent, flannel};
use crate::netns::Netns;
use crate::process::ProcessId;

/// A lab.
#[derive(Debug, Clone, Serialize)]
pub struct LabView {
    /// Its name.
    pub name: String,
    /// How many nodes it shall have.
    pub wanted_nodes: u16,
    /// How many pods each node shall have.
    pub wanted_pods: u16,
    /// etcd's endpoint, if it runs.
    pub etcd: Option<String>,
    /// Its nodes.
    pub nodes: Vec<NodeView>,
}

/// A node.
#[derive(Debug, Clone, Serialize)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Whether flannel has it.
    pub flannel: bool,
    /// Its namespace.
    pub netns: Netns,
    /// Its underlay addresses.
    pub addresses: Vec<IpAddr>,
    /// Its pod subnets, v4 first.
    pub subnets: Vec<String>,
    /// Its ends of the overlay, v4 first.
    pub vteps: Vec<Vtep>,
    /// The pid of its agent, if it runs.
    pub agent: Option<i32>,
    /// Whether the agent says it is ready; if not, its answer.
    pub ready: Result<(), String>,
    /// Whether it is cut off.
    pub cut: bool,
    /// Where its agent logs.
    pub log: PathBuf,
    /// Its pods.
    pub pods: Vec<PodView>,
}

/// An end of the overlay: a VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vtep {
    /// The device.
    pub device: String,
    /// The address that the tunnel starts from.
    pub ip: String,
    /// The device's MAC.
    pub mac: String,
}

/// A pod.
#[derive(Debug, Clone, Serialize)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub netns: Netns,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

impl LabView {
    /// Whether there is nothing left for `up` to do.
    #[must_use]
    pub fn complete(&self) -> bool {
        let whole = |node: &NodeView| {
            let filled = node.pods.iter().filter(|pod| !pod.ips.is_empty()).count() >= usize::from(self.wanted_pods);
            node.ready.is_ok() && filled
        };
        self.etcd.is_some() && self.nodes.len() >= usize::from(self.wanted_nodes) && self.nodes.iter().all(whole)
    }

    /// The namespace of a node or a pod.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<Netns> {
        let pods = self.nodes.iter().flat_map(|node| node.pods.iter().map(|pod| (&pod.name, &pod.netns)));
        let mut all = self.nodes.iter().map(|node| (&node.name, &node.netns)).chain(pods);
        all.find(|(known, _)| *known == name).map(|(_, netns)| netns.clone())
    }
}

pub(super) fn look(state: &State) -> LabView {
    LabView {
        name: state.spec.name.clone(),
        wanted_nodes: state.spec.nodes,
        wanted_pods: state.spec.pods,
        etcd: state.etcd.as_ref().filter(|etcd| etcd.process().alive()).map(crate::etcd::Etcd::endpoint),
        nodes: state.nodes.iter().map(node).collect(),
    }
}

fn node(node: &Node) -> NodeView {
    let ready = match agent::readyz(node) {
        _ if node.flannel => flannel::is_up(node).map_err(|error| format!("{error:#}")),
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(answer.body.trim().to_owned()),
        Err(error) => Err(format!("{error:#}")),
    };
    NodeView {
        name: node.name.clone(),
        flannel: node.flannel,
        netns: node.netns.clone(),
        addresses: vec![node.v4().into(), node.v6().into()],
        subnets: node.subnets(),
        vteps: vteps(&node.netns),
        agent: node.agent.filter(|agent| ProcessId::alive(*agent)).map(|agent| agent.pid),
        ready,
        cut: node.cut,
        log: node.path("agent.log"),
        pods: node
            .pods
            .iter()
            .map(|pod| PodView { name: pod.name.clone(), netns: pod.netns.clone(), ips: pod.ips.clone() })
            .collect(),
    }
}

/// The VXLAN devices, as the kernel has them.
fn vteps(netns: &Netns) -> Vec<Vtep> {
    let links = netns.objects("ip", &["-d", "link", "show", "type", "vxlan"]).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let end = |link: &Value| {
        let data = &link["linkinfo"]["info_data"];
        let ip = if data["local"].is_string() { text(&data["local"]) } else { text(&data["local6"]) };
        Vtep { device: text(&link["ifname"]), ip, mac: text(&link["address"]) }
    };
    links.iter().map(end).collect()
}

/// The last lines of a file.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
