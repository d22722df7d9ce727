//! Making certificates (RFC 5280), with the extensions and in the order that Go's crypto/x509 gives kubeadm's.

use jiff::{SignedDuration, Timestamp};
use rsa::pkcs8::der;
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::certificate::Certificate;
use super::der as asn1;
use super::error::PkiError;
use super::key::Key;
use super::oids;
use super::profile::Profile;

/// How long before its making a certificate begins to hold, for clocks that are behind (kubeadm: 5 min).
pub const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// TRUE.
const TRUE: [u8; 3] = [1, 1, 0xff];
/// digitalSignature and keyEncipherment: bits 0 and 2.
const LEAF_USAGE: (u8, u8) = (5, 0b1010_0000);
/// And keyCertSign: bit 5.
const AUTHORITY_USAGE: (u8, u8) = (2, 0b1010_0100);

/// From when to when a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: Timestamp,
    /// The last one.
    pub not_after: Timestamp,
}

impl Validity {
    /// From five minutes before `now` to `period` after it.
    ///
    /// # Errors
    /// The period leads out of the calendar.
    pub fn from_now(now: Timestamp, period: std::time::Duration) -> Result<Self, PkiError> {
        let end = || Ok::<_, jiff::Error>((now.checked_sub(BACKDATE)?, now.checked_add(period)?));
        end().map(|(not_before, not_after)| Self { not_before, not_after }).map_err(|error| PkiError::Issue {
            subject: "any".to_owned(),
            reason: format!("a validity of {period:?} is too long: {error}"),
        })
    }
}

/// Makes a certificate authority that signs itself.
///
/// # Errors
/// The key cannot sign, or the system gives no random numbers.
pub fn authority(profile: &Profile, key: &Key, validity: Validity) -> Result<Certificate, PkiError> {
    issue(profile, &key.public_info(), validity, &profile.subject, None, key)
}

/// Makes a leaf for the public key `holder` (SubjectPublicKeyInfo), signed by an authority.
///
/// # Errors
/// The key cannot sign, or the system gives no random numbers.
pub fn leaf(
    profile: &Profile,
    holder: &[u8],
    validity: Validity,
    authority: &Certificate,
    authority_key: &Key,
) -> Result<Certificate, PkiError> {
    issue(profile, holder, validity, authority.subject(), authority.key_id(), authority_key)
}

fn issue(
    profile: &Profile,
    holder: &[u8],
    validity: Validity,
    issuer: &[u8],
    issuer_id: Option<&[u8]>,
    signer: &Key,
) -> Result<Certificate, PkiError> {
    let fail = |reason: String| PkiError::Issue { subject: profile.who.clone(), reason };
    let serial = serial().map_err(|error| fail(format!("the system gives no random numbers: {error}")))?;
    let body = body(profile, holder, validity, issuer, issuer_id, signer, &serial);
    let body = body.map_err(|error| fail(error.to_string()))?;
    let signature = signer.sign(&body)?;
    let whole = || asn1::sequence(&[&body, &signer.signature_algorithm()?, &asn1::bits(0, &signature)?]);
    let der = whole().map_err(|error: der::Error| fail(error.to_string()))?;
    Certificate::from_der(&der).map_err(fail)
}

/// The part that is signed (TBSCertificate).
fn body(
    profile: &Profile,
    holder: &[u8],
    validity: Validity,
    issuer: &[u8],
    issuer_id: Option<&[u8]>,
    signer: &Key,
    serial: &[u8],
) -> der::Result<Vec<u8>> {
    let version_3 = asn1::context(0, true, &[&asn1::unsigned(&[2])?])?;
    let validity = asn1::sequence(&[&asn1::time(validity.not_before)?, &asn1::time(validity.not_after)?])?;
    let extensions = asn1::context(3, true, &[&extensions(profile, holder, issuer_id)?])?;
    asn1::sequence(&[
        &version_3,
        &asn1::unsigned(serial)?,
        &signer.signature_algorithm()?,
        issuer,
        &validity,
        &profile.subject,
        holder,
        &extensions,
    ])
}

fn extensions(profile: &Profile, holder: &[u8], issuer_id: Option<&[u8]>) -> der::Result<Vec<u8>> {
    let (unused, usage) = if profile.authority { AUTHORITY_USAGE } else { LEAF_USAGE };
    let mut all = vec![extension(oids::KEY_USAGE, true, &asn1::bits(unused, &[usage])?)?];
    if let Some(purposes) = &profile.purposes {
        all.push(extension(oids::EXTENDED_USAGE, false, purposes)?);
    }
    let constraints = if profile.authority { asn1::sequence(&[&TRUE])? } else { asn1::sequence(&[])? };
    all.push(extension(oids::BASIC_CONSTRAINTS, true, &constraints)?);
    if profile.authority {
        all.push(extension(oids::SUBJECT_KEY_ID, false, &asn1::octets(&key_id(holder))?)?);
    }
    if let Some(id) = issuer_id {
        let id = asn1::sequence(&[&asn1::context(0, false, &[id])?])?;
        all.push(extension(oids::AUTHORITY_KEY_ID, false, &id)?);
    }
    if let Some(names) = &profile.alt_names {
        all.push(extension(oids::ALT_NAME, false, names)?);
    }
    asn1::sequence(&all.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn extension(id: &str, critical: bool, value: &[u8]) -> der::Result<Vec<u8>> {
    let critical: &[u8] = if critical { &TRUE } else { &[] };
    asn1::sequence(&[&asn1::oid(id)?, critical, &asn1::octets(value)?])
}

/// Name of a public key: the first 160 bits of the SHA-256 of its bits (RFC 7093, method 1), as Go does since 1.25.
fn key_id(public_info: &[u8]) -> Vec<u8> {
    let bits = SubjectPublicKeyInfo::from_der(public_info).map(|(_, info)| info.subject_public_key.data.to_vec());
    let mut hash = Sha256::digest(bits.as_deref().unwrap_or(public_info)).to_vec();
    hash.truncate(20);
    hash
}

/// A random number from 1 to 2^63-1, big-endian.
fn serial() -> Result<[u8; 8], getrandom::Error> {
    loop {
        let number = getrandom::u64()? & (u64::MAX >> 1);
        if number != 0 {
            return Ok(number.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::config::model::EncryptionAlgorithm::{EcdsaP256, EcdsaP384};
    use crate::bootstrap::pki::profile::{AltNames, Purpose};

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn year() -> Validity {
        Validity::from_now(NOW.parse().unwrap(), std::time::Duration::from_secs(365 * 86400)).unwrap()
    }

    #[test]
    fn a_leaf_says_what_its_profile_says_and_its_authority_has_signed_it() {
        for kind in [EcdsaP256, EcdsaP384] {
            let ca_key = Key::generate(kind).unwrap();
            let ca = authority(&Profile::authority("kubernetes").unwrap(), &ca_key, year()).unwrap();
            assert!(ca.is_authority() && ca.is_signed_by(&ca));
            let key = Key::generate(EcdsaP256).unwrap();
            let mut names = AltNames::default();
            names.add("n1");
            names.add("2001:db8::1");
            let profile = Profile::leaf("bob", &["b", "a"], &names, Purpose::ServerAndClient).unwrap();
            let made = leaf(&profile, &key.public_info(), year(), &ca, &ca_key).unwrap();
            assert!(made.is_signed_by(&ca) && !made.is_authority() && !ca.is_signed_by(&made));
            assert_eq!(made.subject_text(), "O=a + O=b, CN=bob");
            assert_eq!(made.alt_names().texts(), ["n1", "2001:db8::1"]);
            assert_eq!(made.not_before().to_string(), "2026-01-02T02:59:05Z");
            assert_eq!(made.not_after().to_string(), "2027-01-02T03:04:05Z");
            assert_eq!(Profile::of(&made), Profile { who: made.subject_text().to_owned(), ..profile });
        }
    }

    #[test]
    fn serials_are_positive_and_differ() {
        let (one, other) = (serial().unwrap(), serial().unwrap());
        assert!(one[0] < 0x80 && other[0] < 0x80 && one != other);
    }

    #[test]
    fn a_validity_beyond_the_calendar_is_refused() {
        let error = Validity::from_now(NOW.parse().unwrap(), std::time::Duration::from_secs(u64::MAX)).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
