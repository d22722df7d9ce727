//! From a path to the images in it, whatever form they have.

use std::path::{Path, PathBuf};

use super::bundle::Bundle;
use super::error::ImageError;
use super::pack::architecture;
use super::store::Store;
use super::{docker, oci};

/// Endings of archives in a folder of them.
const ENDINGS: [&str; 3] = [".tar", ".tar.gz", ".tgz"];

/// Reads the images of an archive (an OCI layout, or what `docker save` writes; a tar file, compressed by gzip or not, or a
/// folder), or those of all archives in a folder. Each blob is verified. `scratch` is for what has to be unpacked first.
///
/// # Errors
/// When a part is missing, is damaged, has no name, or is for other machines only.
pub fn load(path: &Path, scratch: &Path) -> Result<Bundle, ImageError> {
    let mut bundle = Bundle::default();
    for path in archives(path)? {
        let store = Store::open(&path, scratch)?;
        // Newer versions of `docker save` write both.
        bundle.absorb(if store.find("index.json")?.is_some() {
            oci::read(&store, architecture())?
        } else if store.find("manifest.json")?.is_some() {
            docker::read(&store, architecture())?
        } else {
            return Err(ImageError::NotAnArchive {
                path,
                why: "neither index.json nor manifest.json is in it".to_owned(),
            });
        });
    }
    Ok(bundle)
}

/// The archive itself, or those in a folder that is none, in the order of their names.
fn archives(path: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let is_archive = !path.is_dir() || ["index.json", "manifest.json"].iter().any(|name| path.join(name).is_file());
    if is_archive {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(ImageError::read_file(path))? {
        let entry = entry.map_err(ImageError::read_file(path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            found.push(entry.path());
        }
    }
    if found.is_empty() {
        let why = format!("it is a folder without archives (*{})", ENDINGS.join(", *"));
        return Err(ImageError::NotAnArchive { path: path.to_owned(), why });
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    use tempfile::TempDir;
    use weft_image::build::{Input, outputs};
    use weft_image::elf::Architecture;
    use weft_image::layer::Binaries;
    use weft_image::oci::About;
    use weft_image::reference::Reference;

    const NAME: &str = "registry.example/net/weft:1";

    fn other_architecture() -> Architecture {
        if architecture() == "amd64" { Architecture::Arm64 } else { Architecture::Amd64 }
    }

    /// Our own release's archives for these machines: the OCI archive, and one of `docker save`'s form for each.
    fn archives_for(architectures: &[Architecture]) -> TempDir {
        let reference = Reference { repository: "registry.example/net".parse().unwrap(), tag: "1".into() };
        let about = About { reference, revision: None, created: None };
        let input = |architecture: &Architecture| Input {
            architecture: *architecture,
            binaries: Binaries { agent: b"agent".to_vec(), plugin: b"plugin".to_vec() },
            packages: Vec::new(),
        };
        let inputs: Vec<Input> = architectures.iter().map(input).collect();
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in outputs(&about, &inputs).unwrap() {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn both() -> TempDir {
        archives_for(&Architecture::ALL)
    }

    fn load(path: &Path) -> Result<Bundle, ImageError> {
        let scratch = tempfile::tempdir().unwrap();
        let bundle = super::load(path, scratch.path());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "something is left in the scratch folder");
        bundle
    }

    fn docker(architecture: &str) -> String {
        format!("weft-1-{architecture}.docker.tar")
    }

    /// Children come before who names them, and everything that is named is there, but for other machines.
    fn assert_whole(bundle: &Bundle, blobs: usize) {
        assert_eq!(bundle.images.iter().map(|image| image.name.as_str()).collect::<Vec<_>>(), [NAME]);
        assert_eq!(bundle.blobs.len(), blobs);
        for (at, blob) in bundle.blobs.iter().enumerate() {
            blob.verify().unwrap();
            let before = |digest: &String| bundle.blobs[..at].iter().any(|other| other.digest.to_string() == *digest);
            let found = blob.children.values().filter(|child| before(child)).count();
            assert!(found > 0 || blob.children.is_empty());
        }
        assert_eq!(bundle.blobs.last().unwrap().digest, bundle.images[0].digest);
    }

    #[test]
    fn both_forms_plain_and_compressed() {
        let folder = both();
        for (name, blobs) in [("weft-1.oci.tar".to_owned(), 4), (docker(architecture()), 3)] {
            let path = folder.path().join(&name);
            assert_whole(&load(&path).unwrap(), blobs);
            let packed = folder.path().join(format!("{name}.gz"));
            let mut gzip =
                flate2::write::GzEncoder::new(fs::File::create(&packed).unwrap(), flate2::Compression::fast());
            gzip.write_all(&fs::read(&path).unwrap()).unwrap();
            gzip.finish().unwrap();
            assert_whole(&load(&packed).unwrap(), blobs);
        }
    }

    #[test]
    fn an_unpacked_archive_and_a_folder_of_archives() {
        let folder = both();
        let unpacked = tempfile::tempdir().unwrap();
        let archive = fs::File::open(folder.path().join("weft-1.oci.tar")).unwrap();
        tar::Archive::new(archive).unpack(unpacked.path()).unwrap();
        assert_whole(&load(unpacked.path()).unwrap(), 4);

        fs::remove_file(folder.path().join(docker(other_architecture().name()))).unwrap();
        let bundle = load(folder.path()).unwrap();
        assert_eq!(bundle.images.len(), 2);
        let empty = tempfile::tempdir().unwrap();
        assert!(load(empty.path()).unwrap_err().to_string().contains("without archives"));
    }

    #[test]
    fn what_is_damaged_is_not_taken_in_part() {
        let own = Architecture::ALL.into_iter().find(|own| own.name() == architecture()).unwrap();
        let folder = archives_for(&[own]);
        for name in ["weft-1.oci.tar".to_owned(), docker(architecture())] {
            let path = folder.path().join(name);
            let whole = fs::read(&path).unwrap();
            // A bit of the configuration, and one of the layer: compressed in one form, as it is in the other.
            let find = |what: &[u8]| whole.windows(what.len()).position(|bytes| bytes == what);
            let layer = find(b"agent\0").or_else(|| Some(find(&[0x1f, 0x8b, 8, 0])? + 30));
            for at in [find(b"\"rootfs\"").unwrap(), layer.unwrap()] {
                let mut damaged = whole.clone();
                damaged[at + 1] ^= 1;
                fs::write(&path, damaged).unwrap();
                let error = load(&path).unwrap_err().to_string();
                assert!(error.contains("damaged") && error.contains("nothing of it has been imported"), "{error}");
            }
            // Cut off in the middle, it is no archive any more.
            fs::write(&path, &whole[..whole.len() / 2]).unwrap();
            let error = load(&path).unwrap_err();
            assert!(matches!(error, ImageError::NotAnArchive { .. } | ImageError::Archive { .. }), "{error}");
        }
    }

    #[test]
    fn images_for_other_machines_are_refused() {
        let other = other_architecture();
        let folder = archives_for(&[other]);
        for name in ["weft-1.oci.tar".to_owned(), docker(other.name())] {
            let error = load(&folder.path().join(name)).unwrap_err().to_string();
            assert!(error.contains(architecture()), "{error}");
        }
    }

    #[test]
    fn what_is_no_archive_says_what_was_expected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for bytes in [&b"\x28\xb5\x2f\xfd...."[..], b"text", b"", b"\x1f\x8b garbage"] {
            fs::write(&path, bytes).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains("expected an OCI layout"), "{error}");
        }
        assert!(load(&folder.path().join("none")).unwrap_err().to_string().contains("cannot read"));
    }

    #[test]
    fn names_that_lead_out_of_the_archive_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        let archive = folder.path().join("archive");
        fs::create_dir(&archive).unwrap();
        let manifest = r#"[{"Config": "../secret", "RepoTags": ["a/b:1"], "Layers": []}]"#;
        fs::write(archive.join("manifest.json"), manifest).unwrap();
        assert!(load(&archive).unwrap_err().to_string().contains("leads out of it"));
    }
}
