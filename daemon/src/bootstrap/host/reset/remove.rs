//! Emptying a directory: never across a mount, never through a symbolic link, whatever somebody puts there meanwhile. The kernel
//! sees to that (openat2(2)), not a check before.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// What could not be removed, and why.
pub(super) type Kept = Vec<(PathBuf, String)>;

const MOUNTED: &str = "something is mounted there";

/// Removes all that the directory holds; it stays itself. One that is not there is empty. Returns what had to stay.
///
/// # Errors
/// That the directory cannot be opened, or is none.
pub(super) fn empty(path: &Path) -> nix::Result<Kept> {
    // Which directory it is has been decided when it was looked at: links have been followed by then.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = match open(path, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        other => other?,
    };
    let mut kept = Vec::new();
    clear(directory, path, &mut kept)?;
    Ok(kept)
}

fn clear(directory: OwnedFd, path: &Path, kept: &mut Kept) -> nix::Result<()> {
    let mut directory = Dir::from_fd(directory)?;
    let names: Vec<CString> =
        directory.iter().map(|entry| Ok(entry?.file_name().to_owned())).collect::<nix::Result<_>>()?;
    for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
        let path = path.join(std::ffi::OsStr::new(&*name.to_string_lossy()));
        if let Err(errno) = remove(&directory, name, &path, kept) {
            let why = if errno == Errno::EBUSY { MOUNTED } else { errno.desc() };
            kept.push((path, why.to_owned()));
        }
    }
    Ok(())
}

fn remove(directory: &Dir, name: &CString, path: &Path, kept: &mut Kept) -> nix::Result<()> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let flag = match openat2(directory.as_fd(), name.as_c_str(), how) {
        Ok(inner) => {
            let before = kept.len();
            clear(inner, path, kept)?;
            if kept.len() > before {
                return Ok(());
            }
            UnlinkatFlags::RemoveDir
        }
        // A file, or a link, which is removed itself.
        Err(Errno::ENOTDIR | Errno::ELOOP) => UnlinkatFlags::NoRemoveDir,
        Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EXDEV) => return Err(Errno::EBUSY),
        Err(errno) => return Err(errno),
    };
    match unlinkat(directory.as_fd(), name.as_c_str(), flag) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn r05_p0_21_what_links_lead_to_survives() {
        let root = tempfile::tempdir().unwrap();
        let (kubelet, important) = (root.path().join("kubelet"), root.path().join("important"));
        fs::create_dir_all(kubelet.join("pods/a/b")).unwrap();
        fs::create_dir(&important).unwrap();
        fs::write(important.join("data"), "x").unwrap();
        fs::write(kubelet.join("pods/a/file"), "x").unwrap();
        symlink(&important, kubelet.join("pods/a/link")).unwrap();
        symlink("/nowhere", kubelet.join("dangling")).unwrap();
        assert_eq!(empty(&kubelet).unwrap(), []);
        assert_eq!(fs::read_dir(&kubelet).unwrap().count(), 0);
        assert_eq!(fs::read(important.join("data")).unwrap(), b"x");
        assert_eq!(empty(&root.path().join("absent")).unwrap(), []);
        symlink(&important, root.path().join("as-link")).unwrap();
        assert!(empty(&root.path().join("as-link")).is_err(), "the directory itself may be no link either");
    }
}
