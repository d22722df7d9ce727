//! Images of a node as one file, for nodes that have no registry: an OCI layout in a tar archive.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tar::EntryType;
use weft_image::archive::{BLOCK, FILE_MODE, header};
use weft_image::oci::{Digest, INDEX};

use super::bundle::Descriptor;
use super::containerd::Containerd;
use super::error::ImageError;
use super::oci::{Index, Manifest, NAME, REF_NAME, is_index};

/// Writes these images of containerd's (all that it has, if none is named) into an archive; the file appears when it is whole.
/// Returns their names.
///
/// # Errors
/// When an image or a part of it is not there, or the file cannot be written.
pub async fn save(containerd: &Containerd, names: &[String], path: &Path) -> Result<Vec<String>, ImageError> {
    let names = if names.is_empty() { containerd.names().await? } else { names.to_vec() };
    let mut archive = Archive::create(path)?;
    let mut manifests = Vec::new();
    for name in &names {
        let found = containerd.target(name).await?;
        let (media_type, digest, size) = found.ok_or_else(|| ImageError::Missing(vec![name.clone()]))?;
        archive.tree(containerd, name, &media_type, &digest, size).await?;
        let annotations = json!({NAME: name, REF_NAME: tag(name)});
        manifests.push(json!({"mediaType": media_type, "digest": digest, "size": size, "annotations": annotations}));
    }
    archive.finish(&manifests)?;
    Ok(names)
}

/// What the specification wants to have of a name.
fn tag(name: &str) -> &str {
    let last = name.rsplit('/').next().unwrap_or_default();
    last.split_once(':').map_or("latest", |(_, tag)| tag)
}

/// An archive that grows beside its final place.
#[derive(Debug)]
struct Archive {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    written: BTreeSet<String>,
    is_done: bool,
}

impl Archive {
    fn create(path: &Path) -> Result<Self, ImageError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let file = File::create(&temporary).map_err(ImageError::write(&temporary))?;
        let mut this = Self { path: path.to_owned(), temporary, file, written: BTreeSet::new(), is_done: false };
        this.entry("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(this)
    }

    /// A blob with all that it leads to. Of an index, that is what is here.
    async fn tree(
        &mut self,
        containerd: &Containerd,
        name: &str,
        media_type: &str,
        digest: &str,
        size: u64,
    ) -> Result<(), ImageError> {
        let mut rest = vec![(media_type.to_owned(), digest.to_owned(), size)];
        while let Some((media_type, digest, size)) = rest.pop() {
            let bytes = self.blob(containerd, name, &digest, size, is_document(&media_type)).await?;
            let Some(bytes) = bytes else { continue };
            let wrong =
                |error: serde_json::Error| ImageError::archive(&self.path, format!("{name}: {digest}: {error}"));
            let plain = |blob: Descriptor| (blob.media_type, blob.digest, blob.size);
            if is_index(&media_type) {
                let index: Index = serde_json::from_slice(&bytes).map_err(wrong)?;
                for manifest in index.manifests {
                    if containerd.has(&manifest.digest).await? {
                        rest.push(plain(manifest));
                    }
                }
            } else {
                let manifest: Manifest = serde_json::from_slice(&bytes).map_err(wrong)?;
                rest.extend(manifest.layers.into_iter().chain([manifest.config]).map(plain));
            }
        }
        Ok(())
    }

    /// Copies a blob, if it is not in yet; returns its bytes if it is a document that leads on.
    async fn blob(
        &mut self,
        containerd: &Containerd,
        name: &str,
        digest: &str,
        size: u64,
        keep: bool,
    ) -> Result<Option<Vec<u8>>, ImageError> {
        let parsed: Digest = digest.parse().map_err(|error| ImageError::archive(&self.path, error))?;
        if !self.written.insert(digest.to_owned()) {
            return Ok(None);
        }
        if !containerd.has(digest).await? {
            let why = format!(
                "the part {digest} of {name} is not on this node (discard_unpacked_layers in containerd's configuration?)"
            );
            return Err(ImageError::archive(&self.path, why));
        }
        self.head(&format!("blobs/sha256/{}", parsed.hex()), size)?;
        let mut parts = containerd.read(digest).await?;
        let (mut kept, mut copied) = (Vec::new(), 0_u64);
        while let Some(part) = parts.message().await.map_err(containerd.refused("the blob", &digest))? {
            self.write(&part.data)?;
            copied = copied.saturating_add(u64::try_from(part.data.len()).unwrap_or_default());
            if keep {
                kept.extend_from_slice(&part.data);
            }
        }
        if copied != size {
            let found = format!("{copied} bytes; expected {size}");
            return Err(ImageError::Corrupt { digest: digest.to_owned(), found });
        }
        self.pad(size)?;
        Ok(keep.then_some(kept))
    }

    fn entry(&mut self, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.head(name, size)?;
        self.write(bytes)?;
        self.pad(size)
    }

    fn head(&mut self, name: &str, size: u64) -> Result<(), ImageError> {
        let header = header(EntryType::Regular, name, FILE_MODE, size);
        let header = header.map_err(|error| ImageError::archive(&self.path, error))?;
        self.write(&header)
    }

    fn pad(&mut self, size: u64) -> Result<(), ImageError> {
        let rest = size.next_multiple_of(BLOCK) - size;
        self.write(&vec![0; usize::try_from(rest).unwrap_or_default()])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.file.write_all(bytes).map_err(ImageError::write(&self.temporary))
    }

    fn finish(mut self, manifests: &[Value]) -> Result<(), ImageError> {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        self.entry("index.json", index.to_string().as_bytes())?;
        // Two empty blocks end an archive.
        self.write(&[0; 1024])?;
        let done = self.file.sync_all().and_then(|()| fs::rename(&self.temporary, &self.path));
        done.map_err(ImageError::write(&self.path))?;
        self.is_done = true;
        Ok(())
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn is_document(media_type: &str) -> bool {
    is_index(media_type) || [weft_image::oci::MANIFEST, super::oci::DOCKER_MANIFEST].contains(&media_type)
}
