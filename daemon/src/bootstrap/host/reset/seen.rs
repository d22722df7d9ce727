//! What a reset finds: the facts that its plan is made from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use weft_netlink::sysctl::Sysctl;

use super::ResetOptions;
use super::mounts;
use crate::bootstrap::host::gather;
use crate::bootstrap::host::hand::{HostError, digest, io_error};
use crate::bootstrap::journal::{Change, Entry, Stage};

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A file, and SHA-256 of its content.
    File(String),
    /// A directory, and how many entries it holds.
    Directory(usize),
    /// A symbolic link, and where it leads.
    Link(PathBuf),
    /// Something else: a socket, a device.
    Other,
}

/// What a reset finds on the machine.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What lies at each path in question; nothing where it is not named.
    pub paths: BTreeMap<PathBuf, Found>,
    /// Where symbolic links lead that stand for a directory to be emptied: `/var/lib/kubelet` on a disk of its own.
    pub real: BTreeMap<PathBuf, PathBuf>,
    /// Mount points below kubelet's directory, in the order in which they have to go.
    pub mounts: Vec<PathBuf>,
    /// Kernel settings in question.
    pub sysctls: BTreeMap<String, String>,
    /// Swap space in use.
    pub swaps: BTreeSet<String>,
    /// What the journal has that is not undone, oldest first.
    pub entries: Vec<Entry>,
}

/// Looks at all that the options and the journal's entries name.
///
/// # Errors
/// What cannot be read: a plan made without it might be wrong.
pub fn see(options: &ResetOptions, entries: &[Entry]) -> Result<Seen, HostError> {
    let root = &options.paths.root;
    let entries: Vec<Entry> = entries.iter().filter(|entry| entry.stage != Stage::Undone).cloned().collect();
    let mut seen = Seen::default();
    for path in options.emptied().into_iter().chain(options.removed()).chain(leftovers(root)) {
        look(&mut seen, &path)?;
    }
    for path in options.emptied() {
        if matches!(seen.paths.get(&path), Some(Found::Link(_)))
            && let Ok(real) = fs::canonicalize(&path)
        {
            look(&mut seen, &real)?;
            seen.real.insert(path, real);
        }
    }
    let sysctl = Sysctl::at(root.join("proc/sys"));
    for entry in &entries {
        match &entry.change {
            Change::DirectoryMade { path }
            | Change::FileMade { path, .. }
            | Change::LinesCommented { path }
            | Change::BlockAdded { path, .. }
            | Change::LinkMade { path, .. } => look(&mut seen, path)?,
            Change::FileChanged { path, backup, .. } => {
                look(&mut seen, path)?;
                look(&mut seen, backup)?;
            }
            Change::Sysctl { key, .. } => {
                if let Some(value) = sysctl.read(key)? {
                    seen.sysctls.insert(key.clone(), value);
                }
            }
            _ => {}
        }
    }
    seen.swaps = gather::swaps(root).unwrap_or_default().into_iter().map(|area| area.device).collect();
    let kubelet = seen.real.get(&options.paths.kubelet).unwrap_or(&options.paths.kubelet);
    if seen.paths.contains_key(kubelet) {
        let path = root.join("proc/thread-self/mountinfo");
        // Another root may have no proc of its own; mounts are where they are.
        let path = if path.exists() { path } else { "/proc/thread-self/mountinfo".into() };
        let text = fs::read(&path).map_err(io_error("read", &path))?;
        let real = fs::canonicalize(kubelet).unwrap_or_else(|_| kubelet.clone());
        seen.mounts = mounts::below(&String::from_utf8_lossy(&text), &real);
    }
    seen.entries = entries;
    Ok(seen)
}

/// What weft does not remove, and a user may want to know of.
pub(super) fn leftovers(root: &Path) -> Vec<PathBuf> {
    ["root/.kube/config", "etc/cni/net.d", "var/lib/containerd", super::etcd::DEFAULT]
        .map(|path| root.join(path))
        .into()
}

fn look(seen: &mut Seen, path: &Path) -> Result<(), HostError> {
    let io = io_error("look at", path);
    let metadata = match path.symlink_metadata() {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        other => other.map_err(&io)?,
    };
    let kind = metadata.file_type();
    let found = if kind.is_dir() {
        Found::Directory(fs::read_dir(path).map_err(&io)?.count())
    } else if kind.is_symlink() {
        Found::Link(fs::read_link(path).map_err(&io)?)
    } else if kind.is_file() {
        Found::File(digest(&fs::read(path).map_err(&io)?))
    } else {
        Found::Other
    };
    seen.paths.insert(path.to_owned(), found);
    Ok(())
}
