//! From binaries to files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::cargo::Package;
use crate::elf::{Architecture, architecture};
use crate::layer::{Binaries, Layer};
use crate::oci::{About, Layout};
use crate::{docker, sbom};

/// What one architecture's image is made of.
#[derive(Debug, Clone)]
pub struct Input {
    /// The architecture of the binaries.
    pub architecture: Architecture,
    /// The binaries.
    pub binaries: Binaries,
    /// What they are made of.
    pub packages: Vec<Package>,
}

impl Binaries {
    /// Reads `weft` and `weft-cni` from a folder.
    ///
    /// # Errors
    /// When one is missing or could not run in the image, or the two are for different machines.
    pub fn read(folder: &Path) -> Result<(Architecture, Self)> {
        let read = |name: &str| -> Result<(Architecture, Vec<u8>)> {
            let path = folder.join(name);
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok((architecture(&bytes).with_context(|| format!("{} cannot be used", path.display()))?, bytes))
        };
        let ((machine, agent), (other, plugin)) = (read("weft")?, read("weft-cni")?);
        ensure!(machine == other, "{} holds a weft for {machine} and a weft-cni for {other}", folder.display());
        Ok((machine, Self { agent, plugin }))
    }
}

/// A file to write: its name and its contents.
pub type Output = (String, Vec<u8>);

/// All files of an image; the OCI archive comes first.
///
/// # Errors
/// When an image is too large, or an architecture is given twice.
pub fn outputs(about: &About, inputs: &[Input]) -> Result<Vec<Output>> {
    ensure!(!inputs.is_empty(), "no binaries are given");
    let base = format!("weft-{}", about.reference.tag);
    let (mut layout, mut files) = (Layout::default(), Vec::new());
    for architecture in Architecture::ALL {
        let mut given = inputs.iter().filter(|input| input.architecture == architecture);
        let Some(input) = given.next() else { continue };
        ensure!(given.next().is_none(), "there are two folders with binaries for {architecture}");
        let layer = Layer::of(&input.binaries).with_context(|| format!("the image for {architecture} is too large"))?;
        let sbom = sbom::cyclonedx(about, architecture, &input.packages)?;
        layout.image(about, architecture, &layer, &sbom)?;
        files.push((format!("{base}-{architecture}.docker.tar"), docker::archive(about, architecture, &layer)?));
        files.push((format!("{base}-{architecture}.cdx.json"), sbom));
    }
    files.insert(0, (format!("{base}.oci.tar"), layout.archive(about)?));
    Ok(files)
}

/// Writes files into a folder, which is made if it is not there; returns their paths.
///
/// # Errors
/// When one cannot be written.
pub fn write(folder: &Path, files: &[Output]) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let mut paths = Vec::new();
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        paths.push(path);
    }
    Ok(paths)
}
