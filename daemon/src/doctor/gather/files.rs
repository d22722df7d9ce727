//! Files and directories of the node.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use weft_cni::formats::conflist::{FILE_NAME, PLUGIN_TYPE};

use crate::config::Settings;
use crate::doctor::Told;
use crate::doctor::cni::{CniFacts, Plugin, version_in};
use crate::doctor::disk::{Directory, Room, Writable};
use crate::serve::document::NodeStatus;

/// What runtimes take for a configuration (libcni).
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// What a runtime finds.
pub(super) fn cni(settings: &Settings, status: Option<&NodeStatus>) -> CniFacts {
    let plugin = settings.cni_bin_dir.join(PLUGIN_TYPE);
    CniFacts {
        conf_dir: settings.cni_conf_dir.display().to_string(),
        files: configurations(&settings.cni_conf_dir),
        ours: FILE_NAME.to_owned(),
        ready: status.map(|status| status.ready),
        plugin: match fs::read(&plugin) {
            Ok(binary) => Ok(Plugin::Version(version_in(&binary))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Plugin::Absent),
            Err(error) => Err(format!("{}: {error}", plugin.display())),
        },
        plugin_path: plugin.display().to_string(),
        version: status.map(|status| status.version.clone()),
    }
}

/// In the order of their names, as runtimes sort them.
fn configurations(folder: &Path) -> Told<Vec<String>> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.and_then(Iterator::collect::<io::Result<Vec<_>>>),
    };
    let listed = listed.map_err(|error| format!("{}: {error}", folder.display()))?;
    let is_configuration = |path: &PathBuf| {
        path.extension().and_then(|extension| extension.to_str()).is_some_and(|text| EXTENSIONS.contains(&text))
    };
    let paths = listed.into_iter().map(|entry| entry.path()).filter(is_configuration);
    let mut names: Vec<String> =
        paths.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    names.sort();
    Ok(names)
}

/// The directories that agent and plugin write to.
pub(super) fn directories(settings: &Settings, root: bool) -> Vec<Directory> {
    let plugin = settings.cni_bin_source.as_ref().map(|_| settings.cni_bin_dir.as_path());
    let folders = [
        ("run-dir", Some(settings.run_dir.as_path())),
        ("cni-state-dir", Some(settings.cni_state_dir.as_path())),
        ("subnet-file", settings.subnet_file.parent()),
        ("state-dir", Some(settings.state_dir.as_path())),
        ("cni-conf-dir", Some(settings.cni_conf_dir.as_path())),
        ("cni-bin-dir", plugin),
    ];
    folders.into_iter().filter_map(|(key, path)| Some(directory(key, path?, root))).collect()
}

/// A directory that is not there yet is made in the nearest one that is.
/// The agent is root's: what another user is refused says nothing.
fn directory(key: &'static str, path: &Path, root: bool) -> Directory {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    // The kernel says EROFS of a file system that takes no writes.
    let writable = match access(there, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Ok(Writable::Yes),
        Err(Errno::EACCES | Errno::EPERM) if !root => {
            Err("this user may not write there, which says nothing of the agent".to_owned())
        }
        Err(errno) => Ok(Writable::No(errno.desc().to_owned())),
    };
    let room = statvfs(there).map_err(|errno| errno.desc().to_owned()).map(|found| Room {
        bytes: found.blocks_available().saturating_mul(found.fragment_size()),
        files: (found.files() > 0).then(|| found.files_available()),
    });
    Directory { key, path: path.display().to_string(), writable, room }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_come_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["10-weft.conflist", "05-a.conf", "README", "99-z.json", "10-weft.conflist.saved"] {
            fs::write(folder.path().join(name), "{}").unwrap();
        }
        assert_eq!(configurations(folder.path()).unwrap(), ["05-a.conf", "10-weft.conflist", "99-z.json"]);
        assert!(configurations(&folder.path().join("absent")).unwrap().is_empty());
    }

    #[test]
    fn a_directory_that_is_not_there_is_judged_by_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        let found = directory("run-dir", &folder.path().join("a/b"), true);
        assert!(found.writable == Ok(Writable::Yes) && found.room.unwrap().bytes > 0);
    }
}
