//! Certificates kept new without anybody's doing: when the next is due, who still uses an old one, and what is overdue.
//!
//! Everything is told by the files as they are, and nothing is remembered: a renewal that was killed between a new
//! certificate and the restart that it asks for is finished by the next look.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::certificate::Certificate;
use super::error::PkiError;
use super::renew::names_here;
use super::restart::affected;
use super::store::Store;
use super::table;
use crate::bootstrap::kubeconfig::Kubeconfig;
use crate::bootstrap::resolved::Paths;

/// A certificate with less than this part of its time left is overdue: it is renewed when a third is left, and a twelfth of
/// its time is a month of a year.
const OVERDUE: i32 = 4;
/// The shortest pause between two looks: a clock that is set back must not make a busy loop of it.
const SHORTEST: Duration = Duration::from_secs(60);

/// The certificates directory, locked: nobody else writes keys and certificates meanwhile. Waits for whoever does.
///
/// # Errors
/// The directory cannot be opened or locked.
pub fn lock(paths: &Paths) -> io::Result<Flock<File>> {
    let mut directory = File::open(&paths.pki)?;
    loop {
        directory = match Flock::lock(directory, FlockArg::LockExclusive) {
            Ok(locked) => return Ok(locked),
            Err((directory, Errno::EINTR)) => directory,
            Err((_, error)) => return Err(error.into()),
        };
    }
}

/// The certificate of that name; `None` if it is not there.
///
/// # Errors
/// There is none of that name, or a file is damaged.
fn find(name: &str, paths: &Paths) -> Result<Option<Certificate>, PkiError> {
    if let Ok(entry) = table::find(name) {
        return Ok(Store(&paths.pki).find(entry.file)?.certificates.into_iter().next());
    }
    let path = paths.kubernetes.join(name);
    let Some(config) = Kubeconfig::load(&path)? else { return Ok(None) };
    config.certificate(&paths.kubernetes).map_err(|reason| PkiError::Content { path, expected: "kubeconfig", reason })
}

/// The file that a certificate of that name is in.
fn file(name: &str, paths: &Paths) -> PathBuf {
    match table::find(name) {
        Ok(entry) => Store(&paths.pki).certificate(entry.file),
        Err(_) => paths.kubernetes.join(name),
    }
}

/// Whether a static pod has been started before one of its certificates was made, as far as files tell: its manifest has not
/// been written since. A manifest that was moved into its place, as kubeadm's upgrade does, counts from then on.
///
/// # Errors
/// A file cannot be looked at.
pub fn is_behind(component: &str, paths: &Paths) -> io::Result<bool> {
    let time = |path: PathBuf, at: fn(&fs::Metadata) -> (i64, i64)| match fs::metadata(path) {
        Ok(metadata) => Ok(Some(at(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let manifest = paths.manifests().join(format!("{component}.yaml"));
    let Some(started) = time(manifest, |metadata| (metadata.ctime(), metadata.ctime_nsec()))? else {
        return Ok(false);
    };
    for name in names_here(paths).into_iter().filter(|name| affected(name).contains(&component)) {
        let made = time(file(name, paths), |metadata| (metadata.mtime(), metadata.mtime_nsec()))?;
        if made.is_some_and(|made| made > started) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The certificates that have less than a quarter of their time left, or that cannot be read: their renewal has failed, or
/// nobody can renew them here.
#[must_use]
pub fn overdue(paths: &Paths, now: Timestamp) -> Vec<String> {
    let is_overdue = |name: &&str| match find(name, paths) {
        Ok(None) => false,
        Ok(Some(found)) => {
            let whole = found.not_after().duration_since(found.not_before());
            found.not_after().duration_since(now) < whole / OVERDUE
        }
        Err(_) => true,
    };
    names_here(paths).into_iter().filter(is_overdue).map(str::to_owned).collect()
}

/// How long to wait until the next look: until the first certificate is due, and no longer than `every`. `splay` is a time of this
/// node's own that is waited beyond that, so that nodes that were made together do not restart their etcd together.
#[must_use]
pub fn pause(paths: &Paths, every: Duration, splay: Duration, now: Timestamp) -> Duration {
    let left = |name: &str| {
        let found = find(name, paths).ok()??;
        let third = found.not_after().duration_since(found.not_before()) / 3;
        Some(found.not_after().duration_since(now) - third)
    };
    let first = names_here(paths).into_iter().filter_map(left).min();
    let first = first.map_or(every, |left| Duration::try_from(left).unwrap_or_default());
    // A moment behind it, so that it is due then.
    first.saturating_add(Duration::from_secs(1)).saturating_add(splay).min(every).max(SHORTEST.min(every))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::kubeconfig;
    use crate::bootstrap::pki::renew::{RenewOptions, renew};
    use crate::bootstrap::pki::restart::restart;
    use crate::bootstrap::pki::samples::{cluster, node};
    use crate::bootstrap::pki::{Options, ensure_all};

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    /// A node with everything, made at the beginning of 2026; certificates hold a year.
    fn made() -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let now = at("2026-01-01T00:00:00Z");
        ensure_all(&cluster(), &node(), &paths, &Options::default(), now).unwrap();
        kubeconfig::ensure(&kubeconfig::INIT, &cluster(), &node(), &paths, now).unwrap();
        fs::create_dir_all(paths.manifests()).unwrap();
        for component in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            let text = format!("metadata:\n  name: {component}\nspec: {{}}\n");
            fs::write(paths.manifests().join(format!("{component}.yaml")), text).unwrap();
        }
        (root, paths)
    }

    #[test]
    fn p0_14_a_renewal_that_was_killed_before_the_restart_is_seen_by_the_next_look() {
        let (_root, paths) = made();
        let behind = || {
            let components = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
            components.into_iter().filter(|component| is_behind(component, &paths).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(behind(), [""; 0]);
        let now = at("2026-09-02T00:00:00Z");
        for name in ["apiserver-etcd-client", "scheduler.conf", "admin.conf", "etcd-healthcheck-client"] {
            renew(name, &paths, RenewOptions::default(), now).unwrap();
        }
        assert_eq!(behind(), ["kube-apiserver", "kube-scheduler"]);
        for component in behind() {
            restart(component, &paths, now).unwrap();
        }
        assert_eq!(behind(), [""; 0]);
        // As kubeadm's upgrade does it: made before, moved into its place after.
        let (manifest, kept) = (paths.manifests().join("etcd.yaml"), paths.kubernetes.join("etcd.yaml"));
        fs::rename(&manifest, &kept).unwrap();
        assert!(!is_behind("etcd", &paths).unwrap(), "there is none");
        renew("etcd-peer", &paths, RenewOptions::default(), now).unwrap();
        fs::rename(&kept, &manifest).unwrap();
        assert_eq!(behind(), [""; 0]);
    }

    #[test]
    fn p0_14_the_next_look_is_when_the_first_is_due() {
        let (_root, paths) = made();
        let day = 24 * HOUR;
        let pause = |paths: &Paths, every, now| pause(paths, every, Duration::ZERO, now);
        assert_eq!(pause(&paths, HOUR, at("2026-02-01T00:00:00Z")), HOUR);
        let left = pause(&paths, 365 * day, at("2026-02-01T00:00:00Z"));
        assert!((211 * day..213 * day).contains(&left), "{left:?}");
        assert_eq!(pause(&paths, HOUR, at("2026-12-01T00:00:00Z")), SHORTEST, "all are due");
        assert_eq!(pause(&paths, Duration::from_millis(10), at("2026-12-01T00:00:00Z")), Duration::from_millis(10));
        let splayed = super::pause(&paths, HOUR, 30 * SHORTEST, at("2026-12-01T00:00:00Z"));
        assert!((30 * SHORTEST..31 * SHORTEST).contains(&splayed), "{splayed:?}");
        let nothing = Paths::under("/nonexistent");
        assert_eq!(pause(&nothing, HOUR, at("2026-02-01T00:00:00Z")), HOUR);
    }

    #[test]
    fn p0_14_what_nobody_renews_is_overdue_before_it_ends() {
        let (_root, paths) = made();
        assert!(overdue(&paths, at("2026-09-10T00:00:00Z")).is_empty(), "due, and time is left");
        assert_eq!(overdue(&paths, at("2026-10-05T00:00:00Z")).len(), 11);
        fs::write(paths.kubernetes.join("admin.conf"), "nonsense: [").unwrap();
        assert_eq!(overdue(&paths, at("2026-02-01T00:00:00Z")), ["admin.conf"]);
    }

    #[test]
    fn two_do_not_write_at_once() {
        let (_root, paths) = made();
        let held = lock(&paths).unwrap();
        let other = File::open(&paths.pki).unwrap();
        let (other, error) = Flock::lock(other, FlockArg::LockExclusiveNonblock).unwrap_err();
        assert_eq!(error, Errno::EWOULDBLOCK);
        drop((held, other));
        lock(&paths).unwrap();
    }
}
