//! What a certificate says of its holder: name, further names, purposes.
//!
//! Kept as the DER that goes into the certificate, so that a renewal repeats what the old one says, to the byte.
//! rcgen's own type does not fit: it holds one value an attribute, and subjects here may have several organisations.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rsa::pkcs8::der::Result;
use rsa::pkcs8::der::asn1::Ia5StringRef;

use super::certificate::Certificate;
use super::error::PkiError;
use super::{der, oids};

/// What a leaf may be used for (extended key usage).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It is shown by a server.
    Server,
    /// It is shown by a client.
    Client,
    /// Both.
    ServerAndClient,
}

/// Names and addresses of a certificate besides its subject (subjectAltName).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AltNames {
    /// DNS names, sorted, each once.
    pub dns: BTreeSet<String>,
    /// Addresses in their order, each once.
    pub addresses: Vec<IpAddr>,
}

impl AltNames {
    /// Adds a name, or an address if it is one (kubeadm `appendSANsToAltNames`).
    pub fn add(&mut self, name: &str) {
        match name.parse() {
            Ok(address) => self.add_address(address),
            Err(_) if name.is_empty() => {}
            Err(_) => {
                self.dns.insert(name.to_owned());
            }
        }
    }

    /// Adds an address.
    pub fn add_address(&mut self, address: IpAddr) {
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dns.is_empty() && self.addresses.is_empty()
    }

    /// All as text, names first.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.dns.iter().cloned().chain(self.addresses.iter().map(ToString::to_string)).collect()
    }

    /// DER of GeneralNames; `None` without names.
    fn encode(&self) -> Result<Option<Vec<u8>>> {
        if self.is_empty() {
            return Ok(None);
        }
        let mut names = Vec::new();
        for name in &self.dns {
            names.push(der::context(2, false, &[Ia5StringRef::new(name)?.as_bytes()])?);
        }
        for address in &self.addresses {
            names.push(match address {
                IpAddr::V4(v4) => der::context(7, false, &[&v4.octets()])?,
                IpAddr::V6(v6) => der::context(7, false, &[&v6.octets()])?,
            });
        }
        der::sequence(&names.iter().map(Vec::as_slice).collect::<Vec<_>>()).map(Some)
    }
}

/// A certificate's subject, names and purposes, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Whom it is for, in words of errors.
    pub(super) who: String,
    /// DER of the subject's Name.
    pub(super) subject: Vec<u8>,
    /// DER of GeneralNames.
    pub(super) alt_names: Option<Vec<u8>>,
    /// DER of ExtKeyUsageSyntax; `None` for an authority.
    pub(super) purposes: Option<Vec<u8>>,
    /// Whether it signs others.
    pub(super) authority: bool,
}

impl Profile {
    /// A certificate authority of that name, which is also its DNS name, as client-go's `NewSelfSignedCACert` has it.
    ///
    /// # Errors
    /// The name does not fit into a certificate.
    pub fn authority(name: &str) -> std::result::Result<Self, PkiError> {
        let mut names = AltNames::default();
        names.add(name);
        Self::build(name, &[], &names, None)
    }

    /// A leaf with that common name and those organisations.
    ///
    /// # Errors
    /// One of the names does not fit into a certificate, such as a DNS name that is not ASCII.
    pub fn leaf(
        common_name: &str,
        organizations: &[&str],
        names: &AltNames,
        purpose: Purpose,
    ) -> std::result::Result<Self, PkiError> {
        Self::build(common_name, organizations, names, Some(purpose))
    }

    /// What an old certificate says, for its successor.
    #[must_use]
    pub fn of(old: &Certificate) -> Self {
        Self {
            who: old.subject_text().to_owned(),
            subject: old.subject().to_vec(),
            alt_names: old.raw_alt_names().map(<[u8]>::to_vec),
            purposes: old.raw_purposes().map(<[u8]>::to_vec),
            authority: old.is_authority(),
        }
    }

    fn build(
        common_name: &str,
        organizations: &[&str],
        names: &AltNames,
        purpose: Option<Purpose>,
    ) -> std::result::Result<Self, PkiError> {
        let encode = || -> Result<Self> {
            Ok(Self {
                who: common_name.to_owned(),
                subject: name(common_name, organizations)?,
                alt_names: names.encode()?,
                purposes: purpose.map(encode_purposes).transpose()?,
                authority: purpose.is_none(),
            })
        };
        encode().map_err(|error| PkiError::Issue { subject: common_name.to_owned(), reason: error.to_string() })
    }
}

/// DER of a Name in Go's order: the organisations in one set, then the common name.
fn name(common_name: &str, organizations: &[&str]) -> Result<Vec<u8>> {
    let attribute =
        |kind: &str, text: &str| -> Result<Vec<u8>> { der::sequence(&[&der::oid(kind)?, &der::text(text)?]) };
    let mut parts = Vec::new();
    if !organizations.is_empty() {
        let all = organizations.iter().map(|text| attribute(oids::ORGANIZATION, text)).collect::<Result<_>>()?;
        parts.push(der::set(all)?);
    }
    parts.push(der::set(vec![attribute(oids::COMMON_NAME, common_name)?])?);
    der::sequence(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn encode_purposes(purpose: Purpose) -> Result<Vec<u8>> {
    let (server, client) = (der::oid(oids::SERVER_AUTH)?, der::oid(oids::CLIENT_AUTH)?);
    match purpose {
        Purpose::Server => der::sequence(&[&server]),
        Purpose::Client => der::sequence(&[&client]),
        Purpose::ServerAndClient => der::sequence(&[&server, &client]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_each_is_there_once() {
        let mut names = AltNames::default();
        for name in ["zeta", "192.0.2.1", "alpha", "::1", "zeta", "192.0.2.1", ""] {
            names.add(name);
        }
        assert_eq!(names.texts(), ["alpha", "zeta", "192.0.2.1", "::1"]);
    }

    #[test]
    fn a_name_that_is_not_ascii_is_refused_with_whom_it_was_for() {
        let mut names = AltNames::default();
        names.add("kübe");
        let error = Profile::leaf("kube-apiserver", &[], &names, Purpose::Server).unwrap_err().to_string();
        assert!(error.contains("kube-apiserver"), "{error}");
    }
}
