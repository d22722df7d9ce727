//! A configuration list, called as a runtime calls it: one plugin after the other, each given what the last one has answered
//! (CNI specification 1.0, section 3, "Lifecycle & Ordering").

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use weft_tests::netns::Netns;
use weft_tests::scratch::unique_name;

use crate::call::Call;
use crate::machine;

/// The bridge of every machine.
pub(crate) const BRIDGE: &str = "cni0";
/// Its address, the first of the subnet.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// Name of the network.
pub(crate) const NETWORK: &str = "bench";
/// The port in every pod that a host port leads to.
pub(crate) const CONTAINER_PORT: u16 = 8080;
/// What all of them make.
const INTERFACE: &str = "eth0";

/// One plugin of a list.
#[derive(Debug)]
pub(crate) struct Plugin {
    /// The program.
    pub(crate) path: PathBuf,
    /// Its part of the list, without `name` and `cniVersion`.
    pub(crate) conf: Value,
}

/// A list on a machine of its own.
#[derive(Debug)]
pub(crate) struct Chain {
    name: &'static str,
    plugins: Vec<Plugin>,
    host: Netns,
}

/// A pod, attached or not.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Its namespace.
    pub(crate) netns: Netns,
    /// The port of the host that leads to it.
    pub(crate) host_port: Option<u16>,
}

impl Chain {
    /// A list and a new machine for it.
    ///
    /// # Errors
    /// When no namespace can be made.
    pub(crate) fn new(name: &'static str, plugins: Vec<Plugin>) -> Result<Self> {
        let host = Netns::ensure_machine(unique_name()).context("cannot make a namespace")?;
        Ok(Self { name, plugins, host })
    }

    /// What it is called in the report.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Its machine.
    pub(crate) fn host(&self) -> &Netns {
        &self.host
    }

    /// A new pod.
    ///
    /// # Errors
    /// When no namespace can be made.
    pub(crate) fn pod(&self, name: &str, host_port: Option<u16>) -> Result<Pod> {
        let netns = Netns::ensure(format!("{}-{name}", self.host.name()))?;
        Ok(Pod { netns, host_port })
    }

    /// Attaches a pod. Returns the time that its processes took, and the last one's answer. The thread is on the machine
    /// from then on.
    ///
    /// # Errors
    /// When a plugin fails.
    pub(crate) fn add(&self, pod: &Pod) -> Result<(Duration, Value)> {
        machine::enter(&self.host)?;
        let (mut took, mut result) = (Duration::ZERO, Value::Null);
        for plugin in &self.plugins {
            let (time, answer) = self.call("ADD", plugin, pod, &result).run()?;
            took += time;
            result = serde_json::from_slice(&answer)
                .with_context(|| format!("{}: an answer that is not JSON: {answer:?}", plugin.path.display()))?;
        }
        Ok((took, result))
    }

    /// Detaches a pod that was attached with this result. Returns the time that it took.
    ///
    /// # Errors
    /// When a plugin fails.
    pub(crate) fn del(&self, pod: &Pod, result: &Value) -> Result<Duration> {
        machine::enter(&self.host)?;
        self.plugins.iter().rev().map(|plugin| self.call("DEL", plugin, pod, result).time()).sum()
    }

    fn call(&self, verb: &str, plugin: &Plugin, pod: &Pod, previous: &Value) -> Call {
        let mut conf = plugin.conf.clone();
        conf["cniVersion"] = "1.0.0".into();
        conf["name"] = NETWORK.into();
        if !previous.is_null() {
            conf["prevResult"] = previous.clone();
        }
        if let Some(port) = pod.host_port
            && conf["capabilities"]["portMappings"] == true
        {
            let mapping = json!({"hostPort": port, "containerPort": CONTAINER_PORT, "protocol": "tcp"});
            conf["runtimeConfig"]["portMappings"] = json!([mapping]);
        }
        let folder = plugin.path.parent().unwrap_or(&plugin.path);
        Call::new(&plugin.path)
            .variable("CNI_COMMAND", verb)
            .variable("CNI_CONTAINERID", pod.netns.name())
            .variable("CNI_NETNS", pod.netns.path())
            .variable("CNI_IFNAME", INTERFACE)
            .variable("CNI_PATH", folder)
            .variable("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .input(conf.to_string().as_bytes())
    }
}
