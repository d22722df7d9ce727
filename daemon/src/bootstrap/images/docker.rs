//! Reading what `docker save` writes: `manifest.json`, configurations, layers. A manifest in Docker's form is made of it.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::json;
use weft_image::oci::Digest;

use super::bundle::{Blob, Bundle, Entry, Piece, manifest_children};
use super::error::ImageError;
use super::oci::{DOCKER_MANIFEST, parse};
use super::store::Store;

const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// An image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// What matters of a configuration.
#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default)]
    architecture: String,
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// The images of an archive for one architecture (Go's name), each layer verified.
///
/// # Errors
/// When a part is missing, is damaged, has no name, or is for other machines.
pub(super) fn read(store: &Store, architecture: &str) -> Result<Bundle, ImageError> {
    let saved: Vec<Saved> = parse(store, "manifest.json", &store.document("manifest.json")?)?;
    let mut bundle = Bundle::default();
    for image in &saved {
        take(store, architecture, image, &mut bundle)?;
    }
    if bundle.images.is_empty() {
        return Err(ImageError::archive(store.path(), "there is no image in it"));
    }
    Ok(bundle)
}

fn take(store: &Store, architecture: &str, image: &Saved, bundle: &mut Bundle) -> Result<(), ImageError> {
    let wrong = |why: String| ImageError::archive(store.path(), why);
    let names = image.repo_tags.as_deref().unwrap_or_default();
    if names.is_empty() {
        return Err(wrong(format!("the image {} in it has no name (RepoTags of manifest.json)", image.config)));
    }
    let bytes = store.document(&image.config)?;
    let found = Digest::of(&bytes);
    if let Some(said) = digest_in(&image.config).filter(|said| *said != found.hex()) {
        return Err(wrong(format!("the configuration {said} in it is damaged: it has the digest {found}")));
    }
    let config: Config = parse(store, &image.config, &bytes)?;
    if !config.architecture.is_empty() && config.architecture != architecture {
        return Err(wrong(format!(
            "{} is for {}, and this machine is {architecture}",
            names.join(", "),
            config.architecture
        )));
    }
    if config.rootfs.diff_ids.len() != image.layers.len() {
        let (said, there) = (config.rootfs.diff_ids.len(), image.layers.len());
        return Err(wrong(format!("{}: the configuration names {said} layers, and there are {there}", image.config)));
    }
    let io = || ImageError::read_file(store.path());
    let mut layers = Vec::new();
    for (name, diff_id) in image.layers.iter().zip(&config.rootfs.diff_ids) {
        let piece = store.need(name)?;
        let is_gzip = is_gzip(&piece);
        let blob = Blob::of(vec![piece.clone()], Default::default()).map_err(io())?;
        let found = if is_gzip {
            Digest::of_reader(MultiGzDecoder::new(piece.reader())).map_err(io())?.0
        } else {
            blob.digest.clone()
        };
        if found.to_string() != *diff_id {
            return Err(wrong(format!(
                "the layer {name} is damaged: it should have the digest {diff_id} and has {found}"
            )));
        }
        let media_type = if is_gzip { LAYER_GZIP } else { LAYER };
        layers.push(json!({"mediaType": media_type, "digest": blob.digest.to_string(), "size": blob.size}));
        bundle.add(blob);
    }
    let config = Blob::of(vec![Piece::Bytes(bytes)], Default::default()).map_err(io())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config.digest.to_string(), "size": config.size},
        "layers": layers,
    });
    let children =
        manifest_children(&config.digest.to_string(), layers.iter().filter_map(|layer| layer["digest"].as_str()));
    let manifest = Blob::of(vec![Piece::Bytes(manifest.to_string().into_bytes())], children).map_err(io())?;
    for name in names {
        let (digest, size) = (manifest.digest.clone(), manifest.size);
        bundle.images.push(Entry { name: whole_name(name), media_type: DOCKER_MANIFEST.to_owned(), digest, size });
    }
    bundle.add(config);
    bundle.add(manifest);
    Ok(())
}

/// The digest by which a file is named, if it is: `blobs/sha256/<hex>` or `<hex>.json`.
fn digest_in(name: &str) -> Option<&str> {
    let stem = name.rsplit('/').next()?.split('.').next()?;
    (stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(stem)
}

fn is_gzip(piece: &Piece) -> bool {
    let mut magic = [0; 2];
    piece.reader().read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b]
}

/// Docker leaves its own registry out of a name; runtimes do not.
fn whole_name(name: &str) -> String {
    match name.split_once('/') {
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_whole() {
        for (name, whole) in [
            ("nginx:1", "docker.io/library/nginx:1"),
            ("coredns/coredns:1", "docker.io/coredns/coredns:1"),
            ("localhost/weft:1", "localhost/weft:1"),
            ("a.example:5000/x:1", "a.example:5000/x:1"),
        ] {
            assert_eq!(whole_name(name), whole);
        }
    }
}
