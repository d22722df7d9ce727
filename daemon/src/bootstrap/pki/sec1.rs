//! Elliptic-curve keys between SEC 1 (RFC 5915), which kubeadm writes, and PKCS#8 (RFC 5208), which ring reads.

use rsa::pkcs8::PrivateKeyInfoRef;
use rsa::pkcs8::der::asn1::{BitStringRef, ObjectIdentifier, OctetStringRef};
use rsa::pkcs8::der::{self as asn1, Reader, SliceReader, TagMode, TagNumber};

use super::error::KeyError;
use super::{der, oids};

/// The parts of an `ECPrivateKey`.
struct EcKey<'a> {
    secret: &'a [u8],
    curve: Option<ObjectIdentifier>,
    public: Option<&'a [u8]>,
}

impl<'a> EcKey<'a> {
    fn read(bytes: &'a [u8]) -> asn1::Result<Self> {
        let mut reader = SliceReader::new(bytes)?;
        let key = reader.sequence(|reader| {
            let _version: u8 = reader.decode()?;
            let secret: &'a OctetStringRef = reader.decode()?;
            let curve = reader.context_specific(TagNumber(0), TagMode::Explicit)?;
            let public: Option<BitStringRef<'a>> = reader.context_specific(TagNumber(1), TagMode::Explicit)?;
            let public = public.and_then(|bits| bits.as_bytes());
            asn1::Result::Ok(Self { secret: secret.as_bytes(), curve, public })
        })?;
        reader.finish()?;
        Ok(key)
    }

    /// DER again, with the curve inside if one is given. ring wants the public key to be there, and it is always written.
    fn write(&self, curve: Option<&str>) -> asn1::Result<Vec<u8>> {
        let curve = curve.map(|curve| der::context(0, true, &[&der::oid(curve)?])).transpose()?.unwrap_or_default();
        let public = match self.public {
            Some(public) => der::context(1, true, &[&der::bits(0, public)?])?,
            None => Vec::new(),
        };
        der::sequence(&[&der::unsigned(&[1])?, &der::octets(self.secret)?, &curve, &public])
    }
}

/// SEC 1 out of PKCS#8.
///
/// # Errors
/// It is no elliptic-curve key.
pub(super) fn from_pkcs8(pkcs8: &[u8]) -> Result<Vec<u8>, KeyError> {
    let convert = || {
        let info = PrivateKeyInfoRef::try_from(pkcs8).map_err(|error| error.to_string())?;
        let curve = info.algorithm.parameters_oid().map_err(|error| error.to_string())?;
        let key = EcKey::read(info.private_key.as_bytes()).map_err(|error| error.to_string())?;
        key.write(Some(&curve.to_string())).map_err(|error| error.to_string())
    };
    convert().map_err(|reason: String| KeyError::Pem(format!("and {reason}")))
}

/// PKCS#8 out of SEC 1.
///
/// # Errors
/// It does not name its curve, or lacks its public half, which ring compares.
pub(super) fn to_pkcs8(sec1: &[u8]) -> Result<Vec<u8>, KeyError> {
    let key = EcKey::read(sec1).map_err(|error| KeyError::Pem(format!("and {error}")))?;
    let curve = key.curve.ok_or_else(|| KeyError::Kind("it does not name its curve".to_owned()))?;
    if key.public.is_none() {
        return Err(KeyError::Kind("it lacks its public half; `openssl ec -in KEY -out KEY` adds it".to_owned()));
    }
    let wrap = || {
        let algorithm = der::sequence(&[&der::oid(oids::EC)?, &der::oid(&curve.to_string())?])?;
        let inner = key.write(None)?;
        der::sequence(&[&der::unsigned(&[0])?, &algorithm, &der::octets(&inner)?])
    };
    wrap().map_err(|error| KeyError::Pem(format!("and {error}")))
}
