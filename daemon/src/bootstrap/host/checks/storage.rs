//! Room on disks, and how fast etcd's one syncs.

use std::time::Duration;

use crate::bootstrap::host::facts::{Disk, Fsync, HostFacts};
use crate::bootstrap::host::report::Finding;
use crate::bootstrap::host::wanted::Wanted;

/// Below this nothing can be brought up: certificates, manifests and etcd's preallocated log (64 MB a segment) do not fit.
const LEAST: u64 = 512 << 20;

/// Below this images will not fit.
const POOR: u64 = 3 << 30;

/// kubelet drives pods out, and takes none in, where less than this part is free (its defaults of `imagefs.available`, which is the
/// stricter one, and of `nodefs.available`).
const IMAGES_PERCENT: u64 = 15;
const NODE_PERCENT: u64 = 10;

/// etcd's own advice is a 99th percentile of 10 ms; leaders are lost at 100 ms, its heartbeat.
const MEDIAN: Duration = Duration::from_millis(10);
const WORST: Duration = Duration::from_millis(100);

pub(super) fn judge(facts: &HostFacts, _: &Wanted) -> Vec<Finding> {
    let rooms = facts.disks.iter().filter_map(room);
    let fsync = match &facts.fsync {
        Some(Err(reason)) => Some(Finding::warning("EtcdDisk", format!("could not try etcd's disk: {reason}"), "")),
        _ => slow(facts).map(|Fsync { median, worst }| {
            Finding::warning(
                "EtcdDisk",
                format!(
                    "the disk under etcd's data takes {} ms to sync, and {} ms at worst; etcd wants less than 10 ms",
                    median.as_millis(),
                    worst.as_millis()
                ),
                "give etcd's data a faster disk (etcd.local.dataDir); weft waits longer on this one",
            )
        }),
    };
    rooms.chain(fsync).collect()
}

/// The figures of a disk that is slow for etcd.
pub(super) fn slow(facts: &HostFacts) -> Option<Fsync> {
    let fsync = facts.fsync.as_ref()?.as_ref().ok()?;
    (fsync.median > MEDIAN || fsync.worst > WORST).then_some(*fsync)
}

fn room(disk: &Disk) -> Option<Finding> {
    const NAME: &str = "DiskSpace";
    let place = format!("{} ({})", disk.path.display(), disk.what);
    if disk.read_only {
        let fix = "mount it for writing; after an error of the disk it may have become read-only by itself";
        return Some(Finding::error(NAME, format!("nothing can be written to {place}"), fix));
    }
    if disk.files.is_some_and(|files| files < 1024) {
        let cause = format!("no inodes are left at {place}");
        return Some(Finding::error(NAME, cause, "remove small files that nobody needs (df -i)"));
    }
    let free = disk.free >> 20;
    if disk.free < LEAST {
        let cause = format!("{free} MiB are free at {place}; at least {} MiB are needed", LEAST >> 20);
        return Some(Finding::error(
            NAME,
            cause,
            "make room (du -xh --max-depth=2 / | sort -h | tail), or use another disk",
        ));
    }
    let percent = disk.free.saturating_mul(100) / disk.size.max(1);
    let least = if disk.holds_images { IMAGES_PERCENT } else { NODE_PERCENT };
    if percent < least {
        let cause =
            format!("{percent} % are free at {place}; below {least} % kubelet drives pods out and takes none in");
        let fix = "make room, or set evictionHard in a KubeletConfiguration document";
        return Some(Finding::warning(NAME, cause, fix));
    }
    (disk.free < POOR)
        .then(|| Finding::warning(NAME, format!("{free} MiB are free at {place}; images may not fit"), "make room"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, init, names, report};
    use super::*;

    fn disk(free: u64) -> Disk {
        Disk {
            what: "etcd's data",
            path: "/var/lib/etcd".into(),
            free,
            size: 100 << 30,
            files: None,
            read_only: false,
            holds_images: true,
        }
    }

    #[test]
    fn a_full_disk_is_an_error_and_a_filling_one_a_warning() {
        let machine = |disk: Disk| HostFacts { disks: vec![disk], ..facts() };
        let full = report(&machine(disk(1 << 20)), &init());
        assert_eq!(names(&full), ["DiskSpace"]);
        assert!(full.get("DiskSpace").unwrap().cause.contains("1 MiB are free at /var/lib/etcd"));
        assert!(report(&machine(disk(5 << 30)), &init()).get("DiskSpace").unwrap().cause.contains("5 %"));
        assert!(report(&machine(disk(50 << 30)), &init()).findings.is_empty());
        let no_inodes = Disk { files: Some(0), ..disk(50 << 30) };
        assert_eq!(names(&report(&machine(no_inodes), &init())), ["DiskSpace"]);
        let read_only = Disk { read_only: true, ..disk(50 << 30) };
        assert_eq!(names(&report(&machine(read_only), &init())), ["DiskSpace"]);
    }

    #[test]
    fn a_slow_disk_is_told_with_its_figures_and_patience_is_asked_for() {
        let ms = Duration::from_millis;
        let machine = |median, worst| HostFacts { fsync: Some(Ok(Fsync { median, worst })), ..facts() };
        let found = report(&machine(ms(20), ms(250)), &init());
        assert!(found.is_passed() && found.get("EtcdDisk").unwrap().cause.contains("250 ms at worst"));
        assert_eq!(found.kubelet.slow_disk, Some(ms(250)));
        assert!(report(&machine(ms(2), ms(9)), &init()).findings.is_empty());
    }
}
