//! Images for pods of tests: one program and nothing else, so that nothing has to be fetched.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use weft_image::archive::{Archive, FILE_MODE};
use weft_image::elf;
use weft_image::oci::Digest;

/// An archive in the form that `docker save` has, with an image of one static program, which is its entry point.
///
/// # Errors
/// When there is no such program, or it needs a loader.
pub fn of(name: &str, program: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let architecture = elf::architecture(&bytes).with_context(|| format!("{} fits no image", program.display()))?;
    let mut layer = Archive::default();
    layer.file("program", 0o755, &bytes)?;
    let layer = layer.finish()?;
    let config = serde_json::to_vec(&json!({
        "architecture": architecture.name(), "os": "linux", "config": {"Entrypoint": ["/program"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]},
    }))?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let mut archive = Archive::default();
    archive.file("manifest.json", FILE_MODE, &serde_json::to_vec(&manifest)?)?;
    archive.file("config.json", FILE_MODE, &config)?;
    archive.file("layer.tar", FILE_MODE, &layer)?;
    archive.finish()
}
