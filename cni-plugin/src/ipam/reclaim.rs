//! Finding what the dead have left.
//!
//! No runtime cleans up after a plugin that was killed: containerd never calls GC and forgets an ADD that failed. So an
//! attachment must show by itself whether it lives: a committed one has its interface on the host, with the index that was
//! recorded; a pending one has its maker, who holds the lock on the record.

use std::time::Duration;

use weft_netlink::LinkProbe;

use super::store::{Record, Store, StoreError};
use crate::formats::attachment::{Attachment, State};

/// Whether an attachment lives. A dead one is locked for this process.
pub fn is_dead(record: &mut Record, probe: &LinkProbe) -> bool {
    let committed = |attachment: &Attachment| attachment.status.state == State::Committed;
    match &record.content {
        // Somebody else's file, or one that a later version wrote: not ours to judge.
        Err(_) => false,
        Ok(attachment) if committed(attachment) && has_link(attachment, probe) => false,
        Ok(_) => {
            // The lock is free if its maker is gone; and what it did last may have been to commit.
            record.lock(Duration::ZERO).is_ok()
                && !record.is_forgotten()
                && !record.content.as_ref().is_ok_and(|now| committed(now) && has_link(now, probe))
        }
    }
}

/// Whether the interface on the host is there with the index that was recorded. Where it cannot be seen it is taken to be.
pub fn has_link(attachment: &Attachment, probe: &LinkProbe) -> bool {
    probe.index(&attachment.host_interface).map_or(true, |index| index == Some(attachment.status.host_index))
}

/// Whether an attachment's namespace is no longer where the runtime put it. The kernel then removes its interface within
/// some 20 ms, unless a process still holds the namespace.
fn is_dying(attachment: &Attachment) -> bool {
    use std::os::unix::fs::MetadataExt;
    let sandbox = &attachment.sandbox;
    std::fs::metadata(&sandbox.path).map_or(true, |found| (found.dev(), found.ino()) != (sandbox.device, sandbox.inode))
}

/// What a sweep has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Attachments that were dead and hold nothing any more.
    pub freed: usize,
    /// Attachments that still have their interface, and will soon have none.
    pub dying: usize,
}

/// Frees what dead attachments hold; `undo` removes what they left in the kernel.
///
/// # Errors
/// [`StoreError`] if the records cannot be listed or removed.
pub fn sweep(
    store: &Store,
    probe: &LinkProbe,
    mut undo: impl FnMut(&Attachment) -> Result<(), String>,
) -> Result<Swept, StoreError> {
    let (mut dead, mut dying) = (Vec::new(), 0);
    for mut record in store.records()? {
        if is_dead(&mut record, probe) {
            // What cannot be undone keeps its address: it may still answer for it.
            if record.content.as_ref().is_ok_and(|attachment| undo(attachment).is_ok()) {
                dead.push(record);
            }
        } else if record.content.as_ref().is_ok_and(is_dying) {
            dying += 1;
        }
    }
    store.forget(&dead.iter().collect::<Vec<_>>())?;
    store.distrust_pool()?;
    Ok(Swept { freed: dead.len(), dying })
}
