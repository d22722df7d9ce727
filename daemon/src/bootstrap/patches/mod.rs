//! `--patches`: files of the user's that change what weft generates, kubeadm's way (kubeadm `util/patches`).
//!
//! `target[suffix][+type].{yaml,json}`, applied in the order of their names.

mod strategic;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use json_patch::PatchOperation;
use serde_json::Value;

/// What can be patched.
const TARGETS: [&str; 6] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubeletconfiguration",
    "corednsdeployment",
];

/// How a file changes its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Lists of things with a key are merged by it.
    Strategic,
    /// RFC 7386.
    Merge,
    /// RFC 6902.
    Json,
}

/// A document of a patch file.
#[derive(Debug, Clone, PartialEq)]
struct Patch {
    target: &'static str,
    kind: Kind,
    file: PathBuf,
    /// Which document of the file, from 1.
    document: usize,
    content: Value,
}

/// All patches of a directory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patches {
    patches: Vec<Patch>,
    notices: Vec<String>,
}

/// A patch cannot be read, or does not fit.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The directory or a file of it cannot be read.
    #[error("cannot read {}: {source}; --patches wants a directory with files such as kube-apiserver+strategic.yaml", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The part behind `+` is none of the three.
    #[error("{}: the patch type is {kind:?}; expected strategic, merge or json", .file.display())]
    Kind {
        /// The file.
        file: PathBuf,
        /// What its name says.
        kind: String,
    },
    /// It is neither YAML nor JSON.
    #[error("{}: {reason}", .file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Line, column and what is wrong.
        reason: String,
    },
    /// It does not fit what it is for.
    #[error("{}, document {document}: does not fit {target}: {reason}", .file.display())]
    Apply {
        /// The file.
        file: PathBuf,
        /// Which document of it, from 1.
        document: usize,
        /// What it is for.
        target: &'static str,
        /// Why not.
        reason: String,
    },
}

/// What a file's name says.
enum Named {
    Patch(&'static str, Kind),
    Ignored(&'static str),
    UnknownKind(String),
}

impl Patches {
    /// Reads a directory. Subdirectories are left alone; files that are not patches are named in [`Patches::notices`].
    ///
    /// # Errors
    /// [`PatchError`] for an unknown type of patch, and for what cannot be read.
    pub fn load(directory: &Path) -> Result<Self, PatchError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| PatchError::Io { path, source }
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(directory).map_err(io(directory))? {
            let path = entry.map_err(io(directory))?.path();
            if !path.is_dir() {
                files.push(path);
            }
        }
        files.sort();
        let mut this = Self::default();
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match named(&name) {
                Named::Patch(target, kind) => {
                    let text = fs::read_to_string(&file).map_err(io(&file))?;
                    this.add(target, kind, &file, &text)?;
                }
                Named::Ignored(why) => this.notices.push(format!("{} is ignored: {why}", file.display())),
                Named::UnknownKind(kind) => return Err(PatchError::Kind { file, kind }),
            }
        }
        Ok(this)
    }

    fn add(&mut self, target: &'static str, kind: Kind, file: &Path, text: &str) -> Result<(), PatchError> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)
            .map_err(|error| PatchError::Syntax { file: file.to_owned(), reason: error.to_string() })?;
        let wanted = documents.into_iter().enumerate().filter(|(_, content)| !content.is_null());
        let before = self.patches.len();
        self.patches.extend(wanted.map(|(at, content)| Patch {
            target,
            kind,
            file: file.to_owned(),
            document: at + 1,
            content,
        }));
        if self.patches.len() == before {
            self.notices.push(format!("{} is ignored: it is empty", file.display()));
        }
        Ok(())
    }

    /// What the user should know: files that were left out, and why.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Changes `value` by all patches for `target`, and says by how many.
    ///
    /// # Errors
    /// [`PatchError::Apply`] for the first that does not fit; `value` is then as it was.
    pub fn apply(&self, target: &str, value: &mut Value) -> Result<usize, PatchError> {
        let mut patched = value.clone();
        let mut count = 0;
        for patch in self.patches.iter().filter(|patch| patch.target == target) {
            patch.apply(&mut patched).map_err(|reason| PatchError::Apply {
                file: patch.file.clone(),
                document: patch.document,
                target: patch.target,
                reason,
            })?;
            count += 1;
        }
        *value = patched;
        Ok(count)
    }
}

impl Patch {
    fn apply(&self, value: &mut Value) -> Result<(), String> {
        match self.kind {
            Kind::Json => {
                let operations: Vec<PatchOperation> = serde_json::from_value(self.content.clone())
                    .map_err(|error| format!("expected a list of operations: {error}"))?;
                json_patch::patch(value, &operations).map_err(|error| error.to_string())
            }
            _ if !self.content.is_object() => Err("expected a map with the fields to change".into()),
            Kind::Merge => {
                json_patch::merge(value, &self.content);
                Ok(())
            }
            Kind::Strategic => strategic::merge(value, &self.content),
        }
    }
}

fn named(name: &str) -> Named {
    let Some(stem) = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".json")) else {
        return Named::Ignored("its name ends neither in .yaml nor in .json");
    };
    let Some(target) = TARGETS.into_iter().find(|target| stem.starts_with(target)) else {
        return Named::Ignored("its name begins with nothing that can be patched");
    };
    // What stands between target and type only orders the files.
    match stem.rsplit_once('+').map(|(_, kind)| kind) {
        None | Some("strategic") => Named::Patch(target, Kind::Strategic),
        Some("merge") => Named::Patch(target, Kind::Merge),
        Some("json") => Named::Patch(target, Kind::Json),
        Some(other) => Named::UnknownKind(other.to_owned()),
    }
}

#[cfg(test)]
mod tests;
