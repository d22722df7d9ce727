//! The part of the store that minds the addresses which host-local gave out: see [`super::foreign`].

use std::net::IpAddr;

use super::allocator::{AllocateError, Wish, allocate};
use super::boot::seconds_since_boot;
use super::foreign::ForeignAddress;
use super::pool::Pool;
use super::range::RangeSet;
use super::record::Record;
use super::store::{Store, StoreError, open_pool, read_pool, wrong};
use crate::formats::attachment::{self, AssignedIp, Attachment, Identity};

impl Store {
    /// Chooses addresses. While there are containers of host-local's, an ADD of its own may have begun before weft came and
    /// ended after, or come before weft has gone: then the address has a file that the pool does not know of.
    pub(super) fn choose(
        &self,
        pool: &mut Pool,
        sets: &[RangeSet],
        wish: Wish<'_>,
        recorded: impl Fn(IpAddr) -> bool,
    ) -> Result<Vec<AssignedIp>, AllocateError> {
        let may_be_theirs = pool.has_foreign || self.is_handing_over();
        loop {
            let mut trial = pool.clone();
            let ips = allocate(&mut trial, sets, wish, &recorded)?;
            let taken = ips.iter().map(|ip| ip.address.ip()).find(|ip| may_be_theirs && self.host_local.holds(*ip));
            match taken {
                Some(ip) => pool.take(ip),
                None => {
                    *pool = trial;
                    return Ok(ips);
                }
            }
        }
    }

    /// An attachment that was exported to host-local's store and is forgotten here has gone there, too.
    pub(super) fn take_back_export(&self, record: &Record) -> Result<(), StoreError> {
        record.content.as_ref().map_or(Ok(()), |attachment| self.release_there(attachment))
    }

    /// Removes the reservations of an attachment from host-local's store, as far as they are its own.
    pub(super) fn release_there(&self, attachment: &Attachment) -> Result<(), StoreError> {
        let Identity { container, interface, .. } = &attachment.identity;
        for ip in &attachment.ips {
            if let Some(exported) = self.host_local.owned_by(ip.address.ip(), container, interface) {
                self.host_local.remove(&exported)?;
            }
        }
        Ok(())
    }

    /// The addresses that host-local gave to containers.
    ///
    /// # Errors
    /// [`StoreError::Io`] if its store is there and cannot be listed.
    pub fn foreign(&self) -> Result<Vec<ForeignAddress>, StoreError> {
        self.host_local.owned()
    }

    /// Frees addresses that host-local gave out, if they still belong to the same containers.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed before stays removed.
    pub fn forget_foreign(&self, addresses: &[&ForeignAddress]) -> Result<(), StoreError> {
        if addresses.is_empty() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let path = self.directory.join(attachment::POOL);
        let file = open_pool(&path).map_err(wrong("open", &path))?;
        let bytes = read_pool(&file).map_err(wrong("read", &path))?;
        let pool = Pool::decode(&bytes);
        self.mark_dirty(&file, bytes.len())?;
        for address in addresses {
            self.host_local.remove(address)?;
        }
        let Some(mut pool) = pool else { return Ok(()) };
        let now = seconds_since_boot();
        addresses.iter().for_each(|address| pool.free(address.ip, now));
        pool.has_foreign = self.host_local.addresses()?.iter().any(|ip| pool.is_taken(*ip).is_some());
        self.save(&pool, &file, bytes.len())
    }
}
