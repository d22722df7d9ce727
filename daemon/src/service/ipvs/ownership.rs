//! Which virtual servers are ours.
//!
//! IPVS keeps no mark of an owner with a virtual server, so there is a record beside it: a journal of one line for each
//! virtual server that comes (`+TCP 10.96.0.1:443`, before it is made) and goes (`-…`, after it is gone). One change of a
//! cluster with 10,000 Services thus costs one short line, where writing a list anew would cost a megabyte. It is written
//! anew, by a rename, only when most of its lines have had their day.
//!
//! The journal lies in the run directory and speaks of one boot, whose number is in its first line: what was made before
//! is gone. A last line without an end is one that a crash has cut off, before anything was made by it. There are two other
//! kinds of lines: `adopted` says that the virtual servers in the service ranges, which were there before the journal,
//! were taken over or did not exist; `timeouts …` says what the timeouts of IPVS were.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weft_cni::formats::files::{Durability, write_atomically};
use weft_netlink::ipvs::{Target, Timeouts};
use weft_netlink::sysctl::Sysctl;

use crate::cluster::services::Protocol;

/// Name of the journal.
pub(super) const FILE: &str = "ipvs.journal";
const MODE: u32 = 0o600;
const TITLE: &str = "weft-ipvs 1";
const ADOPTED: &str = "adopted";
/// The boot's number, a UUID (Documentation/admin-guide/sysctl/kernel.rst, random).
const BOOT_ID: &str = "kernel/random/boot_id";
/// So many lines more than needed are always allowed.
const SLACK: usize = 64;

/// The journal cannot be read or written. What depends on it is not done.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep the record of virtual servers {}: {source}", .path.display())]
pub struct JournalError {
    /// The journal.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

/// The journal, open for more.
#[derive(Debug)]
pub(super) struct Ownership {
    path: PathBuf,
    boot: String,
    /// Open for appending as soon as there is a first line to write.
    file: Option<File>,
    /// Lines in the file.
    lines: usize,
    owned: HashSet<Target>,
    adopted: bool,
    timeouts: Option<Timeouts>,
}

impl Ownership {
    /// Reads the journal of a run directory. One of another boot counts as none, and so does one that is none.
    ///
    /// # Errors
    /// [`JournalError`] if it is there and cannot be read.
    pub(super) fn load(run_dir: &Path) -> Result<Self, JournalError> {
        let path = run_dir.join(FILE);
        let boot = Sysctl::default().read(BOOT_ID).ok().flatten().unwrap_or_default();
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(JournalError { path, source }),
        };
        let mut this = Self { path, boot, file: None, lines: 0, owned: HashSet::new(), adopted: false, timeouts: None };
        let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        if lines.next() == Some(this.title().as_str()) {
            lines.for_each(|line| this.read(line));
        }
        Ok(this)
    }

    /// Whether a virtual server is ours.
    pub(super) fn owns(&self, target: &Target) -> bool {
        self.owned.contains(target)
    }

    /// All that are ours.
    pub(super) fn owned(&self) -> impl Iterator<Item = &Target> {
        self.owned.iter()
    }

    /// Whether what was there before the journal has been taken over.
    pub(super) fn adopted(&self) -> bool {
        self.adopted
    }

    /// Whether nothing in it has to be undone.
    pub(super) fn is_blank(&self) -> bool {
        self.owned.is_empty() && self.timeouts.is_none()
    }

    /// What the timeouts of IPVS were before they were ours.
    pub(super) fn timeouts(&self) -> Option<Timeouts> {
        self.timeouts
    }

    /// Says of virtual servers, before they are made, that they will be ours.
    ///
    /// # Errors
    /// [`JournalError`]; they must not be made then.
    pub(super) fn claim(&mut self, targets: impl IntoIterator<Item = Target>) -> Result<(), JournalError> {
        let new: Vec<Target> = targets.into_iter().filter(|target| !self.owned.contains(target)).collect();
        let lines = new.iter().fold(String::new(), |lines, target| lines + &line('+', target));
        self.append(&lines, new.len())?;
        self.owned.extend(new);
        Ok(())
    }

    /// Says of virtual servers that are gone, or not ours after all, that they are not ours.
    ///
    /// # Errors
    /// [`JournalError`]; they stay ours then, which does no harm to what is gone.
    pub(super) fn release(&mut self, targets: impl IntoIterator<Item = Target>) -> Result<(), JournalError> {
        let old: Vec<Target> = targets.into_iter().filter(|target| self.owned.contains(target)).collect();
        let lines = old.iter().fold(String::new(), |lines, target| lines + &line('-', target));
        self.append(&lines, old.len())?;
        for target in &old {
            self.owned.remove(target);
        }
        if self.lines > 2 * self.owned.len() + SLACK {
            self.rewrite()?;
        }
        Ok(())
    }

    /// Says that the virtual servers that were there before the journal have been claimed, as far as they are to be.
    ///
    /// # Errors
    /// [`JournalError`]; they will be claimed once more.
    pub(super) fn set_adopted(&mut self) -> Result<(), JournalError> {
        self.append(&format!("{ADOPTED}\n"), 1)?;
        self.adopted = true;
        Ok(())
    }

    /// Remembers what the timeouts were, the first time.
    ///
    /// # Errors
    /// [`JournalError`]; they must not be changed then.
    pub(super) fn remember_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), JournalError> {
        if self.timeouts.is_none() {
            self.append(&timeouts_line(timeouts), 1)?;
            self.timeouts = Some(*timeouts);
        }
        Ok(())
    }

    /// Removes the journal: nothing is ours any more.
    ///
    /// # Errors
    /// [`JournalError`].
    pub(super) fn destroy(&mut self) -> Result<(), JournalError> {
        (self.file, self.lines, self.adopted, self.timeouts) = (None, 0, false, None);
        self.owned.clear();
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(JournalError { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }

    fn title(&self) -> String {
        format!("{TITLE} {}", self.boot)
    }

    fn read(&mut self, line: &str) {
        self.lines += 1;
        let target = || parse(line.get(1..)?);
        match line.get(..1) {
            _ if line == ADOPTED => self.adopted = true,
            Some("+") => self.owned.extend(target()),
            Some("-") => {
                target().inspect(|target| {
                    self.owned.remove(target);
                });
            }
            // A line of a later version means nothing to this one.
            _ => self.timeouts = parse_timeouts(line).or(self.timeouts),
        }
    }

    fn append(&mut self, lines: &str, count: usize) -> Result<(), JournalError> {
        if count == 0 {
            return Ok(());
        }
        if self.file.is_none() {
            // The end of what a crash has left may be half a line.
            self.rewrite()?;
        }
        let wrong = |source| JournalError { path: self.path.clone(), source };
        if let Some(file) = &mut self.file
            && let Err(source) = file.write_all(lines.as_bytes())
        {
            // Perhaps half a line; the next one must not follow on it.
            self.file = None;
            return Err(wrong(source));
        }
        self.lines += count;
        Ok(())
    }

    /// Writes the file anew, with what still holds, and opens it.
    fn rewrite(&mut self) -> Result<(), JournalError> {
        let mut text = self.title() + "\n";
        if self.adopted {
            let _ = writeln!(text, "{ADOPTED}");
        }
        if let Some(timeouts) = &self.timeouts {
            text.push_str(&timeouts_line(timeouts));
        }
        self.owned.iter().for_each(|target| text.push_str(&line('+', target)));
        let wrong = |source| JournalError { path: self.path.clone(), source };
        self.file = None;
        write_atomically(&self.path, text.as_bytes(), MODE, Durability::UntilReboot).map_err(wrong)?;
        self.file = Some(File::options().append(true).open(&self.path).map_err(wrong)?);
        self.lines = self.owned.len();
        Ok(())
    }
}

fn line(sign: char, target: &Target) -> String {
    format!("{sign}{target}\n")
}

/// Reads what [`Target`] writes: `TCP 10.96.0.1:80`.
fn parse(text: &str) -> Option<Target> {
    let (protocol, address) = text.split_once(' ')?;
    let protocol = Protocol::ALL.into_iter().find(|known| known.name() == protocol)?.number();
    let address: SocketAddr = address.parse().ok()?;
    Some(Target::Address { address: address.ip(), port: address.port(), protocol })
}

/// Seconds for TCP, TCP after a FIN, and UDP; `-` for one that the kernel does not have.
fn timeouts_line(timeouts: &Timeouts) -> String {
    let words = [timeouts.tcp, timeouts.tcp_fin, timeouts.udp]
        .map(|timeout| timeout.map_or_else(|| "-".to_owned(), |timeout| timeout.as_secs().to_string()));
    format!("timeouts {}\n", words.join(" "))
}

fn parse_timeouts(line: &str) -> Option<Timeouts> {
    let mut words = line.strip_prefix("timeouts ")?.split(' ').map(|word| word.parse().ok().map(Duration::from_secs));
    Some(Timeouts { tcp: words.next()?, tcp_fin: words.next()?, udp: words.next()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(last: u8) -> Target {
        let protocol = Protocol::ALL[usize::from(last % 3)].number();
        let address = if last.is_multiple_of(2) { format!("10.96.0.{last}") } else { format!("fd96::{last:x}") };
        Target::Address { address: address.parse().unwrap(), port: 80, protocol }
    }

    fn length(run: &Path) -> u64 {
        fs::metadata(run.join(FILE)).unwrap().len()
    }

    #[test]
    fn a_line_that_a_crash_has_cut_off_does_not_count_nor_spoil_the_next() {
        let run = tempfile::tempdir().unwrap();
        let mut journal = Ownership::load(run.path()).unwrap();
        assert!(!run.path().join(FILE).exists(), "reading writes nothing");
        journal.claim([target(2)]).unwrap();
        let mut file = File::options().append(true).open(run.path().join(FILE)).unwrap();
        file.write_all(b"+TCP 10.96.0.7:8").unwrap();
        let mut journal = Ownership::load(run.path()).unwrap();
        assert_eq!(journal.owned().collect::<Vec<_>>(), [&target(2)]);
        journal.claim([target(4)]).unwrap();
        let journal = Ownership::load(run.path()).unwrap();
        assert!(journal.owns(&target(2)) && journal.owns(&target(4)) && journal.owned().count() == 2);
    }

    #[test]
    fn a_journal_of_another_boot_is_none() {
        let run = tempfile::tempdir().unwrap();
        fs::write(run.path().join(FILE), "weft-ipvs 1 another-boot\nadopted\n+TCP 10.96.0.1:80\n").unwrap();
        let mut journal = Ownership::load(run.path()).unwrap();
        assert!(!journal.adopted() && journal.owned().count() == 0);
        journal.set_adopted().unwrap();
        let journal = Ownership::load(run.path()).unwrap();
        assert!(journal.adopted() && journal.owned().count() == 0);
    }

    #[test]
    fn the_first_timeouts_are_what_counts() {
        let run = tempfile::tempdir().unwrap();
        let first =
            Timeouts { tcp: Some(Duration::from_secs(900)), tcp_fin: Some(Duration::from_secs(120)), udp: None };
        let mut journal = Ownership::load(run.path()).unwrap();
        journal.remember_timeouts(&first).unwrap();
        let mut journal = Ownership::load(run.path()).unwrap();
        journal.remember_timeouts(&Timeouts::default()).unwrap();
        assert_eq!(Ownership::load(run.path()).unwrap().timeouts(), Some(first));
        journal.destroy().unwrap();
        journal.destroy().unwrap();
        assert_eq!(Ownership::load(run.path()).unwrap().timeouts(), None);
    }

    #[test]
    fn a_change_costs_a_line_and_the_past_does_not_pile_up() {
        let run = tempfile::tempdir().unwrap();
        let mut journal = Ownership::load(run.path()).unwrap();
        journal.claim((0..100).map(target)).unwrap();
        let before = length(run.path());
        journal.claim([target(200)]).unwrap();
        assert!(length(run.path()) - before < 64);
        for _ in 0..1000 {
            journal.release([target(200)]).unwrap();
            journal.claim([target(200)]).unwrap();
        }
        assert!(length(run.path()) < 4 * before);
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_kept(changes in proptest::collection::vec((any::<bool>(), any::<u8>()), 0..60)) {
            let run = tempfile::tempdir().unwrap();
            let mut journal = Ownership::load(run.path()).unwrap();
            let mut model = HashSet::new();
            for (comes, last) in changes {
                if comes {
                    journal.claim([target(last)]).unwrap();
                    model.insert(target(last));
                } else {
                    journal.release([target(last)]).unwrap();
                    model.remove(&target(last));
                }
            }
            prop_assert_eq!(&journal.owned, &model);
            prop_assert_eq!(Ownership::load(run.path()).unwrap().owned, model);
        }
    }
}
