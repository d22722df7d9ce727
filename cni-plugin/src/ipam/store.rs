//! The state directory of one network: attachment records, the pool over them, and the lock that guards their coming and
//! going (contracts: see [`crate::formats::attachment`] for the record and [`super::pool`] for the pool).
//!
//! Any process may be killed at any instruction, so every step leaves something that the next process understands:
//!
//! 1. the pool is marked dirty,
//! 2. the record, complete and locked by its writer, appears under its name (`O_TMPFILE` and `linkat`),
//! 3. the pool is written whole and clean.
//!
//! A kill before 2 leaves nothing, after 2 a pending record whose lock is free; either way the dirty pool is rebuilt from
//! the records. Forgetting goes the same way with the record's name removed in step 2. The kernel frees both locks with
//! their holder. Nothing is synced: attachments end with the boot, and a pool of another boot voids the directory.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use weft_netlink::LinkProbe;

use super::allocator::{AllocateError, Wish};
use super::boot::{BOOT_ID, boot_id, seconds_since_boot};
pub use super::error::StoreError;
use super::foreign::HostLocal;
use super::lock;
use super::pool::{BootId, DIRTY_OFFSET, KnownBridge, Pool};
use super::range::RangeSet;
use super::record::Record;
use crate::formats::attachment::{self, AssignedIp, Attachment, Identity, Status};

/// Room for the pool of a /16; larger ones take a second read.
const POOL_BUFFER: usize = 16 * 1024;

/// The state directory of one network.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) directory: PathBuf,
    pub(super) host_local: HostLocal,
}

/// A record that this process has made and holds the lock on.
#[derive(Debug)]
pub struct Reservation {
    /// What it says.
    pub attachment: Attachment,
    /// The bridge as the pool knew it.
    pub bridge: Option<KnownBridge>,
    record: Record,
}

impl Store {
    /// The store of a network, and that which host-local has for it in `data_dir`. Nothing is touched yet.
    #[must_use]
    pub fn new(state_dir: &Path, data_dir: &Path, network: &str) -> Self {
        let host_local = HostLocal::new(data_dir, network);
        Self { directory: attachment::directory(state_dir, network), host_local }
    }

    /// The store of another network, in the same directories.
    #[must_use]
    pub fn beside(&self, network: &str) -> Self {
        Self { directory: self.directory.with_file_name(network), host_local: self.host_local.beside(network) }
    }

    fn records_directory(&self) -> PathBuf {
        self.directory.join(attachment::RECORDS)
    }

    /// The record of an attachment; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn find(&self, identity: &Identity) -> Result<Option<Record>, StoreError> {
        Record::open(&self.records_directory(), identity.key())
    }

    /// Shows all records to `visit`, one after the other: a network may have more than a process may have open files.
    /// Files that are not named like a record are not ours and are passed over.
    ///
    /// # Errors
    /// What `visit` says, or [`StoreError::Io`]. A directory that is not there has no records.
    pub fn visit(&self, visit: impl FnMut(Record) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.visit_named(|_| true, visit)
    }

    /// As [`visit`](Self::visit), but only those whose file name is `wanted`; no other is opened.
    ///
    /// # Errors
    /// As [`visit`](Self::visit).
    pub fn visit_named(
        &self,
        wanted: impl Fn(&str) -> bool,
        mut visit: impl FnMut(Record) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let path = self.records_directory();
        let entries = match fs::read_dir(&path) {
            // A stray file in the state directory is no network.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            entries => entries.map_err(wrong("list", &path))?,
        };
        // Listed whole first: what is removed meanwhile must not disturb the listing.
        let names: Vec<_> = entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<_>>()
            .map_err(wrong("list", &path))?;
        for name in names.into_iter().filter_map(|name| name.into_string().ok()) {
            // It may have been forgotten since it was listed.
            if attachment::is_key(&name)
                && wanted(&name)
                && let Some(record) = Record::open(&path, name)?
            {
                visit(record)?;
            }
        }
        Ok(())
    }

    /// Whether a record has the address, or may have it.
    fn is_recorded(&self, ip: IpAddr) -> Result<bool, StoreError> {
        let mut found = self.host_local.holds(ip);
        self.visit(|record| {
            found |= record.holds(ip) || record.content.is_err();
            Ok(())
        })?;
        Ok(found)
    }

    /// Reserves one address of each range set and publishes a pending record, which `describe` makes of them.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing is reserved.
    pub fn reserve(
        &self,
        sets: &[RangeSet],
        requested: &[IpAddr],
        preferred: &[IpAddr],
        describe: impl FnOnce(&[AssignedIp]) -> Attachment,
    ) -> Result<Reservation, StoreError> {
        self.reserve_out_of(
            Some(sets),
            |pool| {
                let wish = Wish { requested, preferred, now: seconds_since_boot() };
                // What cannot be read cannot be ruled out.
                let recorded = |ip: IpAddr| self.is_recorded(ip).unwrap_or(true);
                Ok(self.choose(pool, sets, wish, recorded)?)
            },
            describe,
        )
    }

    /// Reserves these addresses, whatever the ranges are, and publishes a pending record, which `describe` makes of them.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing is reserved.
    pub fn reserve_fixed(
        &self,
        ips: &[AssignedIp],
        describe: impl FnOnce(&[AssignedIp]) -> Attachment,
    ) -> Result<Reservation, StoreError> {
        self.reserve_out_of(
            // Another configuration of this network may have ranges: the pool stays theirs.
            None,
            |pool| {
                for ip in ips.iter().map(|ip| ip.address.ip()) {
                    if pool.is_taken(ip) == Some(true) || self.is_recorded(ip)? {
                        return Err(AllocateError::InUse { ip }.into());
                    }
                    pool.take(ip);
                }
                Ok(ips.to_vec())
            },
            describe,
        )
    }

    fn reserve_out_of(
        &self,
        sets: Option<&[RangeSet]>,
        choose: impl FnOnce(&mut Pool) -> Result<Vec<AssignedIp>, StoreError>,
        describe: impl FnOnce(&[AssignedIp]) -> Attachment,
    ) -> Result<Reservation, StoreError> {
        let boot = boot_id().map_err(wrong("read", Path::new(BOOT_ID)))?;
        let lock = self.lock()?;
        let (mut pool, file, length) = self.load(&boot, sets)?;
        let before = pool.clone();
        let ips = choose(&mut pool)?;
        let attachment = describe(&ips);
        self.reserve_there(&attachment)?;
        self.mark_dirty(&file, length)?;
        let record = self.publish(&attachment).inspect_err(|_| {
            // Nothing was published, so what the pool said is still true. A reservation that cannot be taken back now is found
            // by DEL.
            let _ = self.release_there(&attachment);
            let _ = self.save(&before, &file, length);
        })?;
        let bridge = pool.bridge.clone();
        let saved = self.save(&pool, &file, length);
        if let Err(error) = saved {
            // The pool stays dirty and will be rebuilt; the record must not outlive this failure.
            let _ = fs::remove_file(record.path());
            let _ = self.release_there(&attachment);
            return Err(error);
        }
        drop(lock);
        Ok(Reservation { attachment, bridge, record })
    }

    /// Removes records and frees their addresses. Records that somebody else has removed are passed over.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed before stays removed.
    pub fn forget(&self, records: &[&Record]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let path = self.directory.join(attachment::POOL);
        let file = open_pool(&path).map_err(wrong("open", &path))?;
        let bytes = read_pool(&file).map_err(wrong("read", &path))?;
        let mut pool = Pool::decode(&bytes);
        self.mark_dirty(&file, bytes.len())?;
        let now = seconds_since_boot();
        for record in records {
            if record.is_forgotten() {
                continue;
            }
            match fs::remove_file(record.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(wrong("remove", record.path())(error));
                }
                _ => {}
            }
            self.take_back_export(record)?;
            match (&record.content, &mut pool) {
                (Ok(attachment), Some(pool)) => attachment.ips.iter().for_each(|ip| pool.free(ip.address.ip(), now)),
                // Its addresses are not known: left dirty, the pool is rebuilt without them.
                (Err(_), pool) => *pool = None,
                (Ok(_), None) => {}
            }
        }
        match &pool {
            Some(pool) => self.save(pool, &file, bytes.len()),
            None => Ok(()),
        }
    }

    /// Has the pool built anew from the records before it is used again: bits that no record stands behind go.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn distrust_pool(&self) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let path = self.directory.join(attachment::POOL);
        let file = open_pool(&path).map_err(wrong("open", &path))?;
        self.mark_dirty(&file, usize::MAX)
    }

    /// Runs `work` while no other process adds to this network, and keeps what it has found out about the bridge.
    ///
    /// # Errors
    /// What `work` says, or [`StoreError`].
    pub fn with_bridge<E: From<StoreError>>(
        &self,
        work: impl FnOnce() -> Result<KnownBridge, E>,
    ) -> Result<KnownBridge, E> {
        let _lock = self.lock()?;
        let known = work()?;
        let path = self.directory.join(attachment::POOL);
        let file = open_pool(&path).map_err(wrong("open", &path))?;
        let bytes = read_pool(&file).map_err(wrong("read", &path))?;
        // Without a sound pool there is nowhere to keep it; the next ADD will look again.
        if let Some(mut pool) = Pool::decode(&bytes) {
            pool.bridge = Some(known.clone());
            self.mark_dirty(&file, bytes.len())?;
            self.save(&pool, &file, bytes.len())?;
        }
        Ok(known)
    }

    /// Runs `work` while no other process adds to this network or takes from it.
    ///
    /// # Errors
    /// What `work` says, or [`StoreError`].
    pub fn exclusively<T, E: From<StoreError>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let _lock = self.lock()?;
        work()
    }

    /// Makes the directories, the outer one among them.
    fn create_directories(&self) -> Result<(), StoreError> {
        let records = self.records_directory();
        DirBuilder::new().recursive(true).mode(0o700).create(&records).map_err(wrong("create", &records))
    }

    pub(super) fn lock(&self) -> Result<File, StoreError> {
        let path = self.directory.join(attachment::LOCK);
        let open = || File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create_directories()?;
                open()
            }
            file => file,
        };
        lock::exclusive(file.map_err(wrong("open", &path))?, lock::DEADLINE).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StoreError::Busy { path, waited: lock::DEADLINE },
            _ => wrong("lock", &path)(error),
        })
    }

    /// The pool of these sets, or of those that it has, rebuilt if it cannot be trusted, with its file and the file's length.
    fn load(&self, boot: &BootId, sets: Option<&[RangeSet]>) -> Result<(Pool, File, usize), StoreError> {
        let path = self.directory.join(attachment::POOL);
        let file = open_pool(&path).map_err(wrong("open", &path))?;
        let bytes = read_pool(&file).map_err(wrong("read", &path))?;
        let found = Pool::decode(&bytes);
        let known = match sets {
            Some(_) => Vec::new(),
            None => Pool::salvage(&bytes).map(|pool| pool.sets()).unwrap_or_default(),
        };
        let sets = sets.unwrap_or(&known);
        if let Some(pool) = found.as_ref().filter(|pool| pool.is_for(boot, sets)) {
            return Ok((pool.clone(), file, bytes.len()));
        }
        // The boot stands at a fixed place, readable in a dirty pool too.
        let other_boot = bytes.get(16..32).is_some_and(|found| found != boot);
        let mut pool = Pool::new(*boot, sets);
        if other_boot {
            self.visit(|record| fs::remove_file(record.path()).map_err(wrong("remove", record.path())))?;
        } else {
            let old = Pool::salvage(&bytes);
            if let Some(old) = &old {
                pool.take_cursors(old);
                pool.bridge.clone_from(&old.bridge);
            }
            self.visit(|record| {
                if let Ok(attachment) = &record.content {
                    attachment.ips.iter().for_each(|ip| pool.take(ip.address.ip()));
                    return Ok(());
                }
                // Its addresses are among those that were taken before; where that is not known either, there is no way.
                let covered = old.as_ref().is_some_and(|old| pool.take_all_of(old));
                if covered || !may_live(&record.host_interface()) {
                    return Ok(());
                }
                Err(StoreError::Unknowable { path: record.path().to_owned(), interface: record.host_interface() })
            })?;
        }
        for ip in self.host_local.addresses()? {
            pool.has_foreign |= pool.is_taken(ip).is_some();
            pool.take(ip);
        }
        Ok((pool, file, bytes.len()))
    }

    pub(super) fn mark_dirty(&self, file: &File, length: usize) -> Result<(), StoreError> {
        if length <= DIRTY_OFFSET {
            return Ok(()); // an empty file is not trusted either
        }
        let path = self.directory.join(attachment::POOL);
        file.write_all_at(&1u32.to_le_bytes(), DIRTY_OFFSET as u64).map_err(wrong("write", &path))
    }

    pub(super) fn save(&self, pool: &Pool, file: &File, length: usize) -> Result<(), StoreError> {
        let path = self.directory.join(attachment::POOL);
        let bytes = pool.encode();
        let write = || -> io::Result<()> {
            file.write_all_at(&bytes, 0)?;
            if bytes.len() < length { file.set_len(bytes.len() as u64) } else { Ok(()) }
        };
        write().map_err(wrong("write", &path))
    }

    /// Makes the record appear, complete and locked.
    fn publish(&self, attachment: &Attachment) -> Result<Record, StoreError> {
        let directory = self.records_directory();
        let path = directory.join(attachment.identity.key());
        let bytes = attachment.encode();
        if bytes.len() > attachment::MAX_LENGTH {
            return Err(StoreError::TooLong { length: bytes.len() });
        }
        let publish = || -> io::Result<File> {
            let mut file =
                File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(&directory)?;
            file.write_all(&bytes)?;
            lock::record(&file, Duration::ZERO)?;
            let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
            nix::unistd::linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, &path, AtFlags::AT_SYMLINK_FOLLOW)?;
            Ok(file)
        };
        let published = match publish() {
            // Left by a process that was killed between two directories, or taken away by hand.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create_directories()?;
                publish()
            }
            published => published,
        };
        match published {
            Ok(file) => Ok(Record::published(&directory, attachment, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(StoreError::Overtaken {
                container: attachment.identity.container.clone(),
                interface: attachment.identity.interface.clone(),
            }),
            Err(error) => Err(wrong("write a record in", &directory)(error)),
        }
    }
}

impl Reservation {
    /// Writes how far the attachment has come, in one step that cannot be torn.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn set_status(&mut self, status: Status) -> Result<(), StoreError> {
        self.attachment.status = status;
        self.record.write_status(status)
    }

    /// The record, to be forgotten.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }
}

pub(super) fn open_pool(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

pub(super) fn read_pool(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; POOL_BUFFER];
    let mut length = 0;
    loop {
        let read = file.read_at(bytes.get_mut(length..).unwrap_or_default(), length as u64)?;
        length += read;
        if length < bytes.len() {
            bytes.truncate(length);
            return Ok(bytes);
        }
        bytes.resize(bytes.len() * 4, 0);
    }
}

/// Whether there may be an interface of this name on the host.
fn may_live(interface: &str) -> bool {
    LinkProbe::open().and_then(|probe| probe.index(interface)).map_or(true, |index| index.is_some())
}

pub(super) fn wrong<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + use<'a> {
    move |source| StoreError::Io { operation, path: path.to_owned(), source }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
