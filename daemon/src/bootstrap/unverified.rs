//! Servers whose certificates are not verified: a probe tells them nothing, and their certificate may be what is wrong, or
//! what is asked for.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, SignatureScheme};

/// Takes anybody for whom he claims to be, and remembers the certificate of the last one.
#[derive(Debug)]
pub(crate) struct Anybody {
    last: Mutex<Option<Vec<u8>>>,
    provider: Arc<CryptoProvider>,
}

impl Anybody {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { last: Mutex::new(None), provider: Arc::new(ring::default_provider()) })
    }

    /// The start of a client's configuration that believes everybody.
    ///
    /// # Errors
    /// There is no TLS to be had.
    pub(crate) fn client(
        self: &Arc<Self>,
    ) -> Result<ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider));
        let verifier: Arc<Self> = Arc::clone(self);
        Ok(builder.with_safe_default_protocol_versions()?.dangerous().with_custom_certificate_verifier(verifier))
    }

    /// The certificate (DER) that was shown last; `None` until a server has shown one.
    pub(crate) fn shown(&self) -> Option<Vec<u8>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
