//! Tar archives whose bytes depend on nothing but their contents.

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

/// What the contents of an entry are filled up to a multiple of, and half of what ends an archive, in bytes.
pub const BLOCK: u64 = 512;
/// Mode of a plain file in an archive.
pub const FILE_MODE: u32 = 0o644;

/// A tar archive in memory. Entries stand in the order in which they come; every one is of the year 1970, owner 0, group 0.
pub struct Archive(Builder<Vec<u8>>);

impl Default for Archive {
    fn default() -> Self {
        Self(Builder::new(Vec::new()))
    }
}

impl Archive {
    /// Adds a file.
    ///
    /// # Errors
    /// When the path is longer than an archive can have it.
    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.entry(EntryType::Regular, path, mode, bytes)
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// As [`Archive::file`].
    pub fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(EntryType::Directory, path, 0o755, &[])
    }

    fn entry(&mut self, kind: EntryType, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let mut header = plain(kind, mode, u64::try_from(bytes.len())?);
        self.0.append_data(&mut header, path, bytes).with_context(|| format!("cannot put {path} into an archive"))
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// Never, in memory.
    pub fn finish(self) -> Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }
}

/// What stands before the contents of an entry, for archives that are put together from files without holding them.
///
/// # Errors
/// When the path is longer than the plain form of an archive can have it.
pub fn header(kind: EntryType, path: &str, mode: u32, size: u64) -> Result<Vec<u8>> {
    let mut header = plain(kind, mode, size);
    header.set_path(path).with_context(|| format!("cannot put {path} into an archive"))?;
    header.set_cksum();
    Ok(header.as_bytes().to_vec())
}

fn plain(kind: EntryType, mode: u32, size: u64) -> Header {
    // The plain form: GNU's has room for access times, which readers fill in as they like.
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}
