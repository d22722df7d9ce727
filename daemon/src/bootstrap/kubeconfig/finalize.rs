//! kubelet's kubeconfig once kubelet has a certificate that it rotates itself (kubeadm `phases/kubelet-finalize`).
//!
//! Without this the node stops working when the certificate that was put into the kubeconfig at first runs out.

use std::path::{Path, PathBuf};

use super::document::{Credentials, Kubeconfig};
use crate::bootstrap::pki::error::PkiError;
use crate::bootstrap::pki::store::write_private;
use crate::bootstrap::pki::{Outcome, Step};
use crate::bootstrap::resolved::Paths;

/// Where kubelet keeps the certificate and key that it rotates: one file with both.
#[must_use]
pub fn kubelet_certificate(paths: &Paths) -> PathBuf {
    paths.kubelet.join("pki/kubelet-client-current.pem")
}

/// Has kubelet.conf point to kubelet's own certificate, if there is one; kubelet has to be restarted when the outcome is
/// [`Outcome::Changed`].
///
/// # Errors
/// kubelet.conf is not there or damaged, or cannot be written.
pub fn finalize(paths: &Paths) -> Result<Step, PkiError> {
    let path = paths.kubernetes.join("kubelet.conf");
    let current = kubelet_certificate(paths);
    if !current.exists() {
        let note = format!("kubelet has no certificate of its own yet ({} is not there)", current.display());
        return Ok(Step::new("kubelet.conf", Outcome::Kept, Some(note)));
    }
    let Some(found) = Kubeconfig::load(&path)? else {
        let why =
            "kubelet has a certificate of its own and no kubeconfig; make it with `weft init phase kubeconfig kubelet`";
        return Err(PkiError::Missing { path, why: why.to_owned() });
    };
    let told = as_kubelet_sees(&current, paths);
    let mut wanted = found.clone();
    wanted.set_credentials(&Credentials::Files { certificate: told.clone(), key: told });
    if wanted == found {
        return Ok(Step::new("kubelet.conf", Outcome::Kept, None));
    }
    write_private(&path, wanted.render().expose())?;
    Ok(Step::new("kubelet.conf", Outcome::Changed, None))
}

/// A path without the directory that a test or `--rootfs` puts everything under.
pub(super) fn as_kubelet_sees(path: &Path, paths: &Paths) -> PathBuf {
    path.strip_prefix(&paths.root).map_or_else(|_| path.to_owned(), |inner| Path::new("/").join(inner))
}
