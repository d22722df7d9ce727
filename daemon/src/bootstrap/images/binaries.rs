//! Programs that a node needs and its packages may not have brought: kubelet, kubectl, and the plugins that containerd calls.
//!
//! Only what is missing is put there; what somebody else has installed is never replaced. What weft has put there it can take
//! away again, as long as it is still the same.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weft_image::oci::Digest;

use super::error::ImageError;
use super::pack::Own;

/// Programs of a node that come from the folder of Kubernetes' programs.
const PROGRAMS: [&str; 2] = ["kubelet", "kubectl"];
/// Where those go.
pub const PROGRAM_DIR: &str = "usr/bin";
/// Where containerd looks for network plugins.
pub const PLUGIN_DIR: &str = "opt/cni/bin";
/// Names that weft's plugin is called by: as itself, and for each pod's `lo`, which containerd leaves to a plugin.
const PLUGINS: [&str; 2] = ["weft-cni", "loopback"];

/// What has become of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Installed {
    /// Where it is.
    pub path: PathBuf,
    /// What was done.
    pub what: Outcome,
    /// Its digest: only a file that still has it is ever removed.
    pub digest: String,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was missing and has been put there.
    Made,
    /// The same was there.
    Kept,
    /// Another one was there, and stays.
    Foreign,
}

/// Puts kubelet and kubectl of `folder` into `usr/bin` below `root`, if nothing is there. A program that `folder` does not have is
/// passed over.
///
/// # Errors
/// When a file cannot be read or written; those before it are in place.
pub fn install_programs(folder: &Path, root: &Path) -> Result<Vec<Installed>, ImageError> {
    let there = PROGRAMS.map(|name| (folder.join(name), root.join(PROGRAM_DIR).join(name)));
    there.into_iter().filter(|(from, _)| from.is_file()).map(|(from, to)| install(&from, &to)).collect()
}

/// Puts weft's plugin into `opt/cni/bin` below `root` under its two names, so that containerd needs no other package for the
/// first pod of a node. The agent keeps its own plugin up to date later.
///
/// # Errors
/// As [`install_programs`].
pub fn install_plugins(own: &Own, root: &Path) -> Result<Vec<Installed>, ImageError> {
    // Two files, not a link: pods of another network still need `lo` when weft has gone.
    PLUGINS.iter().map(|name| install(&own.plugin, &root.join(PLUGIN_DIR).join(name))).collect()
}

/// Removes what was put there, unless it has changed since; says whether it is gone.
///
/// # Errors
/// When the file can be neither read nor removed.
pub fn remove(installed: &Installed) -> Result<bool, ImageError> {
    let path = &installed.path;
    if installed.what != Outcome::Made {
        return Ok(false);
    }
    match digest(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(ImageError::read_file(path)(error)),
        Ok(digest) if digest != installed.digest => Ok(false),
        Ok(_) => fs::remove_file(path).map(|()| true).map_err(|source| ImageError::Io {
            verb: "remove",
            what: path.display().to_string(),
            source,
        }),
    }
}

fn digest(path: &Path) -> io::Result<String> {
    Ok(Digest::of_reader(File::open(path)?)?.0.to_string())
}

/// Copies a program to where nothing is; whole or not at all, and never over another file.
fn install(from: &Path, to: &Path) -> Result<Installed, ImageError> {
    let wanted = digest(from).map_err(ImageError::read_file(from))?;
    let done = |what, digest| Ok(Installed { path: to.to_owned(), what, digest });
    if let Some(found) = found(to)? {
        return if found == wanted { done(Outcome::Kept, found) } else { done(Outcome::Foreign, found) };
    }
    let folder = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(ImageError::write(folder))?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let copied = copy(from, &temporary).map_err(ImageError::write(&temporary));
    // A link, unlike a rename, does not replace what has come meanwhile.
    let linked = copied.map(|()| fs::hard_link(&temporary, to));
    let _ = fs::remove_file(&temporary);
    match linked? {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return done(Outcome::Foreign, found(to)?.unwrap_or_default());
        }
        Err(error) => return Err(ImageError::write(to)(error)),
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(ImageError::write(folder))?;
    done(Outcome::Made, wanted)
}

/// The digest of what is at a path; empty for what is no file (a link that leads nowhere).
fn found(path: &Path) -> Result<Option<String>, ImageError> {
    if let Err(error) = fs::symlink_metadata(path) {
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        return if is_missing { Ok(None) } else { Err(ImageError::read_file(path)(error)) };
    }
    if path.is_file() { digest(path).map(Some).map_err(ImageError::read_file(path)) } else { Ok(Some(String::new())) }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    // What a killed process of the same number left.
    let _ = fs::remove_file(to);
    let mut file = File::options().write(true).create_new(true).open(to)?;
    io::copy(&mut File::open(from)?, &mut file)?;
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_come_and_foreign_ones_stay() {
        let (from, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("kubelet"), "ours").unwrap();
        fs::write(from.path().join("kubectl"), "ours, too").unwrap();
        let bin = root.path().join(PROGRAM_DIR);
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("kubectl"), "theirs").unwrap();
        let outcomes = |installed: &[Installed]| installed.iter().map(|one| one.what).collect::<Vec<_>>();
        let first = install_programs(from.path(), root.path()).unwrap();
        assert_eq!(outcomes(&first), [Outcome::Made, Outcome::Foreign]);
        assert_eq!(fs::read_to_string(bin.join("kubectl")).unwrap(), "theirs");
        assert_eq!(fs::metadata(bin.join("kubelet")).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 2);
        let second = install_programs(from.path(), root.path()).unwrap();
        assert_eq!(outcomes(&second), [Outcome::Kept, Outcome::Foreign]);

        assert!(remove(&first[0]).unwrap() && remove(&first[0]).unwrap());
        assert!(!remove(&first[1]).unwrap());
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 1);
    }

    #[test]
    fn what_has_changed_since_is_not_removed() {
        let (from, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let plugin = from.path().join("weft-cni");
        fs::write(&plugin, "plugin").unwrap();
        let own = Own { weft: from.path().join("weft"), plugin };
        let installed = install_plugins(&own, root.path()).unwrap();
        assert_eq!(installed.len(), 2);
        let loopback = root.path().join(PLUGIN_DIR).join("loopback");
        fs::write(&loopback, "another").unwrap();
        assert!(!remove(&installed[1]).unwrap() && loopback.exists());
        assert!(remove(&installed[0]).unwrap());
    }

    #[test]
    fn a_link_that_leads_nowhere_is_not_written_through() {
        let (from, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("kubelet"), "ours").unwrap();
        let bin = root.path().join(PROGRAM_DIR);
        fs::create_dir_all(&bin).unwrap();
        std::os::unix::fs::symlink(root.path().join("gone"), bin.join("kubelet")).unwrap();
        assert_eq!(install_programs(from.path(), root.path()).unwrap()[0].what, Outcome::Foreign);
        assert!(!root.path().join("gone").exists());
    }
}
