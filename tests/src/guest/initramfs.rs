//! The archive that a kernel unpacks into its first file system: cpio in the format "newc"
//! (kernel documentation, driver-api/early-userspace/buffer-format).

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// `/dev/console`: major 5, minor 1 (kernel documentation, admin-guide/devices).
const CONSOLE: (u32, u32) = (5, 1);

/// An archive while it is written. Folders come by themselves; a path that is there already stays as it is.
#[derive(Debug)]
pub struct Initramfs<W> {
    to: W,
    /// Bytes so far: names and contents begin at multiples of four.
    written: usize,
    there: BTreeSet<PathBuf>,
}

/// One entry, without its contents.
struct Entry<'a> {
    path: &'a Path,
    mode: u32,
    device: (u32, u32),
}

impl<W: Write> Initramfs<W> {
    /// An empty archive with the one device that the kernel opens before it starts `/init`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(to: W) -> Result<Self> {
        let mut archive = Self { to, written: 0, there: BTreeSet::new() };
        if archive.is_new(Path::new("/dev/console"))? {
            archive.entry(&Entry { path: Path::new("/dev/console"), mode: CHARACTER_DEVICE, device: CONSOLE }, &[])?;
        }
        Ok(archive)
    }

    /// An empty folder.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn folder(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.folders(path.as_ref())
    }

    /// A file with these permission bits.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn file(&mut self, path: impl AsRef<Path>, permissions: u32, contents: &[u8]) -> Result<()> {
        let path = path.as_ref();
        if self.is_new(path)? {
            self.entry(&Entry { path, mode: FILE | (permissions & 0o777), device: (0, 0) }, contents)?;
        }
        Ok(())
    }

    /// A program or library of this machine.
    ///
    /// # Errors
    /// When it cannot be read, or the archive not be written.
    pub fn copy(&mut self, path: impl AsRef<Path>, from: &Path) -> Result<()> {
        let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, 0o755, &contents)
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn symlink(&mut self, path: impl AsRef<Path>, target: &str) -> Result<()> {
        let path = path.as_ref();
        if self.is_new(path)? {
            self.entry(&Entry { path, mode: SYMLINK, device: (0, 0) }, target.as_bytes())?;
        }
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<W> {
        self.entry(&Entry { path: Path::new("TRAILER!!!"), mode: 0, device: (0, 0) }, &[])?;
        self.to.flush()?;
        Ok(self.to)
    }

    /// Whether the path is not there yet. Its folders are, afterwards.
    fn is_new(&mut self, path: &Path) -> Result<bool> {
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            bail!("{} is no place in a guest: an absolute path without `..` is expected", path.display());
        }
        self.folders(path.parent().unwrap_or(Path::new("/")))?;
        Ok(self.there.insert(path.to_owned()))
    }

    fn folders(&mut self, path: &Path) -> Result<()> {
        let mut above = PathBuf::new();
        for part in path.components() {
            above.push(part);
            if part != Component::RootDir && self.there.insert(above.clone()) {
                self.entry(&Entry { path: &above, mode: DIRECTORY, device: (0, 0) }, &[])?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry<'_>, contents: &[u8]) -> Result<()> {
        let name = entry.path.to_string_lossy();
        let name = name.trim_start_matches('/');
        let size = u32::try_from(contents.len()).with_context(|| format!("{name} is too large for an initramfs"))?;
        let (major, minor) = entry.device;
        // Inode, mode, uid, gid, links, time, size, device (two), device that it is (two), length of the name, checksum.
        // The inode may be the same for all: it matters for hard links only.
        let fields =
            [0, entry.mode, 0, 0, 1, 0, size, 0, 0, major, minor, u32::try_from(name.len() + 1)?, 0].into_iter();
        let mut head = String::from("070701");
        for field in fields {
            head.push_str(&format!("{field:08x}"));
        }
        head.push_str(name);
        head.push('\0');
        self.padded(head.as_bytes())?;
        self.padded(contents)?;
        Ok(())
    }

    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.written += bytes.len();
        let padding = self.written.next_multiple_of(4) - self.written;
        self.to.write_all(&[0; 3][..padding])?;
        self.written += padding;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, mode and contents of every entry: the format read back, by its definition.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(&bytes[..6], b"070701");
            let field = |n: usize| {
                u32::from_str_radix(std::str::from_utf8(&bytes[6 + 8 * n..14 + 8 * n]).unwrap(), 16).unwrap()
            };
            let (mode, size, name) = (field(1), field(6) as usize, field(11) as usize);
            let contents = (110 + name).next_multiple_of(4);
            let path = String::from_utf8(bytes[110..110 + name - 1].to_vec()).unwrap();
            entries.push((path, mode, bytes[contents..contents + size].to_vec()));
            bytes = &bytes[(contents + size).next_multiple_of(4)..];
        }
        entries
    }

    #[test]
    fn folders_come_once_and_before_what_is_in_them() {
        let mut archive = Initramfs::new(Vec::new()).unwrap();
        archive.file("/a/b/c", 0o755, b"12345").unwrap();
        archive.file("/a/b/c", 0o755, b"again").unwrap();
        archive.symlink("/a/d", "b/c").unwrap();
        archive.folder("/a/e").unwrap();
        let entries = read(&archive.finish().unwrap());
        let paths = entries.iter().map(|(path, ..)| path.as_str()).collect::<Vec<_>>();
        assert_eq!(paths, ["dev", "dev/console", "a", "a/b", "a/b/c", "a/d", "a/e", "TRAILER!!!"]);
        assert_eq!(entries[4], ("a/b/c".to_owned(), 0o100_755, b"12345".to_vec()));
        assert_eq!(entries[5], ("a/d".to_owned(), 0o120_777, b"b/c".to_vec()));
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        let mut archive = Initramfs::new(Vec::new()).unwrap();
        for path in ["a", "/a/../b"] {
            let refusal = archive.file(path, 0o644, b"").unwrap_err().to_string();
            assert!(refusal.contains("an absolute path without `..`"), "{refusal}");
        }
    }
}
