//! Who keeps a mount busy.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A process that uses something below a mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountHolder {
    /// Its number.
    pub pid: u32,
    /// Its name (`comm`).
    pub name: String,
    /// What it uses.
    pub path: PathBuf,
}

impl fmt::Display for MountHolder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} (process {}: {})", self.name, self.pid, self.path.display())
    }
}

/// The processes whose directory, root, files or mappings lie there, one entry each.
pub(super) fn of(point: &Path) -> Vec<MountHolder> {
    let mut holders = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let folder = process.path();
        let Some(path) = used(&folder, point) else { continue };
        let name = fs::read_to_string(folder.join("comm")).unwrap_or_default().trim().to_owned();
        holders.push(MountHolder { pid, name, path });
    }
    holders
}

/// The first thing below the mount point that the process uses.
fn used(folder: &Path, point: &Path) -> Option<PathBuf> {
    let links = ["cwd", "root", "exe"].map(|name| folder.join(name));
    let files = fs::read_dir(folder.join("fd")).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let link =
        links.into_iter().chain(files).filter_map(|link| fs::read_link(link).ok()).find(|path| path.starts_with(point));
    link.or_else(|| {
        let maps = fs::read_to_string(folder.join("maps")).unwrap_or_default();
        // Address, permissions, offset, device, inode, path.
        let paths = maps.lines().filter_map(|line| line.splitn(6, ' ').nth(5).map(str::trim_start));
        paths.map(PathBuf::from).find(|path| path.starts_with(point))
    })
}
