//! The image in the form of the OCI image specification 1.1: blobs that name each other by digest, in an image layout.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use anyhow::{Error, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::archive::{Archive, FILE_MODE};
use crate::elf::Architecture;
use crate::layer::Layer;
use crate::reference::Reference;

/// An image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An image manifest, also that of something which is no image.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An image's configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// A list of materials (CycloneDX in JSON).
pub const SBOM: &str = "application/vnd.cyclonedx+json";

/// Whom the programs run as unless they are told otherwise: nobody. The agent's pod asks for root, a pause container needs
/// no right at all.
const USER: &str = "65535:65535";

/// A SHA-256 digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::written(&Sha256::digest(bytes))
    }

    /// The digest of all that a reader yields, and how many bytes that is.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn of_reader(mut reader: impl Read) -> io::Result<(Self, u64)> {
        let (mut hash, mut buffer, mut size) = (Sha256::new(), vec![0; 1 << 18], 0);
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok((Self::written(&hash.finalize()), size)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hash.update(buffer.get(..count).unwrap_or_default());
            size += u64::try_from(count).unwrap_or_default();
        }
    }

    fn written(hash: &[u8]) -> Self {
        use fmt::Write as _;
        let hex = hash.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Self(hex)
    }

    /// The 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        let is_hex = hex.len() == 64 && hex.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
        ensure!(is_hex, "the digest is {text:?}; expected sha256: and 64 hexadecimal digits in lower case");
        Ok(Self(hex.to_owned()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "sha256:{}", self.0)
    }
}

/// What an image says of itself.
#[derive(Debug, Clone)]
pub struct About {
    /// Its name.
    pub reference: Reference,
    /// The commit it was built from.
    pub revision: Option<String>,
    /// The date of that commit, in RFC 3339 form.
    pub created: Option<String>,
}

impl About {
    /// The labels, which are also the annotations of manifest and index.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let optional = [("revision", &self.revision), ("created", &self.created)];
        let given = optional.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        let fixed = [
            ("title", "weft"),
            ("description", "Pod networking and Services for Kubernetes: the agent of each node and its CNI plugin"),
            ("licenses", "Apache-2.0"),
            ("version", &self.reference.tag),
        ];
        let fixed = fixed.into_iter().map(|(name, value)| (name, value.to_owned()));
        fixed.chain(given).map(|(name, value)| (format!("org.opencontainers.image.{name}"), value)).collect()
    }

    /// The configuration of an image of one layer, whose unpacked archive has this digest.
    #[must_use]
    pub fn config(&self, architecture: Architecture, diff_id: &Digest) -> Value {
        let mut step = json!({"created_by": "weft-image", "comment": "weft and weft-cni"});
        let mut config = json!({
            "architecture": architecture.name(),
            "os": "linux",
            "config": {
                "Entrypoint": ["/weft"],
                // What a runtime starts that is told to use the image as its pause image.
                "Cmd": ["pause"],
                "User": USER,
                "WorkingDir": "/",
                "Labels": self.labels(),
            },
            "rootfs": {"type": "layers", "diff_ids": [diff_id.to_string()]},
        });
        if let Some(created) = &self.created {
            step["created"] = json!(created);
            config["created"] = json!(created);
        }
        config["history"] = json!([step]);
        config
    }
}

/// An image layout that grows: blobs by digest, and what its index lists.
#[derive(Debug, Default)]
pub struct Layout {
    blobs: BTreeMap<Digest, Vec<u8>>,
    images: Vec<Value>,
    referrers: Vec<Value>,
}

impl Layout {
    /// Adds one architecture's image with its list of materials.
    ///
    /// # Errors
    /// When JSON cannot be written, which does not happen.
    pub fn image(&mut self, about: &About, architecture: Architecture, layer: &Layer, sbom: &[u8]) -> Result<()> {
        let config = serde_json::to_vec(&about.config(architecture, &layer.diff_id))?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(CONFIG, config),
            "layers": [self.blob(LAYER, layer.gzip.clone())],
            "annotations": about.labels(),
        });
        let mut image = self.blob(MANIFEST, serde_json::to_vec(&manifest)?);
        let subject = image.clone();
        image["platform"] = json!({"architecture": architecture.name(), "os": "linux"});
        self.images.push(image);

        // A referrer: tools that know the image's digest find what it is made of.
        let annotations = json!({"org.opencontainers.image.title": format!("{architecture} bill of materials")});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": SBOM,
            "config": self.blob(EMPTY, b"{}".to_vec()),
            "layers": [self.blob(SBOM, sbom.to_vec())],
            "subject": subject,
            "annotations": annotations,
        });
        let mut referrer = self.blob(MANIFEST, serde_json::to_vec(&manifest)?);
        referrer["artifactType"] = json!(SBOM);
        referrer["annotations"] = annotations;
        self.referrers.push(referrer);
        Ok(())
    }

    /// The layout as an archive, with one index of all images under the given name.
    ///
    /// # Errors
    /// As [`Layout::image`].
    pub fn archive(mut self, about: &About) -> Result<Vec<u8>> {
        let images = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": self.images,
            "annotations": about.labels(),
        });
        let mut named = self.blob(INDEX, serde_json::to_vec(&images)?);
        named["annotations"] = json!({
            "org.opencontainers.image.ref.name": about.reference.tag,
            // The specification has a place for the tag only; containerd takes the whole name from here.
            "io.containerd.image.name": about.reference.to_string(),
        });
        let manifests: Vec<Value> = std::iter::once(named).chain(self.referrers).collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});

        let mut archive = Archive::default();
        archive.file("oci-layout", FILE_MODE, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        archive.file("index.json", FILE_MODE, &serde_json::to_vec(&index)?)?;
        archive.directory("blobs/")?;
        archive.directory("blobs/sha256/")?;
        for (digest, bytes) in &self.blobs {
            archive.file(&format!("blobs/sha256/{}", digest.hex()), FILE_MODE, bytes)?;
        }
        archive.finish()
    }

    /// Keeps a blob and returns its descriptor.
    fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = Digest::of(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()});
        self.blobs.insert(digest, bytes);
        descriptor
    }
}
