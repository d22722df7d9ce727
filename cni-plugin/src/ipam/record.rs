//! One attachment record: an open file, what it says, and the lock that shows that somebody is at work on it.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::lock;
use super::store::{StoreError, wrong};
use crate::formats::attachment::{self, Attachment, RecordError, STATUS_OFFSET, Status};

/// A record that is there.
#[derive(Debug)]
pub struct Record {
    /// File name in the directory of records.
    pub name: String,
    /// What it says.
    pub content: Result<Attachment, RecordError>,
    path: PathBuf,
    file: File,
}

impl Record {
    /// The record that was just published through `file`.
    pub(super) fn published(directory: &Path, attachment: &Attachment, file: File) -> Self {
        let name = attachment.identity.key();
        Self { path: directory.join(&name), name, content: Ok(attachment.clone()), file }
    }

    /// The record of this name; `None` if there is none.
    pub(super) fn open(directory: &Path, name: String) -> Result<Option<Self>, StoreError> {
        let path = directory.join(&name);
        let file = match File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(wrong("open", &path))?,
        };
        let mut record = Self { name, content: Err(RecordError::Foreign), path, file };
        record.reload()?;
        Ok(Some(record))
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name of the attachment's interface on the host. Of a record that cannot be read, its file name still tells.
    #[must_use]
    pub fn host_interface(&self) -> String {
        match &self.content {
            Ok(attachment) => attachment.host_interface.clone(),
            Err(_) => attachment::host_interface_of(&self.name),
        }
    }

    /// Names of all interfaces on the host that are there for the attachment. A record that cannot be read may stand for
    /// any that follow from its file name.
    #[must_use]
    pub fn links(&self) -> Vec<String> {
        match &self.content {
            Ok(attachment) => attachment.links(),
            Err(_) => vec![attachment::host_interface_of(&self.name), attachment::limiter_of(&self.name)],
        }
    }

    /// Marks the record as being worked on by this process, for as long as this value lives.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if another process is at it for longer than `deadline`.
    pub fn lock(&mut self, deadline: Duration) -> Result<(), StoreError> {
        lock::record(&self.file, deadline).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StoreError::Busy { path: self.path.clone(), waited: deadline },
            _ => wrong("lock", &self.path)(error),
        })?;
        // Whoever had the lock may have changed it.
        self.reload()
    }

    /// Whether it has been removed since it was opened.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// When it was written last, which is when it was committed, in milliseconds since 1970.
    #[must_use]
    pub fn modified(&self) -> u64 {
        let modified = self.file.metadata().and_then(|metadata| metadata.modified()).ok();
        let since = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or_default()
    }

    pub(super) fn holds(&self, ip: IpAddr) -> bool {
        self.content.as_ref().is_ok_and(|attachment| attachment.ips.iter().any(|own| own.address.ip() == ip))
    }

    pub(super) fn write_status(&self, status: Status) -> Result<(), StoreError> {
        self.file.write_all_at(&status.encode(), STATUS_OFFSET).map_err(wrong("write", &self.path))
    }

    fn reload(&mut self) -> Result<(), StoreError> {
        let bytes = self.read().map_err(wrong("read", &self.path))?;
        self.content = Attachment::decode(&bytes);
        Ok(())
    }

    fn read(&self) -> io::Result<Vec<u8>> {
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
        bytes.truncate(length);
        Ok(bytes)
    }
}
