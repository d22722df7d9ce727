//! What there is to say about a configuration, and the error that says it all at once.

use std::fmt;
use std::path::PathBuf;

use super::tree::Position;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// It cannot be.
    Wrong,
    /// An unknown or repeated field: wrong for `weft config validate`, a warning for everything else, as with kubeadm.
    Sloppy,
    /// It works, and the user should know.
    Note,
}

/// Something about a place of a file, or about a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub weight: Weight,
    /// `kubeadm.yaml:3:7`, `--pod-network-cidr`; empty if it has no place.
    pub place: String,
    /// Field, value, and what was expected.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place.is_empty() {
            true => f.write_str(&self.message),
            false => write!(f, "{}: {}", self.place, self.message),
        }
    }
}

/// `file:line:column`.
pub(super) fn place(file: &str, at: Position) -> String {
    format!("{file}:{at}")
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// The text is neither YAML nor JSON.
    #[error("{place}: this is no YAML: {message}")]
    NotYaml {
        /// The file, and the place in it if it is known.
        place: String,
        /// What the reader of YAML says.
        message: String,
    },
    /// Everything that is wrong, a line each.
    #[error("{}", lines(.0))]
    Wrong(Vec<Finding>),
    /// A value that weft made itself cannot be written or read back: a fault of weft's.
    #[error("the configuration of kind {kind} cannot be converted: {message}")]
    Unsound {
        /// Which one.
        kind: &'static str,
        /// Why not.
        message: String,
    },
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n")
}

/// Parts what is wrong from what is worth a warning.
///
/// # Errors
/// [`ConfigError::Wrong`] with everything that is wrong; with `strict` also with what is sloppy.
pub(super) fn judge(findings: Vec<Finding>, strict: bool) -> Result<Vec<Finding>, ConfigError> {
    let (wrong, notes): (Vec<_>, Vec<_>) = findings.into_iter().partition(|finding| match finding.weight {
        Weight::Wrong => true,
        Weight::Sloppy => strict,
        Weight::Note => false,
    });
    if wrong.is_empty() { Ok(notes) } else { Err(ConfigError::Wrong(wrong)) }
}
