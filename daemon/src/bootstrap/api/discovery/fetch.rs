//! One HTTPS request to a server that may be anybody: who answered, what, and when by its clock.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use kube::Config;
use kube::client::ConfigExt as _;
use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Longest time for a connection, and for a whole request.
const CONNECT: Duration = Duration::from_secs(3);
const REQUEST: Duration = Duration::from_secs(10);

/// An answer is a ConfigMap or a kubeconfig; anything longer is neither.
const MOST_BYTES: usize = 1 << 20;

/// Whose certificate is believed.
#[derive(Debug, Clone)]
pub(super) enum Trust {
    /// Anybody's: what is said is checked otherwise.
    Anybody,
    /// One that these have signed (PEM).
    Authorities(String),
    /// One that an authority of this machine has signed.
    System,
}

/// What a server said.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// HTTP status.
    pub(super) status: u16,
    /// Its clock.
    pub(super) date: Option<SystemTime>,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody there, or nobody who speaks.
    Unreachable(String),
    /// Somebody who is not trusted.
    NotTrusted(String),
    /// Somebody whose certificate does not hold at this time.
    NotNow(String),
    /// What was asked cannot be.
    Question(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(words) | Self::NotTrusted(words) | Self::NotNow(words) | Self::Question(words) => {
                out.write_str(words)
            }
        }
    }
}

/// Gets what is at an https URL.
pub(super) async fn get(url: &str, trust: &Trust, token: Option<&str>) -> Result<Answer, Failure> {
    match timeout(REQUEST, ask(url, trust, token)).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::Unreachable(format!("no answer within {} s", REQUEST.as_secs()))),
    }
}

async fn ask(url: &str, trust: &Trust, token: Option<&str>) -> Result<Answer, Failure> {
    let question = |what: String| Failure::Question(what);
    let uri: Uri = url.parse().map_err(|error| question(format!("{url:?} is no URL: {error}")))?;
    let (Some(authority), Some("https")) = (uri.authority(), uri.scheme_str()) else {
        return Err(question(format!("{url:?}; expected a URL that begins with https://")));
    };
    // Brackets are of the URL, not of the address.
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(443);
    let connector = TlsConnector::from(Arc::new(tls(&uri, trust)?));
    let name = ServerName::try_from(host.clone()).map_err(|_| question(format!("{host:?} is no host")))?;

    let unreachable = |error: &dyn fmt::Display| Failure::Unreachable(error.to_string());
    let connected = timeout(CONNECT, TcpStream::connect((host.as_str(), port))).await;
    let stream = connected.map_err(|_| Failure::Unreachable("no answer to a connection".to_owned()))?;
    let stream = stream.map_err(|error| unreachable(&error))?;
    let stream = connector.connect(name, stream).await.map_err(|error| handshake(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
    // Ends when the sender goes, whatever becomes of this request.
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path)
        .header(header::HOST, authority.as_str())
        .header(header::ACCEPT, "application/json, application/yaml, */*")
        .header(header::USER_AGENT, concat!("weft/", env!("CARGO_PKG_VERSION")));
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| question(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
    let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
    connection.abort();
    let body = body.map_err(|error| Failure::Unreachable(format!("its answer broke off: {error}")))?.to_bytes();
    Ok(Answer { status, date, body: body.into() })
}

fn tls(uri: &Uri, trust: &Trust) -> Result<rustls::ClientConfig, Failure> {
    let mut config = Config::new(uri.clone());
    match trust {
        Trust::Anybody => {
            config.accept_invalid_certs = true;
            // A machine need not have any authorities of its own for this.
            config.root_cert = Some(Vec::new());
        }
        Trust::Authorities(pem) => {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            let certificates = certificates.map_err(|error| Failure::Question(format!("the authority: {error}")))?;
            config.root_cert = Some(certificates.iter().map(|it| it.to_vec()).collect());
        }
        Trust::System => {}
    }
    config.rustls_client_config().map_err(|error| Failure::Question(error.to_string()))
}

/// What a failed handshake means. rustls puts its own error into that of the connection.
fn handshake(error: &std::io::Error) -> Failure {
    let words = error.to_string();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(problem)) => match problem {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Failure::NotNow(words),
            _ => Failure::NotTrusted(words),
        },
        Some(rustls::Error::InvalidMessage(_)) => Failure::Unreachable("whoever answers does not speak TLS".to_owned()),
        _ => Failure::Unreachable(words),
    }
}
