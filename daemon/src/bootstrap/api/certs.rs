//! The authorities' certificates and keys, on their way to another control-plane node (kubeadm's `phases/copycerts`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::error::ApiError;
use super::object::{Outcome, Place};
use super::sealed::{CertificateKey, KeyError};
use super::server::{Existing, Server};
use super::{rbac, tokens};
use crate::bootstrap::converge;
use crate::bootstrap::resolved::{EtcdPlace, Paths};

/// Whom kubeadm asks for, and we.
const SECRET: &str = "kubeadm-certs";

/// What is uploaded, by its key in the Secret: the files of the authorities and of service accounts, and etcd's authority, or
/// what opens somebody else's etcd.
#[must_use]
pub fn certificate_files(paths: &Paths, etcd: &EtcdPlace) -> Vec<(String, PathBuf)> {
    let in_pki = |name: &str| (name.replace('/', "-"), paths.pki.join(name));
    let mut files: Vec<_> =
        ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.pub", "sa.key"].map(in_pki).into();
    match etcd {
        EtcdPlace::Local { .. } => files.extend(["etcd/ca.crt", "etcd/ca.key"].map(in_pki)),
        EtcdPlace::External(external) => files.extend(
            [
                ("external-etcd-ca.crt", &external.ca_file),
                ("external-etcd.crt", &external.cert_file),
                ("external-etcd.key", &external.key_file),
            ]
            .into_iter()
            .filter(|(_, path)| !path.is_empty())
            .map(|(key, path)| (key.to_owned(), paths.root.join(path.trim_start_matches('/')))),
        ),
    }
    files
}

/// Uploads the files, encrypted; they are gone after two hours. A file that is not there is an empty value. What is there
/// under the same key, with the same content and an hour left, stays.
///
/// # Errors
/// [`ApiError`].
pub async fn upload_certs(
    server: &Server,
    files: &[(String, PathBuf)],
    key: &CertificateKey,
    now: Timestamp,
) -> Result<Outcome, ApiError> {
    let place = place();
    let mut contents = BTreeMap::new();
    for (name, path) in files {
        contents.insert(name.as_str(), read(path)?);
    }
    let is_there = server
        .persist("read", &place.words, || async {
            let Some(found) = server.get_once(&place).await? else { return Ok(false) };
            Ok(holds(&found, &contents, key) && tokens::owner_lasts(server, &found, now).await?)
        })
        .await?;
    let rights = server.ensure_all(&rbac::for_certificates()).await?;
    if is_there {
        return Ok(rights);
    }
    let mut data = BTreeMap::new();
    for (name, text) in &contents {
        let sealed = if text.is_empty() { Ok(Vec::new()) } else { key.seal(text) };
        data.insert(*name, STANDARD.encode(sealed.map_err(|error| wrong(&error))?));
    }
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"namespace": "kube-system", "name": SECRET, "ownerReferences": tokens::make_owner(server, now).await?},
        "data": data,
    });
    Ok(server.ensure(&secret, Existing::Update).await?.and(rights))
}

/// Whether a Secret holds this content, and the key opens it.
fn holds(secret: &Value, contents: &BTreeMap<&str, Vec<u8>>, key: &CertificateKey) -> bool {
    contents.iter().all(|(name, text)| match sealed(secret, name) {
        Some(sealed) if sealed.is_empty() => text.is_empty(),
        Some(sealed) => key.open(&sealed).as_ref() == Ok(text),
        None => false,
    })
}

/// Fetches the files and writes them: all, or none if one of them cannot be opened or is not what it should be.
///
/// Keys get mode 0600, certificates and public keys 0644.
///
/// # Errors
/// [`ApiError`]; nothing has been written then, unless it is a [`ApiError::File`].
pub async fn download_certs(
    server: &Server,
    files: &[(String, PathBuf)],
    key: &CertificateKey,
) -> Result<Vec<(PathBuf, Outcome)>, ApiError> {
    let place = place();
    let Some(secret) = server.get(&place).await? else {
        return Err(ApiError::content(
            place.words,
            "it is gone (uploaded certificates stay two hours); on a control-plane node run \
             `weft init phase upload-certs --upload-certs` and use the key it prints",
        ));
    };
    let mut wanted = Vec::new();
    for (name, path) in files {
        let sealed = sealed(&secret, name)
            .ok_or_else(|| ApiError::content(place.words.as_str(), format!("it has no {name}")))?;
        if sealed.is_empty() {
            continue;
        }
        let text = key.open(&sealed).map_err(|error| wrong(&error))?;
        let mode = mode_of(&text).ok_or_else(|| {
            ApiError::content(place.words.as_str(), format!("{name} is neither a key nor a certificate in PEM"))
        })?;
        wanted.push((path, text, mode));
    }
    let mut written = Vec::new();
    for (path, text, mode) in wanted {
        written.push((path.clone(), write(path, &text, mode)?));
    }
    Ok(written)
}

fn write(path: &Path, text: &[u8], mode: u32) -> Result<Outcome, ApiError> {
    let found = read(path)?;
    if found == text {
        return Ok(Outcome::Kept);
    }
    converge::replace(path, text, mode).map_err(|cause| ApiError::File { path: path.to_owned(), cause })?;
    Ok(if found.is_empty() { Outcome::Made } else { Outcome::Changed })
}

/// The mode of a file with this content.
fn mode_of(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    match text {
        text if text.contains("PRIVATE KEY-----") => Some(0o600),
        text if text.contains("-----BEGIN CERTIFICATE-----") || text.contains("PUBLIC KEY-----") => Some(0o644),
        _ => None,
    }
}

fn sealed(secret: &Value, name: &str) -> Option<Vec<u8>> {
    STANDARD.decode(secret["data"][name].as_str()?).ok()
}

fn place() -> Place {
    Place::new("v1", "Secret", "kube-system", SECRET)
}

fn wrong(error: &KeyError) -> ApiError {
    ApiError::content(place().words, error.to_string())
}

/// What a file holds; nothing if there is none.
fn read(path: &Path) -> Result<Vec<u8>, ApiError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|cause| ApiError::File { path: path.to_owned(), cause }),
    }
}
