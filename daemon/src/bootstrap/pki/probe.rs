//! What certificate a server shows, whoever it says it is: how it is known that a new one is in use.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::certificate::Certificate;
use crate::bootstrap::unverified::Anybody;

/// The certificate that the server at `address` shows whoever asks for `name`. Nothing about it is believed.
///
/// A server that wants a client's certificate, as etcd does, shows its own before that. Blocks for no longer than `limit`.
///
/// # Errors
/// Nobody answers in time, or what answers does not speak TLS.
pub fn served(address: SocketAddr, name: &str, limit: Duration) -> io::Result<Certificate> {
    let server = Anybody::new();
    let config = server.client().map_err(io::Error::other)?.with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let until = Instant::now() + limit;
    let mut stream = Limited { stream: TcpStream::connect_timeout(&address, limit)?, until };
    let end = loop {
        // The first is written; reading shows the certificate, or why there is none.
        match connection.complete_io(&mut stream) {
            Ok(_) if connection.is_handshaking() => {}
            Ok(_) => break None,
            Err(error) => break Some(error),
        }
        if server.shown().is_some() {
            break None;
        }
    };
    match (server.shown(), end) {
        (Some(der), _) => Certificate::from_der(&der).map_err(io::Error::other),
        (None, Some(error)) => Err(error),
        (None, None) => Err(io::Error::other("the server shows no certificate")),
    }
}

/// A stream whose reads and writes end at one moment together, also when a signal interrupts one.
struct Limited {
    stream: TcpStream,
    until: Instant,
}

impl Limited {
    fn within<T>(&mut self, mut work: impl FnMut(&mut TcpStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            self.stream.set_write_timeout(Some(left))?;
            match work(&mut self.stream) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                other => return other,
            }
        }
    }
}

impl Read for Limited {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.within(|stream| stream.read(into))
    }
}

impl Write for Limited {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.within(|stream| stream.write(from))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::net::TcpListener;

    use rustls::crypto::ring;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{ServerConfig, ServerConnection};

    use crate::bootstrap::config::model::EncryptionAlgorithm::EcdsaP256;
    use crate::bootstrap::pki::issue::{self, Validity};
    use crate::bootstrap::pki::key::Key;
    use crate::bootstrap::pki::profile::Profile;

    const LIMIT: Duration = Duration::from_secs(20);

    /// A server's part: shows a certificate to who has come.
    pub(in super::super) fn show(stream: TcpStream, certificate: &Certificate, key: &Key) {
        let mut stream = Limited { stream, until: Instant::now() + LIMIT };
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8().to_vec()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .unwrap();
        // The client goes as soon as it has seen what it wants.
        let _ = ServerConnection::new(Arc::new(config)).unwrap().complete_io(&mut stream);
    }

    #[test]
    fn what_a_server_shows_is_told() {
        let key = Key::generate(EcdsaP256).unwrap();
        let validity = Validity::from_now(jiff::Timestamp::now(), Duration::from_secs(3600)).unwrap();
        let shown = issue::authority(&Profile::authority("server").unwrap(), &key, validity).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let wanted = shown.clone();
        let server = std::thread::spawn(move || show(listener.accept().unwrap().0, &shown, &key));
        assert_eq!(served(address, "any.example", LIMIT).unwrap(), wanted);
        server.join().unwrap();
    }

    #[test]
    fn who_says_nothing_is_not_waited_for_longer_than_the_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let error = served(address, "any.example", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(listener);
        assert!(served(address, "any.example", LIMIT).is_err());
    }
}
