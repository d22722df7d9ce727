//! What the two sides of a guest say to each other: a task goes in as a file, marks come out between the program's lines.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the guest finds its task.
pub const TASK: &str = "/weft/task.json";
/// The folder in the guest for the program under test and weft's own binaries.
pub const BINARIES: &str = "/weft/bin";
/// Where tests in the guest write down that they were skipped.
pub const SKIP_LOG: &str = "/run/weft-skips";
/// What a mark begins with; always at the beginning of a line.
const SIGN: &str = "@@GUEST ";

/// What a guest is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// The program's path in the guest.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
}

/// What the guest's init says, each on a line of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The program starts, on the kernel of this release (`uname -r`).
    Start(String),
    /// A test was skipped: a line of the skip log.
    Skip(String),
    /// The program ended with this code; 128 and the signal's number if a signal ended it.
    Exit(i32),
    /// The program could not be started, and why.
    Broken(String),
}

impl Mark {
    /// The mark in a line, if it is one.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.strip_prefix(SIGN)?.split_once(' ')?;
        match word {
            "start" => Some(Self::Start(rest.to_owned())),
            "skip" => Some(Self::Skip(rest.to_owned())),
            "exit" => rest.parse().ok().map(Self::Exit),
            "broken" => Some(Self::Broken(rest.to_owned())),
            _ => None,
        }
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(release) => write!(f, "{SIGN}start {release}"),
            Self::Skip(line) => write!(f, "{SIGN}skip {line}"),
            Self::Exit(code) => write!(f, "{SIGN}exit {code}"),
            Self::Broken(why) => write!(f, "{SIGN}broken {}", why.replace('\n', "; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_was_written_is_read_back() {
        for mark in [
            Mark::Start("6.1.0-56-cloud-amd64".into()),
            Mark::Skip("SKIP: a: b c".into()),
            Mark::Exit(101),
            Mark::Broken("no such file".into()),
        ] {
            assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
        }
    }

    #[test]
    fn the_program_s_own_lines_are_no_marks() {
        for line in ["test a ... ok", "@@GUEST", "@@GUEST exit", "@@GUEST exit x", "@@GUEST party now", ""] {
            assert_eq!(Mark::parse(line), None, "{line}");
        }
    }
}
