//! The journal of what weft has changed on this machine: what `weft reset` undoes, newest first, and where an interrupted
//! `weft init` goes on.
//!
//! One JSON object a line in `journal.jsonl` under [`Paths::state`], appended and synced: a change is written down *before*
//! it is made, so that a process killed at any instruction leaves nothing behind that nobody knows of. Whoever undoes
//! therefore asks the machine what has really come of an entry. The last line may be torn; it is dropped, as its change was not
//! begun.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::resolved::Paths;

/// Name of the file under [`Paths::state`].
pub const FILE: &str = "journal.jsonl";

/// Something that weft changes on a machine. Paths are those that this process uses, `Paths::root` included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Change {
    /// A directory that was not there.
    DirectoryMade {
        /// The directory.
        path: PathBuf,
    },
    /// A file that was not there, or an earlier one of weft's own.
    FileMade {
        /// The file.
        path: PathBuf,
        /// SHA-256 of its content in hexadecimal digits. A file that has other content when it is to go is somebody else's
        /// by then, and stays; without the digest it goes whatever it holds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    },
    /// A file of somebody else's that got other content.
    FileChanged {
        /// The file.
        path: PathBuf,
        /// Where its old content is kept.
        backup: PathBuf,
        /// SHA-256 of its new content.
        sha256: String,
    },
    /// Lines of somebody else's file that are comments now ([`super::host::lines`]).
    LinesCommented {
        /// The file.
        path: PathBuf,
    },
    /// A block of lines in somebody else's file ([`super::host::lines`]).
    BlockAdded {
        /// The file.
        path: PathBuf,
        /// The block's name.
        name: String,
    },
    /// A symbolic link that was not there.
    LinkMade {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A kernel setting.
    Sysctl {
        /// Its path below `/proc/sys`.
        key: String,
        /// Its old value.
        before: String,
        /// Its new value.
        value: String,
    },
    /// Swap space that is no longer used.
    SwapOff {
        /// Device or file.
        device: String,
        /// Its priority, if it was given one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        priority: Option<i32>,
    },
    /// A unit that nothing starts any more.
    UnitMasked {
        /// `dev-zram0.swap`.
        unit: String,
    },
    /// A kernel module. It stays: whoever else has come to use it cannot be told.
    ModuleLoaded {
        /// Its name.
        name: String,
    },
    /// A rule of firewalld's, now and for ever: `--add-port=6443/tcp` without the `--add-`.
    FirewallOpened {
        /// `port=6443/tcp`, `source=10.244.0.0/16`.
        rule: String,
        /// The zone; the default one if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        zone: Option<String>,
    },
    /// A unit that starts with the machine now.
    ServiceEnabled {
        /// `kubelet.service`.
        unit: String,
    },
    /// A unit that was not running.
    ServiceStarted {
        /// `kubelet.service`.
        unit: String,
    },
    /// A phase of init or join: begun when it starts, done when it has ended well.
    Phase {
        /// `control-plane`.
        name: String,
        /// What it was run with; another digest means that it has to run again.
        config_hash: String,
    },
    /// What a newer weft has written. It cannot be undone by this one.
    #[serde(other)]
    Unknown,
}

/// Names an entry of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryId(u64);

/// How far an entry has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Written down; the change may have been made, in part or not at all.
    Begun,
    /// Made.
    Done,
    /// Taken back.
    Undone,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Names it.
    pub id: EntryId,
    /// When it was begun.
    pub at: Timestamp,
    /// What it is about.
    pub change: Change,
    /// How far it has come.
    pub stage: Stage,
}

/// The journal could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("cannot {verb} the journal {}: {source}", .path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process writes it.
    #[error("another weft works on this machine (it holds {}); wait for it to end", .0.display())]
    Busy(PathBuf),
    /// A line before the last makes no sense.
    #[error("{}:{line}: no entry of a journal: {reason}; repair or remove the line, what it was about will not be undone", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
enum Line {
    Begin { id: EntryId, at: Timestamp, change: Change },
    Done { id: EntryId },
    Undone { id: EntryId },
}

/// The journal, open for writing: nobody else has it meanwhile.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Flock<File>,
    entries: BTreeMap<EntryId, Entry>,
    /// How many lines may still be written: a test ends a run anywhere by it.
    #[cfg(test)]
    pub(super) budget: Option<usize>,
}

impl Journal {
    /// Opens the journal, an empty one if there is none.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(paths: &Paths) -> Result<Self, JournalError> {
        let path = paths.state.join(FILE);
        let io = |verb| io_error(verb, &path);
        let is_new = !path.exists();
        DirBuilder::new().recursive(true).mode(0o700).create(&paths.state).map_err(io("make the directory of"))?;
        let file = File::options().read(true).append(true).create(true).mode(0o600).open(&path).map_err(io("open"))?;
        let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => JournalError::Busy(path.clone()),
            other => io("lock")(other.into()),
        })?;
        if is_new {
            let synced = File::open(&paths.state).and_then(|directory| directory.sync_all());
            synced.map_err(io("sync the directory of"))?;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read"))?;
        let (entries, sound) = parse(&path, &bytes)?;
        if sound < bytes.len() {
            // What is appended must not become a part of the torn line.
            let cut = file.set_len(u64::try_from(sound).unwrap_or_default()).and_then(|()| file.sync_all());
            cut.map_err(io("cut the torn end of"))?;
        }
        file.seek(SeekFrom::End(0)).map_err(io("read"))?;
        Ok(Self {
            path,
            file,
            entries,
            #[cfg(test)]
            budget: None,
        })
    }

    /// The entries of the journal, oldest first, without opening it for writing; none if there is no journal.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn read(paths: &Paths) -> Result<Vec<Entry>, JournalError> {
        let path = paths.state.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => Ok(parse(&path, &bytes)?.0.into_values().collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// Writes down that the change is about to be made. It is on the disk when this returns.
    ///
    /// The same change that has been begun before and not undone is the same entry.
    ///
    /// # Errors
    /// [`JournalError::Io`]; the change must then not be made.
    pub fn begin(&mut self, change: Change) -> Result<EntryId, JournalError> {
        let same = self.entries.values().find(|entry| entry.stage != Stage::Undone && entry.change == change);
        if let Some(same) = same {
            return Ok(same.id);
        }
        let id = EntryId(self.entries.last_key_value().map_or(1, |(last, _)| last.0.saturating_add(1)));
        let at = Timestamp::now();
        self.append(&Line::Begin { id, at, change: change.clone() })?;
        self.entries.insert(id, Entry { id, at, change, stage: Stage::Begun });
        Ok(id)
    }

    /// Writes down that the change has been made.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn done(&mut self, id: EntryId) -> Result<(), JournalError> {
        self.advance(id, Stage::Done)
    }

    /// Writes down that the change has been taken back.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn undone(&mut self, id: EntryId) -> Result<(), JournalError> {
        self.advance(id, Stage::Undone)
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.values()
    }

    /// What the phase was run with when it last ended well; `None` if it never did.
    #[must_use]
    pub fn phase(&self, wanted: &str) -> Option<&str> {
        self.entries.values().rev().find_map(|entry| match &entry.change {
            Change::Phase { name, config_hash } if name == wanted && entry.stage == Stage::Done => {
                Some(config_hash.as_str())
            }
            _ => None,
        })
    }

    /// Removes the journal: everything in it has been undone.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn remove(self) -> Result<(), JournalError> {
        fs::remove_file(&self.path).map_err(io_error("remove", &self.path))
    }

    fn advance(&mut self, id: EntryId, stage: Stage) -> Result<(), JournalError> {
        if self.entries.get(&id).is_none_or(|entry| entry.stage == stage) {
            return Ok(());
        }
        self.append(&if stage == Stage::Undone { Line::Undone { id } } else { Line::Done { id } })?;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.stage = stage;
        }
        Ok(())
    }

    fn append(&mut self, line: &Line) -> Result<(), JournalError> {
        let io = io_error("write", &self.path);
        #[cfg(test)]
        if let Some(budget) = &mut self.budget {
            *budget = budget.checked_sub(1).ok_or_else(|| io(io::ErrorKind::StorageFull.into()))?;
        }
        let mut text = serde_json::to_vec(line).map_err(|error| io(error.into()))?;
        text.push(b'\n');
        let before = self.file.metadata().map_err(&io)?.len();
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        written.map_err(|error| {
            // Half a line, of a full disk, would make the next one unreadable.
            let _ = self.file.set_len(before);
            io(error)
        })
    }
}

/// The entries, and how many bytes of the file are sound.
fn parse(path: &Path, bytes: &[u8]) -> Result<(BTreeMap<EntryId, Entry>, usize), JournalError> {
    let mut entries = BTreeMap::new();
    let mut sound = 0;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let whole = line.last() == Some(&b'\n');
        let parsed: Result<Line, _> = serde_json::from_slice(line);
        let parsed = match parsed {
            Ok(parsed) if whole => parsed,
            // Only the end can be torn.
            Err(error) if sound + line.len() < bytes.len() => {
                return Err(JournalError::Damaged { path: path.into(), line: index + 1, reason: error.to_string() });
            }
            _ => break,
        };
        sound += line.len();
        match parsed {
            Line::Begin { id, at, change } => {
                entries.insert(id, Entry { id, at, change, stage: Stage::Begun });
            }
            Line::Done { id } => set(&mut entries, id, Stage::Done),
            Line::Undone { id } => set(&mut entries, id, Stage::Undone),
        }
    }
    Ok((entries, sound))
}

fn set(entries: &mut BTreeMap<EntryId, Entry>, id: EntryId, stage: Stage) {
    if let Some(entry) = entries.get_mut(&id) {
        entry.stage = stage;
    }
}

fn io_error<'a>(verb: &'static str, path: &'a Path) -> impl Fn(io::Error) -> JournalError + 'a {
    move |source| JournalError::Io { verb, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysctl(key: &str) -> Change {
        Change::Sysctl { key: key.into(), before: "0".into(), value: "1".into() }
    }

    fn phase(hash: &str) -> Change {
        Change::Phase { name: "certs".into(), config_hash: hash.into() }
    }

    fn stages(paths: &Paths) -> Vec<Stage> {
        Journal::read(paths).unwrap().iter().map(|entry| entry.stage).collect()
    }

    #[test]
    fn what_was_written_is_there_for_the_next_process() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        assert!(Journal::read(&paths).unwrap().is_empty() && !paths.state.exists(), "reading makes nothing");
        let mut journal = Journal::open(&paths).unwrap();
        let first = journal.begin(sysctl("a")).unwrap();
        journal.done(first).unwrap();
        let second = journal.begin(sysctl("b")).unwrap();
        drop(journal);
        let mut journal = Journal::open(&paths).unwrap();
        assert_eq!(stages(&paths), [Stage::Done, Stage::Begun]);
        assert_eq!(journal.begin(sysctl("b")).unwrap(), second, "a change begun before is the same entry");
        journal.undone(first).unwrap();
        assert_ne!(journal.begin(sysctl("a")).unwrap(), first, "and one undone is not");
        assert_eq!(stages(&paths), [Stage::Undone, Stage::Begun, Stage::Begun]);
        journal.remove().unwrap();
        assert!(Journal::read(&paths).unwrap().is_empty());
    }

    #[test]
    fn p0_7_a_phase_has_the_hash_of_its_last_good_end() {
        let root = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&Paths::under(root.path())).unwrap();
        let first = journal.begin(phase("1")).unwrap();
        assert_eq!(journal.phase("certs"), None, "begun is not done");
        journal.done(first).unwrap();
        journal.begin(phase("2")).unwrap();
        assert_eq!(journal.phase("certs"), Some("1"));
        assert_eq!(journal.phase("etcd"), None);
    }

    #[test]
    fn the_file_cut_anywhere_is_read_and_written_on() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let mut journal = Journal::open(&paths).unwrap();
        for key in ["a", "b", "c"] {
            let id = journal.begin(sysctl(key)).unwrap();
            journal.done(id).unwrap();
        }
        drop(journal);
        let file = paths.state.join(FILE);
        let whole = fs::read(&file).unwrap();
        for length in 0..=whole.len() {
            fs::write(&file, &whole[..length]).unwrap();
            let lines = whole[..length].iter().filter(|byte| **byte == b'\n').count();
            let mut journal = Journal::open(&paths).unwrap();
            assert_eq!(journal.entries().count(), lines.div_ceil(2), "cut at {length}");
            let id = journal.begin(sysctl("d")).unwrap();
            journal.done(id).unwrap();
            drop(journal);
            assert_eq!(stages(&paths).last(), Some(&Stage::Done), "cut at {length}");
        }
    }

    #[test]
    fn zeros_at_the_end_are_a_torn_line_and_nonsense_before_it_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        Journal::open(&paths).unwrap().begin(sysctl("a")).unwrap();
        let file = paths.state.join(FILE);
        let mut bytes = fs::read(&file).unwrap();
        bytes.extend([0; 100]);
        fs::write(&file, &bytes).unwrap();
        assert_eq!(Journal::read(&paths).unwrap().len(), 1);
        bytes.push(b'\n');
        bytes.extend(b"{}\n");
        fs::write(&file, &bytes).unwrap();
        let error = Journal::open(&paths).unwrap_err().to_string();
        assert!(error.contains("journal.jsonl:2: "), "{error}");
    }

    #[test]
    fn two_processes_do_not_write_at_once_and_newer_kinds_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let held = Journal::open(&paths).unwrap();
        assert!(matches!(Journal::open(&paths), Err(JournalError::Busy(_))));
        drop(held);
        let line = r#"{"event":"begin","id":1,"at":"2026-01-01T00:00:00Z","change":{"kind":"moonMoved","by":3}}"#;
        fs::write(paths.state.join(FILE), format!("{line}\n")).unwrap();
        assert_eq!(Journal::read(&paths).unwrap()[0].change, Change::Unknown);
    }
}
