//! The programs of others that a cluster is made of: from the folder that `WEFT_PEERS` names, else as they are installed.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// What a cluster cannot do without.
pub const CLUSTER: [&str; 9] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kubectl",
    "containerd",
    "ctr",
    "runc",
];

/// Folders below `WEFT_PEERS` in which programs may lie: its own, those of upstream's archives, CNI plugins.
const FOLDERS: [&str; 6] = ["", "bin", "kubernetes/bin", "kubernetes/test/bin", "cni", "cni/bin"];

/// Where programs are installed that the search path of a user does not lead to: Debian's CNI plugins among them.
const INSTALLED: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/lib/cni"];

/// Where a program is.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let peers = std::env::var_os("WEFT_PEERS").map(PathBuf::from);
    let given = peers.iter().flat_map(|peers| FOLDERS.map(|folder| peers.join(folder)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed: Vec<PathBuf> = std::env::split_paths(&path).chain(INSTALLED.map(Into::into)).collect();
    given.chain(installed).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Where a program is that has to be there.
///
/// # Errors
/// When it is not.
pub fn need(program: &str) -> Result<PathBuf> {
    match find(program) {
        Some(path) => Ok(path.canonicalize()?),
        None => bail!("{program} is neither in the folder WEFT_PEERS nor installed"),
    }
}

/// Whether all of these are there.
///
/// # Errors
/// A sentence that names those that are not.
pub fn check(programs: &[&str]) -> Result<(), String> {
    if std::env::var_os("WEFT_PEERS").is_none() {
        return Err("needs WEFT_PEERS, a folder with the programs of a Kubernetes node".into());
    }
    let missing: Vec<&str> = programs.iter().copied().filter(|program| find(program).is_none()).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("needs {} in the folder WEFT_PEERS", missing.join(", "))) }
}

/// The search path of a node: the peers first.
#[must_use]
pub fn path() -> String {
    let peers = std::env::var("WEFT_PEERS").unwrap_or_default();
    let absolute = Path::new(&peers).canonicalize().unwrap_or_default();
    let own = FOLDERS.map(|folder| absolute.join(folder).display().to_string()).join(":");
    format!("{own}:{}:/usr/sbin:/usr/bin:/sbin:/bin", std::env::var("PATH").unwrap_or_default())
}
