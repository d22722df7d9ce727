//! Kernel settings under `/proc/sys`.
//!
//! What lies under `net/` belongs to the network namespace of the calling thread. The root can be another directory: an
//! unprivileged container has the host's `/proc/sys/net` mounted elsewhere.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A tree of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    root: PathBuf,
}

impl Default for Sysctl {
    fn default() -> Self {
        Self::at("/proc/sys")
    }
}

impl Sysctl {
    /// The tree below `root`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The file of a setting, named as below `/proc/sys`: `net/ipv4/ip_forward`. Link names may hold dots, so the
    /// dotted form of sysctl(8) is not understood.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(Path::new(name))
    }

    /// The value of a setting, without the newline; `None` if this kernel does not have it.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<String>> {
        match std::fs::read_to_string(self.path(name)) {
            Ok(value) => Ok(Some(value.trim_end().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("read sysctl {name}"), error)),
        }
    }

    /// Sets a setting, whatever it was.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written, or this kernel does not have it.
    pub fn write(&self, name: &str, value: &str) -> Result<()> {
        std::fs::write(self.path(name), value)
            .map_err(|error| Error::io(format!("set sysctl {name} to {value}"), error))
    }

    /// Sets a setting unless it has the value already; returns what it was if it was changed. Works on a read-only
    /// `/proc/sys` as long as nothing has to change.
    ///
    /// # Errors
    /// [`Error::Io`] as [`Sysctl::read`] and [`Sysctl::write`].
    pub fn ensure(&self, name: &str, value: &str) -> Result<Option<String>> {
        let before = self.read(name)?;
        if before.as_deref() == Some(value) {
            return Ok(None);
        }
        self.write(name, value)?;
        Ok(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ensure_writes_only_what_differs() {
        let root = std::env::temp_dir().join(format!("weft-sysctl-{}", std::process::id()));
        std::fs::create_dir_all(root.join("net/ipv4")).unwrap();
        std::fs::write(root.join("net/ipv4/ip_forward"), "0\n").unwrap();
        let sysctl = Sysctl::at(&root);
        assert_eq!(sysctl.ensure("net/ipv4/ip_forward", "1").unwrap(), Some("0".to_owned()));
        assert_eq!(sysctl.ensure("net/ipv4/ip_forward", "1").unwrap(), None);
        assert_eq!(sysctl.read("net/ipv4/absent").unwrap(), None);
        let error = sysctl.write("net/absent/x", "1").unwrap_err().to_string();
        assert!(error.contains("net/absent/x"), "{error}");
        std::fs::remove_dir_all(root).unwrap();
    }
}
