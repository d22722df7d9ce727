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
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, AtFlags, Flock};
use nix::libc;

use super::allocator::{AllocateError, Wish, allocate};
use super::boot::{BOOT_ID, boot_id, seconds_since_boot};
use super::lock;
use super::pool::{BootId, DIRTY_OFFSET, KnownBridge, Pool};
use super::range::RangeSet;
use crate::formats::attachment::{self, AssignedIp, Attachment, Identity, RecordError, STATUS_OFFSET, Status};

/// Room for the pool of a /16; larger ones take a second read.
const POOL_BUFFER: usize = 16 * 1024;

/// Why the store cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Something could not be read or written.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process held a lock for too long.
    #[error("{} is still locked by another process after {} s", path.display(), lock::DEADLINE.as_secs())]
    Busy {
        /// The locked file.
        path: PathBuf,
    },
    /// Another ADD of the same attachment came first.
    #[error("another ADD for container {container} interface {interface} is under way")]
    Overtaken {
        /// The container.
        container: String,
        /// Its interface.
        interface: String,
    },
    /// There are no addresses.
    #[error(transparent)]
    Allocate(#[from] AllocateError),
}

/// The state directory of one network.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

/// A record that is there.
#[derive(Debug)]
pub struct Record {
    /// File name in the directory of records.
    pub name: String,
    /// What it says.
    pub content: Result<Attachment, RecordError>,
    file: File,
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
    /// The store of a network. Nothing is touched yet.
    #[must_use]
    pub fn new(state_dir: &Path, network: &str) -> Self {
        Self { directory: attachment::directory(state_dir, network) }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn records_directory(&self) -> PathBuf {
        self.directory.join(attachment::RECORDS)
    }

    /// The record of an attachment; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn find(&self, identity: &Identity) -> Result<Option<Record>, StoreError> {
        self.open_record(identity.key())
    }

    /// All records.
    ///
    /// # Errors
    /// [`StoreError::Io`]. A directory that is not there has none.
    pub fn records(&self) -> Result<Vec<Record>, StoreError> {
        let path = self.records_directory();
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(wrong("list", &path))?,
        };
        let mut records = Vec::new();
        for entry in entries {
            if let Ok(name) = entry.map_err(wrong("list", &path))?.file_name().into_string() {
                // It may have been forgotten since it was listed.
                records.extend(self.open_record(name)?);
            }
        }
        Ok(records)
    }

    fn open_record(&self, name: String) -> Result<Option<Record>, StoreError> {
        let path = self.records_directory().join(&name);
        let file = match File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(wrong("open", &path))?,
        };
        let mut record = Record { name, content: Err(RecordError::Foreign), file };
        record.reload().map_err(wrong("read", &path))?;
        Ok(Some(record))
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
        let boot = boot_id().map_err(wrong("read", Path::new(BOOT_ID)))?;
        let lock = self.lock(true)?;
        let (mut pool, file, length) = self.load(&boot, sets)?;
        let before = pool.clone();
        let wish = Wish { requested, preferred, now: seconds_since_boot() };
        let recorded = |ip: IpAddr| {
            // What cannot be read cannot be ruled out.
            self.records().map_or(true, |records| records.iter().any(|record| record.holds(ip)))
        };
        let ips = allocate(&mut pool, sets, wish, recorded)?;
        let attachment = describe(&ips);
        self.mark_dirty(&file, length)?;
        let record = self.publish(&attachment).inspect_err(|_| {
            // Nothing was published, so what the pool said is still true.
            let _ = self.save(&before, &file, length);
        })?;
        let bridge = pool.bridge.clone();
        let saved = self.save(&pool, &file, length);
        if let Err(error) = saved {
            // The pool stays dirty and will be rebuilt; the record must not outlive this failure.
            let _ = fs::remove_file(self.records_directory().join(&record.name));
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
        let _lock = self.lock(false)?;
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
            let path = self.records_directory().join(&record.name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong("remove", &path)(error)),
                _ => {}
            }
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
        let _lock = self.lock(false)?;
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
        let _lock = self.lock(true)?;
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

    fn lock(&self, create: bool) -> Result<Flock<File>, StoreError> {
        let path = self.directory.join(attachment::LOCK);
        let open = || File::options().read(true).write(true).create(create).truncate(false).mode(0o600).open(&path);
        let file = match open() {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                let records = self.records_directory();
                DirBuilder::new().recursive(true).mode(0o700).create(&records).map_err(wrong("create", &records))?;
                open()
            }
            file => file,
        };
        lock::exclusive(file.map_err(wrong("open", &path))?, lock::DEADLINE).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StoreError::Busy { path },
            _ => wrong("lock", &path)(error),
        })
    }

    /// The pool, rebuilt if it cannot be trusted, with its file and the file's length.
    fn load(&self, boot: &BootId, sets: &[RangeSet]) -> Result<(Pool, File, usize), StoreError> {
        let path = self.directory.join(attachment::POOL);
        let file = open_pool(&path).map_err(wrong("open", &path))?;
        let bytes = read_pool(&file).map_err(wrong("read", &path))?;
        let found = Pool::decode(&bytes);
        if let Some(pool) = found.as_ref().filter(|pool| pool.is_for(boot, sets)) {
            return Ok((pool.clone(), file, bytes.len()));
        }
        // The boot stands at a fixed place, readable in a dirty pool too.
        let other_boot = bytes.get(16..32).is_some_and(|found| found != boot);
        let mut pool = Pool::new(*boot, sets);
        if other_boot {
            for record in self.records()? {
                let path = self.records_directory().join(&record.name);
                fs::remove_file(&path).map_err(wrong("remove", &path))?;
            }
        } else {
            if let Some(old) = &Pool::salvage(&bytes) {
                pool.take_cursors(old);
                pool.bridge.clone_from(&old.bridge);
            }
            let records = self.records()?;
            let attachments = records.iter().filter_map(|record| record.content.as_ref().ok());
            attachments.flat_map(|attachment| &attachment.ips).for_each(|ip| pool.take(ip.address.ip()));
        }
        Ok((pool, file, bytes.len()))
    }

    fn mark_dirty(&self, file: &File, length: usize) -> Result<(), StoreError> {
        if length <= DIRTY_OFFSET {
            return Ok(()); // an empty file is not trusted either
        }
        let path = self.directory.join(attachment::POOL);
        file.write_all_at(&1u32.to_le_bytes(), DIRTY_OFFSET as u64).map_err(wrong("write", &path))
    }

    fn save(&self, pool: &Pool, file: &File, length: usize) -> Result<(), StoreError> {
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
        let name = attachment.identity.key();
        let publish = || -> io::Result<File> {
            let mut file =
                File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(&directory)?;
            file.write_all(&attachment.encode())?;
            lock::record(&file, Duration::ZERO)?;
            let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
            let path = directory.join(&name);
            nix::unistd::linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, &path, AtFlags::AT_SYMLINK_FOLLOW)?;
            Ok(file)
        };
        match publish() {
            Ok(file) => Ok(Record { name, content: Ok(attachment.clone()), file }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(StoreError::Overtaken {
                container: attachment.identity.container.clone(),
                interface: attachment.identity.interface.clone(),
            }),
            Err(error) => Err(wrong("write a record in", &directory)(error)),
        }
    }
}

impl Record {
    /// Marks the record as being worked on by this process, for as long as this value lives.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if another process is at it for longer than `deadline`.
    pub fn lock(&mut self, deadline: Duration) -> Result<(), StoreError> {
        let path = || PathBuf::from(&self.name);
        lock::record(&self.file, deadline).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StoreError::Busy { path: path() },
            _ => StoreError::Io { operation: "lock", path: path(), source: error },
        })?;
        // Whoever had the lock may have changed it.
        self.reload().map_err(|source| StoreError::Io { operation: "read", path: PathBuf::from(&self.name), source })
    }

    /// Whether it has been removed since it was opened.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    fn holds(&self, ip: IpAddr) -> bool {
        self.content.as_ref().is_ok_and(|attachment| attachment.ips.iter().any(|own| own.address.ip() == ip))
    }

    fn reload(&mut self) -> io::Result<()> {
        let mut bytes = vec![0; 2048];
        let mut length = 0;
        loop {
            match self.file.read_at(bytes.get_mut(length..).unwrap_or_default(), length as u64)? {
                0 => break,
                read => length += read,
            }
            // A short read of a regular file is its end.
            if length < bytes.len() || bytes.len() > attachment::MAX_LENGTH {
                break;
            }
            bytes.resize(bytes.len() * 4, 0);
        }
        self.content = Attachment::decode(bytes.get(..length).unwrap_or_default());
        Ok(())
    }
}

impl Reservation {
    /// Writes how far the attachment has come, in one step that cannot be torn.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn set_status(&mut self, status: Status) -> Result<(), StoreError> {
        self.attachment.status = status;
        self.record.file.write_all_at(&status.encode(), STATUS_OFFSET).map_err(|source| StoreError::Io {
            operation: "write",
            path: PathBuf::from(&self.record.name),
            source,
        })
    }

    /// The record, to be forgotten.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }
}

fn open_pool(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn read_pool(file: &File) -> io::Result<Vec<u8>> {
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

fn wrong<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + use<'a> {
    move |source| StoreError::Io { operation, path: path.to_owned(), source }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
