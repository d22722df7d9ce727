//! weft: an agent on each node, pods by its plugin.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use weft_tests::etcd::Etcd;
use weft_tests::process::ProcessId;
use weft_tests::runtime::{Attachment, Generation, Runtime};
use weft_tests::{binaries, wait};

use super::networks::{Network, Pod, address_of};
use super::pair::{Node, UPLINK, nodes, pods};
use crate::agent::{PREFIX, Place, is_ready};
use crate::flow::{Flow, Outcome};
use crate::overlay::{Seen, Watch};
use crate::pause::pause;

/// How long an agent may take to be ready.
const LIMIT: Duration = Duration::from_secs(60);
/// How long the flow runs before and after a restart.
const CALM: Duration = Duration::from_secs(1);
/// Where the flow arrives.
const FLOW_PORT: u16 = 7777;

/// Two nodes with agents.
pub(crate) struct Weft {
    nodes: [Node; 2],
    folders: [PathBuf; 2],
    etcd: Etcd,
    addresses: [IpAddr; 2],
    agents: std::cell::Cell<[ProcessId; 2]>,
}

/// What a kill and a start of both agents have cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Restart {
    /// Of a flow between the pods.
    pub(crate) flow: Outcome,
    /// Kernel objects that have changed, on both nodes.
    pub(crate) changes: usize,
}

impl Weft {
    /// New ones, with their files in a folder that is made.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let nodes = nodes()?;
        let folders = nodes.each_ref().map(|node| folder.join(node.number.to_string()));
        for folder in &folders {
            fs::create_dir_all(folder)?;
        }
        let [first, _] = &nodes;
        let etcd = Etcd::start(&first.netns, (first.address(), 2379).into(), &folder.join("etcd"))?;
        etcd.put(&format!("{PREFIX}/config"), r#"{"Network":"10.244.0.0/16"}"#)?;
        let [a, b] = [0, 1].map(|index| start(&nodes, &folders, &etcd, index));
        let agents = [a?, b?];
        let mut addresses = Vec::new();
        for (node, folder) in nodes.iter().zip(&folders) {
            addresses.push(attach(node, folder)?);
        }
        let addresses = addresses.try_into().ok().context("two nodes have two pods")?;
        Ok(Self { nodes, folders, etcd, addresses, agents: agents.into() })
    }

    /// Kills both agents and starts them again, while a flow goes from pod to pod.
    pub(crate) fn restart(&self) -> Result<Restart> {
        let [from, to] = self.pods();
        let target = (to.address, FLOW_PORT).into();
        let mut watches = Vec::new();
        for node in &self.nodes {
            watches.push(Watch::open(&node.netns)?);
        }
        let flow = Flow::start(from.netns, target, to.netns, target)?;
        pause(CALM);
        self.agents.get().into_iter().for_each(ProcessId::kill);
        let [a, b] = [0, 1].map(|index| start(&self.nodes, &self.folders, &self.etcd, index));
        self.agents.set([a?, b?]);
        pause(CALM);
        let flow = flow.finish()?;
        let mut changes = 0;
        for watch in &mut watches {
            let seen: Option<Seen> = watch.settle(LIMIT, |_| true)?;
            changes += seen.context("the kernel changes without end")?.changes;
        }
        Ok(Restart { flow, changes })
    }
}

impl Network for Weft {
    fn name(&self) -> &'static str {
        "weft"
    }

    fn pods(&self) -> [Pod<'_>; 2] {
        pods(&self.nodes, self.addresses)
    }
}

/// Starts the agent of a node and waits until it is ready.
fn start(nodes: &[Node; 2], folders: &[PathBuf; 2], etcd: &Etcd, index: usize) -> Result<ProcessId> {
    let (node, folder) = (nodes.get(index).context("there are two nodes")?, folders.get(index).context("two folders")?);
    let name = format!("node{}", node.number);
    let plugin = binaries::find("weft-cni")?;
    let place = Place { node: &node.netns, name: &name, uplink: UPLINK, folder, etcd };
    let agent = place.start(&["--proxy-mode", "none", "--cni-bin-source", &plugin.to_string_lossy()])?;
    wait::until(LIMIT, "an agent to be ready", || is_ready(&node.netns))?;
    Ok(agent)
}

/// Attaches a node's pod, as a runtime does.
fn attach(node: &Node, folder: &Path) -> Result<IpAddr> {
    let runtime = Runtime {
        host: node.netns.clone(),
        conf_dir: folder.join("net.d"),
        bin_dirs: vec![folder.join("bin")],
        cache_dir: folder.join("results"),
        generation: Generation::Current,
    };
    node.pod.tool("ip", &["link", "set", "lo", "up"])?;
    address_of(&runtime.add(&Attachment::eth0(node.pod.name(), &node.pod))?)
}
