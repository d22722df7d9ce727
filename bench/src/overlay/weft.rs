//! weft's agent.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use weft_tests::etcd::Etcd;
use weft_tests::netns::Netns;
use weft_tests::process::ProcessId;

use super::contenders::Contender;
use crate::agent::{HEALTH, Place, is_ready};
use crate::metric::{sample, scrape};
use crate::site::UPLINK;

/// The agent of a node.
pub(crate) struct Weft {
    node: Netns,
    folder: PathBuf,
    process: Option<ProcessId>,
}

impl Weft {
    /// On a node, with its files in a folder that is there.
    pub(crate) fn new(node: &Netns, folder: &Path) -> Self {
        Self { node: node.clone(), folder: folder.to_owned(), process: None }
    }
}

impl Contender for Weft {
    fn name(&self) -> &'static str {
        "weft"
    }

    fn start(&mut self, etcd: &Etcd, under: &[OsString]) -> Result<()> {
        let place = Place { node: &self.node, name: "bench-node", uplink: UPLINK, folder: &self.folder, etcd };
        self.process = Some(place.start_under(under, &["--proxy-mode", "none"])?);
        Ok(())
    }

    fn process(&self) -> Option<ProcessId> {
        self.process
    }

    fn is_ready(&self) -> bool {
        is_ready(&self.node)
    }

    fn own_time(&self) -> Result<Option<Duration>> {
        let seconds = sample(&scrape(&self.node, HEALTH)?, "weft_pass_duration_seconds_sum");
        Ok(Some(Duration::from_secs_f64(seconds)))
    }
}
