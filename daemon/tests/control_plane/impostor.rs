//! A TLS server that answers as it is told, and keeps what it has been asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::authority::Issued;

/// What is answered: the whole HTTP response, by the number of the request and its head.
type Answer = Box<dyn Fn(usize, &str) -> String + Send + Sync>;

/// The server. It ends with the runtime of its test.
pub(crate) struct Impostor {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Impostor {
    pub(crate) async fn start(issued: &Issued, answer: impl Fn(usize, &str) -> String + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", issued, answer).await
    }

    pub(crate) async fn start_at(
        address: impl tokio::net::ToSocketAddrs,
        issued: &Issued,
        answer: impl Fn(usize, &str) -> String + Send + Sync + 'static,
    ) -> Self {
        let certificate = CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer): (_, Arc<Answer>) = (seen.clone(), Arc::new(Box::new(answer)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log, answer) = (acceptor.clone(), log.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => request.push(byte),
                            Err(_) => return,
                        }
                    }
                    let request = String::from_utf8(request).unwrap();
                    let number = {
                        let mut log = log.lock().unwrap();
                        log.push(request.clone());
                        log.len() - 1
                    };
                    let _ = stream.write_all(answer(number, &request).as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { address, seen }
    }

    /// What it has been asked.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// A response with this body, and the date if there is to be one.
pub(crate) fn response(body: &str, date: Option<&str>) -> String {
    let date = date.map(|date| format!("Date: {date}\r\n")).unwrap_or_default();
    format!("HTTP/1.1 200 OK\r\n{date}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
