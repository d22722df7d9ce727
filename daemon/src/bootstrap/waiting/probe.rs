//! One question to one component.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::targets::Target;
use crate::bootstrap::unverified::Anybody;

/// How long an answer may take: an API server that starts may keep a question for a while.
const LIMIT: Duration = Duration::from_secs(5);
/// The list of an API server's checks has some KiB.
const LARGEST: usize = 64 * 1024;

/// Who asks. Servers are not verified: nothing is told to them, and their certificates may be what is wrong.
#[derive(Clone)]
pub struct Client(Arc<ClientConfig>);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may hold a key.
        f.write_str("Client")
    }
}

/// The credentials of the one who asks cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the client certificate for health checks cannot be used: {0}")]
pub struct IdentityError(String);

impl Client {
    /// Asks as nobody: enough unless the API server has anonymous users switched off.
    ///
    /// # Errors
    /// [`IdentityError`] when there is no TLS to be had.
    pub fn anonymous() -> Result<Self, IdentityError> {
        Self::new(None)
    }

    /// Asks as the owner of a certificate, both in PEM.
    ///
    /// # Errors
    /// [`IdentityError`] when they are no certificate and key.
    pub fn with_certificate(certificate: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let bad = |error: rustls::pki_types::pem::Error| IdentityError(error.to_string());
        let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().map_err(bad)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(bad)?;
        Self::new(Some((chain, key)))
    }

    /// Asks as the current user of a kubeconfig that holds certificate and key, as `admin.conf` does.
    ///
    /// # Errors
    /// [`IdentityError`] when it does not.
    pub fn from_kubeconfig(text: &str) -> Result<Self, IdentityError> {
        let lacks = |what: &str| IdentityError(format!("the kubeconfig has no {what}"));
        let config: Value = serde_saphyr::from_str(text).map_err(|error| IdentityError(error.to_string()))?;
        let named = |list: &str, kind: &str, name: &Value| {
            let entry = config.get(list)?.as_array()?.iter().find(|entry| entry.get("name") == Some(name))?;
            entry.get(kind).cloned()
        };
        let context = config.get("current-context").and_then(|name| named("contexts", "context", name));
        let context = context.ok_or_else(|| lacks("current context"))?;
        let user =
            context.get("user").and_then(|name| named("users", "user", name)).ok_or_else(|| lacks("current user"))?;
        let data = |field: &str| {
            let text = user.get(field).and_then(Value::as_str).ok_or_else(|| lacks(field))?;
            // Not the decoder's own words: they would show a piece of the key.
            STANDARD.decode(text).map_err(|_| IdentityError(format!("{field} is not base64")))
        };
        Self::with_certificate(&data("client-certificate-data")?, &data("client-key-data")?)
    }

    fn new(identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>) -> Result<Self, IdentityError> {
        let bad = |error: rustls::Error| IdentityError(error.to_string());
        let builder = Anybody::new().client().map_err(bad)?;
        let config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(bad)?,
            None => builder.with_no_client_auth(),
        };
        Ok(Self(Arc::new(config)))
    }

    /// Asks once.
    ///
    /// # Errors
    /// Why it is not well, in words: nobody answers, or which of its checks fail.
    pub async fn ask(&self, target: &Target) -> Result<(), String> {
        match timeout(LIMIT, self.exchange(target)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
        }
    }

    async fn exchange(&self, target: &Target) -> Result<(), String> {
        let stream = TcpStream::connect(target.address).await.map_err(|error| error.to_string())?;
        if !target.tls {
            return request(stream, target).await;
        }
        let name = ServerName::IpAddress(target.address.ip().into());
        let stream = TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await;
        request(stream.map_err(|error| error.to_string())?, target).await
    }
}

async fn request(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, target: &Target) -> Result<(), String> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with the exchange; what goes wrong with it, the exchange is told.
    tokio::spawn(connection);
    let request =
        Request::get(target.path.as_str()).header(header::HOST, target.address.to_string()).body(Empty::<Bytes>::new());
    let answer =
        sender.send_request(request.map_err(|error| error.to_string())?).await.map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    if status == 200 {
        return Ok(());
    }
    let body = Limited::new(answer.into_body(), LARGEST).collect().await.map(http_body_util::Collected::to_bytes);
    Err(refusal(status, &String::from_utf8_lossy(&body.unwrap_or_default())))
}

/// The checks that fail, if it names them: `[-]etcd failed: reason withheld`.
fn refusal(status: u16, body: &str) -> String {
    let failing: Vec<&str> =
        body.lines().filter_map(|line| line.strip_prefix("[-]")?.split_whitespace().next()).collect();
    if failing.is_empty() {
        format!("status {status}")
    } else {
        format!("status {status}: {} not well", failing.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failing_checks_are_named() {
        let body = "[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac failed: x\nlivez check failed\n";
        assert_eq!(refusal(500, body), "status 500: etcd, poststarthook/rbac not well");
        assert_eq!(refusal(401, "{}"), "status 401");
    }

    #[test]
    fn a_key_is_not_shown_and_a_bad_one_is_refused() {
        assert_eq!(format!("{:?}", Client::anonymous().unwrap()), "Client");
        assert!(Client::with_certificate(b"x", b"y").is_err());
    }

    #[test]
    fn credentials_come_from_a_kubeconfig() {
        let certified = rcgen::generate_simple_self_signed(vec!["admin".into()]).unwrap();
        let kubeconfig = |key: &str| {
            format!(
                "contexts: [{{name: a@k, context: {{cluster: k, user: a}}}}]\ncurrent-context: a@k\n\
                 users: [{{name: b, user: {{}}}}, {{name: a, user: {{client-certificate-data: {}, client-key-data: {key}}}}}]\n",
                STANDARD.encode(certified.cert.pem()),
            )
        };
        Client::from_kubeconfig(&kubeconfig(&STANDARD.encode(certified.signing_key.serialize_pem()))).unwrap();
        let error = Client::from_kubeconfig(&kubeconfig("s3cr*t")).unwrap_err().to_string();
        assert!(error.contains("client-key-data") && !error.contains("s3cr"), "{error}");
        assert!(Client::from_kubeconfig("users: []\n").unwrap_err().to_string().contains("current context"));
    }
}
