//! Whose a host port is.
//!
//! A port belongs to the attachment whose record lists it, as long as that attachment lives. The kernel refuses a second
//! element for one port, so that records are looked at only when two want the same: an owner that is dead is cleared away,
//! one that is being deleted is waited for, and one that lives is named.

use std::time::{Duration, Instant};

use super::host::{Host, undo};
use crate::formats::attachment::Attachment;
use crate::ipam::reclaim::{has_link, is_dead};
use crate::ipam::search::record_of_interface;
use crate::ipam::store::{Store, StoreError};
use crate::protocol::{CniError, Result};
use crate::wiring::ports::{Claim, Rival, open_loopback};

/// How often a port may be taken by others who are gone at once.
const ATTEMPTS: u32 = 128;
/// How long an owner is given to go: its DEL may be under way, or about to begin.
const GRACE: Duration = Duration::from_millis(250);

/// Makes the attachment's host ports lead to it, and has UDP clients meet it that met somebody else before. For the
/// namespace that the thread is in.
///
/// # Errors
/// Code 11 naming the owner of a port that is taken; what the kernel says. Ports may then be claimed.
pub(super) fn claim(attachment: &Attachment, store: &Store, host: &mut Host) -> Result<()> {
    if claim_with(attachment, store, host, false)? {
        // Either nobody had ports yet, or somebody has flushed all tables. Runtimes that never call GC have no other occasion.
        // What others miss is no reason to refuse this one.
        let _ = restore(&others_with_ports(attachment, store, host)?, store, host);
    }
    Ok(())
}

/// The attachments of this network that have host ports and live, but for this one.
fn others_with_ports(attachment: &Attachment, store: &Store, host: &Host) -> Result<Vec<Attachment>> {
    let mut others = Vec::new();
    store.visit(|record| -> std::result::Result<(), StoreError> {
        let lives = |other: &Attachment| {
            !other.host_ports.is_empty() && other.identity != attachment.identity && has_link(other, &host.probe)
        };
        others.extend(record.content.ok().filter(lives));
        Ok(())
    })?;
    Ok(others)
}

/// As [`claim`], and returns whether the table had to be made; `making` makes it what it has to be, whether it seems to be
/// there or not.
fn claim_with(attachment: &Attachment, store: &Store, host: &mut Host, making: bool) -> Result<bool> {
    if attachment.host_ports.is_empty() {
        return Ok(false);
    }
    open_loopback(attachment)?;
    let (begun, mut vain, mut made) = (Instant::now(), 0, false);
    loop {
        let rivals = match attempt(attachment, store, host, making, &mut made)? {
            Claim::Made => break,
            Claim::Taken(rivals) => rivals,
            Claim::NoTable => Vec::new(),
        };
        let mut taken = None;
        for rival in &rivals {
            taken = taken.or(settle(rival, attachment, store, host)?);
        }
        vain += 1;
        match taken {
            Some(error) if begun.elapsed() > GRACE => return Err(error),
            // Two that found each other step back both; they come again at different times.
            Some(_) => pause_for(Duration::from_millis(2 + u64::from(std::process::id() % 8))),
            // All of them are gone.
            None if vain < ATTEMPTS => {}
            None => return Err(CniError::later("host ports: the table kept changing")),
        }
    }
    host.ports.forget_earlier_flows(attachment, &mut host.socket)?;
    Ok(made)
}

/// Makes right what live attachments have lost of their host ports (somebody may have flushed all tables), and removes
/// elements that nobody stands behind. Returns what went wrong.
pub(super) fn restore(live: &[Attachment], store: &Store, host: &mut Host) -> Vec<String> {
    let mut failures = Vec::new();
    for attachment in live {
        failures.extend(restore_one(attachment, store, host).err().map(|error| error.to_string()));
    }
    let swept = host.ports.strays(|interface| host.probe.index(interface).map_or(true, |index| index.is_some()));
    let strays = swept.map_err(CniError::from).and_then(|strays| {
        strays.iter().try_for_each(|stray| match record_of_interface(store, stray.interface())? {
            None => Ok(host.ports.disown(stray)?),
            Some(_) => Ok(()),
        })
    });
    failures.extend(strays.err().map(|error| error.to_string()));
    failures
}

/// Claims an attachment's ports anew, of which it may have some.
fn restore_one(attachment: &Attachment, store: &Store, host: &mut Host) -> Result<()> {
    if host.ports.missing(attachment)?.is_none() {
        return Ok(());
    }
    // Held until the ports are back: a DEL that released them before would leave them to whoever gets the address next.
    let Some(mut record) = store.find(&attachment.identity)? else { return Ok(()) };
    if record.lock(Duration::ZERO).is_err() || record.is_forgotten() || record.content.as_ref() != Ok(attachment) {
        return Ok(());
    }
    host.ports.release(&[attachment])?;
    claim_with(attachment, store, host, true).map(drop)
}

/// One attempt. The table is made if it is not there, by one process at a time; `made` is set if this one did.
fn attempt(attachment: &Attachment, store: &Store, host: &mut Host, making: bool, made: &mut bool) -> Result<Claim> {
    if making {
        return store.exclusively(|| Ok(host.ports.claim(attachment, true)?));
    }
    match host.ports.claim(attachment, false)? {
        Claim::NoTable => store.exclusively(|| match host.ports.claim(attachment, false)? {
            Claim::NoTable => {
                *made = true;
                Ok(host.ports.claim(attachment, true)?)
            }
            outcome => Ok(outcome),
        }),
        outcome => Ok(outcome),
    }
}

/// Clears away what a dead owner has left. If the owner lives, returns the error that names it.
fn settle(rival: &Rival, attachment: &Attachment, store: &Store, host: &mut Host) -> Result<Option<CniError>> {
    let interface = rival.interface();
    if interface == attachment.host_interface {
        // Left by an ADD whose record is lost: ours is the one that counts.
        host.ports.evict(rival)?;
        return Ok(None);
    }
    let Some((store, mut record)) = record_of_interface(store, interface)? else {
        // Another state directory may hold its record.
        if !interface.is_empty() && host.probe.index(interface)?.is_some() {
            return Ok(Some(taken(rival, attachment, &format!("container {}", rival.container()))));
        }
        host.ports.evict(rival)?;
        return Ok(None);
    };
    if is_dead(&mut record, &host.probe) {
        undo(&record, &mut host.socket, &mut host.ports)?;
        host.ports.evict(rival)?;
        store.forget(&[&record])?;
        return Ok(None);
    }
    Ok(match &record.content {
        Ok(owner) if !rival.belongs_to(owner) => {
            host.ports.evict(rival)?;
            None
        }
        Ok(owner) => Some(taken(rival, attachment, &words(owner))),
        Err(_) => Some(taken(rival, attachment, &format!("container {}", rival.container()))),
    })
}

/// An owner as an operator knows it.
fn words(owner: &Attachment) -> String {
    let identity = &owner.identity;
    let pod = owner.pod.as_ref().map(|pod| format!("pod {pod}, ")).unwrap_or_default();
    format!("{pod}container {} interface {} of network {}", identity.container, identity.interface, identity.network)
}

fn taken(rival: &Rival, wanted: &Attachment, owner: &str) -> CniError {
    CniError::later(format!(
        "runtimeConfig.portMappings: host port {} is already in use by {owner}; it is free when that container is deleted",
        rival.disputed(wanted)
    ))
}

#[expect(clippy::disallowed_methods, reason = "waits for another process to end its DEL, with a limit")]
fn pause_for(pause: Duration) {
    std::thread::sleep(pause);
}
