//! Where the binaries under test are.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// The folder of the binaries under test: `WEFT_BIN_DIR`, else where `make build` puts them.
#[must_use]
pub fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("WEFT_BIN_DIR") {
        return PathBuf::from(folder);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    target.join(format!("{}-unknown-linux-musl/release", std::env::consts::ARCH))
}

/// A binary under test.
///
/// # Errors
/// When it has not been built.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = folder().join(name);
    if !path.is_file() {
        bail!("{} is missing: run `make build`, or set WEFT_BIN_DIR to the folder that holds it", path.display());
    }
    Ok(path.canonicalize()?)
}
