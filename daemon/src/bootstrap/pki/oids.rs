//! Object identifiers of certificates (RFC 5280, RFC 5480, RFC 8017), dotted.

/// rsaEncryption.
pub(super) const RSA: &str = "1.2.840.113549.1.1.1";
/// sha256WithRSAEncryption.
pub(super) const SHA256_WITH_RSA: &str = "1.2.840.113549.1.1.11";
/// id-ecPublicKey.
pub(super) const EC: &str = "1.2.840.10045.2.1";
/// secp256r1.
pub(super) const P256: &str = "1.2.840.10045.3.1.7";
/// secp384r1.
pub(super) const P384: &str = "1.3.132.0.34";
/// ecdsa-with-SHA256.
pub(super) const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";
/// ecdsa-with-SHA384.
pub(super) const ECDSA_WITH_SHA384: &str = "1.2.840.10045.4.3.3";
/// id-at-commonName.
pub(super) const COMMON_NAME: &str = "2.5.4.3";
/// id-at-organizationName.
pub(super) const ORGANIZATION: &str = "2.5.4.10";
/// id-ce-subjectKeyIdentifier.
pub(super) const SUBJECT_KEY_ID: &str = "2.5.29.14";
/// id-ce-keyUsage.
pub(super) const KEY_USAGE: &str = "2.5.29.15";
/// id-ce-subjectAltName.
pub(super) const ALT_NAME: &str = "2.5.29.17";
/// id-ce-basicConstraints.
pub(super) const BASIC_CONSTRAINTS: &str = "2.5.29.19";
/// id-ce-authorityKeyIdentifier.
pub(super) const AUTHORITY_KEY_ID: &str = "2.5.29.35";
/// id-ce-extKeyUsage.
pub(super) const EXTENDED_USAGE: &str = "2.5.29.37";
/// id-kp-serverAuth.
pub(super) const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";
/// id-kp-clientAuth.
pub(super) const CLIENT_AUTH: &str = "1.3.6.1.5.5.7.3.2";
/// PKCS#9 extensionRequest.
pub(super) const EXTENSION_REQUEST: &str = "1.2.840.113549.1.9.14";
