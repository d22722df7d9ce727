//! flannel: flanneld on each node, pods by its chain of plugins.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use weft_tests::etcd::Etcd;
use weft_tests::node::peers;
use weft_tests::process::ProcessId;
use weft_tests::runtime::{Attachment, Generation, Runtime};
use weft_tests::wait;

use super::networks::{Network, Pod, address_of};
use super::pair::{Node, UPLINK, nodes, pods};
use crate::agent::PREFIX;
use crate::flannel;

/// What it consists of.
pub(crate) const PROGRAMS: [&str; 5] = [flannel::BINARY, "flannel", "bridge", "host-local", "portmap"];

/// How long flanneld may take to have a subnet.
const LIMIT: Duration = Duration::from_secs(60);

/// Two nodes with flanneld.
pub(crate) struct Flannel {
    nodes: [Node; 2],
    addresses: [IpAddr; 2],
}

impl Flannel {
    /// New ones, with their files in a folder that is made.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let nodes = nodes()?;
        let [first, _] = &nodes;
        let etcd = Etcd::start(&first.netns, (first.address(), 2379).into(), &folder.join("etcd"))?;
        // By nf_tables, as the others: what iptables does needs modules that a machine may not have.
        let network = json!({"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}});
        etcd.put(&format!("{PREFIX}/config"), &network.to_string())?;
        let mut addresses = Vec::new();
        for node in &nodes {
            let folder = folder.join(node.number.to_string());
            fs::create_dir_all(&folder)?;
            node.netns.sysctl("net/ipv4/ip_forward", "1")?;
            let binary = peers::need(flannel::BINARY)?;
            let daemon: ProcessId = flannel::start(&binary, &[], &node.netns, UPLINK, &folder, &etcd)?;
            let subnet_file = folder.join(flannel::SUBNET_FILE);
            wait::until(LIMIT, "flanneld to have a subnet", || subnet_file.exists() || !daemon.alive())?;
            ensure!(subnet_file.exists(), "{}", weft_tests::lab::tail(&folder.join(flannel::LOG), 10));
            addresses.push(attach(node, &folder)?);
        }
        let addresses = addresses.try_into().ok().context("two nodes have two pods")?;
        Ok(Self { nodes, addresses })
    }
}

impl Network for Flannel {
    fn name(&self) -> &'static str {
        "flannel"
    }

    fn pods(&self) -> [Pod<'_>; 2] {
        pods(&self.nodes, self.addresses)
    }
}

/// Attaches a node's pod with the configuration of flannel's manifest.
fn attach(node: &Node, folder: &Path) -> Result<IpAddr> {
    let conf_dir = folder.join("net.d");
    fs::create_dir_all(&conf_dir)?;
    let conflist = json!({"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
        {"type": "flannel", "subnetFile": folder.join(flannel::SUBNET_FILE), "dataDir": folder.join("flannel"),
         "ipam": {"type": "host-local", "dataDir": folder.join("ipam")},
         "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]});
    fs::write(conf_dir.join("10-flannel.conflist"), conflist.to_string())?;
    let plugin = peers::need("flannel")?;
    let runtime = Runtime {
        host: node.netns.clone(),
        conf_dir,
        bin_dirs: plugin.parent().map(Path::to_owned).into_iter().collect(),
        cache_dir: folder.join("results"),
        generation: Generation::Current,
    };
    node.pod.tool("ip", &["link", "set", "lo", "up"])?;
    address_of(&runtime.add(&Attachment::eth0(node.pod.name(), &node.pod))?)
}
