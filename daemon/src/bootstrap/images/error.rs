//! What can go wrong with images.

use std::io;
use std::path::{Path, PathBuf};

use tonic::Status;

use crate::bootstrap::cri::CriError;

/// An image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file could not be read or written.
    #[error("cannot {verb} {what}: {source}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// With which file.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is no archive of images.
    #[error("{}: {why}; expected an OCI layout or what `docker save` writes, as a folder, a .tar or a .tar.gz", .path.display())]
    NotAnArchive {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The archive is one, but something in it is wrong. Nothing of it has been imported.
    #[error("{}: {why}; nothing of it has been imported", .path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Bytes are not what their name says.
    #[error("a blob is damaged: it should have the digest {digest} and has {found}")]
    Corrupt {
        /// The digest by which it is named.
        digest: String,
        /// Its own.
        found: String,
    },
    /// A program cannot be made an image of.
    #[error("cannot make an image of {}: {why}", .program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// Why not.
        why: String,
    },
    /// The runtime is none, or has refused.
    #[error(transparent)]
    Cri(#[from] CriError),
    /// containerd's own API has refused.
    #[error("containerd refuses {call} of {object}: {}", .status.message())]
    Containerd {
        /// What was asked.
        call: &'static str,
        /// Of what.
        object: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// The runtime is another one, which has no way to bring an image in.
    #[error(
        "the runtime at {} is not containerd and takes no image archives: load them with its own tool \
         (for CRI-O: skopeo copy oci-archive:FILE containers-storage:NAME), or pull", .0.display()
    )]
    NoImport(PathBuf),
    /// It was imported, but the runtime does not show it.
    #[error("{name} has been imported, but the container runtime does not list it within {seconds} s")]
    Unseen {
        /// The image.
        name: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Nobody answers where images come from.
    #[error(
        "{name} is not on this node, and nobody answers at {}: {cause}. Without that registry, use a mirror \
         (--image-mirror URL, or --image-repository), bring the image in a file (--images FILE, or `weft images load FILE`), or \
         make it from the programs (--kubernetes-bin DIR)", .endpoints.join(", ")
    )]
    Unreachable {
        /// The image.
        name: String,
        /// Who was tried.
        endpoints: Vec<String>,
        /// The reason of the last one.
        cause: String,
    },
    /// The runtime could not pull it.
    #[error("cannot pull {name} ({attempts} attempts): {cause}{}", hint(.cause))]
    Pull {
        /// The image.
        name: String,
        /// How often it was tried.
        attempts: u32,
        /// The runtime's last words.
        cause: String,
    },
    /// Images are missing, and fetching them was not allowed.
    #[error(
        "{} not on this node: bring them in a file (--images FILE), make them from the programs (--kubernetes-bin DIR), or \
         allow to pull them", list(.0)
    )]
    Missing(Vec<String>),
}

impl ImageError {
    pub(super) fn read(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { verb: "read", what, source }
    }

    pub(super) fn read_file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::read(path.display().to_string())
    }

    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = path.display().to_string();
        move |source| Self::Io { verb: "write", what, source }
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers have made the words, or the error, just for this")]
    pub(super) fn archive(path: &Path, why: impl ToString) -> Self {
        Self::Archive { path: path.to_owned(), why: why.to_string() }
    }
}

/// What to do about a registry's words.
fn hint(cause: &str) -> &'static str {
    if cause.contains("not found") || cause.contains("manifest unknown") {
        "; is the version right, and does the repository have it (--image-repository, --kubernetes-version)?"
    } else if cause.contains("x509") || cause.contains("certificate") {
        "; the registry's certificate is not trusted by the runtime: give its authority in certs.d/HOST/hosts.toml"
    } else if cause.contains("401")
        || cause.contains("403")
        || cause.contains("denied")
        || cause.contains("authorization")
    {
        "; the registry wants credentials"
    } else {
        "; without that registry: --image-mirror URL, --images FILE or --kubernetes-bin DIR"
    }
}

fn list(names: &[String]) -> String {
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p0_4_an_unreachable_registry_names_the_ways_around_it() {
        let error = ImageError::Unreachable {
            name: "registry.k8s.io/pause:3.10.2".into(),
            endpoints: vec!["https://registry.k8s.io".into()],
            cause: "timed out".into(),
        };
        let text = error.to_string();
        for word in ["registry.k8s.io/pause:3.10.2", "timed out", "--image-mirror", "--images", "--kubernetes-bin"] {
            assert!(text.contains(word), "{text}");
        }
        assert!(ImageError::Missing(vec!["a".into(), "b".into()]).to_string().starts_with("a, b are not on this node"));
    }
}
