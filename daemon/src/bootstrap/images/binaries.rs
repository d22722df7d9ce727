//! Programs that a node needs and its packages may not have brought: kubelet, kubectl, and the plugins that containerd calls.
//!
//! Only what is missing is put there; what somebody else has installed is never replaced.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

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

/// Bytes that are compared at a time.
const CHUNK: usize = 1 << 18;

/// What has become of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Where it is.
    pub path: PathBuf,
    /// What was done.
    pub what: Outcome,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Copies a program to where nothing is; whole or not at all, and never over another file.
fn install(from: &Path, to: &Path) -> Result<Installed, ImageError> {
    let done = |what| Ok(Installed { path: to.to_owned(), what });
    match is_same(from, to).map_err(ImageError::read_file(to))? {
        Some(true) => return done(Outcome::Kept),
        Some(false) => return done(Outcome::Foreign),
        None => {}
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
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return done(Outcome::Foreign),
        Err(error) => return Err(ImageError::write(to)(error)),
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(ImageError::write(folder))?;
    done(Outcome::Made)
}

/// Whether `to` holds the same as `from`; `None` if nothing is there. What is no file (a link that leads nowhere) is another.
fn is_same(from: &Path, to: &Path) -> io::Result<Option<bool>> {
    match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let (Ok(mut one), Ok(mut other)) = (File::open(from), File::open(to)) else { return Ok(Some(false)) };
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(Some(false));
    }
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let length = one.read(&mut left)?;
        if length == 0 {
            return Ok(Some(true));
        }
        if other.read_exact(&mut right[..length]).is_err() || left[..length] != right[..length] {
            return Ok(Some(false));
        }
    }
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
    }

    #[test]
    fn the_plugin_comes_under_two_names_and_another_of_the_same_length_is_told_apart() {
        let (from, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let plugin = from.path().join("weft-cni");
        fs::write(&plugin, "plugin").unwrap();
        let own = Own { weft: from.path().join("weft"), plugin };
        assert_eq!(install_plugins(&own, root.path()).unwrap().len(), 2);
        fs::write(root.path().join(PLUGIN_DIR).join("loopback"), "nigulp").unwrap();
        let again = install_plugins(&own, root.path()).unwrap();
        assert_eq!(again.iter().map(|one| one.what).collect::<Vec<_>>(), [Outcome::Kept, Outcome::Foreign]);
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
