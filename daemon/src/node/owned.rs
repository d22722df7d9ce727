//! What this node was like before us, so that `weft cleanup` can make it so again.
//!
//! Written before the change it speaks of, so that a change is never without its record; the other way round is
//! harmless, as restoring an unchanged setting changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weft_cni::formats::files::{Durability, write_atomically};
use weft_netlink::sysctl::Sysctl;

/// The record of the node's own loop. Whoever changes settings beside it has a record of its own, as each is kept in memory.
pub const NODE_RECORD: &str = "owned.json";
const MODE: u32 = 0o600;

/// The record. It lies in the run directory and dies with a reboot, as the settings do.
#[derive(Debug)]
pub struct Owned {
    path: PathBuf,
    record: Record,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    /// Settings that were changed, with their values before.
    #[serde(default)]
    sysctls: BTreeMap<String, String>,
    /// Devices of the overlay that were made or taken over.
    #[serde(default)]
    devices: BTreeSet<String>,
    /// Files that were not there.
    #[serde(default)]
    files: BTreeSet<PathBuf>,
    /// Directories that were not there, outermost first.
    #[serde(default)]
    directories: Vec<PathBuf>,
}

/// The record, or a setting in it, could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum OwnedError {
    /// The file system refused.
    #[error("cannot keep the record {}: {source}", .path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file system does not let go of a file.
    #[error("cannot remove {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The kernel refused.
    #[error(transparent)]
    Sysctl(#[from] weft_netlink::Error),
}

impl Owned {
    /// Reads a record of a run directory; there is none before the first start.
    ///
    /// A record that cannot be understood is taken for none: it can only have been written by something else.
    ///
    /// # Errors
    /// [`OwnedError::Record`] if it is there and cannot be read.
    pub fn load(run_dir: &Path, file: &str) -> Result<Self, OwnedError> {
        let path = run_dir.join(file);
        let record = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), "the record of earlier settings is unreadable and ignored: {error}");
                Record::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(source) => return Err(OwnedError::Record { path, source }),
        };
        Ok(Self { path, record })
    }

    /// The overlay's devices that were made or taken over.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.record.devices.iter().map(String::as_str)
    }

    /// Remembers that a device of the overlay is about to be made or taken over.
    ///
    /// # Errors
    /// [`OwnedError::Record`].
    pub fn claim_device(&mut self, name: &str) -> Result<(), OwnedError> {
        if self.record.devices.insert(name.to_owned()) { self.save() } else { Ok(()) }
    }

    /// Forgets a device that is gone.
    ///
    /// # Errors
    /// [`OwnedError::Record`].
    pub fn release_device(&mut self, name: &str) -> Result<(), OwnedError> {
        if self.record.devices.remove(name) { self.save() } else { Ok(()) }
    }

    /// Remembers that a file is about to be made that was not there.
    ///
    /// # Errors
    /// [`OwnedError::Record`].
    pub fn claim_file(&mut self, path: &Path) -> Result<(), OwnedError> {
        if self.record.files.insert(path.to_owned()) { self.save() } else { Ok(()) }
    }

    /// Forgets all files, which are others' from now on.
    ///
    /// # Errors
    /// [`OwnedError::Record`].
    pub fn release_files(&mut self) -> Result<(), OwnedError> {
        if self.record.files.is_empty() {
            return Ok(());
        }
        self.record.files.clear();
        self.save()
    }

    /// Remembers which parts of a path are not there, and so are about to be made.
    ///
    /// # Errors
    /// [`OwnedError::Record`].
    pub fn claim_directory(&mut self, path: &Path) -> Result<(), OwnedError> {
        let missing: Vec<PathBuf> = path
            .ancestors()
            .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
            .map(Path::to_owned)
            .filter(|ancestor| !self.record.directories.contains(ancestor))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.record.directories.extend(missing.into_iter().rev());
        self.save()
    }

    /// Gives a setting a value, and remembers what it was the first time; says whether it had to be changed.
    ///
    /// # Errors
    /// [`OwnedError`]; without its record the change is not made.
    pub fn set(&mut self, sysctl: &Sysctl, name: &str, value: &str) -> Result<bool, OwnedError> {
        match sysctl.read(name)? {
            Some(before) if before != value => {
                if !self.record.sysctls.contains_key(name) {
                    self.record.sysctls.insert(name.to_owned(), before);
                    self.save()?;
                }
                sysctl.write(name, value)?;
                Ok(true)
            }
            // Right already, or this kernel does not have it.
            _ => Ok(false),
        }
    }

    /// Gives every changed setting its old value, removes the files that were made, and the directories that were and are empty
    /// again, and forgets the record.
    ///
    /// # Errors
    /// All that went wrong; everything else is as it was.
    pub fn restore(self, sysctl: &Sysctl) -> Result<(), Vec<OwnedError>> {
        let mut errors = Vec::new();
        for (name, before) in &self.record.sysctls {
            // A device that is gone took its settings with it.
            match sysctl.read(name) {
                Ok(Some(now)) if now != *before => {
                    errors.extend(sysctl.write(name, before).err().map(OwnedError::from));
                }
                Ok(_) => {}
                Err(error) => errors.push(error.into()),
            }
        }
        for path in &self.record.files {
            match fs::remove_file(path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    errors.push(OwnedError::File { path: path.clone(), source });
                }
                _ => {}
            }
        }
        for directory in self.record.directories.iter().rev() {
            // Whoever else keeps something there keeps the directory.
            let _ = fs::remove_dir(directory);
        }
        if errors.is_empty()
            && let Err(source) = fs::remove_file(&self.path)
            && source.kind() != io::ErrorKind::NotFound
        {
            errors.push(OwnedError::Record { path: self.path, source });
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn save(&self) -> Result<(), OwnedError> {
        let wrong = |source| OwnedError::Record { path: self.path.clone(), source };
        let bytes = serde_json::to_vec_pretty(&self.record).map_err(|error| wrong(error.into()))?;
        write_atomically(&self.path, &bytes, MODE, Durability::UntilReboot).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_were_made_go_again_and_others_stay() {
        let root = tempfile::tempdir().unwrap();
        let made = root.path().join("etc/cni/net.d");
        fs::create_dir(root.path().join("etc")).unwrap();
        let run = root.path().join("run");
        let mut owned = Owned::load(&run, NODE_RECORD).unwrap();
        owned.claim_directory(&made).unwrap();
        fs::create_dir_all(&made).unwrap();
        owned.claim_device("flannel.1").unwrap();
        let owned = Owned::load(&run, NODE_RECORD).unwrap();
        assert_eq!(owned.devices().collect::<Vec<_>>(), ["flannel.1"]);
        owned.restore(&Sysctl::default()).unwrap();
        assert!(!root.path().join("etc/cni").exists() && root.path().join("etc").exists());
    }

    #[test]
    fn what_was_before_the_first_change_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let (run, proc_sys) = (root.path().join("run"), root.path().join("sys"));
        fs::create_dir_all(proc_sys.join("net/ipv4")).unwrap();
        let file = proc_sys.join("net/ipv4/ip_forward");
        fs::write(&file, "0\n").unwrap();
        let sysctl = Sysctl::at(&proc_sys);

        let mut owned = Owned::load(&run, NODE_RECORD).unwrap();
        assert!(owned.set(&sysctl, "net/ipv4/ip_forward", "1").unwrap());
        assert!(!owned.set(&sysctl, "net/ipv4/ip_forward", "1").unwrap());
        assert!(!owned.set(&sysctl, "net/ipv4/absent", "1").unwrap());

        // After a restart somebody else has changed it once more: the first value is what counts.
        fs::write(&file, "2\n").unwrap();
        let mut owned = Owned::load(&run, NODE_RECORD).unwrap();
        assert!(owned.set(&sysctl, "net/ipv4/ip_forward", "1").unwrap());
        owned.restore(&sysctl).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "0");
        assert!(!run.join(NODE_RECORD).exists());
    }
}
