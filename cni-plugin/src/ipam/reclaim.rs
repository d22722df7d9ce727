//! Finding what the dead have left.
//!
//! No runtime cleans up after a plugin that was killed: containerd never calls GC and forgets an ADD that failed. So an
//! attachment must show by itself whether it lives: a committed one has its interface on the host, with the index that was
//! recorded; a pending one has its maker, who holds the lock on the record.

use std::time::Duration;

use weft_netlink::LinkProbe;

use super::record::Record;
use super::store::{Store, StoreError};
use crate::formats::attachment::{Attachment, RecordError, State};

/// How many records are kept open to be removed together: half of the 1024 files that a process may have open. Each batch
/// costs a wait for the kernel of some 20 ms.
pub const BATCH: usize = 500;

/// Whether an attachment lives. A dead one is locked for this process.
pub fn is_dead(record: &mut Record, probe: &LinkProbe) -> bool {
    let committed = |attachment: &Attachment| attachment.status.state == State::Committed;
    match &record.content {
        // One that a later version wrote is not ours to judge.
        Err(RecordError::Foreign) => false,
        Err(RecordError::Damaged | RecordError::Body(_)) => {
            let gone = |record: &Record| probe.index(&record.host_interface()).is_ok_and(|index| index.is_none());
            gone(record) && record.lock(Duration::ZERO).is_ok() && !record.is_forgotten() && gone(record)
        }
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

fn forget_all(store: &Store, dead: &mut Vec<Record>) -> Result<(), StoreError> {
    store.forget(&dead.iter().collect::<Vec<_>>())?;
    dead.clear();
    Ok(())
}

/// What a sweep has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Attachments that were dead and hold nothing any more.
    pub freed: usize,
    /// Attachments that still have something in the kernel, and will soon have nothing.
    pub dying: usize,
}

/// Frees what dead attachments hold; `undo` removes what they left in the kernel.
///
/// # Errors
/// [`StoreError`] if the records cannot be listed or removed.
pub fn sweep(
    store: &Store,
    probe: &LinkProbe,
    mut undo: impl FnMut(&Record) -> Result<(), String>,
) -> Result<Swept, StoreError> {
    let mut swept = Swept { freed: 0, dying: 0 };
    let mut dead = Vec::new();
    store.visit(|mut record| {
        // What cannot be undone keeps its address: it may still answer for it.
        if is_dead(&mut record, probe) && undo(&record).is_ok() {
            swept.freed += 1;
            dead.push(record);
        } else if record.content.as_ref().is_ok_and(is_dying) {
            swept.dying += 1;
        }
        if dead.len() < BATCH { Ok(()) } else { forget_all(store, &mut dead) }
    })?;
    forget_all(store, &mut dead)?;
    // Where nothing comes free by itself, the pool may hold what no record stands behind.
    if (swept.freed, swept.dying) == (0, 0) {
        store.distrust_pool()?;
    }
    Ok(swept)
}
