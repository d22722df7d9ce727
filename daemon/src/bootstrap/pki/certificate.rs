//! Certificates as they are found: what they say, and who has signed them.

use std::net::IpAddr;

use jiff::Timestamp;
use rsa::pkcs8::der::pem::{LineEnding, encode_string};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::oids;
use super::profile::AltNames;

/// PEM label of certificates.
const LABEL: &str = "CERTIFICATE";
/// How many certificates may lie between a leaf and its authority.
const MAX_CHAIN: usize = 8;

/// A certificate, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    subject: Vec<u8>,
    subject_text: String,
    issuer: Vec<u8>,
    serial: Vec<u8>,
    not_before: Timestamp,
    not_after: Timestamp,
    public_info: Vec<u8>,
    authority: bool,
    key_id: Option<Vec<u8>>,
    alt_names: AltNames,
    raw_alt_names: Option<Vec<u8>>,
    raw_purposes: Option<Vec<u8>>,
}

impl Certificate {
    /// Reads DER.
    ///
    /// # Errors
    /// Why it is no certificate, in words.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err(format!("{} bytes follow the certificate", rest.len()));
        }
        let mut key_id = None;
        let (mut alt_names, mut raw_alt_names, mut raw_purposes) = (AltNames::default(), None, None);
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => key_id = Some(id.0.to_vec()),
                ParsedExtension::SubjectAlternativeName(names) => {
                    raw_alt_names = Some(extension.value.to_vec());
                    alt_names = read_names(&names.general_names);
                }
                _ if extension.oid.to_id_string() == oids::EXTENDED_USAGE => {
                    raw_purposes = Some(extension.value.to_vec());
                }
                _ => {}
            }
        }
        let validity = parsed.validity();
        Ok(Self {
            der: der.to_vec(),
            subject: parsed.subject().as_raw().to_vec(),
            subject_text: parsed.subject().to_string(),
            issuer: parsed.issuer().as_raw().to_vec(),
            serial: parsed.raw_serial().to_vec(),
            not_before: timestamp(validity.not_before)?,
            not_after: timestamp(validity.not_after)?,
            public_info: parsed.public_key().raw.to_vec(),
            authority: parsed.is_ca(),
            key_id,
            alt_names,
            raw_alt_names,
            raw_purposes,
        })
    }

    /// Reads all certificates of a PEM text, passing over what else it holds.
    ///
    /// # Errors
    /// Why there is none, or which is damaged, in words.
    pub fn all_from_pem(text: &[u8]) -> Result<Vec<Self>, String> {
        let mut all = Vec::new();
        for block in Pem::iter_from_buffer(text) {
            let block = block.map_err(|error| error.to_string())?;
            if block.label == LABEL {
                all.push(Self::from_der(&block.contents)?);
            }
        }
        if all.is_empty() { Err("there is no CERTIFICATE in it".to_owned()) } else { Ok(all) }
    }

    /// The PEM text.
    #[must_use]
    pub fn to_pem(&self) -> String {
        // A label and bytes always have a text.
        encode_string(LABEL, LineEnding::LF, &self.der).unwrap_or_default()
    }

    /// The DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// DER of the subject.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// The subject, `O=system:nodes, CN=system:node:n1`.
    #[must_use]
    pub fn subject_text(&self) -> &str {
        &self.subject_text
    }

    /// The serial number, big-endian.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The first moment of its validity.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// The last moment of its validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// DER of its public key with its algorithm (SubjectPublicKeyInfo).
    #[must_use]
    pub fn public_info(&self) -> &[u8] {
        &self.public_info
    }

    /// Whether it may sign others (basicConstraints CA:TRUE).
    #[must_use]
    pub fn is_authority(&self) -> bool {
        self.authority
    }

    /// Its names and addresses besides the subject.
    #[must_use]
    pub fn alt_names(&self) -> &AltNames {
        &self.alt_names
    }

    pub(super) fn key_id(&self) -> Option<&[u8]> {
        self.key_id.as_deref()
    }

    pub(super) fn raw_alt_names(&self) -> Option<&[u8]> {
        self.raw_alt_names.as_deref()
    }

    pub(super) fn raw_purposes(&self) -> Option<&[u8]> {
        self.raw_purposes.as_deref()
    }

    /// Whether that one's key has signed this one, under that one's name.
    #[must_use]
    pub fn is_signed_by(&self, signer: &Self) -> bool {
        let both = (X509Certificate::from_der(&self.der), X509Certificate::from_der(&signer.der));
        let (Ok((_, this)), Ok((_, other))) = both else { return false };
        self.issuer == signer.subject && this.verify_signature(Some(other.public_key())).is_ok()
    }

    /// Whether a chain of signatures leads from this one to one of `roots`, over authorities among `between`.
    #[must_use]
    pub fn chains_to(&self, roots: &[Self], between: &[Self]) -> bool {
        self.chains(roots, between, MAX_CHAIN)
    }

    fn chains(&self, roots: &[Self], between: &[Self], steps: usize) -> bool {
        if roots.iter().any(|root| self.is_signed_by(root)) {
            return true;
        }
        steps > 0
            && between.iter().any(|next| {
                next.authority && next != self && self.is_signed_by(next) && next.chains(roots, between, steps - 1)
            })
    }

    /// What of `wanted` this one does not hold for; a wildcard holds for one label, as in Go's `VerifyHostname`.
    #[must_use]
    pub fn lacks(&self, wanted: &AltNames) -> Vec<String> {
        let has = &self.alt_names;
        let names = wanted.dns.iter().filter(|name| !has.dns.iter().any(|pattern| holds_for(pattern, name)));
        let addresses = wanted.addresses.iter().filter(|address| !has.addresses.contains(address));
        names.cloned().chain(addresses.map(ToString::to_string)).collect()
    }
}

fn holds_for(pattern: &str, name: &str) -> bool {
    let wild = |rest: &str| name.split_once('.').is_some_and(|(_, tail)| tail.eq_ignore_ascii_case(rest));
    pattern.eq_ignore_ascii_case(name) || pattern.strip_prefix("*.").is_some_and(wild)
}

fn read_names(names: &[GeneralName<'_>]) -> AltNames {
    let mut all = AltNames::default();
    for name in names {
        match name {
            GeneralName::DNSName(name) => {
                all.dns.insert((*name).to_owned());
            }
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                if let Ok(address) = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)) {
                    all.add_address(address);
                }
            }
            _ => {}
        }
    }
    all
}

fn timestamp(time: ASN1Time) -> Result<Timestamp, String> {
    Timestamp::from_second(time.timestamp()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::config::model::EncryptionAlgorithm::EcdsaP256;
    use crate::bootstrap::pki::issue::{self, Validity};
    use crate::bootstrap::pki::key::Key;
    use crate::bootstrap::pki::profile::{Profile, Purpose};

    fn year() -> Validity {
        Validity::from_now(Timestamp::now(), std::time::Duration::from_secs(365 * 86400)).unwrap()
    }

    #[test]
    fn a_chain_leads_over_authorities_only() {
        let (root_key, middle_key, key) =
            (Key::generate(EcdsaP256).unwrap(), Key::generate(EcdsaP256).unwrap(), Key::generate(EcdsaP256).unwrap());
        let root = issue::authority(&Profile::authority("root").unwrap(), &root_key, year()).unwrap();
        let middle = Profile::authority("middle").unwrap();
        let middle = issue::leaf(&middle, &middle_key.public_info(), year(), &root, &root_key).unwrap();
        let names = AltNames::default();
        let client = Profile::leaf("a", &[], &names, Purpose::Client).unwrap();
        let leaf = issue::leaf(&client, &key.public_info(), year(), &middle, &middle_key).unwrap();
        let false_leaf = issue::leaf(&client, &key.public_info(), year(), &leaf, &key).unwrap();
        let roots = [root];
        assert!(leaf.chains_to(&roots, std::slice::from_ref(&middle)));
        assert!(!leaf.chains_to(&roots, &[]));
        assert!(!false_leaf.chains_to(&roots, &[middle, leaf]), "a leaf signs nobody");
    }

    #[test]
    fn k04_what_a_certificate_lacks_is_named() {
        let key = Key::generate(EcdsaP256).unwrap();
        let ca = issue::authority(&Profile::authority("kubernetes").unwrap(), &key, year()).unwrap();
        let mut names = AltNames::default();
        names.add("*.example");
        names.add("192.0.2.1");
        let server = Profile::leaf("s", &[], &names, Purpose::Server).unwrap();
        let made = issue::leaf(&server, &key.public_info(), year(), &ca, &key).unwrap();
        let mut wanted = AltNames::default();
        for name in ["a.example", "a.b.example", "example", "192.0.2.1", "192.0.2.2"] {
            wanted.add(name);
        }
        assert_eq!(made.lacks(&wanted), ["a.b.example", "example", "192.0.2.2"]);
    }

    #[test]
    fn texts_without_a_certificate_say_so() {
        assert!(Certificate::all_from_pem(b"").unwrap_err().contains("CERTIFICATE"));
        assert!(Certificate::from_der(&[0x30, 0]).is_err());
    }
}
