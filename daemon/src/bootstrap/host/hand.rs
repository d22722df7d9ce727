//! Changes of this machine, each written into the journal before it is made, and each made only if there is something to do.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use weft_netlink::sysctl::Sysctl;

use super::lines;
use super::rewrite::rewrite;
use super::tools::Tools;
use crate::bootstrap::journal::{Change, Entry, Journal, JournalError, Stage};
use crate::bootstrap::resolved::Paths;
use crate::bootstrap::{converge, hex};

/// What has come of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was not there before.
    Made,
    /// It was otherwise before.
    Changed,
    /// It was so already.
    Kept,
}

/// A change could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The journal could not be kept; nothing was changed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The file system refused.
    #[error("cannot {verb} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A kernel setting could not be made.
    #[error("{0}; set it by hand, or go on without with --prepare-host=false")]
    Sysctl(#[from] weft_netlink::Error),
    /// A program has failed.
    #[error("{command}: {reason}; {fix}")]
    Tool {
        /// What was called.
        command: String,
        /// What it said.
        reason: String,
        /// What to do.
        fix: &'static str,
    },
    /// containerd's configuration cannot be mended.
    #[error("cannot mend {}: {reason}; mend it by hand", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Makes changes under [`Paths::root`].
pub struct Hand<'a> {
    paths: &'a Paths,
    journal: &'a mut Journal,
    tools: &'a dyn Tools,
}

impl<'a> Hand<'a> {
    /// Changes are written into that journal, and programs called by those tools.
    pub fn new(paths: &'a Paths, journal: &'a mut Journal, tools: &'a dyn Tools) -> Self {
        Self { paths, journal, tools }
    }

    /// Where things lie.
    #[must_use]
    pub const fn paths(&self) -> &'a Paths {
        self.paths
    }

    /// Puts a file there; missing directories above it are made with mode 0755. A file of somebody else's is kept beside it as
    /// `NAME.weft-saved`.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn file(&mut self, path: &Path, bytes: &[u8], mode: u32) -> Result<Outcome, HostError> {
        let current = read(path)?;
        if current.as_deref() == Some(bytes) && has_mode(path, mode) {
            return Ok(Outcome::Kept);
        }
        let sha256 = digest(bytes);
        let is_ours = current.as_ref().is_none_or(|current| self.has_made(path, &digest(current)));
        let (change, outcome) = match (&current, is_ours) {
            (None, _) => (Change::FileMade { path: path.into(), sha256: Some(sha256) }, Outcome::Made),
            (Some(_), true) => (Change::FileMade { path: path.into(), sha256: Some(sha256) }, Outcome::Changed),
            (Some(_), false) => (self.saving(path, sha256), Outcome::Changed),
        };
        if let Some(parent) = path.parent() {
            self.directory(parent, 0o755)?;
        }
        let backup = match &change {
            Change::FileChanged { backup, .. } => Some(backup.clone()),
            _ => None,
        };
        let id = self.journal.begin(change)?;
        if let (Some(backup), Some(current)) = (backup, current)
            && !backup.exists()
        {
            let mode = fs::metadata(path).map_or(0o600, |metadata| metadata.permissions().mode() & 0o7777);
            converge::replace(&backup, &current, mode).map_err(io_error("save", &backup))?;
        }
        converge::replace(path, bytes, mode).map_err(io_error("write", path))?;
        self.journal.done(id)?;
        Ok(outcome)
    }

    /// Makes a directory with that mode, and those above it with 0755. One that is there keeps the mode that it has. What is
    /// made here goes at the reset, if it is empty then.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn directory(&mut self, path: &Path, mode: u32) -> Result<Outcome, HostError> {
        let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
        for missing in missing.iter().rev() {
            let id = self.journal.begin(Change::DirectoryMade { path: missing.to_path_buf() })?;
            let mode = if *missing == path { mode } else { 0o755 };
            match fs::DirBuilder::new().mode(mode).create(missing) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error("make", missing)(error));
                }
                _ => self.journal.done(id)?,
            }
        }
        Ok(if missing.is_empty() { Outcome::Kept } else { Outcome::Made })
    }

    /// Makes comments of those lines of a file; `is_wanted` chooses.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn comment(&mut self, path: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Outcome, HostError> {
        self.edit(path, Change::LinesCommented { path: path.into() }, |text| lines::comment(text, is_wanted))
    }

    /// Puts a block of lines into a file, in the place of an older one of that name: `weft join` pins a name in /etc/hosts.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn block(&mut self, path: &Path, name: &str, block: &[String]) -> Result<Outcome, HostError> {
        let change = Change::BlockAdded { path: path.into(), name: name.into() };
        self.edit(path, change, |text| lines::put_block(text, name, block))
    }

    /// Takes the block of that name out of a file again.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn unblock(&mut self, path: &Path, name: &str) -> Result<Outcome, HostError> {
        let change = Change::BlockAdded { path: path.into(), name: name.into() };
        let new = edited(path, |text| lines::remove_block(text, name))?;
        if let Some((new, mode)) = &new {
            rewrite(path, new.as_bytes(), *mode).map_err(io_error("write", path))?;
        }
        self.taken_back(|made| *made == change)?;
        Ok(if new.is_some() { Outcome::Changed } else { Outcome::Kept })
    }

    /// Removes a file, or a directory if it is empty, that weft has made.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn remove(&mut self, path: &Path) -> Result<(), HostError> {
        let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        match removed {
            // Others keep something there.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", path)(error)),
            _ => {}
        }
        self.taken_back(|made| match made {
            Change::FileMade { path: made, .. } | Change::DirectoryMade { path: made } => made == path,
            _ => false,
        })
    }

    /// Writes down that changes are no longer there.
    fn taken_back(&mut self, is_meant: impl Fn(&Change) -> bool) -> Result<(), HostError> {
        let meant: Vec<_> = self.live().filter(|entry| is_meant(&entry.change)).map(|entry| entry.id).collect();
        Ok(meant.into_iter().try_for_each(|id| self.journal.undone(id))?)
    }

    fn edit(
        &mut self,
        path: &Path,
        change: Change,
        edit: impl FnOnce(&str) -> Option<String>,
    ) -> Result<Outcome, HostError> {
        let Some((new, mode)) = edited(path, edit)? else { return Ok(Outcome::Kept) };
        let id = self.journal.begin(change)?;
        rewrite(path, new.as_bytes(), mode).map_err(io_error("write", path))?;
        self.journal.done(id)?;
        Ok(Outcome::Changed)
    }

    /// Sets a kernel setting, named by its path below `/proc/sys`. One that this kernel does not have is left.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn sysctl(&mut self, key: &str, value: &str) -> Result<Outcome, HostError> {
        let sysctl = Sysctl::at(self.paths.root.join("proc/sys"));
        let Some(before) = sysctl.read(key)?.filter(|before| before != value) else { return Ok(Outcome::Kept) };
        let id = self.journal.begin(Change::Sysctl { key: key.into(), before, value: value.into() })?;
        sysctl.write(key, value)?;
        self.journal.done(id)?;
        Ok(Outcome::Changed)
    }

    /// Makes a change by a program.
    ///
    /// # Errors
    /// [`HostError::Tool`] with `fix` if it fails.
    pub fn tool(
        &mut self,
        change: Change,
        program: &str,
        args: &[&str],
        fix: &'static str,
    ) -> Result<Outcome, HostError> {
        let id = self.journal.begin(change)?;
        call(self.tools, program, args, fix)?;
        self.journal.done(id)?;
        Ok(Outcome::Changed)
    }

    /// Calls a program that changes nothing that would have to be undone.
    ///
    /// # Errors
    /// [`HostError::Tool`] with `fix` if it fails.
    pub fn call(&self, program: &str, args: &[&str], fix: &'static str) -> Result<String, HostError> {
        call(self.tools, program, args, fix)
    }

    /// Whether weft has made this file with this content.
    fn has_made(&self, path: &Path, sha256: &str) -> bool {
        self.live().any(|entry| match &entry.change {
            Change::FileMade { path: made, sha256: content } => {
                made == path && content.as_deref().is_none_or(|content| content == sha256)
            }
            _ => false,
        })
    }

    fn live(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.journal.entries().filter(|entry| entry.stage != Stage::Undone)
    }

    /// The entry of a file of somebody else's: the one of an interrupted run again, if there is one.
    fn saving(&self, path: &Path, sha256: String) -> Change {
        let begun = self.live().rev().find_map(|entry| match &entry.change {
            Change::FileChanged { path: changed, backup, sha256: content }
                if changed == path && *content == sha256 && entry.stage == Stage::Begun =>
            {
                Some(backup.clone())
            }
            _ => None,
        });
        let backup = begun.unwrap_or_else(|| free_name(path));
        Change::FileChanged { path: path.into(), backup, sha256 }
    }
}

/// What a file is to hold, and with which mode; `None` if that is what it holds.
fn edited(path: &Path, edit: impl FnOnce(&str) -> Option<String>) -> Result<Option<(String, u32)>, HostError> {
    let bytes = read(path)?.unwrap_or_default();
    let Some(new) = edit(&String::from_utf8_lossy(&bytes)) else { return Ok(None) };
    let mode = fs::metadata(path).map_or(0o644, |metadata| metadata.permissions().mode() & 0o7777);
    Ok(Some((new, mode)))
}

fn free_name(path: &Path) -> PathBuf {
    let name = |number: u32| {
        let suffix = if number == 0 { String::new() } else { format!(".{number}") };
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".weft-saved{suffix}"));
        PathBuf::from(name)
    };
    (0..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0))
}

fn call(tools: &dyn Tools, program: &str, args: &[&str], fix: &'static str) -> Result<String, HostError> {
    let command = || std::iter::once(program).chain(args.iter().copied()).collect::<Vec<_>>().join(" ");
    match tools.call(program, args) {
        Ok(said) if said.well => Ok(said.out),
        Ok(said) => Err(HostError::Tool { command: command(), reason: said.why(), fix }),
        Err(error) => Err(HostError::Tool { command: command(), reason: error.to_string(), fix }),
    }
}

pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, HostError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

fn has_mode(path: &Path, mode: u32) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o7777 == mode)
}

/// SHA-256 in hexadecimal digits, as the journal has it.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes))
}

pub(super) fn io_error<'a>(verb: &'static str, path: &'a Path) -> impl Fn(io::Error) -> HostError + 'a {
    move |source| HostError::Io { verb, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::super::tools::testing::Recorder;
    use super::*;

    #[test]
    fn a_file_is_made_kept_and_changed_and_a_foreign_one_saved() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let mut journal = Journal::open(&paths).unwrap();
        let tools = Recorder::willing();
        let mut hand = Hand::new(&paths, &mut journal, &tools);
        let path = root.path().join("etc/sysctl.d/9.conf");
        assert_eq!(hand.file(&path, b"1", 0o644).unwrap(), Outcome::Made);
        assert_eq!(hand.file(&path, b"1", 0o644).unwrap(), Outcome::Kept);
        assert_eq!(hand.file(&path, b"2", 0o644).unwrap(), Outcome::Changed);
        let saved = root.path().join("etc/sysctl.d/9.conf.weft-saved");
        assert!(!saved.exists(), "our own is not worth keeping");
        fs::write(&path, "theirs").unwrap();
        assert_eq!(hand.file(&path, b"2", 0o644).unwrap(), Outcome::Changed);
        assert_eq!(fs::read(&saved).unwrap(), b"theirs");
        let made: Vec<&Change> = journal.entries().map(|entry| &entry.change).collect();
        assert!(matches!(made[0], Change::DirectoryMade { path } if path.ends_with("etc")), "{made:?}");
        assert!(matches!(made.last(), Some(Change::FileChanged { .. })));
    }

    #[test]
    fn what_is_taken_back_is_nothing_that_a_reset_has_to_undo() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let mut journal = Journal::open(&paths).unwrap();
        let tools = Recorder::willing();
        let mut hand = Hand::new(&paths, &mut journal, &tools);
        let (hosts, directory) = (root.path().join("hosts"), root.path().join("lists"));
        fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
        hand.block(&hosts, "api", &["127.0.0.1 api".to_owned()]).unwrap();
        hand.file(&directory.join("start"), b"x", 0o644).unwrap();
        assert_eq!(hand.unblock(&hosts, "api").unwrap(), Outcome::Changed);
        assert_eq!(hand.unblock(&hosts, "api").unwrap(), Outcome::Kept);
        assert_eq!(fs::read_to_string(&hosts).unwrap(), "127.0.0.1 localhost\n");
        hand.remove(&directory).unwrap();
        assert!(directory.exists(), "there is something in it");
        for _ in 0..2 {
            hand.remove(&directory.join("start")).unwrap();
            hand.remove(&directory).unwrap();
        }
        assert!(!directory.exists());
        assert!(journal.entries().all(|entry| entry.stage == Stage::Undone), "{journal:?}");
    }

    #[test]
    fn an_interrupted_saving_goes_on_with_the_same_backup() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let path = root.path().join("config.toml");
        let backup = root.path().join("config.toml.weft-saved");
        fs::write(&path, "theirs").unwrap();
        fs::write(&backup, "theirs").unwrap();
        let change = Change::FileChanged { path: path.clone(), backup: backup.clone(), sha256: digest(b"ours") };
        let mut journal = Journal::open(&paths).unwrap();
        journal.begin(change).unwrap();
        let tools = Recorder::willing();
        Hand::new(&paths, &mut journal, &tools).file(&path, b"ours", 0o644).unwrap();
        assert_eq!(journal.entries().count(), 1);
        assert!(!root.path().join("config.toml.weft-saved.1").exists());
    }

    #[test]
    fn a_program_that_fails_is_told_with_what_it_said() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let mut journal = Journal::open(&paths).unwrap();
        let tools = Recorder::new(|_| Err(io::ErrorKind::NotFound.into()));
        let mut hand = Hand::new(&paths, &mut journal, &tools);
        let change = Change::ModuleLoaded { name: "x".into() };
        let error = hand.tool(change, "modprobe", &["x"], "install kmod").unwrap_err().to_string();
        assert!(error.starts_with("modprobe x: ") && error.ends_with("; install kmod"), "{error}");
        assert_eq!(journal.entries().next().unwrap().stage, Stage::Begun);
    }
}
