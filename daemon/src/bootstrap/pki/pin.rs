//! The pin of a certificate authority: how `join` knows the right one.

use sha2::{Digest, Sha256};

use super::certificate::Certificate;

/// What a pin begins with.
const PREFIX: &str = "sha256:";

/// `sha256:` and the hexadecimal SHA-256 of the authority's public key (SubjectPublicKeyInfo, as in RFC 7469), kubeadm's
/// `--discovery-token-ca-cert-hash`.
#[must_use]
pub fn pin(authority: &Certificate) -> String {
    let digest = Sha256::digest(authority.public_info());
    digest.iter().fold(PREFIX.to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// Whether one of the pins is that authority's. Upper-case digits count as lower-case ones.
#[must_use]
pub fn is_pinned(authority: &Certificate, pins: &[String]) -> bool {
    let own = pin(authority);
    pins.iter().any(|pin| pin.trim().eq_ignore_ascii_case(&own))
}

/// Checks the form of a pin.
///
/// # Errors
/// What was expected, and what is wrong with this one.
pub fn check(pin: &str) -> Result<(), String> {
    let digits = pin
        .strip_prefix(PREFIX)
        .ok_or_else(|| format!("{pin:?} is no pin: expected sha256: and 64 hexadecimal digits"))?;
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(())
    } else {
        Err(format!("{pin:?} is no pin: expected 64 hexadecimal digits after sha256:, found {}", digits.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made for this test with OpenSSL, which also told the pin (`openssl pkey -pubin -outform DER | sha256sum`).
    const AUTHORITY: &str = include_str!("testdata/authority.crt");
    const PIN: &str = include_str!("testdata/authority.pin");

    #[test]
    fn is_what_openssl_computes() {
        let authority = &Certificate::all_from_pem(AUTHORITY.as_bytes()).unwrap()[0];
        assert_eq!(pin(authority), PIN.trim());
        assert!(is_pinned(authority, &["sha256:00".to_owned(), PIN.trim().to_uppercase()]));
        assert!(!is_pinned(authority, &[]));
    }

    #[test]
    fn its_form_is_checked() {
        assert_eq!(check(PIN.trim()), Ok(()));
        for wrong in ["", "sha256:", "md5:00", "sha256:zz"] {
            assert!(check(wrong).unwrap_err().contains("hexadecimal"), "{wrong}");
        }
    }
}
