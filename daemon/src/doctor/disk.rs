//! Where state is kept: whether it can be written, and whether there is room.

use super::check::Group;
use super::{Check, Told};

const GROUP: Group = Group("disk");

/// Below so many bytes a directory has no room for all that weft keeps: a record of each pod, and itself.
const LEAST_BYTES: u64 = 16 * 1024 * 1024;
/// Below so many files no pods can be recorded, each of which is one.
const LEAST_FILES: u64 = 512;

/// The file system of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that can still be written.
    pub bytes: u64,
    /// Files that can still be made; `None` where they are not counted.
    pub files: Option<u64>,
}

/// Whether a directory can be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writable {
    /// It can.
    Yes,
    /// It cannot, and why.
    No(String),
}

/// A directory that agent or plugin write to.
#[derive(Debug, Clone)]
pub struct Directory {
    /// The setting that names it.
    pub key: &'static str,
    /// Its path.
    pub path: String,
    /// Whether the agent can write to it; an error if that cannot be told.
    pub writable: Told<Writable>,
    /// Its room.
    pub room: Told<Room>,
}

/// The checks.
#[must_use]
pub fn judge(directories: &[Directory]) -> Vec<Check> {
    directories.iter().map(directory).collect()
}

fn directory(directory: &Directory) -> Check {
    let Directory { key, path, writable, room } = directory;
    let refused = match writable {
        Ok(Writable::Yes) => None,
        Ok(Writable::No(reason)) => Some(reason),
        Err(reason) => return GROUP.unknown(*key, format!("{path}: {reason}")),
    };
    if let Some(reason) = refused {
        return GROUP.problem(
            *key,
            format!("{path} cannot be written to: {reason}"),
            format!("mount | grep {path}; in the agent's pod it is a hostPath volume; on the host: mount -o remount,rw, chmod u+w"),
        );
    }
    match room {
        Err(reason) => GROUP.unknown(*key, format!("{path}: {reason}")),
        Ok(Room { bytes, .. }) if *bytes < LEAST_BYTES => GROUP.problem(
            *key,
            format!("{path} has room for {} KiB only", bytes / 1024),
            format!("df -h {path}; free some, or make the file system larger (/run: mount -o remount,size=…)"),
        ),
        Ok(Room { files: Some(files), .. }) if *files < LEAST_FILES => GROUP.problem(
            *key,
            format!("{path} has room for {files} more files only"),
            format!("df -i {path}; remove files that nobody needs (/run: mount -o remount,nr_inodes=…)"),
        ),
        Ok(Room { bytes, .. }) => GROUP.good(*key, format!("{path}: {} MiB free", bytes / 1024 / 1024)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    #[test]
    fn a_directory_is_writable_and_has_room() {
        let judged = |writable: Told<Writable>, room: Told<Room>| {
            judge(&[Directory { key: "run-dir", path: "/run/weft".into(), writable, room }]).remove(0).outcome
        };
        let room = |bytes, files| Ok(Room { bytes, files });
        let yes = || Ok(Writable::Yes);
        assert_eq!(judged(yes(), room(1 << 30, Some(10_000))), Outcome::Good);
        assert_eq!(judged(yes(), room(1 << 30, None)), Outcome::Good);
        assert_eq!(judged(yes(), room(1 << 20, None)), Outcome::Problem);
        assert_eq!(judged(yes(), room(1 << 30, Some(3))), Outcome::Problem);
        assert_eq!(judged(Ok(Writable::No("read-only".into())), room(1 << 30, None)), Outcome::Problem);
        assert_eq!(judged(Err("not for this user".into()), room(1 << 30, None)), Outcome::Unknown);
        assert_eq!(judged(yes(), Err("no such file".into())), Outcome::Unknown);
    }
}
