//! What a lab has made, on disk, and the lock on it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Node, Spec};
use crate::etcd::Etcd;
use crate::netns::Netns;

/// The folder of all labs: `WEFT_LAB_ROOT`, else `/run/weft-lab`.
#[must_use]
pub fn root() -> PathBuf {
    std::env::var_os("WEFT_LAB_ROOT").map_or_else(|| PathBuf::from("/run/weft-lab"), PathBuf::from)
}

/// What a lab has made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) spec: Spec,
    pub(super) nodes: Vec<Node>,
    pub(super) etcd: Option<Etcd>,
}

impl State {
    pub(super) fn new(spec: Spec) -> Self {
        Self { spec, nodes: Vec::new(), etcd: None }
    }

    /// The state of the lab of that name, if there is one.
    pub(super) fn load(name: &str) -> Result<Option<Self>> {
        let path = root().join(name).join("state.json");
        let hint = || format!("cannot read {}; `weft-lab down --name {name}` clears it away", path.display());
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(hint)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(hint),
        }
    }

    /// Writes the state by rename, so that a reader never sees half of it.
    pub(super) fn save(&self) -> Result<()> {
        let path = self.folder().join("state.json");
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn folder(&self) -> PathBuf {
        root().join(&self.spec.name)
    }

    pub(super) fn underlay(&self) -> Netns {
        Netns::named(format!("{}-underlay", self.spec.name))
    }

    /// The number after the highest in use: that of a removed node is not given again while a later one lives.
    pub(super) fn next_number(&self) -> Result<u8> {
        let highest = self.nodes.iter().map(|node| node.number).max().unwrap_or(0);
        let next = highest.checked_add(1).filter(|number| *number <= 240);
        next.context("the underlay has no address for a further node")
    }
}

/// The right to change a lab, for as long as it lives.
#[derive(Debug)]
pub(super) struct Lock {
    folder: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lab's lock, making its folder if need be.
    pub(super) fn take(name: &str) -> Result<Self> {
        let folder = root().join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {} (are you root?)", folder.display()))?;
        let path = folder.join("lock");
        let file = File::create(&path).with_context(|| format!("cannot open {} (are you root?)", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { folder, _file: file }),
            Err(fs::TryLockError::WouldBlock) => bail!("another process is changing lab `{name}` right now; try again"),
            Err(fs::TryLockError::Error(error)) => Err(error).context("cannot lock the lab"),
        }
    }

    /// Removes the lab's folder and gives up the lock that lies in it.
    pub(super) fn remove_folder(self) -> Result<()> {
        let folder: &Path = &self.folder;
        super::remove_tree(folder)
    }
}
