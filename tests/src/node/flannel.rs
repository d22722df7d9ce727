//! flannel on a node, as its own manifests put it there: the daemon with the API server as its store, and its chain of plugins.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::cluster::{Cluster, LIMIT};
use super::machine::{Machine, Service};
use super::peers;
use crate::wait;

/// What a node with flannel needs, besides [`peers::CLUSTER`].
pub const PROGRAMS: [&str; 5] = ["flanneld", "flannel", "bridge", "host-local", "portmap"];

/// The runtime's configuration, which has to go when weft is to have new pods.
pub const CONFLIST: &str = "/etc/cni/net.d/10-flannel.conflist";

/// Starts flannel on a node of this name.
///
/// # Errors
/// When a program is missing or does not start.
pub fn start(cluster: &Cluster, node: &str) -> Result<Service> {
    // It ends if there is none yet, and nobody starts it again here.
    wait::until_ok(LIMIT, &format!("{node} to have a pod network"), || {
        let found = cluster.get(&["node", node])?;
        anyhow::ensure!(found["spec"]["podCIDR"].is_string(), "{}", found["spec"]);
        Ok(())
    })?;
    start_on(&cluster.node(node).machine, &cluster.control().kubeconfig("admin")?)
}

/// Starts flannel on a machine whose Node has a pod network, with these credentials.
///
/// # Errors
/// When a program is missing or does not start.
pub fn start_on(machine: &Machine, kubeconfig: &Path) -> Result<Service> {
    let folder = machine.inside("/opt/cni/bin")?;
    fs::create_dir_all(&folder)?;
    for plugin in PROGRAMS.iter().skip(1) {
        fs::copy(peers::need(plugin)?, folder.join(plugin)).with_context(|| format!("cannot install {plugin}"))?;
    }
    let conflist = json!({"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]});
    let conflist_file = machine.inside(CONFLIST)?;
    fs::create_dir_all(conflist_file.parent().context("a file is in a folder")?)?;
    fs::write(conflist_file, conflist.to_string())?;
    // By nf_tables: the compatibility layer of iptables wants modules that a machine may not have.
    let network = json!({"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}});
    let file = machine.path("net-conf.json");
    fs::write(&file, network.to_string())?;
    let (name, file) = (format!("NODE_NAME={}", machine.name()), format!("--net-config-path={}", file.display()));
    let kubeconfig = format!("--kubeconfig-file={}", kubeconfig.display());
    machine.spawn(
        "flanneld",
        "env",
        &[&name, "flanneld", "--kube-subnet-mgr", "--ip-masq", "--iface=eth0", &file, &kubeconfig],
    )
}
