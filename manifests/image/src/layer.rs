//! The image's only layer: the two binaries.

use std::io::Write;

use anyhow::{Result, ensure};
use flate2::{Compression, GzBuilder};

use crate::archive::Archive;
use crate::oci::Digest;

/// What an image may hold for one architecture, in bytes, unpacked.
pub const SIZE_LIMIT: usize = 20 << 20;

/// The binaries of one architecture.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `weft`.
    pub agent: Vec<u8>,
    /// `weft-cni`.
    pub plugin: Vec<u8>,
}

/// A layer, as it is unpacked and as it is transported.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The tar archive.
    pub tar: Vec<u8>,
    /// The digest of the archive.
    pub diff_id: Digest,
    /// The archive, compressed by gzip.
    pub gzip: Vec<u8>,
}

impl Layer {
    /// Packs the binaries.
    ///
    /// # Errors
    /// When they are larger than [`SIZE_LIMIT`].
    pub fn of(binaries: &Binaries) -> Result<Self> {
        let mut archive = Archive::default();
        archive.file("weft", 0o755, &binaries.agent)?;
        archive.file("weft-cni", 0o755, &binaries.plugin)?;
        let tar = archive.finish()?;
        ensure!(tar.len() <= SIZE_LIMIT, "the layer has {} bytes; the limit is {SIZE_LIMIT}", tar.len());
        // Neither a date nor the packing system's name: they are all that could differ.
        let mut gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
        gzip.write_all(&tar)?;
        Ok(Self { diff_id: Digest::of(&tar), gzip: gzip.finish()?, tar })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_above_the_limit_is_refused() {
        let binaries = |len| Binaries { agent: vec![0; len], plugin: b"plugin".to_vec() };
        assert!(Layer::of(&binaries(SIZE_LIMIT / 2)).is_ok());
        let error = Layer::of(&binaries(SIZE_LIMIT)).unwrap_err().to_string();
        assert!(error.contains("20971520"), "{error}");
    }
}
