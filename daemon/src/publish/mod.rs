//! What the node's other programs read once it is ready for pods: the subnet file, the CNI plugin, the conflist.
//!
//! Written in that order and only when the data plane stands: a runtime that finds the conflist may call the plugin at
//! once. Each file is compared first; one that is right is not touched, as containerd reloads on every write.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use weft_cni::formats::conflist::{self, Conflist};
use weft_cni::formats::files::{Durability, write_atomically};
use weft_cni::formats::subnet_env::{self, SubnetEnv};

/// Mode of the plugin's binary.
const BINARY_MODE: u32 = 0o755;

/// Where things go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The subnet file.
    pub subnet_file: PathBuf,
    /// The runtime's directory for network configurations.
    pub cni_conf_dir: PathBuf,
    /// The runtime's directory for plugins.
    pub cni_bin_dir: PathBuf,
    /// Where to copy the plugin from; `None` if somebody else installs it.
    pub plugin_source: Option<PathBuf>,
}

/// A file could not be put in its place.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The file system refused.
    #[error("cannot {verb} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Root without the right to pass over permissions, as in a pod, cannot write where another account owns the directory.
    #[error("cannot write to {}: it belongs to uid {owner}, and weft writes as root only where root may; \
             chown root {}", .directory.display(), .directory.display())]
    Owner {
        /// The directory.
        directory: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// A file of the same name is there and is not weft's.
    #[error("{} is there and does not call weft-cni; move it away, and the agent will write its own", .0.display())]
    Foreign(PathBuf),
}

impl Places {
    /// The file of the conflist.
    #[must_use]
    pub fn conflist(&self) -> PathBuf {
        self.cni_conf_dir.join(conflist::FILE_NAME)
    }

    /// The file of the plugin.
    #[must_use]
    pub fn plugin(&self) -> PathBuf {
        self.cni_bin_dir.join(conflist::PLUGIN_TYPE)
    }

    /// The directories of the files.
    #[must_use]
    pub fn directories(&self) -> Vec<&Path> {
        let plugin = self.plugin_source.as_ref().map(|_| self.cni_bin_dir.as_path());
        [self.subnet_file.parent(), plugin, Some(self.cni_conf_dir.as_path())].into_iter().flatten().collect()
    }

    /// Puts everything in its place; returns the files that had to be written.
    ///
    /// # Errors
    /// [`PublishError`] for the first file that cannot be; those before it are in place.
    pub fn publish(&self, subnet: &SubnetEnv, conflist: &Conflist) -> Result<Vec<PathBuf>, PublishError> {
        let mut written = Vec::new();
        let mut put = |path: PathBuf, bytes: &[u8], mode, durability| -> Result<(), PublishError> {
            if is_right(&path, bytes, mode) {
                return Ok(());
            }
            write_atomically(&path, bytes, mode, durability).map_err(io_error("write", &path))?;
            written.push(path);
            Ok(())
        };
        put(self.subnet_file.clone(), subnet.to_string().as_bytes(), subnet_env::MODE, Durability::UntilReboot)?;
        if let Some(source) = &self.plugin_source {
            let binary = fs::read(source).map_err(io_error("read", source))?;
            // A rename, so that a plugin that is running just now goes on, and no caller finds half a binary.
            put(self.plugin(), &binary, BINARY_MODE, Durability::Durable)?;
        }
        let path = self.conflist();
        if fs::read(&path).is_ok_and(|found| is_foreign(&found)) {
            return Err(PublishError::Foreign(path));
        }
        put(path, conflist.render().as_bytes(), conflist::MODE, Durability::Durable)?;
        Ok(written)
    }

    /// Removes what [`Places::publish`] put there, the conflist first, so that no runtime calls a plugin without a node.
    ///
    /// # Errors
    /// All that went wrong; everything else has been removed.
    pub fn withdraw(&self) -> Result<(), Vec<PublishError>> {
        let mut errors = Vec::new();
        let conflist = self.conflist();
        if fs::read(&conflist).is_ok_and(|found| Conflist::is_ours(&found)) {
            errors.extend(remove(&conflist).err());
        }
        errors.extend(remove(&self.subnet_file).err());
        // A plugin that somebody else installed is theirs to remove.
        if self.plugin_source.is_some() {
            errors.extend(remove(&self.plugin()).err());
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// Whether the file has this content and mode already.
fn is_right(path: &Path, bytes: &[u8], mode: u32) -> bool {
    let has_mode = fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o7777 == mode);
    has_mode && fs::read(path).is_ok_and(|found| found == bytes)
}

/// Whether somebody has put another configuration under our name. What is no configuration at all is what a full disk or a
/// power failure has left of ours.
fn is_foreign(found: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(found).is_ok() && !Conflist::is_ours(found)
}

fn remove(path: &Path) -> Result<(), PublishError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

fn io_error(verb: &'static str, path: &Path) -> impl Fn(io::Error) -> PublishError {
    move |source| match path.parent().filter(|_| source.kind() == io::ErrorKind::PermissionDenied).and_then(owned) {
        Some((directory, owner)) => PublishError::Owner { directory, owner },
        None => PublishError::Io { verb, path: path.to_owned(), source },
    }
}

/// The directory and its owner, if that is another one than this process.
fn owned(directory: &Path) -> Option<(PathBuf, u32)> {
    let owner = fs::metadata(directory).ok()?.uid();
    (owner != nix::unistd::geteuid().as_raw()).then(|| (directory.to_owned(), owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(root: &Path) -> Places {
        fs::write(root.join("source"), "plugin").unwrap();
        Places {
            subnet_file: root.join("run/flannel/subnet.env"),
            cni_conf_dir: root.join("net.d"),
            cni_bin_dir: root.join("bin"),
            plugin_source: Some(root.join("source")),
        }
    }

    fn subnet() -> SubnetEnv {
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
            .parse()
            .unwrap()
    }

    #[test]
    fn writes_once_and_removes_all() {
        let root = tempfile::tempdir().unwrap();
        let places = places(root.path());
        let conflist = Conflist::default();
        assert_eq!(
            places.publish(&subnet(), &conflist).unwrap(),
            [places.subnet_file.clone(), places.plugin(), places.conflist()],
            "the conflist comes last"
        );
        assert!(places.publish(&subnet(), &conflist).unwrap().is_empty(), "what is right is not written again");
        places.withdraw().unwrap();
        for path in [&places.subnet_file, &places.plugin(), &places.conflist()] {
            assert!(!path.exists(), "{}", path.display());
        }
        places.withdraw().unwrap();
    }

    #[test]
    fn damage_to_content_or_mode_is_mended() {
        let root = tempfile::tempdir().unwrap();
        let places = places(root.path());
        let conflist = Conflist::default();
        places.publish(&subnet(), &conflist).unwrap();
        fs::write(places.conflist(), "").unwrap();
        fs::set_permissions(places.plugin(), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(places.publish(&subnet(), &conflist).unwrap(), [places.plugin(), places.conflist()]);
        assert!(places.publish(&subnet(), &conflist).unwrap().is_empty());
    }

    #[test]
    fn a_directory_of_another_account_is_named_with_its_owner() {
        let root = tempfile::tempdir().unwrap();
        let places = places(root.path());
        let theirs = root.path().join("bin");
        fs::create_dir(&theirs).unwrap();
        // Who is not root cannot give a directory away.
        let Ok(()) = std::os::unix::fs::chown(&theirs, Some(997), None) else { return };
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        let text = io_error("write", &places.plugin())(refused).to_string();
        assert!(
            text.contains("belongs to uid 997") && text.ends_with(&format!("chown root {}", theirs.display())),
            "{text}"
        );
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(matches!(io_error("write", &places.conflist())(refused), PublishError::Io { .. }));
    }

    #[test]
    fn a_foreign_file_of_our_name_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let places = places(root.path());
        fs::create_dir_all(&places.cni_conf_dir).unwrap();
        fs::write(places.conflist(), r#"{"name":"x","plugins":[{"type":"bridge"}]}"#).unwrap();
        let error = places.publish(&subnet(), &Conflist::default()).unwrap_err().to_string();
        assert!(error.contains("10-weft.conflist") && error.contains("move it away"), "{error}");
        places.withdraw().unwrap();
        assert!(places.conflist().exists());
    }
}
