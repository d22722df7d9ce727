//! What kubelet of a joining node has after its TLS bootstrap: its first certificate in its own store, and a kubeconfig that points
//! there.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::{fs, io};

use jiff::Timestamp;

use super::document::{Credentials, Kubeconfig, Login};
use super::finalize::{as_kubelet_sees, kubelet_certificate};
use crate::bootstrap::pki::error::PkiError;
use crate::bootstrap::pki::store::write_private;
use crate::bootstrap::pki::{Key, csr};
use crate::bootstrap::resolved::{Node, Paths};

/// A request for the certificate of a node's kubelet (PKCS#10 as PEM) with this key.
///
/// # Errors
/// A name that fits no certificate.
pub fn request(node: &Node, key: &Key) -> Result<String, PkiError> {
    csr::request(&super::files::find("kubelet.conf")?.profile(node)?, key)
}

/// Where kubelet of a joined node finds the API, and whom it believes.
#[derive(Debug, Clone)]
pub struct Way<'a> {
    /// Name of the cluster.
    pub cluster: &'a str,
    /// `https://host:port`.
    pub server: &'a str,
    /// The name in the server's certificate, where it is not the host's.
    pub name: Option<&'a str>,
    /// The cluster's authorities as PEM.
    pub authority: &'a str,
}

/// Puts the first certificate where kubelet keeps it and rotates it (its store `kubelet-client`: a file named by the time, and a link
/// to the current one), and kubelet.conf that points there. kubelet.conf comes last: with it the node has joined.
///
/// # Errors
/// A file cannot be written.
pub fn write(paths: &Paths, node: &Node, way: &Way<'_>, certificate: &str, key: &Key) -> Result<(), PkiError> {
    let current = kubelet_certificate(paths);
    let file = Timestamp::now().strftime("kubelet-client-%Y-%m-%d-%H-%M-%S.pem").to_string();
    let file = current.with_file_name(file);
    write_private(&file, &[certificate.as_bytes(), key.to_pem()?.expose()].concat())?;
    link(&as_kubelet_sees(&file, paths), &current).map_err(PkiError::io("link", &current))?;
    let told = as_kubelet_sees(&current, paths);
    let mut config = Kubeconfig::new(&Login {
        cluster: way.cluster,
        server: way.server,
        authority: way.authority,
        user: &super::files::find("kubelet.conf")?.user(node),
        credentials: Credentials::Files { certificate: told.clone(), key: told },
    });
    config.set_server(way.server, way.name);
    write_private(&paths.kubernetes.join("kubelet.conf"), config.render().expose())
}

/// Has a link lead there, whatever it led to before.
fn link(to: &Path, link: &Path) -> io::Result<()> {
    let fresh = link.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(to, &fresh)?;
    fs::rename(&fresh, link)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::bootstrap::config::model::EncryptionAlgorithm;
    use crate::bootstrap::pki::samples::node;

    #[test]
    fn a_joined_kubelet_has_its_certificate_where_it_rotates_it() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let key = Key::generate(EncryptionAlgorithm::EcdsaP256).unwrap();
        let way = Way { cluster: "k", server: "https://127.0.0.1:7443", name: Some("api.example"), authority: "CA" };
        for certificate in ["first\n", "second\n"] {
            write(&paths, &node(), &way, certificate, &key).unwrap();
            let current = kubelet_certificate(&paths);
            let target = fs::read_link(&current).unwrap();
            assert!(target.starts_with("/var/lib/kubelet/pki"), "{target:?}");
            let file = current.with_file_name(target.file_name().unwrap());
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.starts_with(certificate) && text.contains("EC PRIVATE KEY"), "{certificate}");
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            let config = Kubeconfig::load(&paths.kubernetes.join("kubelet.conf")).unwrap().unwrap();
            assert_eq!((config.server(), config.user()), (Some(way.server), Some("system:node:n1")));
        }
        assert!(request(&node(), &key).unwrap().starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
    }
}
