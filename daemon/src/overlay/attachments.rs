//! Keeps the pods' host ends plugged into the bridge.
//!
//! The plugin makes them and records them; nobody calls it again when a bridge is deleted or a port taken off. The agent
//! never enters a pod's namespace: what it puts right is on the host's side.

use std::fs;
use std::io;
use std::path::Path;

use weft_cni::formats::attachment::{self, Attachment, State};
use weft_netlink::{BridgePort, Link, LinkChange, Request};

/// The attachments that the plugin has completed, as its records say. One that cannot be read is the plugin's to judge.
///
/// # Errors
/// If the directory is there and cannot be listed.
pub fn recorded(state_dir: &Path, network: &str) -> io::Result<Vec<Attachment>> {
    let entries = match fs::read_dir(attachment::directory(state_dir, network).join(attachment::RECORDS)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        // It may have been removed since it was listed.
        let Ok(bytes) = fs::read(entry?.path()) else { continue };
        found.extend(Attachment::decode(&bytes).ok().filter(|record| record.status.state == State::Committed));
    }
    Ok(found)
}

/// The requests that plug back in what is recorded as a port of the bridge and is none, or is down.
#[must_use]
pub fn replug(bridge_name: &str, bridge: u32, recorded: &[Attachment], links: &[Link]) -> Vec<Request> {
    let mut requests = Vec::new();
    for attachment in recorded.iter().filter(|attachment| attachment.bridge == bridge_name) {
        // By index: a name may be another link's by now.
        let is_it = |link: &&Link| link.index == attachment.status.host_index && link.name == attachment.host_interface;
        let Some(link) = links.iter().find(is_it) else { continue };
        if link.master == Some(bridge) && link.up {
            continue;
        }
        requests.push(LinkChange::new(link.index).master(bridge).up().request());
        // A port forgets its options with its bridge; this is what our conflist asks for.
        requests.push(BridgePort { link: link.index.into(), hairpin: Some(true), isolated: None }.set());
    }
    requests
}
