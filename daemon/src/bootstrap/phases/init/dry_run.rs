//! `weft init --dry-run`: all that would be written goes into a directory of its own, and is shown.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::Init;
use crate::bootstrap::api::Server;
use crate::bootstrap::converge::FileError;
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::yaml;

impl Init<'_> {
    /// An API server that shows what would be written to it, each object as a YAML document.
    pub(super) fn dry_server(&self) -> Server {
        let json = self.ground.tell.documents();
        Server::dry(
            &self.config.node.name,
            Arc::new(move |request: &str, object: &Value| json(&format!("# {request}"), &yaml::to_string(object))),
        )
    }

    /// Shows the files that were written: manifests and kubelet's with what is in them, secrets by their names.
    pub(super) fn show_files(&self) -> Result<(), PhaseError> {
        let (paths, document) = (self.ground.paths, self.ground.tell.documents());
        let mut files = Vec::new();
        walk(&paths.root, &mut files).map_err(|source| FileError { verb: "list", path: paths.root.clone(), source })?;
        files.retain(|path| !path.starts_with(&paths.state));
        for path in &files {
            let target = Path::new("/").join(path.strip_prefix(&paths.root).unwrap_or(path));
            let is_shown = path.starts_with(paths.manifests()) || path.starts_with(&paths.kubelet);
            let text = is_shown.then(|| fs::read_to_string(path)).transpose();
            let text = text.map_err(|source| FileError { verb: "read", path: path.clone(), source })?;
            match text.filter(|_| path.extension().is_some_and(|extension| extension == "yaml")) {
                Some(text) => document(&format!("# {}", target.display()), &text),
                None => self.ground.tell.step("dry-run", format!("would write {}", target.display())),
            }
        }
        self.ground.tell.step("dry-run", format!("all of it is in {}", paths.root.display()));
        Ok(())
    }
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        match entry.file_type()?.is_dir() {
            true => walk(&entry.path(), files)?,
            false => files.push(entry.path()),
        }
    }
    Ok(())
}
