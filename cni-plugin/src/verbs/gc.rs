//! GC: forget every attachment that the runtime does not list.

use std::collections::HashSet;
use std::time::Duration;

use super::host::{Host, now, store_of};
use super::{claims, foreign};
use crate::formats::attachment::{Attachment, Identity};
use crate::ipam::reclaim::{BATCH, has_link};
use crate::ipam::record::Record;
use crate::ipam::store::{Store, StoreError};
use crate::protocol::config::{Base, valid_attachments};
use crate::protocol::json::Json;
use crate::protocol::{CniError, Result};
use crate::wiring::limits;
use crate::wiring::teardown::delete_all;

/// Removes what is not listed: interfaces first, addresses last. What cannot be removed is told at the end.
///
/// Attachments that are being made, or were made since GC began, are left alone: the list cannot know of them.
///
/// # Errors
/// Code 7 if there is no list; else all failures in one.
pub fn gc(base: &Base, json: &Json) -> Result<()> {
    let begun = now();
    let listed = valid_attachments(base, json)?;
    let valid: HashSet<String> = listed.iter().map(Identity::key).collect();
    let store = store_of(base);
    let mut host = Host::open()?;
    let mut failures = Vec::new();
    let (mut stale, mut kept) = (Vec::new(), Vec::new());
    store.visit(|mut record| -> Result<(), StoreError> {
        if valid.contains(&record.name) {
            let has_ports = |attachment: &Attachment| !attachment.host_ports.is_empty();
            kept.extend(record.content.ok().filter(|kept| has_ports(kept) && has_link(kept, &host.probe)));
            return Ok(());
        }
        // A lock that somebody holds means that it is being worked on.
        if record.lock(Duration::ZERO).is_ok() && !is_new(&record, begun) {
            stale.push(record);
        }
        if stale.len() == BATCH {
            remove(std::mem::take(&mut stale), &store, &mut host, &mut failures);
        }
        Ok(())
    })?;
    remove(stale, &store, &mut host, &mut failures);
    failures.extend(claims::restore(&kept, &store, &mut host));
    failures.extend(limits::remove_orphans(&mut host.socket).err().map(|error| error.to_string()));
    failures.extend(foreign::collect(&store, &listed, begun).err().map(|error| error.to_string()));
    if failures.is_empty() { Ok(()) } else { Err(CniError::internal(failures.join("; "))) }
}

fn remove(mut stale: Vec<Record>, store: &Store, host: &mut Host, failures: &mut Vec<String>) {
    let Host { probe, socket, ports } = host;
    let attachments: Vec<&Attachment> = stale.iter().filter_map(|record| record.content.as_ref().ok()).collect();
    if let Err(error) = ports.release(&attachments) {
        failures.push(error.to_string());
        // Whose ports still lead to it keeps its address.
        stale.retain(|record| !record.content.as_ref().is_ok_and(|attachment| !attachment.host_ports.is_empty()));
    }
    // Where it cannot be seen it is taken to be there.
    let is_there = |name: &String| probe.index(name).map_or(true, |index| index.is_some());
    let links: Vec<String> = stale.iter().flat_map(Record::links).filter(is_there).collect();
    if let Err(error) = delete_all(&links, socket) {
        failures.push(error.to_string());
        // Whoever still has an interface keeps its address.
        stale.retain(|record| !record.links().iter().any(is_there));
    }
    if let Err(error) = store.forget(&stale.iter().collect::<Vec<_>>()) {
        failures.push(error.to_string());
    }
}

fn is_new(record: &Record, begun: u64) -> bool {
    record.content.as_ref().is_ok_and(|attachment| attachment.created >= begun) || record.modified() >= begun
}
