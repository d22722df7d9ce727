//! Where the files of an archive are: in a folder, or somewhere in a tar file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

use super::bundle::Piece;
use super::error::ImageError;

/// The largest document (index, manifest, configuration) that is read into memory, in bytes.
const DOCUMENT_LIMIT: u64 = 4 << 20;
/// How many links are followed from one name.
const LINK_LIMIT: usize = 4;

/// The files of one archive.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    files: Files,
}

#[derive(Debug)]
enum Files {
    Folder,
    Tar { file: Arc<File>, entries: HashMap<String, Place> },
}

#[derive(Debug, Clone)]
enum Place {
    At { offset: u64, len: u64 },
    Link(String),
}

impl Store {
    /// Opens a folder, a tar file or one that gzip has compressed. The latter is unpacked into a nameless file in `scratch`.
    ///
    /// # Errors
    /// When it is none of them, or is cut off.
    pub(super) fn open(path: &Path, scratch: &Path) -> Result<Self, ImageError> {
        let metadata = std::fs::metadata(path).map_err(ImageError::read_file(path))?;
        if metadata.is_dir() {
            return Ok(Self { path: path.to_owned(), files: Files::Folder });
        }
        let mut file = File::open(path).map_err(ImageError::read_file(path))?;
        let mut magic = [0; 4];
        // A file that is shorter has no magic number, and fails below.
        let _ = file.read_at(&mut magic, 0);
        match magic {
            [0x1f, 0x8b, ..] => file = unpacked(&file, path, scratch)?,
            [0x28, 0xb5, 0x2f, 0xfd] => {
                let why = "it is compressed by zstd; unpack it first (zstd -d)".to_owned();
                return Err(ImageError::NotAnArchive { path: path.to_owned(), why });
            }
            _ => {}
        }
        let entries = entries(&mut file)
            .map_err(|error| ImageError::NotAnArchive { path: path.to_owned(), why: error.to_string() })?;
        if entries.is_empty() {
            return Err(ImageError::NotAnArchive { path: path.to_owned(), why: "there is nothing in it".to_owned() });
        }
        Ok(Self { path: path.to_owned(), files: Files::Tar { file: Arc::new(file), entries } })
    }

    /// Its own path, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of a file in it.
    ///
    /// # Errors
    /// When the name leads out of the archive, or the system refuses.
    pub(super) fn find(&self, name: &str) -> Result<Option<Piece>, ImageError> {
        let Some(name) = normal(name) else {
            return Err(ImageError::archive(&self.path, format!("the name {name:?} leads out of it")));
        };
        match &self.files {
            Files::Folder => {
                let path = self.path.join(name);
                let file = match File::open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    other => other.map_err(ImageError::read_file(&path))?,
                };
                Piece::whole(file).map(Some).map_err(ImageError::read_file(&path))
            }
            Files::Tar { file, entries } => {
                let (mut name, mut links) = (name, 0);
                loop {
                    match entries.get(&name) {
                        None => return Ok(None),
                        Some(Place::At { offset, len }) => {
                            return Ok(Some(Piece::Part { file: Arc::clone(file), offset: *offset, len: *len }));
                        }
                        Some(Place::Link(_)) if links == LINK_LIMIT => return Ok(None),
                        Some(Place::Link(to)) => (name, links) = (to.clone(), links + 1),
                    }
                }
            }
        }
    }

    /// A file that has to be there.
    ///
    /// # Errors
    /// As [`Store::find`], or when it is not.
    pub(super) fn need(&self, name: &str) -> Result<Piece, ImageError> {
        self.find(name)?.ok_or_else(|| ImageError::archive(&self.path, format!("{name} is missing: is it cut off?")))
    }

    /// The bytes of a small file that has to be there.
    ///
    /// # Errors
    /// As [`Store::need`], or when it is too large.
    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let piece = self.need(name)?;
        if piece.len() > DOCUMENT_LIMIT {
            let why = format!("{name} has {} bytes; the limit is {DOCUMENT_LIMIT}", piece.len());
            return Err(ImageError::archive(&self.path, why));
        }
        let mut bytes = Vec::new();
        piece.reader().read_to_end(&mut bytes).map_err(ImageError::read_file(&self.path))?;
        Ok(bytes)
    }
}

/// A name without `.` and `..`, relative to the archive; `None` if it leads out of it.
fn normal(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in Path::new(name).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()?),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

fn entries(file: &mut File) -> io::Result<HashMap<String, Place>> {
    file.rewind()?;
    let end = file.metadata()?.len();
    let mut found = HashMap::new();
    for entry in tar::Archive::new(file).entries_with_seek()? {
        let entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let Some(name) = normal(&path) else { continue };
        let kind = entry.header().entry_type();
        let place = if kind.is_file() {
            let (offset, len) = (entry.raw_file_position(), entry.size());
            if offset.checked_add(len).is_none_or(|to| to > end) {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("it is cut off in {path}")));
            }
            Place::At { offset, len }
        } else if let (true, Some(link)) = (kind.is_symlink() || kind.is_hard_link(), entry.link_name()?) {
            // Old `docker save`: a layer that two images share is a link to the other's folder.
            let base = if kind.is_symlink() { Path::new(&path).parent() } else { None };
            let to = base.unwrap_or(Path::new("")).join(link);
            let Some(to) = to.to_str().and_then(normal) else { continue };
            Place::Link(to)
        } else {
            continue;
        };
        found.insert(name, place);
    }
    Ok(found)
}

/// The contents of a compressed file, in a file that goes away when it is closed.
fn unpacked(file: &File, path: &Path, scratch: &Path) -> Result<File, ImageError> {
    std::fs::create_dir_all(scratch).map_err(ImageError::write(scratch))?;
    let temporary = scratch.join(format!(".images.{}.{:x}.tmp", std::process::id(), unique()));
    let options = File::options().read(true).write(true).create_new(true).open(&temporary);
    let mut to = options.map_err(ImageError::write(&temporary))?;
    std::fs::remove_file(&temporary).map_err(ImageError::write(&temporary))?;
    let mut from = MultiGzDecoder::new(file);
    let mut buffer = vec![0; 1 << 18];
    loop {
        // Which side has failed decides what the user has to look at.
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(to),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(ImageError::NotAnArchive {
                    path: path.to_owned(),
                    why: format!("its gzip is damaged: {error}"),
                });
            }
        };
        to.write_all(buffer.get(..count).unwrap_or_default()).map_err(ImageError::write(&temporary))?;
    }
}

/// A number that this process has not used before.
fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_are_none() {
        assert_eq!(normal("./a/../b/c").unwrap(), "b/c");
        assert_eq!(normal("../a"), None);
        assert_eq!(normal("/etc/shadow"), None);
        assert_eq!(normal("a/../../b"), None);
    }
}
