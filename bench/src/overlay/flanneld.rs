//! flanneld, with etcd as its store.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use weft_tests::etcd::Etcd;
use weft_tests::netns::Netns;
use weft_tests::process::ProcessId;

use super::contenders::Contender;
use crate::flannel;
use crate::site::UPLINK;

/// The daemon of a node.
pub(crate) struct Flanneld {
    binary: PathBuf,
    node: Netns,
    folder: PathBuf,
    process: Option<ProcessId>,
}

impl Flanneld {
    /// On a node, with its files in a folder that is there.
    pub(crate) fn new(binary: PathBuf, node: &Netns, folder: &Path) -> Self {
        Self { binary, node: node.clone(), folder: folder.to_owned(), process: None }
    }
}

impl Contender for Flanneld {
    fn name(&self) -> &'static str {
        "flanneld"
    }

    fn start(&mut self, etcd: &Etcd, under: &[OsString]) -> Result<()> {
        // Written before peers are, so it says nothing of them; but of this start it has to be.
        if let Err(error) = fs::remove_file(self.folder.join(flannel::SUBNET_FILE))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error.into());
        }
        self.process = Some(flannel::start(&self.binary, under, &self.node, UPLINK, &self.folder, etcd)?);
        Ok(())
    }

    fn process(&self) -> Option<ProcessId> {
        self.process
    }

    fn is_ready(&self) -> bool {
        self.folder.join(flannel::SUBNET_FILE).exists()
    }

    fn own_time(&self) -> Result<Option<Duration>> {
        Ok(None)
    }
}
