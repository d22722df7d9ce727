//! Certificates and keys as files, with kubeadm's modes.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::certificate::Certificate;
use super::error::{KeyError, PkiError};
use super::key::Key;
use crate::bootstrap::converge;

/// Who is not root needs nothing here. Directories that are there keep their modes.
const DIRECTORY_MODE: u32 = 0o700;
/// Certificates are public.
const CERTIFICATE_MODE: u32 = 0o644;
/// Keys are not; kubeadm gives `sa.pub` the same.
const KEY_MODE: u32 = 0o600;

/// What lies under a base name: certificates, the leaf or authority first, and the key.
#[derive(Debug)]
pub(crate) struct Found {
    /// Empty without a file.
    pub(crate) certificates: Vec<Certificate>,
    /// `None` without a file.
    pub(crate) key: Option<Result<Key, KeyError>>,
}

/// A directory of certificates and keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Store<'a>(pub(crate) &'a Path);

impl Store<'_> {
    pub(crate) fn certificate(self, base: &str) -> PathBuf {
        self.0.join(format!("{base}.crt"))
    }

    pub(crate) fn key(self, base: &str) -> PathBuf {
        self.0.join(format!("{base}.key"))
    }

    /// What is there. A key of a kind that weft cannot sign with is told by its error, as it may still serve others.
    ///
    /// # Errors
    /// A file cannot be read, or is damaged.
    pub(crate) fn find(self, base: &str) -> Result<Found, PkiError> {
        let path = self.certificate(base);
        let certificates = match read(&path)? {
            Some(text) => certificates(&path, &text)?,
            None => Vec::new(),
        };
        let path = self.key(base);
        let key = match read(&path)?.map(|text| Key::from_pem(&text)) {
            Some(Err(source)) if !matches!(source, KeyError::Kind(_)) => {
                return Err(PkiError::KeyFile { path, source });
            }
            key => key,
        };
        Ok(Found { certificates, key })
    }

    /// Writes a key, so that it is there before the certificate that needs it.
    ///
    /// # Errors
    /// The file system refuses.
    pub(crate) fn write_key(self, base: &str, key: &Key) -> Result<(), PkiError> {
        write_private(&self.key(base), key.to_pem()?.expose())
    }

    /// Writes a certificate.
    ///
    /// # Errors
    /// The file system refuses.
    pub(crate) fn write_certificate(self, base: &str, certificate: &Certificate) -> Result<(), PkiError> {
        write(&self.certificate(base), certificate.to_pem().as_bytes(), CERTIFICATE_MODE)
    }
}

/// All certificates of a file's text.
pub(crate) fn certificates(path: &Path, text: &[u8]) -> Result<Vec<Certificate>, PkiError> {
    Certificate::all_from_pem(text).map_err(|reason| PkiError::Content {
        path: path.to_owned(),
        expected: "certificate",
        reason,
    })
}

/// A file's bytes; `None` if it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, PkiError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PkiError::io("read", path)(error)),
    }
}

/// Writes what only root may read, with the directories that it needs.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    write(path, bytes, KEY_MODE)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    if let Some(directory) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory);
        made.map_err(PkiError::io("make", directory))?;
    }
    converge::replace(path, bytes, mode).map_err(PkiError::io("write", path))
}
