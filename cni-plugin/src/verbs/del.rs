//! DEL: detach a container.
//!
//! It must succeed whatever is left of the attachment, as runtimes repeat it until it does. What has to go follows from the
//! record; without a record, the names of the interfaces on the host follow from the attachment's identity. The address is
//! freed last: before, a new owner could meet the old one on the bridge.

use crate::formats::attachment::Identity;
use crate::ipam::record::Record;
use crate::ipam::store::Store;
use crate::protocol::config::Base;
use crate::protocol::env::Call;
use crate::protocol::json::Json;
use crate::protocol::{CniError, Result};
use crate::wiring::teardown::delete_all_soon;

use super::foreign;
use super::host::{Host, store_of};

/// How long an ADD of the same attachment may still be at it.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(5);

/// Detaches the container.
///
/// # Errors
/// Only if the kernel or the file system refuses; the record is then kept, and the next DEL goes on.
pub fn del(base: &Base, json: &Json, call: &Call) -> Result<()> {
    let identity = base.identity(&call.container, &call.interface);
    let store = store_of(base);
    if !detach(&store, &identity).map_err(reword)? {
        foreign::detach(base, &store, json, call).map_err(reword)?;
    }
    Ok(())
}

/// Detaches what we have attached. Returns whether there was a record of it.
fn detach(store: &Store, identity: &Identity) -> Result<bool> {
    let record = match store.find(identity)? {
        Some(mut record) => {
            record.lock(DEADLINE)?;
            Some(record).filter(|record| !record.is_forgotten())
        }
        None => None,
    };
    let Host { probe, mut socket, mut ports } = Host::open()?;
    let released = match record.as_ref().and_then(|record| record.content.as_ref().ok()) {
        Some(attachment) => ports.release(&[attachment]).and(ports.forget_own_flows(attachment)),
        None => ports.release_of(&identity.host_interface()),
    };
    let names = record.as_ref().map_or_else(|| identity.links(), Record::links);
    let mut left = Vec::new();
    for name in names {
        if probe.index(&name)?.is_some() {
            left.push(name);
        }
    }
    if left.is_empty() {
        ports.close_soon();
    } else {
        delete_all_soon(&left, &mut socket, &probe, ports.opened())?;
    }
    // Whose ports still lead to it keeps its address.
    released?;
    match &record {
        Some(record) => store.forget(&[record])?,
        None => return Ok(false),
    }
    Ok(true)
}

/// containerd takes an error with these words for success and forgets the container, with all that it still holds.
fn reword(error: CniError) -> CniError {
    let message = error.message.replace("not found", "absent").replace("o such file or directory", "o such path");
    CniError { message, ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t022_errors_do_not_say_what_containerd_takes_for_success() {
        let error = reword(CniError::internal("x not found: No such file or directory, no such file or directory"));
        assert!(!error.message.contains("not found") && !error.message.contains("o such file or directory"));
    }
}
