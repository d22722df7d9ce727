//! What a joining node pins: the public key of the cluster's certificate authority (RFC 7469 section 2.4, as kubeadm's
//! `pubkeypin` writes it).

use sha2::{Digest as _, Sha256};
use x509_parser::pem::Pem;

use crate::bootstrap::hex;

/// The hash of a certificate authority's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin([u8; 32]);

/// Why text is no pin, or has none in it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PinError {
    /// It is written otherwise.
    #[error("CA hash {0:?}; expected sha256: and 64 hexadecimal digits")]
    Form(String),
    /// There is no certificate in it.
    #[error("the certificate authority is no certificate in PEM: {0}")]
    Certificate(String),
}

impl std::str::FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let form = || PinError::Form(text.to_owned());
        let (kind, digits) = text.split_once(':').ok_or_else(form)?;
        let bytes = hex::decode(digits).filter(|_| kind.eq_ignore_ascii_case("sha256")).ok_or_else(form)?;
        bytes.try_into().map(Self).map_err(|_| form())
    }
}

impl std::fmt::Display for Pin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "sha256:{}", hex::encode(&self.0))
    }
}

impl Pin {
    /// Of each certificate in a PEM text.
    ///
    /// # Errors
    /// [`PinError::Certificate`] if there is none, or one of them cannot be read.
    pub fn of_all(pem: &[u8]) -> Result<Vec<Self>, PinError> {
        let mut pins = Vec::new();
        for block in Pem::iter_from_buffer(pem) {
            let block = block.map_err(|error| PinError::Certificate(error.to_string()))?;
            if block.label != "CERTIFICATE" {
                continue;
            }
            let certificate = block.parse_x509().map_err(|error| PinError::Certificate(error.to_string()))?;
            pins.push(Self(Sha256::digest(certificate.public_key().raw).into()));
        }
        if pins.is_empty() {
            return Err(PinError::Certificate("there is none in it".to_owned()));
        }
        Ok(pins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_as_they_are_written() {
        let text = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(text.parse::<Pin>().unwrap().to_string(), text);
        assert_eq!(text.to_uppercase().parse::<Pin>().unwrap().to_string(), text);
        for wrong in ["", "sha256", "sha256:00", "sha1:0a", &text[..70], &text.replace('0', "g"), &format!("{text}00")]
        {
            assert!(wrong.parse::<Pin>().is_err(), "{wrong}");
        }
    }

    /// Made for this test with OpenSSL, which also told the pin (`openssl pkey -pubin -outform DER | sha256sum`).
    #[test]
    fn is_what_openssl_computes() {
        let pins = Pin::of_all(include_bytes!("testdata/authority.crt")).unwrap();
        assert_eq!(pins, [include_str!("testdata/authority.pin").trim().parse().unwrap()]);
    }

    #[test]
    fn each_authority_has_one() {
        let made: Vec<_> = ["a", "b"].map(|name| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap()).into();
        let pem: String = made.iter().map(|made| made.cert.pem()).collect();
        let pins = Pin::of_all(pem.as_bytes()).unwrap();
        let of_key = |at: usize| {
            use rcgen::PublicKeyData as _;
            Pin(Sha256::digest(made[at].signing_key.subject_public_key_info()).into())
        };
        assert_eq!(pins, [of_key(0), of_key(1)]);
        assert!(matches!(Pin::of_all(b"nothing"), Err(PinError::Certificate(_))));
    }
}
