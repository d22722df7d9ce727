//! The `weft agent` of each node.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::{Lab, NETWORK_PREFIX, Node, Spec, tail};
use crate::http::{self, Answer};
use crate::process;
use crate::tool::{self, Output, Stdin};
use crate::{binaries, wait};

/// How long a node may take to get ready. A hundred agents share two cores.
pub const AGENT_READY_LIMIT: Duration = Duration::from_secs(90);

/// The port of an agent's health end points.
const HEALTH_PORT: u16 = 8081;

impl Lab {
    /// Starts a node's agent, unless it runs; flannel, if it has the node.
    ///
    /// # Errors
    /// When the binary is missing.
    pub fn start_agent(&mut self, name: &str) -> Result<()> {
        let endpoint = self.etcd()?.endpoint();
        let Spec { agent_args, agent_env, .. } = self.spec().clone();
        let node = self.node_mut(name)?;
        if node.agent.is_some_and(process::ProcessId::alive) {
            return Ok(());
        }
        if node.flannel {
            return self.start_flannel(name);
        }
        let args = merged(&agent_args, &node.agent_args);
        let mut command = command(node, "agent")?;
        command.args(["--etcd-endpoints", &endpoint]).args(underlay(&args)).args(args).envs(agent_env);
        node.agent = Some(process::spawn(&node.netns, &mut command, &node.path("agent.log"))?);
        self.state.save()
    }

    /// Gives a node's agent arguments of its own, from its next start on. They stand for those of the same flag that all
    /// agents have.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn set_agent_args(&mut self, name: &str, args: &[&str]) -> Result<()> {
        self.node_mut(name)?.agent_args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.state.save()
    }

    /// Kills a node's agent with SIGKILL.
    ///
    /// # Errors
    /// When there is no such node, or no agent runs on it.
    pub fn kill_agent(&mut self, name: &str) -> Result<()> {
        let agent = self.node(name)?.agent.filter(|agent| agent.alive());
        agent.with_context(|| format!("no agent runs on {name}"))?.kill();
        Ok(())
    }

    /// Asks a node's agent to end, by SIGTERM. Says whether it did within five seconds; if not, it is killed.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn stop_agent(&mut self, name: &str) -> Result<bool> {
        let agent = self.node(name)?.agent.filter(|agent| agent.alive());
        Ok(agent.is_none_or(|agent| agent.end(Duration::from_secs(5))))
    }

    /// Waits until a node can take pods: `/readyz` says so and the conflist is installed.
    ///
    /// # Errors
    /// When it does not get ready, or its agent ends; with the end of its log.
    pub fn await_ready(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        if node.flannel {
            return self.await_flannel(name);
        }
        let waited = wait::until_ok(wait::patience(AGENT_READY_LIMIT), &format!("{name} to be ready"), || {
            if !node.agent.is_some_and(process::ProcessId::alive) {
                return Ok(Err(anyhow!("the agent of {name} has ended")));
            }
            match readyz(node) {
                Ok(answer) if answer.status != 200 => Err(anyhow!("/readyz says: {}", answer.body.trim())),
                Ok(_) if !node.conflist().is_file() => Err(anyhow!("ready without {}", node.conflist().display())),
                Ok(_) => Ok(Ok(())),
                Err(error) => Err(error),
            }
        });
        waited.map_err(anyhow::Error::from).and_then(|ended| ended).with_context(|| story(node))?;
        provide_loopback(node)?;
        self.tell(&format!("{name}: ready ({})", node.subnets().join(", ")));
        Ok(())
    }

    /// What a node's agent has logged.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn log(&self, name: &str) -> Result<String> {
        let bytes = std::fs::read(self.node(name)?.path("agent.log")).unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What a node's agent answers on `/readyz`.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn readyz(&self, name: &str) -> Result<Answer> {
        readyz(self.node(name)?)
    }

    /// The metrics of a node's agent.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn metrics(&self, name: &str) -> Result<Answer> {
        http::get(&self.node(name)?.netns, health(), "/metrics")
    }

    /// Runs `weft <words>` on a node to its end, with the node's paths and etcd as arguments behind.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn weft(&self, name: &str, verb: &str, args: &[&str]) -> Result<Output> {
        let node = self.node(name)?;
        let mut command = command(node, verb)?;
        let underlay = if verb == "cleanup" { &[] } else { underlay(args) };
        command.args(["--etcd-endpoints", &self.etcd()?.endpoint()]).args(underlay).args(args);
        node.netns.run(|| tool::run_with(&mut command, Stdin::Bytes(b"")))?
    }
}

pub(super) fn readyz(node: &Node) -> Result<Answer> {
    http::get(&node.netns, health(), "/readyz")
}

pub(super) fn health() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, HEALTH_PORT))
}

/// `weft <verb>` with everything that sets this node apart from the others of the machine.
fn command(node: &Node, verb: &str) -> Result<Command> {
    let mut command = tool::command(binaries::find("weft")?);
    command.arg(verb).args(["--node-name", &node.name, "--etcd-prefix", NETWORK_PREFIX]);
    let paths = [("--subnet-file", "subnet.env"), ("--run-dir", "run")];
    let agents = [
        ("--cni-conf-dir", "net.d"),
        ("--cni-bin-dir", "bin"),
        ("--cni-state-dir", "cni"),
        ("--state-dir", "lib"),
        ("--wireguard-key-file", "wgkey"),
    ];
    let own: &[(&str, &str)] = if verb == "lease" { &[] } else { &agents };
    for (flag, name) in paths.iter().chain(own) {
        command.arg(flag).arg(node.path(name));
    }
    if verb == "agent" {
        command.arg("--cni-bin-source").arg(binaries::find("weft-cni")?);
        command.arg("--healthz-bind").arg(format!("0.0.0.0:{HEALTH_PORT}"));
    }
    Ok(command)
}

/// A node's interface under the overlay, unless the arguments choose one.
fn underlay<A: AsRef<str>>(args: &[A]) -> &'static [&'static str] {
    let chooses = args.iter().any(|arg| arg.as_ref().trim_start_matches('-').starts_with("iface"));
    if chooses { &[] } else { &["--iface", "eth0"] }
}

/// Arguments of all agents, then those of one, which stand for those of the same flag.
fn merged<'a>(all: &'a [String], own: &'a [String]) -> Vec<&'a String> {
    let flag = |word: &str| word.starts_with("--").then(|| word.split('=').next().unwrap_or_default().to_owned());
    let replaced: Vec<String> = own.iter().filter_map(|word| flag(word)).collect();
    let mut dropping = false;
    let kept = all.iter().filter(|word| {
        if let Some(name) = flag(word) {
            dropping = replaced.contains(&name);
        }
        !dropping
    });
    kept.chain(own).collect()
}

/// Has weft take everything off a node and give its lease back.
pub(super) fn cleanup(node: &Node, endpoint: &str) -> Result<()> {
    let mut command = command(node, "cleanup")?;
    command.args(["--etcd-endpoints", endpoint]);
    node.netns.command(&mut command).map(drop)
}

/// A node's package of plugins brings `loopback`; here it is weft's own, called by that name.
fn provide_loopback(node: &Node) -> Result<()> {
    let (bin, name) = (node.path("bin"), node.path("bin/loopback"));
    if name.exists() {
        return Ok(());
    }
    if !bin.join("weft-cni").is_file() {
        bail!("{} is ready without {}", node.name, bin.join("weft-cni").display());
    }
    Ok(std::os::unix::fs::symlink("weft-cni", name)?)
}

/// What tells why a node is not well: its answer on `/readyz` and the end of its log.
pub(super) fn story(node: &Node) -> String {
    let health = readyz(node).map_or_else(|error| format!("{error:#}"), |a| format!("{} {}", a.status, a.body.trim()));
    let log = node.path("agent.log");
    format!("{}: /readyz: {health}\n{}: the last lines of {}:\n{}", node.name, node.name, log.display(), tail(&log, 15))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_own_arguments_stand_for_those_of_all() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (all, own) = (words("--a 1 --b=2 --c --d 4"), words("--d 5 --b=3"));
        let merged: Vec<&str> = merged(&all, &own).into_iter().map(String::as_str).collect();
        assert_eq!(merged, ["--a", "1", "--c", "--d", "5", "--b=3"]);
    }
}
