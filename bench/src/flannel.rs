//! flanneld on a node of a benchmark, with etcd as its store.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;
use weft_tests::etcd::Etcd;
use weft_tests::netns::Netns;
use weft_tests::process::{self, ProcessId};
use weft_tests::tool;

use crate::agent::PREFIX;

/// The binary.
pub(crate) const BINARY: &str = "flanneld";
/// What it says, below the node's folder.
pub(crate) const LOG: &str = "flanneld.log";
/// What it writes once it has a subnet, below the node's folder.
pub(crate) const SUBNET_FILE: &str = "subnet.env";

/// Starts it, by way of another program if there are words for that, and does not wait.
///
/// # Errors
/// When the binary is missing.
pub(crate) fn start(
    binary: &Path,
    under: &[OsString],
    node: &Netns,
    uplink: &str,
    folder: &Path,
    etcd: &Etcd,
) -> Result<ProcessId> {
    let mut command = tool::wrapped(under, binary);
    command.args(["-ip-masq", "-iface", uplink, "-etcd-prefix", PREFIX, "-etcd-endpoints", &etcd.endpoint()]);
    command.arg("-subnet-file").arg(folder.join(SUBNET_FILE));
    process::spawn(node, &mut command, &folder.join(LOG))
}
