//! One check: what was asked, and what came of it.

use serde::Serialize;

/// A fact, or why it could not be had.
pub type Told<T> = Result<T, String>;

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It has no meaning on this node.
    Moot,
    /// Nothing is wrong.
    Good,
    /// Worth knowing, and not wrong.
    Note,
    /// It could not be told.
    Unknown,
    /// Something is wrong.
    Problem,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The group that it belongs to.
    pub group: &'static str,
    /// What was asked; with the group it names the check.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What was found; of a problem the cause, in a sentence.
    pub words: String,
    /// The command, or what else, that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Makes the checks of one group.
#[derive(Debug, Clone, Copy)]
pub struct Group(pub &'static str);

impl Group {
    /// Nothing is wrong.
    pub fn good(self, name: impl Into<String>, words: impl Into<String>) -> Check {
        self.check(name, Outcome::Good, words, None)
    }

    /// Worth knowing.
    pub fn note(self, name: impl Into<String>, words: impl Into<String>) -> Check {
        self.check(name, Outcome::Note, words, None)
    }

    /// It has no meaning on this node.
    pub fn moot(self, name: impl Into<String>, words: impl Into<String>) -> Check {
        self.check(name, Outcome::Moot, words, None)
    }

    /// It could not be told, and why.
    pub fn unknown(self, name: impl Into<String>, words: impl Into<String>) -> Check {
        self.check(name, Outcome::Unknown, words, None)
    }

    /// Something is wrong: the cause, and what mends it.
    pub fn problem(self, name: impl Into<String>, cause: impl Into<String>, remedy: impl Into<String>) -> Check {
        self.check(name, Outcome::Problem, cause, Some(remedy.into()))
    }

    fn check(
        self,
        name: impl Into<String>,
        outcome: Outcome,
        words: impl Into<String>,
        remedy: Option<String>,
    ) -> Check {
        Check { group: self.0, name: name.into(), outcome, words: words.into(), remedy }
    }
}
