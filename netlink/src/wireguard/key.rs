//! Keys, as WireGuard's tools write them: 32 bytes in base64.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// `WG_KEY_LEN`, linux/wireguard.h.
pub(super) const LENGTH: usize = 32;

/// A Curve25519 public key, which names a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; LENGTH]);

/// A Curve25519 private key, or a key that two peers share. It shows itself to nobody.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SecretKey([u8; LENGTH]);

/// A text that is no key. It does not repeat the text, which may be most of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key: expected 32 bytes in base64 (44 characters), not all zero")]
pub struct InvalidKey;

impl SecretKey {
    /// A key of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
    }

    /// The bytes, for whoever computes with them.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    /// The text that it is kept as. Not `Display`, so that no message shows it by mistake.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// The key as the kernel keeps it (`curve25519_clamp_secret`, include/crypto/curve25519.h): the same key, in the one of its
    /// spellings that can be compared with what the kernel says.
    #[must_use]
    pub const fn clamped(&self) -> Self {
        let mut bytes = self.0;
        bytes[0] &= 248;
        bytes[31] = (bytes[31] & 127) | 64;
        Self(bytes)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl FromStr for SecretKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        read(text).map(Self)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        read(text).map(Self)
    }
}

/// All zeroes is how the kernel says that there is no key.
fn read(text: &str) -> Result<[u8; LENGTH], InvalidKey> {
    let bytes: [u8; LENGTH] = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(InvalidKey)?;
    if bytes == [0; LENGTH] { Err(InvalidKey) } else { Ok(bytes) }
}

/// A key that the kernel sent; all zeroes is none.
pub(super) fn received(value: &[u8]) -> Option<[u8; LENGTH]> {
    value.try_into().ok().filter(|bytes| *bytes != [0; LENGTH])
}

/// A key as the kernel is sent it; all zeroes takes away the one that it has.
pub(super) fn sent(key: Option<&SecretKey>) -> &[u8] {
    key.map_or(&[0; LENGTH], |key| &key.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn a_key_is_read_and_written_as_wg_does() {
        assert_eq!(TEXT.parse::<PublicKey>().unwrap().to_string(), TEXT);
        assert_eq!(TEXT.parse::<SecretKey>().unwrap().to_base64(), TEXT);
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let zero = STANDARD.encode([0; LENGTH]);
        let (short, long) = (STANDARD.encode([1; 31]), STANDARD.encode([1; 33]));
        for text in ["", "hi", &TEXT[..43], &format!("{TEXT}="), &zero, &short, &long, &TEXT.replace('/', "_")] {
            assert_eq!(text.parse::<PublicKey>(), Err(InvalidKey), "{text}");
            assert!(!text.parse::<SecretKey>().unwrap_err().to_string().contains("hSDw"));
        }
    }

    #[test]
    fn a_secret_shows_nothing() {
        let secret: SecretKey = TEXT.parse().unwrap();
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "(secret) Some((secret))");
    }

    proptest! {
        #[test]
        fn clamping_is_done_once(bytes: [u8; 32]) {
            let once = SecretKey::new(bytes).clamped();
            prop_assert_eq!(once.clamped(), once.clone());
            prop_assert_eq!((once.bytes()[0] & 7, once.bytes()[31] & 0xc0), (0, 64));
        }
    }
}
