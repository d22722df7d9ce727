//! What a run says: lines for people, or events for machines, and all of it in a log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::json;

use crate::bootstrap::resolved::Paths;

/// How a run speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `[phase] words`, as kubeadm does.
    Text,
    /// One JSON object a line: `at`, `phase`, `kind` (`step`, `warning`, `error`, `phase`, `document`), `message`.
    Json,
}

/// Says it. What cannot be said (nobody reads any more, the disk is full) is no reason to stop.
#[derive(Debug)]
pub struct Teller {
    format: Format,
    log: Mutex<Option<Log>>,
}

/// Where all is written down, too.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    /// Opened when there is something to write down.
    file: Option<File>,
}

impl Teller {
    /// A teller that keeps a log named `name` under [`Paths::logs`], if that can be written. Nobody but root may read it.
    #[must_use]
    pub fn new(format: Format, paths: &Paths, name: &str) -> Self {
        let path = paths.logs().join(name);
        Self { format, log: Mutex::new(Some(Log { path, file: None })) }
    }

    /// A teller without a log.
    #[must_use]
    pub fn without_log(format: Format) -> Self {
        Self { format, log: Mutex::new(None) }
    }

    /// Keeps no log from here on: a run that changes nothing leaves none.
    pub fn forget_log(&self) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Where the log is, if anything is in it.
    #[must_use]
    pub fn log(&self) -> Option<PathBuf> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.as_ref().filter(|log| log.file.is_some()).map(|log| log.path.clone())
    }

    /// Something was done or found.
    pub fn step(&self, phase: &str, message: impl AsRef<str>) {
        self.say(phase, "step", message.as_ref());
    }

    /// Something may matter later.
    pub fn warning(&self, phase: &str, message: impl AsRef<str>) {
        self.say(phase, "warning", message.as_ref());
    }

    /// What the run was ended by.
    pub fn error(&self, phase: &str, message: impl AsRef<str>) {
        self.say(phase, "error", message.as_ref());
    }

    /// A phase begins.
    pub fn begins(&self, phase: &str) {
        match self.format {
            Format::Json => self.say(phase, "phase", "begins"),
            // People see it by the lines that it says.
            Format::Text => self.note(phase, "phase", "begins"),
        }
    }

    /// What holds a secret: it is printed, as it is, and not logged.
    pub fn secret(&self, phase: &str, message: &str) {
        match self.format {
            Format::Text => {
                let _ = writeln!(io::stdout().lock(), "{message}");
            }
            Format::Json => self.print(phase, "step", message),
        }
    }

    /// Prints YAML documents, each below a line of comment. They may hold secrets, and are not logged.
    pub fn documents(&self) -> impl Fn(&str, &str) + Send + Sync + use<> {
        let format = self.format;
        move |comment, yaml| {
            let text = format!("---\n{comment}\n{}", yaml.trim_start_matches("---\n"));
            let line = match format {
                Format::Text => text,
                Format::Json => json!({"at": Timestamp::now().to_string(), "phase": "dry-run", "kind": "document",
                    "message": text})
                .to_string(),
            };
            let _ = writeln!(io::stdout().lock(), "{}", line.trim_end());
        }
    }

    fn say(&self, phase: &str, kind: &str, message: &str) {
        self.note(phase, kind, message);
        self.print(phase, kind, message);
    }

    fn print(&self, phase: &str, kind: &str, message: &str) {
        match self.format {
            Format::Text if kind == "step" => {
                let _ = writeln!(io::stdout().lock(), "[{phase}] {message}");
            }
            Format::Text => {
                let word = if kind == "warning" { "[WARNING] " } else { "" };
                let _ = writeln!(io::stderr().lock(), "[{phase}] {word}{message}");
            }
            Format::Json => {
                let event =
                    json!({"at": Timestamp::now().to_string(), "phase": phase, "kind": kind, "message": message});
                let _ = writeln!(io::stdout().lock(), "{event}");
            }
        }
    }

    fn note(&self, phase: &str, kind: &str, message: &str) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = log.as_mut() else { return };
        if log.file.is_none() {
            log.file = open(&log.path).ok();
        }
        if let Some(file) = &mut log.file {
            let _ = writeln!(file, "{} {kind} [{phase}] {message}", Timestamp::now());
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_the_log_which_only_root_reads() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let teller = Teller::new(Format::Text, &Paths::under(root.path()), "init.log");
        teller.begins("certs/ca");
        teller.warning("certs", "soon");
        let path = teller.log().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("phase [certs/ca] begins") && text.contains("warning [certs] soon"), "{text}");
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
