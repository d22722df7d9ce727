//! A node that loses its power and comes back.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};

use super::{Lab, underlay};
use crate::netns::Netns;

/// Of a node's folder what lies in /run, and so is gone with the power.
const IN_MEMORY: [&str; 3] = ["run", "cni", "subnet.env"];

impl Lab {
    /// Ends everything on a node as a loss of power does, its pods too, and boots it: what it has is its disk and its
    /// uplink. Its agent is not started.
    ///
    /// # Errors
    /// When there is no such node, or `ip` refuses.
    pub fn reboot(&mut self, name: &str) -> Result<()> {
        let node = self.node_mut(name)?;
        let namespaces = node.namespaces();
        node.agent = None;
        node.pods.clear();
        let node = node.clone();
        // All processes in there are killed.
        Netns::delete_all(&namespaces)?;
        underlay::detach(&self.state.underlay(), &node)?;
        for file in IN_MEMORY.map(|file| node.path(file)) {
            let removed = if file.is_dir() { fs::remove_dir_all(&file) } else { fs::remove_file(&file) };
            match removed {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", file.display()));
                }
                _ => {}
            }
        }
        self.state.save()?;
        underlay::attach(&self.state.underlay(), &node, self.state.spec.nodes)
    }
}
