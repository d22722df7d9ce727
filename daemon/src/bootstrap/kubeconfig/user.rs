//! A kubeconfig for a person or a program (kubeadm `kubeconfig user`).

use std::time::Duration;

use jiff::Timestamp;

use super::document::{Credentials, Kubeconfig, Login, authority};
use super::files::signed;
use crate::bootstrap::config::model::EncryptionAlgorithm;
use crate::bootstrap::pki::error::PkiError;
use crate::bootstrap::pki::issue::Validity;
use crate::bootstrap::pki::profile::{AltNames, Profile, Purpose};
use crate::bootstrap::pki::store::Store;
use crate::bootstrap::pki::{Certificate, Secret};
use crate::bootstrap::resolved::Paths;

/// Whom for, and where to.
#[derive(Debug, Clone)]
pub struct UserRequest<'a> {
    /// Name of the user: the certificate's common name.
    pub user: &'a str,
    /// Groups of the user: the certificate's organisations.
    pub groups: &'a [String],
    /// A token in place of a certificate.
    pub token: Option<Secret>,
    /// Name of the cluster.
    pub cluster: &'a str,
    /// `https://host:port`.
    pub server: &'a str,
    /// Kind of the key.
    pub kind: EncryptionAlgorithm,
    /// How long the certificate holds.
    pub validity: Duration,
}

/// Makes the kubeconfig; with a certificate it needs the authority's key, with a token its certificate only.
///
/// # Errors
/// The authority or its key is not there, or the names do not fit into a certificate.
pub fn for_user(request: &UserRequest<'_>, paths: &Paths, now: Timestamp) -> Result<Kubeconfig, PkiError> {
    let store = Store(&paths.pki);
    let missing = |path, why: &str| PkiError::Missing { path, why: why.to_owned() };
    let authorities = authority(&store.certificate("ca"))?;
    let authorities = authorities
        .ok_or_else(|| missing(store.certificate("ca"), "run this on a control-plane node, or give --cert-dir"))?;
    let credentials = if let Some(token) = &request.token {
        Credentials::Token(token.clone())
    } else {
        let key = store.find("ca")?.key.transpose();
        let key = key.map_err(|source| PkiError::KeyFile { path: store.key("ca"), source })?;
        let (Some(key), Some(signer)) = (key, authorities.first()) else {
            return Err(missing(
                store.key("ca"),
                "the authority is external and has to sign; a --token needs no certificate",
            ));
        };
        let groups: Vec<&str> = request.groups.iter().map(String::as_str).collect();
        let profile = Profile::leaf(request.user, &groups, &AltNames::default(), Purpose::Client)?;
        signed(&profile, Validity::from_now(now, request.validity)?, signer, &key, request.kind)?
    };
    Ok(Kubeconfig::new(&Login {
        cluster: request.cluster,
        server: request.server,
        authority: &authorities.iter().map(Certificate::to_pem).collect::<String>(),
        user: request.user,
        credentials,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::pki::samples::{cluster, node};
    use crate::bootstrap::pki::{Options, ensure_all};

    #[test]
    fn a_user_gets_his_groups_or_his_token() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let now = Timestamp::now();
        let mut request = UserRequest {
            user: "bob",
            groups: &["b".to_owned(), "a".to_owned()],
            token: None,
            cluster: "kubernetes",
            server: "https://192.0.2.10:6443",
            kind: EncryptionAlgorithm::EcdsaP256,
            validity: Duration::from_secs(3600),
        };
        let error = for_user(&request, &paths, now).unwrap_err().to_string();
        assert!(error.contains("ca.crt is missing") && error.contains("--cert-dir"), "{error}");
        ensure_all(&cluster(), &node(), &paths, &Options::default(), now).unwrap();
        let made = for_user(&request, &paths, now).unwrap();
        let certificate = made.certificate(root.path()).unwrap().unwrap();
        assert_eq!(certificate.subject_text(), "O=a + O=b, CN=bob");
        std::fs::remove_file(paths.pki.join("ca.key")).unwrap();
        let error = for_user(&request, &paths, now).unwrap_err().to_string();
        assert!(error.contains("ca.key is missing") && error.contains("--token"), "{error}");
        request.token = Some(Secret::new("abc"));
        assert_eq!(for_user(&request, &paths, now).unwrap().token().unwrap().expose(), b"abc");
    }
}
