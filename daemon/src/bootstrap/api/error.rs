//! Why the cluster could not be asked, or told, something.

use std::path::PathBuf;

use crate::cluster::kube::ConnectError;
use crate::cluster::kube::api::Refusal;

/// What went wrong between us and the API server.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There are no credentials to ask with.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The API server refused, or did not answer, for as long as is waited for that.
    #[error("cannot {verb} {what}: {words}")]
    Refused {
        /// What was tried: `write`, `read`.
        verb: &'static str,
        /// The object.
        what: String,
        /// The last HTTP status, if there was an answer.
        code: Option<u16>,
        /// What was said.
        words: String,
    },
    /// An object, or part of it, is not what it has to be.
    #[error("{what} is not as expected: {problem}")]
    Content {
        /// The object.
        what: String,
        /// What is wrong, and what mends it.
        problem: String,
    },
    /// What is asked for would do harm.
    #[error("{0}")]
    Denied(String),
    /// A file could not be read or written.
    #[error("{}: {cause}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
}

impl ApiError {
    pub(super) fn refused(verb: &'static str, what: impl Into<String>, refusal: Refusal) -> Self {
        Self::Refused { verb, what: what.into(), code: refusal.code, words: refusal.words }
    }

    pub(super) fn content(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Content { what: what.into(), problem: problem.into() }
    }

    /// Whether the API server's last word was this HTTP status.
    #[must_use]
    pub fn is(&self, status: u16) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == Some(status))
    }
}
