//! Tar archives whose bytes depend on nothing but their contents.

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

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
        // The plain form: GNU's has room for access times, which readers fill in as they like.
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(u64::try_from(bytes.len())?);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
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
