//! How the store is reached: endpoints, TLS, user and password, and the time-outs of every request.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::explain::explain_of;

/// Longest time that a TCP and TLS connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest time that one request may take. Watches are no requests in this sense: they last.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the connection is probed. etcd hangs up on a client that pings more than once in 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(6);

/// How long a probe may stay unanswered: a store that has vanished without a word is noticed after 10 s.
const PING_TIMEOUT: Duration = Duration::from_secs(4);

/// How to reach etcd. The names are those of the configuration keys, without `etcd-`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EtcdOptions {
    /// URLs such as `https://etcd-0.example.org:2379`.
    pub endpoints: Vec<String>,
    /// CA that signed the servers' certificates, PEM.
    pub cafile: Option<PathBuf>,
    /// Certificate of this client, PEM; together with `keyfile`.
    pub certfile: Option<PathBuf>,
    /// Private key of this client, PEM.
    pub keyfile: Option<PathBuf>,
    /// User and password, if the store asks for them.
    pub user: Option<(String, String)>,
}

impl fmt::Debug for EtcdOptions {
    /// Without the password.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("EtcdOptions")
            .field("endpoints", &self.endpoints)
            .field("cafile", &self.cafile)
            .field("certfile", &self.certfile)
            .field("keyfile", &self.keyfile)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .finish_non_exhaustive()
    }
}

impl EtcdOptions {
    /// The error as one line of plain words, in which a key of the configuration that may be at fault stands with its value.
    #[must_use]
    pub fn explain(&self, error: &Error) -> String {
        explain_of(error, Some(self))
    }

    /// What a key says, without secrets; `None` if nothing.
    pub(super) fn shown(&self, key: &str) -> Option<String> {
        let path = |path: &Option<PathBuf>| Some(path.as_ref()?.display().to_string());
        match key {
            "etcd-endpoints" => Some(self.endpoints.join(",")),
            "etcd-cafile" => path(&self.cafile),
            "etcd-certfile" => path(&self.certfile),
            "etcd-keyfile" => path(&self.keyfile),
            "etcd-username" => self.user.as_ref().map(|(name, _)| name.clone()),
            _ => None,
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A certificate or key file cannot be read: nothing that waiting would mend.
    #[error("{key} {path}: {cause}", path = path.display())]
    File {
        /// The configuration key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// It can be read, but is not what it should be.
    #[error("{key} {path}: there is no {expected} in it; expected PEM", path = path.display())]
    Content {
        /// The configuration key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// The store refused, or did not answer.
    #[error("etcd at {endpoints}: {message}")]
    Refused {
        /// The endpoints tried.
        endpoints: String,
        /// What happened, in words.
        message: String,
    },
}

impl ConnectError {
    /// Whether trying again can help.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// Makes a client. Without user and password this does not wait for the store: the connection is made on first use, and
/// made again after each outage. With them, the store has to answer.
///
/// # Errors
/// A file that cannot be read, options that contradict each other, or a store that refuses the user.
pub async fn connect(options: &EtcdOptions) -> Result<Client, ConnectError> {
    let mut connect = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT)
        .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
        .with_keep_alive_while_idle(true)
        .with_require_leader(true);
    if let Some((name, password)) = &options.user {
        connect = connect.with_user(name, password).with_auto_token_refresh(true);
    }
    if options.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
        connect = connect.with_tls(tls(options)?);
    }
    Client::connect(&options.endpoints, Some(connect)).await.map_err(|error| ConnectError::Refused {
        endpoints: options.endpoints.join(", "),
        message: options.explain(&error),
    })
}

fn tls(options: &EtcdOptions) -> Result<TlsOptions, ConnectError> {
    let mut tls = TlsOptions::new();
    if let Some(path) = &options.cafile {
        tls = tls.ca_certificate(Certificate::from_pem(certificates("etcd-cafile", path)?));
    }
    if let (Some(certificate), Some(key)) = (&options.certfile, &options.keyfile) {
        tls = tls.identity(Identity::from_pem(certificates("etcd-certfile", certificate)?, private_key(key)?));
    }
    Ok(tls)
}

/// Certificates in PEM form: what is none would be passed over without a word, and the server would seem to be at fault.
fn certificates(key: &'static str, path: &Path) -> Result<Vec<u8>, ConnectError> {
    let pem = read(key, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let is_good = all.is_ok_and(|all| !all.is_empty());
    is_good.then_some(pem).ok_or_else(|| ConnectError::Content { key, path: path.to_owned(), expected: "certificate" })
}

fn private_key(path: &Path) -> Result<Vec<u8>, ConnectError> {
    let pem = read("etcd-keyfile", path)?;
    let is_good = PrivateKeyDer::from_pem_slice(&pem).is_ok();
    let bad = || ConnectError::Content { key: "etcd-keyfile", path: path.to_owned(), expected: "private key" };
    is_good.then_some(pem).ok_or_else(bad)
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(path).map_err(|cause| ConnectError::File { key, path: path.to_owned(), cause })
}
