//! Network namespaces (network_namespaces(7)).

#![expect(unsafe_code, reason = "one ioctl without an argument")]

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};

use crate::error::{Error, Result};

/// Where named namespaces are mounted, as ip-netns(8) has it.
pub const NAMED: &str = "/run/netns";
/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";
/// `NSFS_MAGIC`, linux/magic.h.
const NSFS: FsType = FsType(0x6e73_6673);

mod raw {
    // `NS_GET_NSTYPE`, linux/nsfs.h.
    nix::ioctl_none!(ns_get_nstype, 0xb7, 0x3);
}

/// An open network namespace. It lives at least as long as this value.
#[derive(Debug)]
pub struct NetNs {
    file: File,
}

/// Which namespace it is: device and inode of the namespace file, equal for every path to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetNsId {
    /// Device number of the nsfs instance.
    pub device: u64,
    /// Inode number of the namespace.
    pub inode: u64,
}

impl NetNs {
    /// Opens the namespace at a path. Never waits: a FIFO in the place of a namespace is refused like any other file.
    ///
    /// # Errors
    /// [`Error::Io`] if there is nothing at the path, or something else than a namespace (`EINVAL`).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let open = || -> io::Result<File> {
            let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)?;
            if fstatfs(&file)?.filesystem_type() != NSFS || kind(&file)? != CloneFlags::CLONE_NEWNET.bits() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a network namespace"));
            }
            Ok(file)
        };
        let file = open().map_err(|error| Error::io(format!("open network namespace {}", path.display()), error))?;
        Ok(Self { file })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Io`] if `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        Self::open(OWN)
    }

    /// The namespace that [`create`] made under this name.
    ///
    /// # Errors
    /// [`Error::Io`] if there is none.
    pub fn named(name: &str) -> Result<Self> {
        Self::open(path(name))
    }

    /// Which namespace it is.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be looked at.
    pub fn id(&self) -> Result<NetNsId> {
        let metadata = self.file.metadata().map_err(|error| Error::io("look at a network namespace", error))?;
        Ok(NetNsId { device: metadata.dev(), inode: metadata.ino() })
    }

    /// Moves the calling thread into the namespace, for good. Sockets that are open already stay where they were opened.
    ///
    /// # Errors
    /// [`Error::Io`], `EPERM` without CAP_SYS_ADMIN.
    pub fn enter(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::io("enter a network namespace", errno))
    }

    /// Moves the calling thread into the namespace until the guard is dropped.
    ///
    /// # Errors
    /// [`Error::Io`], `EPERM` without CAP_SYS_ADMIN.
    pub fn guard(&self) -> Result<NetNsGuard> {
        let home = Self::current()?;
        self.enter()?;
        Ok(NetNsGuard { home, thread_bound: PhantomData })
    }

    /// Runs `work` inside the namespace, on a thread of its own, and returns what it returns.
    ///
    /// # Errors
    /// [`Error::Io`] if the namespace cannot be entered.
    ///
    /// # Panics
    /// If `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| self.enter().map(|()| work()));
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// What kind of namespace an nsfs file is (`CLONE_NEW*`, ioctl_nsfs(2)).
fn kind(file: &File) -> io::Result<i32> {
    // SAFETY: the descriptor is open for as long as `file` lives, and the request takes no argument.
    Ok(unsafe { raw::ns_get_nstype(file.as_raw_fd()) }?)
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The calling thread is in another namespace until this is dropped. It belongs to its thread and cannot be sent away.
#[derive(Debug)]
pub struct NetNsGuard {
    home: NetNs,
    thread_bound: PhantomData<*const ()>,
}

impl Drop for NetNsGuard {
    fn drop(&mut self) {
        // A thread that stays in a foreign namespace would change the wrong machine next.
        if let Err(error) = self.home.enter() {
            eprintln!("cannot return to the own network namespace: {error}");
            std::process::abort();
        }
    }
}

/// The path of a named namespace.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(NAMED).join(name)
}

/// Makes a namespace that lives until [`delete`], visible to ip-netns(8) under this name.
///
/// # Errors
/// [`Error::Io`], `EEXIST` if the name is taken.
pub fn create(name: &str) -> Result<NetNs> {
    let path = path(name);
    let make = || -> io::Result<()> {
        std::fs::create_dir_all(NAMED)?;
        File::options().write(true).create_new(true).open(&path)?;
        // A thread has a namespace of its own for as long as it takes to mount it.
        let mounted = thread::scope(|scope| {
            let maker = scope.spawn(|| -> nix::Result<()> {
                unshare(CloneFlags::CLONE_NEWNET)?;
                mount(Some(OWN), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            });
            maker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        if mounted.is_err() {
            // The file alone would look like a namespace to others.
            let _ = std::fs::remove_file(&path);
        }
        Ok(mounted?)
    };
    make().map_err(|error| Error::io(format!("create network namespace {name}"), error))?;
    NetNs::open(path)
}

/// Removes the name of a namespace. The namespace itself goes when nobody uses it any more.
///
/// # Errors
/// [`Error::Io`] if it cannot be removed; one that is not there is no error.
pub fn delete(name: &str) -> Result<()> {
    let path = path(name);
    // EINVAL: the file is there and nothing is mounted on it, as a create that was killed leaves it.
    let _ = umount2(&path, MntFlags::MNT_DETACH);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("delete network namespace {name}"), error))
        }
        _ => Ok(()),
    }
}

/// The names of all named namespaces, sorted.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be read; if it is not there, there are none.
pub fn names() -> Result<Vec<String>> {
    let wrong = |error| Error::io(format!("list {NAMED}"), error);
    let entries = match std::fs::read_dir(NAMED) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrong(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(wrong)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_namespaces_and_files_are_refused() {
        NetNs::current().unwrap();
        for other in ["/proc/self/ns/mnt", "/proc/self/ns/user", "/proc/self/status", "/proc"] {
            let error = NetNs::open(other).unwrap_err().to_string();
            assert!(error.contains("not a network namespace") && error.contains(other), "{error}");
        }
    }
}
