//! What was before, kept until nobody needs it, and what came in its place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::bootstrap::converge::{self, FileError};
use crate::bootstrap::journal::{Change, Journal};
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::resolved::Paths;
use crate::bootstrap::static_pods::Part;

/// Where kubeadm keeps such things, too.
const FOLDER: &str = "tmp";
const OLD: &str = "weft-backup-manifests-";
const NEW: &str = "weft-upgraded-manifests-";
const KUBELET: &str = "weft-backup-kubelet-config-";
/// In a folder of old manifests: an upgrade that began with them has not come to an end.
const UNFINISHED: &str = "unfinished";
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The folders of an upgrade: one with what was before it, one with what comes.
#[derive(Debug)]
pub(super) struct Backup {
    old: PathBuf,
    new: PathBuf,
    resumed: bool,
}

impl Backup {
    /// That of an upgrade which was ended, else a new one. Nothing is written yet.
    pub(super) fn find(paths: &Paths, now: Timestamp) -> Result<Self, FileError> {
        let above = paths.kubernetes.join(FOLDER);
        let unfinished = newest_unfinished(&above).map_err(FileError::of("look into", &above))?;
        let resumed = unfinished.is_some();
        let stamp = unfinished.unwrap_or_else(|| now.strftime("%Y-%m-%d-%H-%M-%S").to_string());
        Ok(Self { old: above.join(format!("{OLD}{stamp}")), new: above.join(format!("{NEW}{stamp}")), resumed })
    }

    /// Whether an earlier upgrade was ended, and this is what was before that.
    pub(super) fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// The folder with the old manifests.
    pub(super) fn folder(&self) -> &Path {
        &self.old
    }

    /// Where the snapshot of etcd is to be.
    pub(super) fn snapshot(&self) -> PathBuf {
        self.old.join("etcd-snapshot.db")
    }

    /// A manifest as it was before the upgrade; `None` if none is kept.
    pub(super) fn old(&self, part: Part) -> Result<Option<String>, FileError> {
        let path = file(&self.old, part);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::of("read", &path)(error)),
        }
    }

    /// Keeps what is, and shows what comes. What is kept from before an upgrade that was ended stays.
    pub(super) fn keep(
        &self,
        journal: &mut Journal,
        part: Part,
        old: Option<&str>,
        new: &str,
    ) -> Result<(), PhaseError> {
        for folder in [&self.old, &self.new] {
            directory(journal, folder)?;
        }
        let marker = self.old.join(UNFINISHED);
        put(journal, &marker, b"")?;
        let kept = file(&self.old, part);
        if let Some(old) = old.filter(|_| !kept.exists()) {
            put(journal, &kept, old.as_bytes())?;
        }
        put(journal, &file(&self.new, part), new.as_bytes())
    }

    /// The upgrade has come to an end, one way or the other.
    pub(super) fn finish(&self) -> Result<(), FileError> {
        let marker = self.old.join(UNFINISHED);
        match fs::remove_file(&marker) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::of("remove", &marker)(error)),
            _ => Ok(()),
        }
    }
}

/// Keeps a configuration of kubelet's that gets other content; says where.
pub(super) fn keep_kubelet(
    paths: &Paths,
    journal: &mut Journal,
    text: &[u8],
    now: Timestamp,
) -> Result<PathBuf, PhaseError> {
    let name = format!("{KUBELET}{}", now.strftime("%Y-%m-%d-%H-%M-%S"));
    let folder = paths.kubernetes.join(FOLDER).join(name);
    directory(journal, &folder)?;
    let path = folder.join("config.yaml");
    put(journal, &path, text)?;
    Ok(path)
}

/// Makes a folder and the one that it is in, if they are not there.
fn directory(journal: &mut Journal, folder: &Path) -> Result<(), PhaseError> {
    for folder in [folder.parent(), Some(folder)].into_iter().flatten().filter(|folder| !folder.is_dir()) {
        let id = journal.begin(Change::DirectoryMade { path: folder.to_owned() })?;
        converge::directory(folder, DIRECTORY_MODE)?;
        journal.done(id)?;
    }
    Ok(())
}

fn file(folder: &Path, part: Part) -> PathBuf {
    folder.join(format!("{}.yaml", part.name()))
}

fn put(journal: &mut Journal, path: &Path, bytes: &[u8]) -> Result<(), PhaseError> {
    let digest = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let id = journal.begin(Change::FileMade { path: path.to_owned(), sha256: Some(digest) })?;
    converge::put(path, bytes, FILE_MODE)?;
    Ok(journal.done(id)?)
}

/// The time in the name of the newest folder that is marked.
fn newest_unfinished(above: &Path) -> io::Result<Option<String>> {
    let entries = match fs::read_dir(above) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut newest: Option<String> = None;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let stamp = name.to_str().and_then(|name| name.strip_prefix(OLD));
        if let Some(stamp) = stamp.filter(|_| entry.path().join(UNFINISHED).exists())
            && newest.as_deref().is_none_or(|newest| newest < stamp)
        {
            newest = Some(stamp.to_owned());
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_upgrade_that_was_ended_is_gone_on_with_from_what_was_before_it() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let mut journal = Journal::open(&paths).unwrap();
        let at = |seconds: i64| Backup::find(&paths, Timestamp::from_second(seconds).unwrap()).unwrap();
        let first = at(0);
        assert!(!first.is_resumed() && first.old(Part::Etcd).unwrap().is_none());
        first.keep(&mut journal, Part::Etcd, Some("a"), "b").unwrap();
        let mode = fs::metadata(first.folder().join("etcd.yaml")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let second = at(3600);
        assert!(second.is_resumed() && second.folder() == first.folder());
        second.keep(&mut journal, Part::Etcd, Some("b"), "c").unwrap();
        second.keep(&mut journal, Part::Scheduler, None, "d").unwrap();
        assert_eq!(second.old(Part::Etcd).unwrap().as_deref(), Some("a"));
        assert_eq!(second.old(Part::Scheduler).unwrap(), None);
        second.finish().unwrap();
        second.finish().unwrap();

        let third = at(7200);
        assert!(!third.is_resumed() && third.folder() != first.folder());
        assert!(first.old(Part::Etcd).unwrap().is_some(), "a backup stays");
        assert!(
            journal
                .entries()
                .any(|entry| matches!(&entry.change, Change::FileMade { path, .. } if path.ends_with("etcd.yaml")))
        );
    }
}
