//! Taking a machine out of its cluster: mounts, files, and what the journal says weft has changed.
//!
//! [`see`] looks, [`plan`] decides (pure; `--dry-run` prints just that), [`run`] does it. Nothing is removed across a mount or
//! through a symbolic link, a busy mount ends everything before a file is touched, and what is not known to be weft's or
//! kubeadm's is left and listed. Links, routes, tables and attachments are `weft cleanup`'s.

mod confirm;
mod etcd;
mod holders;
mod mounts;
mod plan;
mod remove;
mod run;
mod seen;

#[cfg(test)]
mod tests;

pub use confirm::{NotConfirmed, confirm};
pub use etcd::etcd_data;
pub use holders::MountHolder;
pub use plan::{Left, Plan, Step, plan};
pub use run::{Done, ResetError, run};
pub use seen::{Found, Seen, see};

use std::path::PathBuf;

use nix::mount::MntFlags;

use crate::bootstrap::journal::Entry;
use crate::bootstrap::resolved::Paths;

/// What is to be reset.
#[derive(Debug, Clone)]
pub struct ResetOptions {
    /// Where things lie; certificates may have a place of their own.
    pub paths: Paths,
    /// A local etcd's data, `Paths::root` included; `None` if it is not to be emptied.
    pub etcd_data: Option<PathBuf>,
    /// Whether kubeadm's directory for temporary files is emptied, too.
    pub cleanup_tmp_dir: bool,
    /// Further flags of umount2(2).
    pub unmount_flags: MntFlags,
}

impl ResetOptions {
    /// As `weft reset` without options, on a machine with these entries in its journal.
    #[must_use]
    pub fn new(paths: Paths, entries: &[Entry]) -> Self {
        let etcd_data = etcd_data(&paths, entries);
        Self { paths, etcd_data, cleanup_tmp_dir: false, unmount_flags: MntFlags::empty() }
    }
}

/// Reads the flags of `unmountFlags` (kubeadm's `ResetConfiguration`).
///
/// # Errors
/// The name that is none of them.
pub fn unmount_flags(names: &[String]) -> Result<MntFlags, String> {
    let known = [
        ("MNT_FORCE", MntFlags::MNT_FORCE),
        ("MNT_DETACH", MntFlags::MNT_DETACH),
        ("MNT_EXPIRE", MntFlags::MNT_EXPIRE),
        ("UMOUNT_NOFOLLOW", MntFlags::UMOUNT_NOFOLLOW),
    ];
    let mut flags = MntFlags::empty();
    for name in names {
        match known.iter().find(|(word, _)| word == name) {
            Some((_, flag)) => flags |= *flag,
            None => {
                let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
                return Err(format!("unmountFlags: {name:?}: expected one of {}", words.join(", ")));
            }
        }
    }
    Ok(flags)
}
