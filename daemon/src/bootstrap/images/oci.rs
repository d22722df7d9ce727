//! Reading an OCI image layout (image-spec 1.1): index, manifests, blobs by digest.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use weft_image::oci::{Digest, INDEX, MANIFEST};

use super::bundle::{Blob, Bundle, Descriptor, Entry, Platform, index_children, manifest_children};
use super::error::ImageError;
use super::store::Store;

/// Docker's words for the same two things.
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// How deep indexes may lie in each other.
const DEPTH_LIMIT: u8 = 3;
/// Where containerd and Docker write an image's whole name.
pub(super) const NAME: &str = "io.containerd.image.name";
/// Where the specification has its tag, and where some write the whole name.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An index.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    #[serde(default)]
    pub(super) manifests: Vec<Descriptor>,
}

/// A manifest.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    #[serde(default)]
    pub(super) layers: Vec<Descriptor>,
}

/// Whether this descriptor is an index.
pub(super) fn is_index(media_type: &str) -> bool {
    media_type == INDEX || media_type == DOCKER_INDEX
}

/// The images of a layout for one architecture (Go's name), each blob verified.
///
/// # Errors
/// When a part is missing, is damaged, has no name, or is for other machines only.
pub(super) fn read(store: &Store, architecture: &str) -> Result<Bundle, ImageError> {
    let index: Index = parse(store, "index.json", &store.document("index.json")?)?;
    let mut reader = Reader { store, architecture, bundle: Bundle::default(), seen: BTreeSet::new() };
    for descriptor in &index.manifests {
        if !is_image(descriptor) {
            continue;
        }
        let name = name(descriptor).ok_or_else(|| {
            let why = format!("the image {} in it has no name (annotation {NAME} of index.json)", descriptor.digest);
            ImageError::archive(store.path(), why)
        })?;
        if !reader.take(descriptor, 0)? {
            let why = format!("{name} is not for linux/{architecture}");
            return Err(ImageError::archive(store.path(), why));
        }
        let digest = digest(store, &descriptor.digest)?;
        let (media_type, size) = (descriptor.media_type.clone(), descriptor.size);
        reader.bundle.images.push(Entry { name, media_type, digest, size });
    }
    if reader.bundle.images.is_empty() {
        return Err(ImageError::archive(store.path(), "there is no image in it"));
    }
    Ok(reader.bundle)
}

/// What lists of materials and signatures are not.
fn is_image(descriptor: &Descriptor) -> bool {
    let is_attached = descriptor.annotations.contains_key("vnd.docker.reference.type");
    let known =
        [MANIFEST, DOCKER_MANIFEST].contains(&descriptor.media_type.as_str()) || is_index(&descriptor.media_type);
    known && descriptor.artifact_type.is_none() && !is_attached
}

/// The whole name of an image, if one stands there.
fn name(descriptor: &Descriptor) -> Option<String> {
    if let Some(name) = descriptor.annotations.get(NAME) {
        return Some(name.clone());
    }
    // Alone, a tag names nothing.
    descriptor.annotations.get(REF_NAME).filter(|name| name.contains('/')).cloned()
}

struct Reader<'a> {
    store: &'a Store,
    architecture: &'a str,
    bundle: Bundle,
    seen: BTreeSet<String>,
}

impl Reader<'_> {
    /// Takes what a descriptor names, the inner blobs first; says whether it is for this architecture.
    fn take(&mut self, descriptor: &Descriptor, depth: u8) -> Result<bool, ImageError> {
        if self.seen.contains(&descriptor.digest) {
            return Ok(true);
        }
        if depth > DEPTH_LIMIT {
            return Err(ImageError::archive(self.store.path(), "its indexes lie too deep in each other"));
        }
        let bytes = self.store.document(&blob_path(self.store, &descriptor.digest)?)?;
        let children = if is_index(&descriptor.media_type) {
            let index: Index = parse(self.store, &descriptor.digest, &bytes)?;
            let mut fits = false;
            for child in index.manifests.iter().filter(|child| is_image(child)) {
                fits |= self.may_fit(child) && self.take(child, depth + 1)?;
            }
            if !fits {
                return Ok(false);
            }
            // All are named: that the others are not here is nothing unusual, and pulled images are so, too.
            index_children(index.manifests.iter().map(|child| child.digest.as_str()))
        } else {
            let manifest: Manifest = parse(self.store, &descriptor.digest, &bytes)?;
            if !self.is_for_us(&manifest.config)? {
                return Ok(false);
            }
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                self.blob(blob, Default::default())?;
            }
            let layers = manifest.layers.iter().map(|layer| layer.digest.as_str());
            manifest_children(&manifest.config.digest, layers)
        };
        self.blob(descriptor, children)?;
        self.seen.insert(descriptor.digest.clone());
        Ok(true)
    }

    /// By what an index says of a manifest; one that says nothing may be anything.
    fn may_fit(&self, child: &Descriptor) -> bool {
        let fits = |platform: &Platform| platform.os == "linux" && platform.architecture == self.architecture;
        child.platform.as_ref().is_none_or(fits)
    }

    fn is_for_us(&self, config: &Descriptor) -> Result<bool, ImageError> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(default)]
            architecture: String,
        }
        let bytes = self.store.document(&blob_path(self.store, &config.digest)?)?;
        let config: Config = parse(self.store, &config.digest, &bytes)?;
        Ok(config.architecture.is_empty() || config.architecture == self.architecture)
    }

    fn blob(&mut self, descriptor: &Descriptor, children: BTreeMap<String, String>) -> Result<(), ImageError> {
        let piece = self.store.need(&blob_path(self.store, &descriptor.digest)?)?;
        let digest = digest(self.store, &descriptor.digest)?;
        let blob = Blob { digest, size: descriptor.size, children, pieces: vec![piece] };
        blob.verify().map_err(|error| ImageError::archive(self.store.path(), error))?;
        self.bundle.add(blob);
        Ok(())
    }
}

fn digest(store: &Store, text: &str) -> Result<Digest, ImageError> {
    text.parse().map_err(|error| ImageError::archive(store.path(), error))
}

fn blob_path(store: &Store, text: &str) -> Result<String, ImageError> {
    Ok(format!("blobs/sha256/{}", digest(store, text)?.hex()))
}

/// A document of an archive.
pub(super) fn parse<'a, T: Deserialize<'a>>(store: &Store, name: &str, bytes: &'a [u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::archive(store.path(), format!("{name}: {error}")))
}
