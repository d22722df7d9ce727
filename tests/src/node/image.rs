//! Images for pods of tests, made of programs that this machine has, so that nothing has to be fetched.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use weft_image::archive::{Archive, FILE_MODE};
use weft_image::elf::{self, Architecture};
use weft_image::oci::Digest;

/// Mode of a program in an image.
pub(super) const PROGRAM_MODE: u32 = 0o755;

/// An archive in the form that `docker save` has, with an image of one static program, which is its entry point.
///
/// # Errors
/// When there is no such program, or it needs a loader.
pub fn of(name: &str, program: &Path) -> Result<Vec<u8>> {
    let (bytes, architecture) = static_program(program)?;
    let mut layer = Archive::default();
    layer.file("program", PROGRAM_MODE, &bytes)?;
    archive(&[name.to_owned()], architecture, &json!({"Entrypoint": ["/program"]}), layer)
}

/// A program that needs nothing else to run.
///
/// # Errors
/// When there is no such program, or it needs a loader.
pub(super) fn static_program(path: &Path) -> Result<(Vec<u8>, Architecture)> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let architecture = elf::architecture(&bytes).with_context(|| format!("{} fits no image", path.display()))?;
    Ok((bytes, architecture))
}

/// An archive in the form that `docker save` has, with one image of one layer under several names. `config` is what a container
/// of it runs, as in `docker inspect`.
///
/// # Errors
/// Never, in memory.
pub(super) fn archive(names: &[String], architecture: Architecture, config: &Value, layer: Archive) -> Result<Vec<u8>> {
    let layer = layer.finish()?;
    let config = serde_json::to_vec(&json!({
        "architecture": architecture.name(), "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]},
    }))?;
    let manifest = json!([{"Config": "config.json", "RepoTags": names, "Layers": ["layer.tar"]}]);
    let mut archive = Archive::default();
    archive.file("manifest.json", FILE_MODE, &serde_json::to_vec(&manifest)?)?;
    archive.file("config.json", FILE_MODE, &config)?;
    archive.file("layer.tar", FILE_MODE, &layer)?;
    archive.finish()
}
