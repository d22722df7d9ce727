//! Nodes of a lab that flannel has: a real flanneld on the lab's etcd, and pods by its own chain of plugins; and the way of such a
//! node to weft and back, with its pods running.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::{AGENT_READY_LIMIT, Lab, NETWORK_PREFIX, Node};
use crate::node::peers;
use crate::process::{self, ProcessId};
use crate::runtime::Runtime;
use crate::tool::{self, Output, Stdin};
use crate::{binaries, wait};

/// What such a node needs.
const PROGRAMS: [&str; 6] = ["flanneld", "flannel", "bridge", "host-local", "portmap", "loopback"];

/// Its configuration for the runtime, in the node's folder.
const CONFLIST: &str = "net.d/10-flannel.conflist";

/// Why there can be no nodes of flannel's on this machine.
#[must_use]
pub fn flannel_obstacle() -> Option<String> {
    let missing: Vec<&str> = PROGRAMS.into_iter().filter(|program| peers::find(program).is_none()).collect();
    let folder = std::env::var("WEFT_PEERS").map_or("it names none".to_owned(), |folder| format!("it is {folder}"));
    (!missing.is_empty())
        .then(|| format!("flannel's nodes need {}, in the folder that WEFT_PEERS names; {folder}", missing.join(", ")))
}

impl Lab {
    /// Starts flannel on a node.
    pub(super) fn start_flannel(&mut self, name: &str) -> Result<()> {
        let endpoint = self.etcd()?.endpoint();
        let node = self.node_mut(name)?;
        install(node)?;
        let mut command = tool::command(peers::need("flanneld")?);
        command.args(["--etcd-endpoints", &endpoint, "--etcd-prefix", NETWORK_PREFIX, "--iface", "eth0", "--ip-masq"]);
        command.arg("--subnet-file").arg(node.path("subnet.env"));
        node.agent = Some(process::spawn(&node.netns, &mut command, &node.path("agent.log"))?);
        self.state.save()
    }

    /// Waits until flannel has a subnet and its device.
    pub(super) fn await_flannel(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        wait::until_ok(AGENT_READY_LIMIT, &format!("flannel on {name}"), || is_up(node))
            .with_context(|| super::tail(&node.path("agent.log"), 15))?;
        self.tell(&format!("{name}: ready, by flannel ({})", node.subnets().join(", ")));
        Ok(())
    }

    /// The runtime of a node that flannel may have had before. weft's conflist leaves host-local's directory at its default, which
    /// is the machine's; there it is read from a copy that names the node's.
    ///
    /// # Errors
    /// When there is no such node, or its conflist cannot be read.
    pub fn runtime(&self, name: &str) -> Result<Runtime> {
        runtime(self.node(name)?)
    }

    /// `weft migrate <words>` on a node, to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn migrate(&self, name: &str, words: &[&str]) -> Result<Output> {
        let node = self.node(name)?;
        let mut command = tool::command(binaries::find("weft")?);
        command.arg("migrate").args(words).args(["--node-name", &node.name, "--healthz-bind", "0.0.0.0:8081"]);
        let common = [("--data-dir", "networks"), ("--cni-conf-dir", "net.d"), ("--run-dir", "run")];
        let own: &[(&str, &str)] = match words.first() {
            Some(&"node") => &[("--cni-cache-dir", "results")],
            _ => &[("--cni-state-dir", "cni"), ("--flannel-dir", "flannel")],
        };
        for (flag, folder) in common.iter().chain(own) {
            command.arg(flag).arg(node.path(folder));
        }
        node.netns.run(|| tool::run_with(&mut command, Stdin::Bytes(b"")))?
    }

    /// Has weft take a node of flannel's over, with its pods.
    ///
    /// # Errors
    /// When a step fails.
    pub fn change_over(&mut self, name: &str) -> Result<()> {
        self.stop_agent(name)?;
        self.node_mut(name)?.flannel = false;
        self.start_agent(name)?;
        self.await_ready(name)?;
        succeeded(&self.migrate(name, &["node"])?)
    }

    /// Gives a node that serves no Services back to flannel, with its pods.
    ///
    /// # Errors
    /// When a step fails.
    pub fn change_back(&mut self, name: &str) -> Result<()> {
        succeeded(&self.migrate(name, &["back", "--prepare"])?)?;
        self.stop_agent(name)?;
        self.node_mut(name)?.flannel = true;
        self.start_flannel(name)?;
        self.await_flannel(name)?;
        succeeded(&self.migrate(name, &["back", "--proxy-mode", "none"])?)
    }
}

fn succeeded(output: &Output) -> Result<()> {
    ensure!(output.exit == Some(0), "weft migrate: {}{}", output.stdout, output.stderr);
    Ok(())
}

/// Whether flannel has a subnet and its device.
pub(super) fn is_up(node: &Node) -> Result<()> {
    ensure!(node.agent.is_some_and(ProcessId::alive), "flanneld has ended");
    ensure!(!node.subnets().is_empty(), "there is no subnet file");
    node.netns.tool("ip", &["link", "show", "dev", "flannel.1"]).map(drop)
}

/// Plugins and conflist as flannel's manifest has them, with the node's own places.
fn install(node: &Node) -> Result<()> {
    let bin = node.path("bin");
    fs::create_dir_all(&bin)?;
    for plugin in PROGRAMS.iter().skip(1).filter(|plugin| !bin.join(plugin).exists()) {
        symlink(peers::need(plugin)?, bin.join(plugin))?;
    }
    let file = node.path(CONFLIST);
    fs::create_dir_all(file.parent().context("a file is in a folder")?)?;
    // One that weft has moved aside comes back by `weft migrate back`.
    if file.with_extension("conflist.weft-saved").exists() {
        return Ok(());
    }
    let conflist = json!({"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true},
         "ipam": {"type": "host-local", "dataDir": node.path("networks")},
         "subnetFile": node.path("subnet.env"), "dataDir": node.path("flannel")},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]});
    Ok(fs::write(file, conflist.to_string())?)
}

/// As [`Lab::runtime`].
pub(super) fn runtime(node: &Node) -> Result<Runtime> {
    let runtime = node.runtime();
    if !node.path("networks").is_dir() || node.path(CONFLIST).exists() {
        return Ok(runtime);
    }
    let mut conflist: Value = serde_json::from_slice(&fs::read(node.conflist())?)?;
    let plugin = conflist.pointer_mut("/plugins/0").and_then(Value::as_object_mut);
    let plugin = plugin.ok_or_else(|| anyhow!("{} has no plugin", node.conflist().display()))?;
    plugin.insert("ipam".to_owned(), json!({"dataDir": node.path("networks")}));
    let copy = node.path("net.copy");
    fs::create_dir_all(&copy)?;
    fs::write(copy.join("10-weft.conflist"), conflist.to_string())?;
    Ok(Runtime { conf_dir: copy, ..runtime })
}

/// Takes a node of flannel's out of the store, where its lease would stay for a day.
pub(super) fn release(lab: &Lab, node: &Node) -> Result<()> {
    let etcd = lab.etcd()?;
    node.subnets()
        .iter()
        .try_for_each(|subnet| etcd.delete(&format!("{NETWORK_PREFIX}/subnets/{}", subnet.replace('/', "-"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        // Nobody installs flanneld.
        if std::env::var_os("WEFT_PEERS").is_none() {
            let told = flannel_obstacle().unwrap_or_default();
            assert!(told.contains("flanneld") && told.contains("WEFT_PEERS"), "{told}");
        }
    }
}
