//! Requests for an authority that is not here (kubeadm `certs generate-csr`): keys, and PKCS#10 requests for them.

use rsa::pkcs8::der;
use rsa::pkcs8::der::pem::{LineEnding, encode_string};

use super::der as asn1;
use super::ensure::{Outcome, Step};
use super::error::PkiError;
use super::key::Key;
use super::oids;
use super::profile::Profile;
use super::store::{Store, write_private};
use super::table;
use crate::bootstrap::kubeconfig::{Credentials, FILES, Kubeconfig, Login};
use crate::bootstrap::resolved::{Cluster, Node, Paths};

/// Makes a key and a request for each leaf, and a kubeconfig without its certificate and a request for each of the five.
/// Keys that are there are used; requests that are there are kept.
///
/// # Errors
/// A file is damaged or cannot be written.
pub fn generate(cluster: &Cluster, node: &Node, paths: &Paths, extra_sans: &[String]) -> Result<Vec<Step>, PkiError> {
    let store = Store(&paths.pki);
    let mut steps = Vec::new();
    for entry in table::entries(cluster).filter(|entry| entry.authority.is_some()) {
        let request = paths.pki.join(format!("{}.csr", entry.file));
        let found = store.find(entry.file)?.key.transpose();
        let found = found.map_err(|source| PkiError::KeyFile { path: store.key(entry.file), source })?;
        if found.is_some() && request.exists() {
            steps.push(Step::new(entry.name, Outcome::Kept, None));
            continue;
        }
        let key = match found {
            Some(key) => key,
            None => {
                let key = Key::generate(cluster.encryption)?;
                store.write_key(entry.file, &key)?;
                key
            }
        };
        let profile = entry.profile(cluster, node, extra_sans)?;
        write_private(&request, self::request(&profile, &key)?.as_bytes())?;
        steps.push(Step::new(entry.name, Outcome::Made, None));
    }
    for file in &FILES {
        steps.push(kubeconfig(file, cluster, node, paths)?);
    }
    Ok(steps)
}

fn kubeconfig(
    file: &crate::bootstrap::kubeconfig::File,
    cluster: &Cluster,
    node: &Node,
    paths: &Paths,
) -> Result<Step, PkiError> {
    let path = paths.kubernetes.join(file.name);
    let request_path = paths.kubernetes.join(format!("{}.csr", file.name));
    let found = Kubeconfig::load(&path)?;
    if found.is_some() && request_path.exists() {
        return Ok(Step::new(file.name, Outcome::Kept, None));
    }
    let key = match found.as_ref().and_then(Kubeconfig::key) {
        Some(text) => {
            Key::from_pem(text.expose()).map_err(|source| PkiError::KeyFile { path: path.clone(), source })?
        }
        None => Key::generate(cluster.encryption)?,
    };
    if found.is_none() {
        let login = Login {
            cluster: &cluster.name,
            server: &file.server(cluster, node),
            authority: "",
            user: &file.user(node),
            credentials: Credentials::Key(key.to_pem()?),
        };
        write_private(&path, Kubeconfig::new(&login).render().expose())?;
    }
    write_private(&request_path, request(&file.profile(node)?, &key)?.as_bytes())?;
    Ok(Step::new(file.name, Outcome::Made, None))
}

/// A request (RFC 2986) as PEM: subject and names, as kubeadm's have them; usages are the authority's to set.
pub(in crate::bootstrap) fn request(profile: &Profile, key: &Key) -> Result<String, PkiError> {
    let fail = |error: String| PkiError::Issue { subject: profile.who.clone(), reason: error };
    let body = body(profile, key).map_err(|error| fail(error.to_string()))?;
    let signature = key.sign(&body)?;
    let whole = || asn1::sequence(&[&body, &key.signature_algorithm()?, &asn1::bits(0, &signature)?]);
    let der = whole().map_err(|error: der::Error| fail(error.to_string()))?;
    encode_string("CERTIFICATE REQUEST", LineEnding::LF, &der).map_err(|error| fail(error.to_string()))
}

fn body(profile: &Profile, key: &Key) -> der::Result<Vec<u8>> {
    let attributes = match &profile.alt_names {
        Some(names) => {
            let extension = asn1::sequence(&[&asn1::oid(oids::ALT_NAME)?, &asn1::octets(names)?])?;
            let extensions = asn1::set(vec![asn1::sequence(&[&extension])?])?;
            asn1::sequence(&[&asn1::oid(oids::EXTENSION_REQUEST)?, &extensions])?
        }
        None => Vec::new(),
    };
    let attributes = asn1::context(0, true, &[&attributes])?;
    asn1::sequence(&[&asn1::unsigned(&[0])?, &profile.subject, &key.public_info(), &attributes])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::pki::samples::{cluster, node};
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::pem::Pem;
    use x509_parser::prelude::FromDer;

    #[test]
    fn k13_each_leaf_and_kubeconfig_gets_a_request_that_its_key_has_signed() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let steps = generate(&cluster(), &node(), &paths, &[]).unwrap();
        assert_eq!(steps.len(), 12);
        let read = |file: &str| {
            let text = std::fs::read(paths.kubernetes.join(file)).unwrap();
            let pem = Pem::iter_from_buffer(&text).next().unwrap().unwrap();
            let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
            request.verify_signature().unwrap();
            let info = &request.certification_request_info;
            let names = request.requested_extensions().into_iter().flatten().count();
            (info.subject.to_string(), names, info.subject_pki.raw.to_vec())
        };
        let (subject, names, public) = read("pki/etcd/peer.csr");
        assert_eq!((subject.as_str(), names), ("CN=n1", 1));
        assert_eq!(Store(&paths.pki).find("etcd/peer").unwrap().key.unwrap().unwrap().public_info(), public);
        let (subject, names, public) = read("admin.conf.csr");
        assert_eq!((subject.as_str(), names), ("O=kubeadm:cluster-admins, CN=kubernetes-admin", 0));
        let config = Kubeconfig::load(&paths.kubernetes.join("admin.conf")).unwrap().unwrap();
        assert_eq!(Key::from_pem(config.key().unwrap().expose()).unwrap().public_info(), public);
        let again = generate(&cluster(), &node(), &paths, &[]).unwrap();
        assert!(again.iter().all(|step| step.outcome == Outcome::Kept));
    }
}
