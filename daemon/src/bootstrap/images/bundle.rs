//! Images on their way into containerd: blobs that lie in files or in memory, and what their names point at.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use serde::Deserialize;
use weft_image::oci::Digest;

use super::error::ImageError;

/// Some bytes in a row.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file that stays open, so that nobody can put another one in its place.
    Part {
        /// The file.
        file: Arc<File>,
        /// Where they begin.
        offset: u64,
        /// How many they are.
        len: u64,
    },
}

impl Piece {
    /// A whole file.
    pub(super) fn whole(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self::Part { file: Arc::new(file), offset: 0, len })
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::Part { len, .. } => *len,
        }
    }

    /// Reads them from the beginning.
    pub(super) fn reader(&self) -> PieceReader<'_> {
        PieceReader { piece: self, at: 0 }
    }
}

/// Reads a piece. Several may read the same file.
#[derive(Debug)]
pub(super) struct PieceReader<'a> {
    piece: &'a Piece,
    at: u64,
}

impl Read for PieceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.piece {
            Piece::Bytes(bytes) => {
                let rest = usize::try_from(self.at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
                    to.copy_from_slice(from);
                }
                count
            }
            Piece::Part { file, offset, len } => {
                let rest = usize::try_from(len.saturating_sub(self.at)).unwrap_or(usize::MAX);
                let wanted = rest.min(buffer.len());
                let Some(part) = buffer.get_mut(..wanted) else { return Ok(0) };
                file.read_at(part, offset.saturating_add(self.at))?
            }
        };
        self.at = self.at.saturating_add(u64::try_from(count).unwrap_or_default());
        Ok(count)
    }
}

/// What names a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub(super) media_type: String,
    /// Its digest.
    pub(super) digest: String,
    /// Its size in bytes.
    pub(super) size: u64,
    /// What is said of it.
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    /// The machine that it is for.
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    /// What it is, if it is no image.
    #[serde(default)]
    pub(super) artifact_type: Option<String>,
}

/// The machine that an image is for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    /// Go's name of the processor.
    pub(super) architecture: String,
    /// Go's name of the system.
    pub(super) os: String,
}

/// A blob with all that containerd wants to know of it.
#[derive(Debug, Clone)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The blobs that it names, by the labels that keep containerd's garbage collector from them.
    pub children: BTreeMap<String, String>,
    pub(super) pieces: Vec<Piece>,
}

impl Blob {
    /// A blob out of its pieces, whose digest comes from reading them.
    pub(super) fn of(pieces: Vec<Piece>, children: BTreeMap<String, String>) -> io::Result<Self> {
        let (digest, size) = Digest::of_reader(Chain::new(&pieces))?;
        Ok(Self { digest, size, children, pieces })
    }

    /// All its bytes, one after the other.
    pub(super) fn reader(&self) -> Chain<'_> {
        Chain::new(&self.pieces)
    }

    /// Reads it, and compares what comes with its digest.
    pub(super) fn verify(&self) -> Result<(), ImageError> {
        let (found, size) = Digest::of_reader(self.reader()).map_err(ImageError::read("a blob"))?;
        if (&found, size) == (&self.digest, self.size) {
            return Ok(());
        }
        Err(ImageError::Corrupt { digest: self.digest.to_string(), found: found.to_string() })
    }
}

/// Reads pieces one after the other.
#[derive(Debug)]
pub(super) struct Chain<'a> {
    rest: std::slice::Iter<'a, Piece>,
    current: Option<PieceReader<'a>>,
}

impl<'a> Chain<'a> {
    pub(super) fn new(pieces: &'a [Piece]) -> Self {
        let mut rest = pieces.iter();
        let current = rest.next().map(Piece::reader);
        Self { rest, current }
    }
}

impl Read for Chain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(current) = &mut self.current {
            let count = current.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            self.current = self.rest.next().map(Piece::reader);
        }
        Ok(0)
    }
}

/// An image by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its whole name.
    pub name: String,
    /// Media type of what the name points at.
    pub media_type: String,
    /// Digest of that.
    pub digest: Digest,
    /// Size of that in bytes.
    pub size: u64,
}

/// Images with all their blobs, complete and verified.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    /// The images.
    pub images: Vec<Entry>,
    /// Their blobs, each after those that it names.
    pub blobs: Vec<Blob>,
}

impl Bundle {
    /// What all its blobs have, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size).sum()
    }

    /// Adds a blob, unless it is there.
    pub(super) fn add(&mut self, blob: Blob) {
        if !self.blobs.iter().any(|there| there.digest == blob.digest) {
            self.blobs.push(blob);
        }
    }

    /// Both in one.
    pub(super) fn absorb(&mut self, other: Self) {
        other.blobs.into_iter().for_each(|blob| self.add(blob));
        self.images.extend(other.images);
    }
}

/// The labels of a manifest: its configuration and its layers.
pub(super) fn manifest_children<'a>(config: &str, layers: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let layers =
        layers.enumerate().map(|(n, digest)| (format!("containerd.io/gc.ref.content.l.{n}"), digest.to_owned()));
    layers.chain([("containerd.io/gc.ref.content.config".to_owned(), config.to_owned())]).collect()
}

/// The labels of an index: its manifests.
pub(super) fn index_children<'a>(manifests: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    manifests
        .enumerate()
        .map(|(n, digest)| (format!("containerd.io/gc.ref.content.m.{n}"), digest.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_both_kinds_are_one_blob() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"..middle..").unwrap();
        let part = Piece::Part { file: Arc::new(File::open(&path).unwrap()), offset: 2, len: 6 };
        let pieces =
            vec![Piece::Bytes(b"begin ".to_vec()), Piece::Bytes(Vec::new()), part, Piece::Bytes(b" end".to_vec())];
        let blob = Blob::of(pieces, BTreeMap::new()).unwrap();
        let mut bytes = Vec::new();
        blob.reader().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"begin middle end");
        assert_eq!((blob.digest.clone(), blob.size), (Digest::of(&bytes), 16));
        blob.verify().unwrap();
        std::fs::write(&path, b"..mIddle..").unwrap();
        assert!(matches!(blob.verify(), Err(ImageError::Corrupt { .. })));
        std::fs::write(&path, b"..mid").unwrap();
        assert!(matches!(blob.verify(), Err(ImageError::Corrupt { .. })));
    }
}
