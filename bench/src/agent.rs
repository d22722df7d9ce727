//! weft's agent on a node of a benchmark, with an etcd that only it sees.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Result;
use weft_tests::etcd::Etcd;
use weft_tests::netns::Netns;
use weft_tests::process::{self, ProcessId};
use weft_tests::{binaries, http, tool};

/// Where the cluster's keys are in etcd.
pub(crate) const PREFIX: &str = "/coreos.com/network";
/// Where it shows its health and its own metrics.
pub(crate) const HEALTH: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);
/// What it says, below the node's folder.
pub(crate) const LOG: &str = "agent.log";

/// Where an agent works.
pub(crate) struct Place<'a> {
    /// The node.
    pub(crate) node: &'a Netns,
    /// Its name, which is its identity in the cluster.
    pub(crate) name: &'a str,
    /// The link to the other nodes.
    pub(crate) uplink: &'a str,
    /// Everything of the node that is a file.
    pub(crate) folder: &'a Path,
    /// The store.
    pub(crate) etcd: &'a Etcd,
}

impl Place<'_> {
    /// Starts an agent there, and does not wait. `arguments` come behind those that the place gives.
    ///
    /// # Errors
    /// When the binary is missing.
    pub(crate) fn start(&self, arguments: &[&str]) -> Result<ProcessId> {
        self.start_under(&[], arguments)
    }

    /// The same by way of another program, if there are words for that.
    ///
    /// # Errors
    /// When a binary is missing.
    pub(crate) fn start_under(&self, under: &[OsString], arguments: &[&str]) -> Result<ProcessId> {
        let mut command = tool::wrapped(under, binaries::find("weft")?);
        command.args(["agent", "--node-name", self.name, "--iface", self.uplink]);
        command.args(["--etcd-endpoints", &self.etcd.endpoint(), "--etcd-prefix", PREFIX]);
        for (flag, name) in [
            ("--subnet-file", "subnet.env"),
            ("--run-dir", "run"),
            ("--state-dir", "lib"),
            ("--cni-conf-dir", "net.d"),
            ("--cni-bin-dir", "bin"),
            ("--cni-state-dir", "cni"),
        ] {
            command.arg(flag).arg(self.folder.join(name));
        }
        command.args(arguments);
        process::spawn(self.node, &mut command, &self.folder.join(LOG))
    }
}

/// Whether the agent of a node says that it is ready.
pub(crate) fn is_ready(node: &Netns) -> bool {
    http::get(node, HEALTH, "/readyz").is_ok_and(|answer| answer.status == 200)
}
