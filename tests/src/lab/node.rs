//! One node: its names, addresses and paths, and its pods.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Lab, flannel, underlay};
use crate::netns::Netns;
use crate::process::ProcessId;
use crate::runtime::{Attachment, Generation, Runtime};

/// A node of a lab, as it is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    /// Its name, `node1`.
    pub name: String,
    /// Its number, from 1.
    pub number: u8,
    /// Its namespace.
    pub netns: Netns,
    /// The folder of everything that belongs to it.
    pub folder: PathBuf,
    /// Its agent, if one has been started.
    pub agent: Option<ProcessId>,
    /// Whether it is cut off from the underlay.
    pub cut: bool,
    /// Its pods.
    pub pods: Vec<PodRecord>,
    /// Whether flannel has it: its agent is flanneld then.
    #[serde(default)]
    pub flannel: bool,
    /// Further arguments of its agent alone.
    #[serde(default)]
    pub agent_args: Vec<String>,
}

/// A pod of a node, as it is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodRecord {
    /// Its name, `node1-pod2`.
    pub name: String,
    /// Its namespace.
    pub netns: Netns,
    /// How it is attached.
    pub attachment: Attachment,
    /// Its addresses, once it has been added to the network.
    pub ips: Vec<IpAddr>,
    /// The server in it that tells who it is, once one has been started.
    #[serde(default)]
    pub server: Option<ProcessId>,
}

impl Node {
    pub(super) fn new(lab: &str, number: u8, folder: &Path) -> Self {
        let name = format!("node{number}");
        Self {
            netns: Netns::named(format!("{lab}-{name}")),
            folder: folder.join(&name),
            name,
            number,
            agent: None,
            cut: false,
            pods: Vec::new(),
            flannel: false,
            agent_args: Vec::new(),
        }
    }

    /// Its v4 address on the underlay.
    #[must_use]
    pub fn v4(&self) -> Ipv4Addr {
        underlay::node_v4(self.number)
    }

    /// Its v6 address on the underlay.
    #[must_use]
    pub fn v6(&self) -> Ipv6Addr {
        underlay::node_v6(self.number)
    }

    /// A path in its folder: `subnet.env`, `net.d`, `bin`, `cni`, `run`, `lib`, `wgkey`, `agent.log`.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where its agent installs the conflist.
    #[must_use]
    pub fn conflist(&self) -> PathBuf {
        self.path("net.d/10-weft.conflist")
    }

    /// Its subnet file as keys and values; empty if it is not there.
    #[must_use]
    pub fn subnet_file(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.path("subnet.env")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// The pod networks of this node, as prefixes, v4 first.
    #[must_use]
    pub fn subnets(&self) -> Vec<String> {
        let file = self.subnet_file();
        let given = ["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"].map(|key| file.get(key));
        given.into_iter().flatten().filter_map(|gateway| network_of(gateway)).collect()
    }

    /// A runtime on this node.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        Runtime {
            host: self.netns.clone(),
            conf_dir: self.path("net.d"),
            bin_dirs: vec![self.path("bin")],
            cache_dir: self.path("results"),
            generation: Generation::Current,
        }
    }

    /// A pod by the end of its name, `pod1`.
    ///
    /// # Errors
    /// When there is none.
    pub fn pod(&self, name: &str) -> Result<&PodRecord> {
        let full = format!("{}-{name}", self.name);
        self.pods.iter().find(|pod| pod.name == full).with_context(|| format!("there is no pod `{full}`"))
    }

    /// The namespaces of the node and of its pods.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Netns> {
        self.pods.iter().map(|pod| pod.netns.clone()).chain([self.netns.clone()]).collect()
    }
}

impl PodRecord {
    /// Its v4 address.
    ///
    /// # Errors
    /// When it has none.
    pub fn v4(&self) -> Result<IpAddr> {
        self.ips.iter().find(|ip| ip.is_ipv4()).copied().with_context(|| format!("{} has no v4 address", self.name))
    }

    /// Its v6 address.
    ///
    /// # Errors
    /// When it has none.
    pub fn v6(&self) -> Result<IpAddr> {
        self.ips.iter().find(|ip| ip.is_ipv6()).copied().with_context(|| format!("{} has no v6 address", self.name))
    }
}

impl Lab {
    /// Adds the pods that the node does not have yet, as a runtime does.
    pub(super) fn fill(&mut self, name: &str) -> Result<()> {
        for number in 1..=self.spec().pods {
            let full = format!("{name}-pod{number}");
            if self.node(name)?.pods.iter().any(|pod| pod.name == full && !pod.ips.is_empty()) {
                continue;
            }
            self.add_pod(name, &format!("pod{number}"))?;
        }
        Ok(())
    }

    /// Makes a pod on a node and adds it to the network through the node's conflist. Returns its record.
    ///
    /// # Errors
    /// When a plugin refuses; the pod is recorded without address then, and tried again by the next `up`.
    pub fn add_pod(&mut self, node: &str, pod: &str) -> Result<PodRecord> {
        let lab = self.spec().name.clone();
        let owner = self.node_mut(node)?;
        let full = format!("{node}-{pod}");
        let netns = Netns::named(format!("{lab}-{full}"));
        let attachment = Attachment::eth0(&format!("{lab}-{full}"), &netns);
        let mut record = PodRecord { name: full.clone(), netns, attachment, ips: Vec::new(), server: None };
        owner.pods.retain(|known| known.name != full);
        owner.pods.push(record.clone());
        let runtime = flannel::runtime(owner)?;
        self.state.save()?;

        Netns::ensure(record.netns.name())?;
        // A run that was killed may have got as far as the plugin: kubelet, too, deletes before it tries again.
        runtime.del(&record.attachment)?;
        runtime.add_loopback(&record.attachment)?;
        let result = runtime.add(&record.attachment)?;
        record.ips = addresses(&result);
        if let Some(kept) = self.node_mut(node)?.pods.iter_mut().find(|known| known.name == full) {
            kept.ips.clone_from(&record.ips);
        }
        self.state.save()?;
        Ok(record)
    }

    /// Takes all pods of a node out of the network and removes them.
    pub(super) fn empty(&mut self, node: &str) -> Result<()> {
        let owner = self.node_mut(node)?;
        let (runtime, pods) = (flannel::runtime(owner)?, std::mem::take(&mut owner.pods));
        let gone: Vec<Result<()>> = pods.iter().map(|pod| runtime.del(&pod.attachment)).collect();
        Netns::delete_all(&pods.into_iter().map(|pod| pod.netns).collect::<Vec<_>>())?;
        self.state.save()?;
        gone.into_iter().collect()
    }
}

fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result.get("ips").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let texts = ips.iter().filter_map(|ip| ip.get("address")?.as_str());
    texts.filter_map(|text| text.split('/').next()?.parse().ok()).collect()
}

/// `10.244.2.0/24` of `10.244.2.1/24`: the subnet file holds the gateway, which is the first address.
fn network_of(gateway: &str) -> Option<String> {
    let (address, length) = gateway.split_once('/')?;
    let length_bits: u32 = length.parse().ok()?;
    let network = match address.parse().ok()? {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32u32.checked_sub(length_bits)?).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128u32.checked_sub(length_bits)?).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    };
    Some(format!("{network}/{length}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subnet_follows_from_the_gateway() {
        assert_eq!(network_of("10.244.2.1/24").unwrap(), "10.244.2.0/24");
        assert_eq!(network_of("fd00:244:0:7::1/64").unwrap(), "fd00:244:0:7::/64");
        assert_eq!(network_of("10.244.2.1"), None);
        assert_eq!(network_of("10.244.2.1/33"), None);
    }
}
