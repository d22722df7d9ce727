//! What an answer of somebody not yet trusted comes to. Pure: no connection, no clock.

use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::Value;
use x509_parser::pem::Pem;

use super::error::DiscoveryError;
use super::fetch::Answer;
use crate::bootstrap::api::cluster_info::{ClusterInfo, KEY};
use crate::bootstrap::api::jws;
use crate::bootstrap::api::pin::Pin;
use crate::bootstrap::api::token::Token;

/// From here on certificates may seem not to hold: the controller manager backdates those it signs by five minutes.
pub(super) const SKEW: Duration = Duration::from_secs(5 * 60);

/// What is known of the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signature {
    /// It is the token's.
    Good,
    /// It is not.
    Bad,
    /// There is none for the token.
    None,
}

/// What is known of the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Authority {
    /// One has a hash that was given; these alone, as PEM.
    Pinned(String),
    /// None has; these are theirs.
    Other(Vec<Pin>),
    /// No hash was given.
    NotAsked,
}

/// An answer, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// The kubeconfig's text, byte for byte.
    pub(super) text: String,
    /// What it says.
    pub(super) info: ClusterInfo,
    /// Whether the token has signed it.
    pub(super) signature: Signature,
    /// Whether the authority is one that was expected.
    pub(super) authority: Authority,
    /// Whether other tokens have signed it.
    pub(super) others_signed: bool,
}

/// Whether the clocks are too far apart.
pub(super) fn skew(answer: &Answer, endpoint: &str, now: SystemTime) -> Result<(), DiscoveryError> {
    let Some(theirs) = answer.date else { return Ok(()) };
    let (by, ahead) = match now.duration_since(theirs) {
        Ok(by) => (by, true),
        Err(error) => (error.duration(), false),
    };
    if by < SKEW { Ok(()) } else { Err(DiscoveryError::ClockSkew { endpoint: endpoint.to_owned(), by, ahead }) }
}

/// The kubeconfig in an answer to the question for cluster-info.
pub(super) fn kubeconfig(answer: &Answer, endpoint: &str) -> Result<(Value, String), DiscoveryError> {
    let endpoint = endpoint.to_owned();
    let value: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let Some(value) = value.filter(|value| value["kind"] == "ConfigMap" || value["kind"] == "Status") else {
        return Err(DiscoveryError::NoApiServer { endpoint, words: format!("status {}", answer.status) });
    };
    if answer.status != 200 || value["kind"] == "Status" {
        let said = value["message"].as_str().unwrap_or_default();
        return Err(DiscoveryError::NotPublished { endpoint, words: format!("{}: {said}", answer.status) });
    }
    match value["data"][KEY].as_str().map(str::to_owned) {
        Some(text) => Ok((value, text)),
        None => Err(DiscoveryError::NotPublished { endpoint, words: "it has no kubeconfig".to_owned() }),
    }
}

/// Understands an answer.
pub(super) fn see(answer: &Answer, endpoint: &str, token: &Token, pins: &[Pin]) -> Result<Seen, DiscoveryError> {
    let (map, text) = kubeconfig(answer, endpoint)?;
    let wrong = |words: String| DiscoveryError::NoApiServer { endpoint: endpoint.to_owned(), words };
    let info = ClusterInfo::from_yaml(&text).map_err(wrong)?;
    let signature = match map["data"][jws::key(token.id())].as_str() {
        Some(signature) if jws::verify(&text, signature, token) => Signature::Good,
        Some(_) => Signature::Bad,
        None => Signature::None,
    };
    let signed = |(key, _): (&String, &Value)| key.starts_with(jws::KEY_PREFIX) && *key != jws::key(token.id());
    let others_signed = map["data"].as_object().is_some_and(|data| data.iter().any(signed));
    let authority = authority(&info.ca, pins).map_err(wrong)?;
    Ok(Seen { text, info, signature, authority, others_signed })
}

/// Which of the authorities are expected.
fn authority(ca: &str, pins: &[Pin]) -> Result<Authority, String> {
    let found = Pin::of_all(ca.as_bytes()).map_err(|error| error.to_string())?;
    if CertificateDer::pem_slice_iter(ca.as_bytes()).any(|it| it.is_err()) {
        return Err("its certificate authority is no PEM".to_owned());
    }
    if pins.is_empty() {
        return Ok(Authority::NotAsked);
    }
    // Somebody who has put an authority of his own beside the real one is to gain nothing by it.
    let mut pinned = String::new();
    for block in Pem::iter_from_buffer(ca.as_bytes()).filter_map(Result::ok) {
        let Some(text) = pem(&block) else { continue };
        if Pin::of_all(text.as_bytes()).is_ok_and(|own| own.iter().any(|pin| pins.contains(pin))) {
            pinned.push_str(&text);
        }
    }
    Ok(if pinned.is_empty() { Authority::Other(found) } else { Authority::Pinned(pinned) })
}

fn pem(block: &Pem) -> Option<String> {
    use base64::Engine as _;
    (block.label == "CERTIFICATE").then(|| {
        let coded = base64::engine::general_purpose::STANDARD.encode(&block.contents);
        let lines = coded.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n");
        format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
    })
}
