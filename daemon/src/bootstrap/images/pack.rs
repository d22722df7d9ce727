//! Images made of the programs themselves: a static program needs nothing else in its image, others their libraries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tar::EntryType;
use weft_image::archive::{BLOCK, header};
use weft_image::elf;
use weft_image::oci::{About, CONFIG, MANIFEST};
use weft_image::reference::Reference;

use super::bundle::{Blob, Bundle, Entry, Piece, manifest_children};
use super::error::ImageError;
use super::names::{Wanted, What};
use super::shared;

/// A layer that is not compressed: it is unpacked on this very machine, where packing and unpacking it would only take time.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Where programs lie in upstream's images, and where a shell-less search path finds them.
const FOLDER: &str = "usr/local/bin";
/// Search path of upstream's images.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What is read of a program to see what it is: its program headers lie at the beginning.
const HEAD: u64 = 64 << 10;

/// This machine's architecture, as images name it.
#[must_use]
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// weft's own two programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// `weft`.
    pub weft: PathBuf,
    /// `weft-cni`.
    pub plugin: PathBuf,
}

impl Own {
    /// The program that is running, and the plugin beside it or in `folder`.
    ///
    /// # Errors
    /// When the plugin is in neither place.
    pub fn find(folder: Option<&Path>) -> Result<Self, ImageError> {
        let weft = std::env::current_exe().map_err(ImageError::read("the path of the running program"))?;
        let beside = weft.parent().map(|folder| folder.join("weft-cni"));
        let mut places = beside.into_iter().chain(folder.map(|folder| folder.join("weft-cni")));
        match places.find(|path| path.is_file()) {
            Some(plugin) => Ok(Self { weft, plugin }),
            None => {
                let why = "weft-cni is not beside it; expected both programs in one folder".to_owned();
                Err(ImageError::Program { program: weft, why })
            }
        }
    }
}

/// Makes the images that can be made: of the programs in `folder`, and of weft's own, which are its pause image, too. The
/// digests of the same programs are the same each time.
///
/// # Errors
/// When a program is there but cannot run in an image that holds nothing else.
pub fn pack(wanted: &[Wanted], folder: Option<&Path>, own: Option<&Own>) -> Result<Bundle, ImageError> {
    let mut bundle = Bundle::default();
    for image in wanted {
        match (image.what.program(), folder, own) {
            (Some(program), Some(folder), _) => {
                let path = folder.join(program);
                if path.is_file() {
                    bundle.absorb(one_program(&image.name, image.what, program, &path)?);
                }
            }
            (None, _, Some(own)) => bundle.absorb(weft(&image.name, own)?),
            _ => {}
        }
    }
    Ok(bundle)
}

/// The image of one program.
fn one_program(name: &str, what: What, program: &str, path: &Path) -> Result<Bundle, ImageError> {
    let (file, machine) = open(path)?;
    // CoreDNS's Deployment has arguments only, so the entry point counts; static pods name the program and count on PATH.
    let place = if what == What::CoreDns { program.to_owned() } else { format!("{FOLDER}/{program}") };
    let layer = layer(path, vec![(place.clone(), file)])?;
    let config = json!({
        "architecture": machine.name(),
        "os": "linux",
        "config": {
            "Env": [PATH],
            "Entrypoint": [format!("/{place}")],
            "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.title": program},
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.digest.to_string()]},
        "history": [{"created_by": "weft images", "comment": program}],
    });
    image(name, &config, layer)
}

/// weft's own image, the same as its release's but for dates.
fn weft(name: &str, own: &Own) -> Result<Bundle, ImageError> {
    let ((agent, machine), (plugin, other)) = (open(&own.weft)?, open(&own.plugin)?);
    if machine != other {
        let why = format!("it is for {machine}, and weft-cni beside it for {other}");
        return Err(ImageError::Program { program: own.weft.clone(), why });
    }
    let layer = layer(&own.weft, vec![("weft".to_owned(), agent), ("weft-cni".to_owned(), plugin)])?;
    let wrong = |error: anyhow::Error| ImageError::Program { program: own.weft.clone(), why: format!("{error:#}") };
    let reference =
        Reference { repository: "localhost".parse().map_err(wrong)?, tag: env!("CARGO_PKG_VERSION").to_owned() };
    let about = About { reference, revision: None, created: None };
    image(name, &about.config(machine, &layer.digest), layer)
}

/// An image of one layer.
fn image(name: &str, config: &Value, layer: Blob) -> Result<Bundle, ImageError> {
    let memory = || ImageError::read("memory");
    let bytes = |value: &Value| vec![Piece::Bytes(value.to_string().into_bytes())];
    let config = Blob::of(bytes(config), Default::default()).map_err(memory())?;
    let named = |media_type: &str, blob: &Blob| json!({"mediaType": media_type, "digest": blob.digest.to_string(), "size": blob.size});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": named(CONFIG, &config),
        "layers": [named(LAYER, &layer)],
    });
    let (config_digest, layer_digest) = (config.digest.to_string(), layer.digest.to_string());
    let children = manifest_children(&config_digest, std::iter::once(layer_digest.as_str()));
    let manifest = Blob::of(bytes(&manifest), children).map_err(memory())?;
    let entry = Entry {
        name: name.to_owned(),
        media_type: MANIFEST.to_owned(),
        digest: manifest.digest.clone(),
        size: manifest.size,
    };
    Ok(Bundle { images: vec![entry], blobs: vec![layer, config, manifest] })
}

/// A program for this machine.
fn open(path: &Path) -> Result<(File, elf::Architecture), ImageError> {
    let mut file = File::open(path).map_err(ImageError::read_file(path))?;
    let mut head = Vec::new();
    (&file).take(HEAD).read_to_end(&mut head).map_err(ImageError::read_file(path))?;
    file.rewind().map_err(ImageError::read_file(path))?;
    let program = || path.to_owned();
    let machine =
        elf::machine(&head).map_err(|error| ImageError::Program { program: program(), why: format!("{error:#}") })?;
    if machine.name() != architecture() {
        let why = format!("it is for {machine}, and this machine is {}", architecture());
        return Err(ImageError::Program { program: program(), why });
    }
    Ok((file, machine))
}

/// A layer with these programs and what they need, whose bytes stay in their files.
fn layer(program: &Path, programs: Vec<(String, File)>) -> Result<Blob, ImageError> {
    let wrong = |error: anyhow::Error| ImageError::Program { program: program.to_owned(), why: format!("{error:#}") };
    let read = || ImageError::read_file(program);
    let mut files = BTreeMap::new();
    for (place, file) in programs {
        let libraries = shared::files(&file)
            .map_err(|error| ImageError::Program { program: program.to_owned(), why: error.to_string() })?;
        let relative = |path: PathBuf| path.to_string_lossy().trim_start_matches('/').to_owned();
        files.extend(libraries.into_iter().map(|(path, file)| (relative(path), file)));
        files.insert(place, file);
    }
    let (mut pieces, mut there) = (Vec::new(), BTreeSet::new());
    for (place, file) in files {
        for folder in folders(&place) {
            if there.insert(folder.clone()) {
                pieces.push(Piece::Bytes(header(EntryType::Directory, &folder, 0o755, 0).map_err(wrong)?));
            }
        }
        let contents = Piece::whole(file).map_err(read())?;
        pieces.push(Piece::Bytes(header(EntryType::Regular, &place, 0o755, contents.len()).map_err(wrong)?));
        let rest = contents.len().next_multiple_of(BLOCK) - contents.len();
        pieces.extend([contents, zeros(rest)]);
    }
    // Two empty blocks end an archive.
    pieces.push(zeros(2 * BLOCK));
    Blob::of(pieces, Default::default()).map_err(read())
}

fn zeros(count: u64) -> Piece {
    Piece::Bytes(vec![0; usize::try_from(count).unwrap_or_default()])
}

/// The folders above a file, the outermost first.
fn folders(place: &str) -> Vec<String> {
    place.match_indices('/').filter_map(|(at, _)| place.get(..=at)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    use crate::bootstrap::images::names::Names;

    /// The head of a static program for this machine, and something behind it.
    fn program(folder: &Path, name: &str) {
        let machine = if architecture() == "amd64" { 62 } else { 183 };
        let mut bytes = vec![0; 64 + 56 + 1000];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (bytes[18], bytes[32], bytes[54], bytes[56], bytes[64]) = (machine, 64, 56, 1, 1);
        bytes.extend_from_slice(name.as_bytes());
        std::fs::write(folder.join(name), bytes).unwrap();
    }

    fn bytes(blob: &Blob) -> Vec<u8> {
        let mut bytes = Vec::new();
        blob.reader().read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn layer_of<'a>(bundle: &'a Bundle, image: &Entry) -> (Value, &'a Blob) {
        let blob = |digest: &str| bundle.blobs.iter().find(|blob| blob.digest.to_string() == digest).unwrap();
        let manifest: Value = serde_json::from_slice(&bytes(blob(&image.digest.to_string()))).unwrap();
        let config: Value =
            serde_json::from_slice(&bytes(blob(manifest["config"]["digest"].as_str().unwrap()))).unwrap();
        let layer = blob(manifest["layers"][0]["digest"].as_str().unwrap());
        assert_eq!(config["rootfs"]["diff_ids"][0], layer.digest.to_string());
        (config, layer)
    }

    #[test]
    fn programs_lie_where_static_pods_look_for_them() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["kube-apiserver", "coredns", "weft", "weft-cni"] {
            program(folder.path(), name);
        }
        let own = Own { weft: folder.path().join("weft"), plugin: folder.path().join("weft-cni") };
        let wanted = Names::usual("registry.k8s.io", "v1.36.2").wanted(true);
        let bundle = pack(&wanted, Some(folder.path()), Some(&own)).unwrap();
        let names: Vec<&str> = bundle.images.iter().map(|image| image.name.as_str()).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(!names.iter().any(|name| name.contains("etcd") || name.contains("scheduler")));
        let image = |part: &str| bundle.images.iter().find(|image| image.name.contains(part)).unwrap();

        let (config, layer) = layer_of(&bundle, image("kube-apiserver"));
        assert!(config["config"]["Env"][0].as_str().unwrap().contains("/usr/local/bin"));
        let archive = bytes(layer);
        let mut archive = tar::Archive::new(archive.as_slice());
        let entries: Vec<(String, u32, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                (entry.path().unwrap().display().to_string(), header.mode().unwrap(), header.size().unwrap())
            })
            .collect();
        assert_eq!(entries.len(), 4, "{entries:?}");
        let size = std::fs::metadata(folder.path().join("kube-apiserver")).unwrap().len();
        assert_eq!(entries[3], ("usr/local/bin/kube-apiserver".to_owned(), 0o755, size));

        let (config, _) = layer_of(&bundle, image("coredns"));
        assert_eq!(config["config"]["Entrypoint"][0], "/coredns");
        // The pause image is weft's own, by another name.
        assert_eq!(image("pause").digest, image("localhost/weft").digest);
        let (config, _) = layer_of(&bundle, image("pause"));
        assert_eq!(config["config"]["Cmd"][0], "pause");
        // The same each time: a second import finds it there.
        let again = pack(&wanted, Some(folder.path()), Some(&own)).unwrap();
        assert_eq!(again.images, bundle.images);
    }

    #[test]
    fn what_could_not_run_alone_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("etcd"), "#!/bin/sh\n").unwrap();
        let wanted = Names::usual("registry.k8s.io", "v1.36.2").wanted(true);
        let error = pack(&wanted, Some(folder.path()), None).unwrap_err().to_string();
        assert!(error.contains("etcd") && error.contains("ELF"), "{error}");
    }
}
