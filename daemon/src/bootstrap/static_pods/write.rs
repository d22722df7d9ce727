//! Static pods as files, where kubelet looks for them.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::{Manifest, Part};
use crate::bootstrap::converge::{self, FileError, Outcome};
use crate::bootstrap::patches::{PatchError, Patches};
use crate::bootstrap::resolved::{Cluster, EtcdPlace, Paths};
use crate::bootstrap::yaml;

/// Only root reads the manifests: their environment may hold secrets.
const DIRECTORY_MODE: u32 = 0o700;
pub(super) const FILE_MODE: u32 = 0o600;

/// A static pod could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// A patch does not fit.
    #[error(transparent)]
    Patch(#[from] PatchError),
}

/// Patches a static pod and writes it, unless the file is so already. kubelet starts it within a second; for etcd the
/// data directory is made first, which nobody but root may enter.
///
/// # Errors
/// [`WriteError`] when a patch does not fit or the file system refuses.
pub fn write(paths: &Paths, cluster: &Cluster, manifest: &Manifest, patches: &Patches) -> Result<Outcome, WriteError> {
    let mut pod = manifest.pod.clone();
    patches.apply(manifest.part.name(), &mut pod)?;
    if let (Part::Etcd, EtcdPlace::Local { data_dir, .. }) = (manifest.part, &cluster.etcd) {
        converge::directory(&paths.root.join(data_dir.strip_prefix("/").unwrap_or(data_dir)), DIRECTORY_MODE)?;
    }
    prepare_directory(paths)?;
    Ok(converge::put(&path(paths, manifest.part), yaml::to_string(&pod).as_bytes(), FILE_MODE)?)
}

/// Has the directory there that kubelet looks into.
pub(super) fn prepare_directory(paths: &Paths) -> Result<(), FileError> {
    converge::directory(&paths.manifests(), DIRECTORY_MODE).map(drop)
}

/// Takes a static pod away; kubelet ends it. Says whether it was there.
///
/// # Errors
/// [`FileError`] when the file system refuses.
pub fn remove(paths: &Paths, part: Part) -> Result<bool, FileError> {
    let path = path(paths, part);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::of("remove", &path)(error)),
    }
}

fn path(paths: &Paths, part: Part) -> PathBuf {
    paths.manifests().join(format!("{}.yaml", part.name()))
}
