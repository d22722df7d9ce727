//! The image as `docker save` writes one, for engines that do not read OCI layouts. It has room for one architecture.

use anyhow::Result;
use serde_json::json;

use crate::archive::{Archive, FILE_MODE};
use crate::elf::Architecture;
use crate::layer::Layer;
use crate::oci::{About, Digest};

/// The archive of one architecture.
///
/// # Errors
/// When JSON cannot be written, which does not happen.
pub fn archive(about: &About, architecture: Architecture, layer: &Layer) -> Result<Vec<u8>> {
    let config = serde_json::to_vec(&about.config(architecture, &layer.diff_id))?;
    let names = (format!("{}.json", Digest::of(&config).hex()), format!("{}.tar", layer.diff_id.hex()));
    let manifest = json!([{"Config": names.0, "RepoTags": [about.reference.to_string()], "Layers": [names.1]}]);
    let mut archive = Archive::default();
    archive.file("manifest.json", FILE_MODE, &serde_json::to_vec(&manifest)?)?;
    archive.file(&names.0, FILE_MODE, &config)?;
    // Not compressed: its name is the digest of what is in it.
    archive.file(&names.1, FILE_MODE, &layer.tar)?;
    archive.finish()
}
