//! The way back: addresses that host-local must not give out when it comes after us.
//!
//! Everything that was given out is reserved in its store, and from then on (a file in the state directory says so, until the
//! next boot) each address is reserved there as it is given out, before the attachment is made. So it does not matter when
//! the other network's configuration comes, nor which ADD began before it.

use std::fs::File;
use std::net::IpAddr;

use super::allocator::AllocateError;
use super::store::{Store, StoreError, wrong};
use crate::formats::attachment::{self, Attachment};
use crate::formats::host_local::Owner;

/// An address that host-local has given to another container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The address.
    pub ip: IpAddr,
    /// Our attachment that has it.
    pub attachment: Attachment,
    /// Whose it is there.
    pub owner: Owner,
}

impl Store {
    /// Reserves in host-local's store what the attachments have that are `wanted`, and from now on what is given out. May be
    /// repeated. Addresses that are others' there are returned, and do not keep the rest.
    ///
    /// # Errors
    /// [`StoreError`]; what was reserved before stays so.
    pub fn hand_over(&self, wanted: impl Fn(&Attachment) -> bool) -> Result<Vec<Refused>, StoreError> {
        let lock = self.lock()?;
        let marker = self.directory.join(attachment::HANDOVER);
        File::create(&marker).map_err(wrong("create", &marker))?;
        let (mut refused, mut reserved) = (Vec::new(), Vec::new());
        self.visit(|record| {
            let Ok(attachment) = &record.content else { return Ok(()) };
            for ip in attachment.ips.iter().map(|ip| ip.address.ip()).filter(|_| wanted(attachment)) {
                let owner = self.host_local.reserve(ip, &owner_of(attachment))?;
                reserved.push(ip);
                refused.extend(owner.map(|owner| Refused { ip, attachment: attachment.clone(), owner }));
            }
            Ok(())
        })?;
        // ADD waits for the lock, and need not wait for the disk.
        drop(lock);
        self.host_local.sync(&reserved)?;
        Ok(refused)
    }

    /// Whether host-local has to know of each address.
    pub(super) fn is_handing_over(&self) -> bool {
        self.directory.join(attachment::HANDOVER).exists()
    }

    /// Reserves the addresses of an attachment that is being made in host-local's store, if it has to know of them.
    pub(super) fn reserve_there(&self, attachment: &Attachment) -> Result<(), StoreError> {
        if !self.is_handing_over() {
            return Ok(());
        }
        for ip in attachment.ips.iter().map(|ip| ip.address.ip()) {
            // An ADD of its own was faster.
            if self.host_local.reserve(ip, &owner_of(attachment))?.is_some() {
                self.release_there(attachment)?;
                return Err(AllocateError::InUse { ip }.into());
            }
        }
        Ok(())
    }
}

fn owner_of(attachment: &Attachment) -> Owner {
    let identity = &attachment.identity;
    Owner { container: identity.container.clone(), interface: Some(identity.interface.clone()) }
}
