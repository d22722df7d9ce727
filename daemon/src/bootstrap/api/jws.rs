//! The signature by which a new node knows the cluster before it trusts any certificate: cluster-info, signed with a
//! bootstrap token (a detached JWS, RFC 7515 appendix F; Kubernetes' `cluster-bootstrap/token/jws`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac};
use sha2::Sha256;

use super::token::Token;

/// Keys of cluster-info that hold a signature begin so; the token's id follows.
pub(super) const KEY_PREFIX: &str = "jws-kubeconfig-";

/// Key of a token's signature in cluster-info.
#[must_use]
pub(super) fn key(id: &str) -> String {
    format!("{KEY_PREFIX}{id}")
}

/// Signs the text, byte for byte as the controller manager does: kubeadm compares the strings.
///
/// The header has its keys in this order and no blanks.
#[must_use]
pub(super) fn sign(text: &str, token: &Token) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, token.id()));
    match mac(&header, text, token) {
        Some(mac) => format!("{header}..{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())),
        None => String::new(),
    }
}

/// Whether this is the token's signature of the text. Takes the same time whichever byte is wrong.
#[must_use]
pub(super) fn verify(text: &str, signature: &str, token: &Token) -> bool {
    let Some((header, code)) = signature.split_once("..") else { return false };
    let decoded = URL_SAFE_NO_PAD.decode(header).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let decoded: serde_json::Value = decoded.unwrap_or_default();
    if decoded["alg"] != "HS256" || decoded["kid"] != token.id() {
        return false;
    }
    let Ok(code) = URL_SAFE_NO_PAD.decode(code) else { return false };
    mac(header, text, token).is_some_and(|mac| mac.verify_slice(&code).is_ok())
}

/// HMAC takes keys of any length, so that there always is one.
fn mac(header: &str, text: &str, token: &Token) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(token.secret().as_bytes()).ok()?;
    mac.update(header.as_bytes());
    mac.update(b".");
    mac.update(URL_SAFE_NO_PAD.encode(text).as_bytes());
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Token {
        text.parse().unwrap()
    }

    #[test]
    fn a_signature_is_that_of_the_published_algorithm() {
        let signature = sign("text", &token("abcdef.0123456789abcdef"));
        // openssl dgst -sha256 -hmac 0123456789abcdef over "eyJh….dGV4dA", in base64url.
        assert_eq!(signature, "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..v28Ea_KqmHOtFWksJ_4tbV6AFRNzMkrRUG_jsuLJz-4");
    }

    #[test]
    fn j08_only_the_tokens_own_signature_of_this_very_text_holds() {
        let own = token("abcdef.0123456789abcdef");
        let signature = sign("text", &own);
        assert!(verify("text", &signature, &own));
        assert!(!verify("texts", &signature, &own));
        assert!(!verify("text", &signature, &token("abcdef.0123456789abcdeg")));
        assert!(!verify("text", &sign("text", &token("abcdeg.0123456789abcdef")), &own));
        for broken in ["", "..", "a..b", &signature[1..], &signature[..signature.len() - 1], "eyJhbGciOiJub25lIn0.."] {
            assert!(!verify("text", broken, &own), "{broken}");
        }
    }
}
