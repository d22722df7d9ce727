//! Certificates under lock: AES-256-GCM with the certificate key, a nonce of its own in front of each (kubeadm's
//! `util/crypto`).

use std::str::FromStr;

use aes_gcm::aead::Aead as _;
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce};

use crate::bootstrap::hex;

/// Bytes of a nonce, and of the mark of authenticity behind the text.
const NONCE: usize = 12;

/// The key that uploaded certificates are under. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateKey([u8; 32]);

/// What is wrong with a key, or with what it is to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is written otherwise.
    #[error("this is no certificate key; expected 64 hexadecimal digits (32 bytes)")]
    Form,
    /// The key is another one's, or the bytes are not what was sealed.
    #[error(
        "the certificate key does not open it: it is another key, or the certificates have been uploaded anew since"
    )]
    Wrong,
    /// The machine gives no random bytes, or the text is beyond all size.
    #[error("the certificates cannot be encrypted: no random bytes")]
    Random,
}

impl std::fmt::Debug for CertificateKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("CertificateKey(…)")
    }
}

impl FromStr for CertificateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        hex::decode(text).and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(KeyError::Form)
    }
}

impl CertificateKey {
    /// A new one.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate() -> Result<Self, KeyError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| KeyError::Random)?;
        Ok(Self(key))
    }

    /// Its 64 digits, for the operator.
    #[must_use]
    pub fn reveal(&self) -> String {
        hex::encode(&self.0)
    }

    /// Nonce, text and mark, in this order.
    pub(super) fn seal(&self, text: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| KeyError::Random)?;
        let sealed = self.cipher().encrypt(&Nonce::from(nonce), text).map_err(|_| KeyError::Random)?;
        Ok([&nonce[..], &sealed].concat())
    }

    pub(super) fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or(KeyError::Wrong)?;
        self.cipher().decrypt(&Nonce::from(*nonce), sealed).map_err(|_| KeyError::Wrong)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(&self.0.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_opens_what_it_has_sealed() {
        let (key, other) = (CertificateKey::generate().unwrap(), CertificateKey::generate().unwrap());
        let sealed = key.seal(b"text").unwrap();
        assert_eq!((sealed.len(), key.open(&sealed).unwrap().as_slice()), (12 + 4 + 16, &b"text"[..]));
        assert_ne!(sealed, key.seal(b"text").unwrap(), "each has a nonce of its own");
        assert_eq!(other.open(&sealed), Err(KeyError::Wrong));
        for at in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[at] ^= 1;
            assert_eq!(key.open(&broken), Err(KeyError::Wrong), "{at}");
        }
        assert_eq!(key.open(&sealed[..11]), Err(KeyError::Wrong));
    }

    #[test]
    fn keys_are_64_digits_and_are_not_shown() {
        let key = CertificateKey::generate().unwrap();
        assert_eq!(key.reveal().parse::<CertificateKey>().unwrap(), key);
        assert!(!format!("{key:?}").contains(&key.reveal()[..8]));
        for wrong in ["", "00", &"0".repeat(63), &"g".repeat(64)] {
            assert_eq!(wrong.parse::<CertificateKey>(), Err(KeyError::Form));
        }
    }

    #[test]
    fn what_go_has_sealed_is_opened() {
        // The vector of NIST's GCM specification, test case 14: key and nonce of zeros, sixteen zeros of text.
        let key: CertificateKey = "0".repeat(64).parse().unwrap();
        let sealed =
            hex::decode(&format!("{}cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919", "0".repeat(24)));
        assert_eq!(key.open(&sealed.unwrap()).unwrap(), [0; 16]);
    }
}
