//! Room on disks, and how long they take to sync.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::bootstrap::host::facts::{Disk, Fsync, Told};
use crate::bootstrap::host::wanted::Wanted;

/// How often a small write is synced, and how long that may take in all.
const ROUNDS: usize = 20;
const BUDGET: Duration = Duration::from_secs(1);

/// As large as an entry of etcd's log is (etcd's advice for measuring with fio).
const WRITE: [u8; 2300] = [0; 2300];

/// The disks where data will be, each once.
pub(super) fn room(wanted: &Wanted) -> Vec<Disk> {
    let root = &wanted.paths.root;
    let places = [
        ("etcd's data", wanted.etcd_data.clone()),
        ("kubelet's data", Some(wanted.paths.kubelet.clone())),
        ("images", Some(root.join("var/lib/containerd"))),
        ("configuration", Some(wanted.paths.kubernetes.clone())),
    ];
    let device = |path: &Path| fs::metadata(nearest(path)).map(|metadata| metadata.dev()).ok();
    let images = device(&root.join("var/lib/containerd"));
    let mut seen = Vec::new();
    let mut disks = Vec::new();
    for (what, path) in places {
        let Some(path) = path else { continue };
        let Some(device) = device(&path).filter(|device| !seen.contains(device)) else { continue };
        seen.push(device);
        let Ok(found) = statvfs(&nearest(&path)) else { continue };
        disks.push(Disk {
            what,
            path,
            free: found.blocks_available().saturating_mul(found.fragment_size()),
            size: found.blocks().saturating_mul(found.fragment_size()),
            files: (found.files() > 0).then(|| found.files_available()),
            read_only: found.flags().contains(FsFlags::ST_RDONLY),
            holds_images: Some(device) == images,
        });
    }
    disks
}

/// The directory itself, or the nearest one above it that is there.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// How long the disk takes; `None` where it cannot be tried without leaving something (no `O_TMPFILE`).
pub(super) fn fsync(path: &Path) -> Option<Told<Fsync>> {
    let flags = OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
    let mut file = File::options().write(true).mode(0o600).custom_flags(flags.bits()).open(nearest(path)).ok()?;
    let begun = Instant::now();
    let mut times = Vec::with_capacity(ROUNDS);
    while times.len() < ROUNDS && (times.is_empty() || begun.elapsed() < BUDGET) {
        let start = Instant::now();
        if let Err(error) = file.write_all(&WRITE).and_then(|()| file.sync_data()) {
            return Some(Err(error.to_string()));
        }
        times.push(start.elapsed());
    }
    times.sort();
    let (median, worst) = (times.get(times.len() / 2)?, times.last()?);
    Some(Ok(Fsync { median: *median, worst: *worst }))
}

#[cfg(test)]
mod tests {
    use super::super::super::checks::testing;
    use super::*;
    use crate::bootstrap::resolved::Paths;

    #[test]
    fn disks_are_told_once_and_trying_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let etcd = root.path().join("var/lib/etcd");
        let wanted = Wanted { paths: Paths::under(root.path()), etcd_data: Some(etcd.clone()), ..testing::init() };
        let found = room(&wanted);
        assert_eq!(found.len(), 1, "one file system, one entry: {found:?}");
        assert!(found[0].size > 0 && found[0].free <= found[0].size && !found[0].read_only);
        if let Some(times) = fsync(&etcd) {
            let times = times.unwrap();
            assert!(times.median <= times.worst && times.worst > Duration::ZERO);
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
