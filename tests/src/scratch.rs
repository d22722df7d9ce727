//! Folders and names that belong to one test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// A folder that goes away with its owner, also when the test panics.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// A new empty folder, whose name begins with `weft-`.
    ///
    /// # Panics
    /// When the folder for temporary files cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let made = tempfile::Builder::new().prefix("weft-").tempdir();
        Self(made.unwrap_or_else(|error| panic!("cannot make a scratch folder: {error}")))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// A name that no other test of this machine has right now: `wt<pid>x<n>`; `tests/run.sh` sweeps by it.
#[must_use]
pub fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("wt{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
