//! Which network configuration the runtime takes, and which files have to step aside for weft's.
//!
//! Runtimes take the first file by name that ends in `.conf`, `.conflist` or `.json`. So one that sorts before weft's would
//! go on being used; it is renamed, and found again by its new name on the way back.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use weft_cni::formats::conflist::{Conflist, FILE_NAME};

/// What the name of a file that stepped aside ends in.
pub const SAVED: &str = ".weft-saved";
/// What the names of files end in that runtimes read.
const READ: [&str; 3] = [".conf", ".conflist", ".json"];

/// A file of `net.d`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfFile {
    /// Its name, without what [`SAVED`] adds.
    pub name: String,
    /// Whether it stepped aside.
    pub saved: bool,
    /// Whether it calls weft's plugin.
    pub ours: bool,
    /// Whether it is the network that weft takes over: flannel's plugin, or the bridge plugin under weft's network's name.
    pub predecessor: bool,
}

#[derive(Deserialize)]
struct Text {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
struct Plugin {
    #[serde(default, rename = "type")]
    kind: String,
}

/// What to do with the files of a node that is weft's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepAside {
    /// Files to rename, by name.
    pub rename: Vec<String>,
    /// Files of others that the runtime takes before weft's.
    pub in_the_way: Vec<String>,
}

/// Says what a file is; `None` for one that runtimes do not read.
#[must_use]
pub fn classify(file_name: &str, bytes: &[u8], network: &str) -> Option<ConfFile> {
    let (name, saved) = file_name.strip_suffix(SAVED).map_or((file_name, false), |name| (name, true));
    if name.starts_with('.') || !READ.iter().any(|end| name.ends_with(end)) {
        return None;
    }
    let ours = Conflist::is_ours(bytes);
    let predecessor = serde_json::from_slice::<Text>(bytes).is_ok_and(|text| {
        let listed = text.plugins.iter().map(|plugin| plugin.kind.as_str());
        let mut kinds = listed.chain([text.kind.as_str()]);
        kinds.any(|kind| kind == "flannel" || (kind == "bridge" && text.name == network))
    });
    Some(ConfFile { name: name.to_owned(), saved, ours, predecessor: predecessor && !ours })
}

/// Which files have to step aside.
#[must_use]
pub fn step_aside(files: &[ConfFile]) -> StepAside {
    let mut plan = StepAside::default();
    for file in files.iter().filter(|file| !file.saved && !file.ours) {
        if file.predecessor {
            plan.rename.push(file.name.clone());
        } else if file.name.as_str() < FILE_NAME {
            plan.in_the_way.push(file.name.clone());
        }
    }
    plan
}

/// The files that stepped aside.
pub fn saved(files: &[ConfFile]) -> impl Iterator<Item = &str> {
    files.iter().filter(|file| file.saved).map(|file| file.name.as_str())
}

/// Reads the files of a directory, in the order of their names; none if there is no directory.
///
/// # Errors
/// If the directory cannot be listed. A file that cannot be read is nobody's.
pub fn list(directory: &Path, network: &str) -> io::Result<Vec<ConfFile>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let bytes = fs::read(entry.path()).unwrap_or_default();
        files.extend(entry.file_name().to_str().and_then(|name| classify(name, &bytes, network)));
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// Renames a file so that runtimes pass it over. What stepped aside before is replaced: the file that is read is newer.
///
/// # Errors
/// What the file system says.
pub fn save(directory: &Path, name: &str) -> io::Result<()> {
    fs::rename(directory.join(name), directory.join(format!("{name}{SAVED}")))
}

/// Puts a file back, unless another one has come in its place; says whether it did. Then the one aside is removed.
///
/// # Errors
/// What the file system says.
pub fn restore(directory: &Path, name: &str) -> io::Result<bool> {
    let (aside, place) = (directory.join(format!("{name}{SAVED}")), directory.join(name));
    match fs::hard_link(&aside, &place) {
        Ok(()) => fs::remove_file(&aside).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_file(&aside).map(|()| false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLANNEL: &str = r#"{"name":"cbr0","plugins":[{"type":"flannel"},{"type":"portmap"}]}"#;
    const OTHER: &str = r#"{"name":"x","plugins":[{"type":"macvlan"}]}"#;
    const BRIDGE: &str = r#"{"name":"cbr0","type":"bridge"}"#;

    fn plan(files: &[(&str, &str)]) -> StepAside {
        let files: Vec<_> = files.iter().filter_map(|(name, text)| classify(name, text.as_bytes(), "cbr0")).collect();
        step_aside(&files)
    }

    #[test]
    fn predecessors_step_aside_and_others_are_named() {
        let ours = Conflist::default().render();
        let found = plan(&[
            ("10-flannel.conflist", FLANNEL),
            ("05-bridge.conf", BRIDGE),
            ("00-multus.conf", OTHER),
            ("99-late.conf", OTHER),
            ("10-weft.conflist", &ours),
            ("README", OTHER),
            ("10-flannel.conflist.weft-saved", FLANNEL),
        ]);
        assert_eq!(found.rename, ["10-flannel.conflist", "05-bridge.conf"]);
        assert_eq!(found.in_the_way, ["00-multus.conf"]);
        // The bridge plugin under another name is another network.
        assert_eq!(plan(&[("05-bridge.conf", r#"{"name":"podman","type":"bridge"}"#)]).rename, Vec::<String>::new());
    }

    #[test]
    fn a_file_goes_aside_and_comes_back_and_never_replaces_a_newer_one() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("10-flannel.conflist");
        fs::write(&place, FLANNEL).unwrap();
        save(root.path(), "10-flannel.conflist").unwrap();
        let files = list(root.path(), "cbr0").unwrap();
        assert!(!place.exists() && saved(&files).eq(["10-flannel.conflist"]));
        assert!(restore(root.path(), "10-flannel.conflist").unwrap());
        assert_eq!(fs::read_to_string(&place).unwrap(), FLANNEL);

        save(root.path(), "10-flannel.conflist").unwrap();
        fs::write(&place, "newer").unwrap();
        assert!(!restore(root.path(), "10-flannel.conflist").unwrap());
        assert_eq!(fs::read_to_string(&place).unwrap(), "newer");
        assert_eq!(list(&root.path().join("absent"), "cbr0").unwrap(), []);
    }
}
