//! How a server is: whether it accepts, shows the cluster's certificate, and says that it is ready.
//!
//! One connection to each server is kept for the question, so that a look costs neither side a handshake.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use super::SERVER_NAME;
use super::pool::Health;
use super::reach::{CONNECT, dial};
use crate::cluster::kube::place::Place;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(3);
/// Longer than between two looks, and shorter than an API server keeps a silent connection (90 s).
const IDLE: Duration = Duration::from_secs(60);

type Https = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Looks at servers.
pub(super) struct Looker {
    /// `None` if there is no authority to know them by: then whoever accepts is taken for well.
    https: Option<Https>,
}

impl Looker {
    /// One who knows the servers by the authority in that file.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate.
    pub(super) fn new(authority: Option<&Path>) -> io::Result<Self> {
        Ok(Self { https: authority.map(client).transpose()? })
    }

    /// How a server is, and why if it is not well.
    pub(super) async fn look(&self, place: &Place) -> (Health, String) {
        let Some(https) = &self.https else {
            return match dial(place).await {
                Ok(_) => (Health::Ready, String::new()),
                Err(error) => (Health::Dead, error.to_string()),
            };
        };
        let Ok(uri) = format!("https://{place}/readyz").parse::<Uri>() else {
            return (Health::Dead, "it has no URL".to_owned());
        };
        match timeout(LIMIT, https.get(uri)).await {
            // Where anonymous users are switched off it is enough that somebody refuses.
            Ok(Ok(answer)) => match answer.status() {
                StatusCode::OK | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (Health::Ready, String::new()),
                other => (Health::Unready, format!("/readyz answers {other}")),
            },
            Ok(Err(error)) => (Health::Dead, words(&error)),
            Err(_) => (Health::Dead, "no answer in time".to_owned()),
        }
    }
}

fn client(authority: &Path) -> io::Result<Https> {
    let pem = std::fs::read(authority)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    if roots.is_empty() {
        return Err(io::Error::other("it holds no certificate"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .with_server_name_resolver(FixedServerNameResolver::new(name))
        .enable_http1()
        .wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(https))
}

/// What happened, down to its cause.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
