//! The connection to the API server: HTTP/2, so that all watches share one, and its pings tell one that hangs from one that
//! has nothing to say.
//!
//! A silent connection is what is left when a machine or a way to it is gone, or a process stands still: no packet ever says
//! so. kube's own client speaks HTTP/1.1, where only a bookmark once a minute shows that there is anybody.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderValue, Request, header};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt as _};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// Longest time that a TCP and TLS connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// After so long without a word the API server is asked for one.
const PING_AFTER: Duration = Duration::from_secs(15);

/// How long it may take to answer that; then all that is under way on the connection ends.
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// What may be on its way to us, in bytes: of one answer, and of all. Lists come as fast as this allows, and nothing that has
/// arrived is held back, so it costs memory only while we are slower than the API server.
const WINDOWS: (u32, u32) = (1 << 20, 2 << 20);

/// A client for a configuration. A token in a file is read for each request: there are few, and the file may be replaced at
/// any time.
///
/// # Errors
/// Certificates, keys or tokens that cannot be used.
pub(super) fn client(mut config: Config) -> Result<Client, BoxError> {
    let token_file = token_file(&mut config);
    if let Some(path) = &token_file {
        bearer(path)?;
    }
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let resolver = name.clone().try_into().map(FixedServerNameResolver::new);
        builder = builder.with_server_name_resolver(resolver.map_err(|_| format!("tls-server-name {name:?} is none"))?);
    }
    let mut connector = TimeoutConnector::new(builder.enable_all_versions().wrap_connector(http));
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let client: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_AFTER)
        .http2_keep_alive_timeout(PONG_WITHIN)
        .http2_initial_stream_window_size(WINDOWS.0)
        .http2_initial_connection_window_size(WINDOWS.1)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_request(move |request| with_token(request, token_file.as_deref()))
        .map_err(BoxError::from)
        .service(client);
    Ok(Client::new(service, config.default_namespace))
}

/// Takes the file with the token out of a configuration, if that is what it goes by.
fn token_file(config: &mut Config) -> Option<PathBuf> {
    let auth = &mut config.auth_info;
    let is_used = auth.token.is_none() && auth.username.is_none();
    auth.token_file.take_if(|_| is_used).map(PathBuf::from)
}

fn with_token(mut request: Request<Body>, file: Option<&Path>) -> Request<Body> {
    // Without a header the API server says what is missing, and the next request reads the file again.
    if let Some(value) = file.and_then(|path| bearer(path).ok()) {
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    request
}

/// The header with the token of a file.
fn bearer(path: &Path) -> Result<HeaderValue, BoxError> {
    let refused = |what: &dyn std::fmt::Display| BoxError::from(format!("token file {}: {what}", path.display()));
    let token = std::fs::read_to_string(path).map_err(|error| refused(&error))?;
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(|_| refused(&"no token"))?;
    value.set_sensitive(true);
    Ok(value)
}
