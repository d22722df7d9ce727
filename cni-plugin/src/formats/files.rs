//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Whether a file must survive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It lives on tmpfs, or is worthless after a reboot.
    UntilReboot,
    /// It is synced, and its directory too, before the call returns.
    Durable,
}

/// Puts a file in the place of whatever is at `path`, in one step: a reader finds the old bytes or the new ones.
///
/// The temporary file lies in the same directory and ends in `.tmp`, so that watchers of that directory (containerd
/// reloads `net.d` on a rename within it, not on one from elsewhere) see the rename and ignore the file before it.
/// Missing parent directories are made with mode 0755.
///
/// # Errors
/// Whatever the file system says; the temporary file is then gone.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
    };
    // The parent of a bare file name is the empty path.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    fs::create_dir_all(directory)?;
    let temporary = directory.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let result = write_new(&temporary, bytes, mode, durability).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = result {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    match durability {
        Durability::Durable => File::open(directory)?.sync_all(),
        Durability::UntilReboot => Ok(()),
    }
}

/// Removes what processes that were killed within [`write_atomically`] have left beside `path`: nobody else ever would, and
/// there may be a key in it.
///
/// # Errors
/// The directory cannot be read, or a file in it not removed.
pub fn sweep(path: &Path) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let prefix = format!(".{}.", name.to_string_lossy());
    for entry in entries {
        let entry = entry?;
        let file = entry.file_name();
        let process = file.to_str().and_then(|file| file.strip_prefix(&prefix)?.strip_suffix(".tmp"));
        let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_dead = |process: &&str| !Path::new("/proc").join(process).exists();
        if process.filter(is_number).filter(is_dead).is_some() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    // What a killed process of the same number left would otherwise keep its mode.
    let _ = fs::remove_file(path);
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    // The mode given at creation is cut by the umask.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    file.write_all(bytes)?;
    match durability {
        Durability::Durable => file.sync_all(),
        Durability::UntilReboot => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_the_dead_have_left_is_swept_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.conf");
        sweep(&directory.path().join("absent/a.conf")).unwrap();
        // No process has a number beyond the kernel's limit of 2^22.
        let own = format!(".a.conf.{}.tmp", std::process::id());
        for name in [".a.conf.4194305.tmp", ".a.conf.x.tmp", ".b.conf.4194305.tmp", "a.conf", &own] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        sweep(&path).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [own.as_str(), ".a.conf.x.tmp", ".b.conf.4194305.tmp", "a.conf"]);
    }

    #[test]
    fn replaces_and_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/file");
        write_atomically(&path, b"old", 0o600, Durability::Durable).unwrap();
        write_atomically(&path, b"new", 0o644, Durability::UntilReboot).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_rename_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir_all(path.join("by a directory")).unwrap();
        assert!(write_atomically(&path, b"x", 0o600, Durability::UntilReboot).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
