//! What can go wrong with certificates and keys.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// A certificate, key or kubeconfig could not be made, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
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
    /// A file is not what its name says.
    #[error("{} holds no {expected}: {reason}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// `certificate`, `private key`, `kubeconfig`.
        expected: &'static str,
        /// Why not.
        reason: String,
    },
    /// A file holds no key that weft can use.
    #[error("{}: {source}", .path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: KeyError,
    },
    /// A key could not be made or used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A certificate could not be put together.
    #[error("cannot make a certificate for {subject}: {reason}")]
    Issue {
        /// Whom for.
        subject: String,
        /// Why not.
        reason: String,
    },
    /// The authority's certificate is no authority's.
    #[error("{} is not the certificate of an authority (CA:TRUE is missing); put the right one there, or remove it and its key to have new ones made", .0.display())]
    NotAnAuthority(PathBuf),
    /// A file that has to be there is not.
    #[error("{} is missing: {why}", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Why it has to be there, and what to do.
        why: String,
    },
    /// A leaf does not come from its authority.
    #[error("certificate {name} is not signed by its authority {authority}; remove {} and its key to have new ones made, or put the authority back that it came from", .path.display())]
    Foreign {
        /// `apiserver`.
        name: String,
        /// `ca`.
        authority: String,
        /// The leaf's file.
        path: PathBuf,
    },
    /// A leaf has run out.
    #[error("certificate {name} ran out at {at}; run `weft certs renew {name}`")]
    Expired {
        /// `apiserver`.
        name: String,
        /// When.
        at: Timestamp,
    },
    /// An authority has run out: what it signs now is refused by everybody.
    #[error(
        "authority {name} ran out at {at}; nothing that it signs is believed any more, and the cluster needs a new one"
    )]
    AuthorityExpired {
        /// `ca`.
        name: String,
        /// When.
        at: Timestamp,
    },
    /// A leaf does not begin yet.
    #[error("certificate {name} begins to hold at {at}, and this machine's clock says {now}; set the clock")]
    NotYetValid {
        /// `apiserver`.
        name: String,
        /// When.
        at: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// A leaf lacks a name that the configuration asks for.
    #[error("certificate {name} ({}) is invalid for {}; renew it with these names with --renew-mismatched, or remove it and its key", .path.display(), .missing.join(", "))]
    Names {
        /// `apiserver`.
        name: String,
        /// The leaf's file.
        path: PathBuf,
        /// The names and addresses that it lacks.
        missing: Vec<String>,
    },
    /// A certificate and the key beside it are not of one pair.
    #[error("{} is not the key of {}; put the right one there, or remove both", .key.display(), .certificate.display())]
    Pair {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// A kubeconfig trusts another cluster's authority.
    #[error("{} trusts another authority than {}; it belongs to another cluster: remove it to have a new one made", .path.display(), .authority.display())]
    OtherCluster {
        /// The kubeconfig.
        path: PathBuf,
        /// This cluster's authority.
        authority: PathBuf,
    },
    /// There is no such certificate.
    #[error("there is no certificate {name}; known are {}", .known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
}

/// A private key could not be made, read or used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// The system gives no random numbers, or the mathematics failed.
    #[error("cannot generate a key: {0}")]
    Generate(String),
    /// The text is no key.
    #[error("no private key: expected PEM with PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY, {0}")]
    Pem(String),
    /// A kind that weft does not sign with.
    #[error(
        "a key of a kind that weft does not sign with (it knows RSA of 2048 to 4096 bits and ECDSA on P-256 and P-384): {0}"
    )]
    Kind(String),
    /// It is encrypted.
    #[error("the key is encrypted; weft and Kubernetes' components read unencrypted keys only")]
    Encrypted,
    /// Signing failed.
    #[error("cannot sign: {0}")]
    Sign(String),
}

impl PkiError {
    /// Makes an error out of the file system's.
    pub(crate) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { verb, path, source }
    }
}
