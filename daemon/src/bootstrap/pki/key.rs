//! Private keys: made, read in each form that OpenSSL and kubeadm write, written as kubeadm does.
//!
//! ring signs, through rcgen; it reads PKCS#8 only and makes no RSA keys, so those come from the crate rsa.

use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm,
    SigningKey,
};
use rsa::pkcs8::der::pem::{LineEnding, encode_string};
use rsa::pkcs8::{EncodePrivateKey, PrivateKeyInfoRef};
use rustls::pki_types::PrivatePkcs8KeyDer;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::error::KeyError;
use super::sec1;
use super::secret::Secret;
use super::{der, oids};
use crate::bootstrap::config::model::EncryptionAlgorithm;

/// PEM label of PKCS#8.
const PKCS8: &str = "PRIVATE KEY";
/// PEM label of PKCS#1.
const PKCS1: &str = "RSA PRIVATE KEY";
/// PEM label of SEC 1.
const SEC1: &str = "EC PRIVATE KEY";

/// A private key that can sign. Its `Debug` tells its kind only.
pub struct Key {
    pair: KeyPair,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.kind())
    }
}

impl Key {
    /// Makes a new one. RSA takes seconds.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate(kind: EncryptionAlgorithm) -> Result<Self, KeyError> {
        let bits = match kind {
            EncryptionAlgorithm::EcdsaP256 => return Self::generate_ec(&PKCS_ECDSA_P256_SHA256),
            EncryptionAlgorithm::EcdsaP384 => return Self::generate_ec(&PKCS_ECDSA_P384_SHA384),
            EncryptionAlgorithm::Rsa2048 => 2048,
            EncryptionAlgorithm::Rsa3072 => 3072,
            EncryptionAlgorithm::Rsa4096 => 4096,
        };
        let key = rsa::PrivateKey::new(&mut getrandom::SysRng, bits);
        let key = key.map_err(|error| KeyError::Generate(error.to_string()))?;
        let document = key.to_pkcs8_der().map_err(|error| KeyError::Generate(error.to_string()))?;
        Self::from_pkcs8(document.as_bytes())
    }

    fn generate_ec(algorithm: &'static SignatureAlgorithm) -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(algorithm).map_err(|error| KeyError::Generate(error.to_string()))?;
        Ok(Self { pair })
    }

    /// Reads the first private key of a PEM text: PKCS#8, PKCS#1 or SEC 1.
    ///
    /// # Errors
    /// [`KeyError`]: there is none, or it is of a kind that cannot sign here.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        for block in Pem::iter_from_buffer(text) {
            let block = block.map_err(|error| KeyError::Pem(format!("and it is damaged: {error}")))?;
            return match block.label.as_str() {
                PKCS8 => Self::from_pkcs8(&block.contents),
                PKCS1 => Self::from_pkcs8(&pkcs8_of_pkcs1(&block.contents)?),
                SEC1 => Self::from_pkcs8(&sec1::to_pkcs8(&block.contents)?),
                "ENCRYPTED PRIVATE KEY" => Err(KeyError::Encrypted),
                // What OpenSSL puts before a key of its own.
                _ => continue,
            };
        }
        Err(KeyError::Pem("and there is none of them".to_owned()))
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let info = PrivateKeyInfoRef::try_from(der).map_err(|error| KeyError::Pem(format!("and {error}")))?;
        let algorithm = if info.algorithm.oid.to_string() == oids::RSA {
            &PKCS_RSA_SHA256
        } else {
            let curve = info.algorithm.parameters_oid().map_err(|error| KeyError::Kind(error.to_string()))?;
            match curve.to_string().as_str() {
                oids::P256 => &PKCS_ECDSA_P256_SHA256,
                oids::P384 => &PKCS_ECDSA_P384_SHA384,
                other => return Err(KeyError::Kind(format!("this one has the curve {other}"))),
            }
        };
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), algorithm);
        pair.map(|pair| Self { pair }).map_err(|error| KeyError::Kind(error.to_string()))
    }

    /// The text as kubeadm writes it: PKCS#1 for RSA, SEC 1 for ECDSA.
    ///
    /// # Errors
    /// None for a key of [`Key`]'s making; the encoder has its own opinion.
    pub fn to_pem(&self) -> Result<Secret, KeyError> {
        let broken = |error: &dyn std::fmt::Display| KeyError::Generate(error.to_string());
        let (label, der) = if self.is_rsa() {
            let info = PrivateKeyInfoRef::try_from(self.pair.serialized_der()).map_err(|error| broken(&error))?;
            (PKCS1, info.private_key.as_bytes().to_vec())
        } else {
            (SEC1, sec1::from_pkcs8(self.pair.serialized_der())?)
        };
        encode_string(label, LineEnding::LF, &der).map(Secret::new).map_err(|error| broken(&error))
    }

    /// Text of the public key (`PUBLIC KEY`, RFC 7468 section 13): what `sa.pub` holds.
    ///
    /// # Errors
    /// The encoder's.
    pub fn public_pem(&self) -> Result<String, KeyError> {
        let encoded = encode_string("PUBLIC KEY", LineEnding::LF, &self.public_info());
        encoded.map_err(|error| KeyError::Generate(error.to_string()))
    }

    /// DER of the public key with its algorithm (SubjectPublicKeyInfo).
    #[must_use]
    pub fn public_info(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// DER of the key itself (PKCS#8), for a server of a test.
    #[cfg(test)]
    pub(super) fn pkcs8(&self) -> &[u8] {
        self.pair.serialized_der()
    }

    /// What kind of key this is; an RSA key of another length counts as the next longer kind.
    #[must_use]
    pub fn kind(&self) -> EncryptionAlgorithm {
        kind_of(&self.public_info()).unwrap_or(EncryptionAlgorithm::EcdsaP256)
    }

    fn is_rsa(&self) -> bool {
        self.pair.is_compatible(&PKCS_RSA_SHA256)
    }

    /// DER of the identifier of the algorithm that [`Key::sign`] signs with.
    ///
    /// # Errors
    /// The encoder's.
    pub(super) fn signature_algorithm(&self) -> rsa::pkcs8::der::Result<Vec<u8>> {
        match self.kind() {
            EncryptionAlgorithm::EcdsaP256 => der::sequence(&[&der::oid(oids::ECDSA_WITH_SHA256)?]),
            EncryptionAlgorithm::EcdsaP384 => der::sequence(&[&der::oid(oids::ECDSA_WITH_SHA384)?]),
            // With a NULL, as RFC 4055 section 5 wants it.
            _ => der::sequence(&[&der::oid(oids::SHA256_WITH_RSA)?, &[5, 0]]),
        }
    }

    /// Signs with SHA-256 (SHA-384 on P-384).
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.pair.sign(message).map_err(|error| KeyError::Sign(error.to_string()))
    }
}

/// The kind of a public key (DER of SubjectPublicKeyInfo); `None` for one that weft does not make.
#[must_use]
pub fn kind_of(public_info: &[u8]) -> Option<EncryptionAlgorithm> {
    let (_, info) = SubjectPublicKeyInfo::from_der(public_info).ok()?;
    match info.parsed().ok()? {
        PublicKey::RSA(key) => Some(match key.key_size() {
            0..=2048 => EncryptionAlgorithm::Rsa2048,
            2049..=3072 => EncryptionAlgorithm::Rsa3072,
            _ => EncryptionAlgorithm::Rsa4096,
        }),
        PublicKey::EC(point) => match point.key_size() {
            256 => Some(EncryptionAlgorithm::EcdsaP256),
            384 => Some(EncryptionAlgorithm::EcdsaP384),
            _ => None,
        },
        _ => None,
    }
}

/// PKCS#8 around PKCS#1.
fn pkcs8_of_pkcs1(pkcs1: &[u8]) -> Result<Vec<u8>, KeyError> {
    let wrap = || {
        let algorithm = der::sequence(&[&der::oid(oids::RSA)?, &[5, 0]])?;
        der::sequence(&[&der::unsigned(&[0])?, &algorithm, &der::octets(pkcs1)?])
    };
    wrap().map_err(|error| KeyError::Pem(format!("and {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use EncryptionAlgorithm::{EcdsaP256, EcdsaP384, Rsa2048};

    #[test]
    fn k06_each_kind_is_written_as_kubeadm_does_and_read_again() {
        for (kind, label) in [(EcdsaP256, SEC1), (EcdsaP384, SEC1), (Rsa2048, PKCS1)] {
            let key = Key::generate(kind).unwrap();
            let pem = key.to_pem().unwrap();
            let text = std::str::from_utf8(pem.expose()).unwrap();
            assert!(text.starts_with(&format!("-----BEGIN {label}-----\n")), "{kind:?}");
            assert!(text.lines().all(|line| line.len() <= 64 || line.starts_with('-')), "{kind:?}");
            let again = Key::from_pem(pem.expose()).unwrap();
            assert_eq!((again.kind(), again.public_info()), (kind, key.public_info()));
            let pkcs8 = encode_string(PKCS8, LineEnding::LF, key.pair.serialized_der()).unwrap();
            assert_eq!(Key::from_pem(pkcs8.as_bytes()).unwrap().public_info(), key.public_info());
            assert_eq!(format!("{key:?}"), format!("Key({kind:?})"), "no secret is told");
        }
    }

    #[test]
    fn parameters_before_a_key_are_passed_over() {
        let pem = Key::generate(EcdsaP256).unwrap().to_pem().unwrap();
        let text = format!(
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{}",
            std::str::from_utf8(pem.expose()).unwrap()
        );
        assert_eq!(Key::from_pem(text.as_bytes()).unwrap().kind(), EcdsaP256);
    }

    #[test]
    fn what_is_no_key_is_refused_with_what_was_expected() {
        for text in ["", "nonsense", "-----BEGIN RSA PRIVATE KEY-----\nMAA=\n-----END RSA PRIVATE KEY-----\n"] {
            let error = Key::from_pem(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("RSA"), "{error}");
        }
        let text = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(Key::from_pem(text.as_bytes()).unwrap_err(), KeyError::Encrypted);
    }
}
