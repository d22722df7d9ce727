//! Whether the daemons that weft replaces still run on this node.

use std::fs;
use std::io;
use std::path::Path;

/// A daemon that would put back what is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The program, as its process is called.
    pub name: &'static str,
    /// Its process.
    pub pid: u32,
}

/// Those programs.
const NAMES: [&str; 5] = [KUBE_PROXY, "flanneld", "k3s", "k3s-server", "k3s-agent"];
/// kube-proxy, which may stay where weft leaves Services to others.
pub const KUBE_PROXY: &str = "kube-proxy";

/// Whether a program is k3s, which has flannel and kube-proxy in itself unless it was told otherwise.
#[must_use]
pub fn is_k3s(name: &str) -> bool {
    name.starts_with("k3s")
}

/// The daemons that run in this process's network namespace. One whose namespace may not be looked at counts, too.
///
/// In a pod this needs `hostPID`: elsewhere there are no processes but its own.
///
/// # Errors
/// If `/proc` cannot be listed.
pub fn running() -> io::Result<Vec<Running>> {
    let proc = Path::new("/proc");
    let own = fs::read_link(proc.join("self/ns/net"))?;
    let mut found = Vec::new();
    for entry in fs::read_dir(proc)? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that has ended meanwhile is none.
        let Ok(comm) = fs::read_to_string(entry.path().join("comm")) else { continue };
        let Some(name) = NAMES.into_iter().find(|name| *name == comm.trim_end()) else { continue };
        match fs::read_link(entry.path().join("ns/net")) {
            Ok(namespace) if namespace != own => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => found.push(Running { name, pid }),
        }
    }
    Ok(found)
}
