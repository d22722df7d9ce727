//! Addresses that host-local gave out before weft took the node over.
//!
//! host-local's own file is the reservation, and nothing is copied: an address is taken as long as its file is there, which
//! is until DEL of the container, a GC that does not list it, or until somebody else removes the file. The pool learns of
//! the files whenever it is built from the records, and that is at the first use, after a reboot, and when there seem to be
//! no addresses left. Files from before the boot stand for containers that ended with it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use super::lock;
use super::store::{StoreError, wrong};
use crate::formats::host_local::{self, Owner};

/// A file of host-local's that names an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignAddress {
    /// The address.
    pub ip: IpAddr,
    /// Whose it is.
    pub owner: Owner,
    /// When it was given out, in milliseconds since 1970.
    pub created: u64,
}

/// host-local's directory of one network.
#[derive(Debug, Clone)]
pub(super) struct HostLocal {
    directory: PathBuf,
}

impl HostLocal {
    pub(super) fn new(data_dir: &Path, network: &str) -> Self {
        Self { directory: host_local::directory(data_dir, network) }
    }

    pub(super) fn beside(&self, network: &str) -> Self {
        Self { directory: self.directory.with_file_name(network) }
    }

    pub(super) fn path(&self, ip: IpAddr) -> PathBuf {
        self.directory.join(ip.to_string())
    }

    /// The addresses in use. The files need not be opened for that: one that is empty has no owner.
    pub(super) fn addresses(&self) -> Result<Vec<IpAddr>, StoreError> {
        let booted = booted();
        let mut found = Vec::new();
        self.visit(|ip, path| {
            if is_live(path, booted) {
                found.push(ip);
            }
        })?;
        Ok(found)
    }

    /// Whether a file of this boot stands for the address.
    pub(super) fn holds(&self, ip: IpAddr) -> bool {
        is_live(&self.path(ip), booted())
    }

    /// All files that name an owner, of whatever age.
    pub(super) fn owned(&self) -> Result<Vec<ForeignAddress>, StoreError> {
        let mut found = Vec::new();
        self.visit(|ip, path| found.extend(read(ip, path)))?;
        Ok(found)
    }

    /// The file of this address, if it is this container's.
    pub(super) fn owned_by(&self, ip: IpAddr, container: &str, interface: &str) -> Option<ForeignAddress> {
        read(ip, &self.path(ip)).filter(|found| found.owner.is(container, interface))
    }

    /// Removes a file that still says the same, under host-local's own lock.
    pub(super) fn remove(&self, address: &ForeignAddress) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let path = self.path(address.ip);
        if read(address.ip, &path).is_none_or(|found| found.owner != address.owner) {
            return Ok(());
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(wrong("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Makes a reservation as host-local would, under its own lock; returns whose the address is if it is another's. What a
    /// container of an earlier boot has left stands for nobody.
    pub(super) fn reserve(&self, ip: IpAddr, owner: &Owner) -> Result<Option<Owner>, StoreError> {
        fs::create_dir_all(&self.directory).map_err(wrong("create", &self.directory))?;
        let lock = self.directory.join(host_local::LOCK);
        File::options().write(true).create(true).truncate(false).open(&lock).map_err(wrong("create", &lock))?;
        let _lock = self.lock()?;
        let path = self.path(ip);
        match read(ip, &path) {
            Some(found) if found.owner == *owner => return Ok(None),
            Some(found) if is_live(&path, booted()) => return Ok(Some(found.owner)),
            _ => {}
        }
        // In place: host-local would see a temporary file, too.
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(true).mode(host_local::MODE).open(&path);
        let written = file.and_then(|mut file| file.write_all(owner.render().as_bytes()));
        written.map(|()| None).map_err(wrong("write", &path))
    }

    /// Sees to it that the reservations of these addresses outlast a power failure. One that is gone again is no error.
    pub(super) fn sync(&self, ips: &[IpAddr]) -> Result<(), StoreError> {
        if ips.is_empty() {
            return Ok(());
        }
        for path in ips.iter().map(|ip| self.path(*ip)) {
            match File::open(&path).and_then(|file| file.sync_all()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong("sync", &path)(error)),
                _ => {}
            }
        }
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(wrong("sync", &self.directory))
    }

    /// A store without a lock is nobody's at the moment.
    fn lock(&self) -> Result<Option<File>, StoreError> {
        let path = self.directory.join(host_local::LOCK);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(wrong("open", &path))?,
        };
        lock::exclusive(file, lock::DEADLINE).map(Some).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StoreError::Busy { path, waited: lock::DEADLINE },
            _ => wrong("lock", &path)(error),
        })
    }

    fn visit(&self, mut visit: impl FnMut(IpAddr, &Path)) -> Result<(), StoreError> {
        let entries = match fs::read_dir(&self.directory) {
            // A path through a file, too, is a store that is not there.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            entries => entries.map_err(wrong("list", &self.directory))?,
        };
        for entry in entries {
            let entry = entry.map_err(wrong("list", &self.directory))?;
            if let Some(ip) = entry.file_name().to_str().and_then(host_local::address_of) {
                visit(ip, &entry.path());
            }
        }
        Ok(())
    }
}

fn is_live(path: &Path, booted: SystemTime) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|file| file.is_file() && file.size() > 0 && file.modified().is_ok_and(|modified| modified >= booted))
}

fn read(ip: IpAddr, path: &Path) -> Option<ForeignAddress> {
    // Looked at before it is opened: whoever opens a FIFO waits.
    let metadata = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(host_local::MAX_LENGTH).read_to_end(&mut bytes).ok()?;
    let since = metadata.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let created = u64::try_from(since.as_millis()).unwrap_or_default();
    Owner::parse(&bytes).map(|owner| ForeignAddress { ip, owner, created })
}

/// When this boot began, as the clock has it now; the epoch if that is not known.
fn booted() -> SystemTime {
    let Ok(up) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { return SystemTime::UNIX_EPOCH };
    // A second of grace: files bear the time of the last tick.
    let up = Duration::from(up) + Duration::from_secs(1);
    SystemTime::now().checked_sub(up).unwrap_or(SystemTime::UNIX_EPOCH)
}
