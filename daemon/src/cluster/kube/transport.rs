//! The connection to the API server: HTTP/2, so that all watches share one, and its pings tell one that hangs from one that
//! has nothing to say.
//!
//! A silent connection is what is left when a machine or a way to it is gone, or a process stands still: no packet ever says
//! so. kube's own client speaks HTTP/1.1, where only a bookmark once a minute shows that there is anybody.
//!
//! Each request goes to the server that [`Servers`] puts first. One that takes no connection has been sent nothing, so the same
//! request goes to the next. A server that was learnt is dialled by its address, and has to be named by that address in a
//! certificate of the same authority, as the configured one has by its own: the address of the first is in no other's
//! certificate, and each server's own is in its. If the kubeconfig has a `tls-server-name`, that is the name of all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::middleware::BaseUriLayer;
use kube::client::{Body, ConfigExt as _};
use kube::{Client, Config};
use tower::{BoxError, Layer as _, ServiceBuilder, ServiceExt as _, service_fn};

use super::explain::chain;
use super::place::Place;
use super::servers::Servers;

/// Longest time that a TCP and TLS connection may take. A server that stands still accepts, and does not get any further; one
/// whose machine is gone does not even that. Either costs a request so much, once in the time for which it is set aside.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// After so long without a word the API server is asked for one.
const PING_AFTER: Duration = Duration::from_secs(15);

/// How long it may take to answer that; then all that is under way on the connection ends.
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// What may be on its way to us, in bytes: of one answer, and of all. Lists come as fast as this allows, and nothing that has
/// arrived is held back, so it costs memory only while we are slower than the API server.
const WINDOWS: (u32, u32) = (1 << 20, 2 << 20);

/// One that dials each server and keeps its connection.
type Http = HttpClient<TimeoutConnector<HttpsConnector<HttpConnector>>, Body>;

/// A client for a configuration, of which it knows one server; `servers` have the others. A token in a file is read for each request: there are few, and the file may be replaced at
/// any time.
///
/// # Errors
/// Certificates, keys or tokens that cannot be used.
pub(super) fn client(mut config: Config, servers: Arc<Servers>) -> Result<Client, BoxError> {
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
    let http: Http = HttpClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_AFTER)
        .http2_keep_alive_timeout(PONG_WITHIN)
        .http2_initial_stream_window_size(WINDOWS.0)
        .http2_initial_connection_window_size(WINDOWS.1)
        .build(connector);
    let (auth, headers) = (config.auth_layer()?, config.extra_headers_layer()?);
    let way = Way::new(http, config.cluster_url, servers);
    let service = ServiceBuilder::new()
        .option_layer(auth)
        .layer(headers)
        .map_request(move |request| with_token(request, token_file.as_deref()))
        .service(service_fn(move |request| way.clone().send(request)));
    Ok(Client::new(service, config.default_namespace))
}

/// How a request gets to a server.
#[derive(Clone)]
struct Way {
    http: Http,
    /// The configured server: where it is, and its URL, which may have a path.
    configured: (Place, Uri),
    servers: Arc<Servers>,
}

impl Way {
    fn new(http: Http, url: Uri, servers: Arc<Servers>) -> Self {
        let place = Place::from(&url);
        servers.configure(place.clone());
        Self { http, configured: (place, url), servers }
    }

    /// Sends a request to the first server that takes a connection.
    async fn send(self, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        let mut refused: Vec<(Place, BoxError)> = Vec::new();
        for (place, url) in self.order() {
            match self.ask(&place, url, &parts, &body).await {
                Ok(answer) => return Ok(answer),
                Err(Unsent::Refused(error)) => refused.push((place, error)),
                Err(Unsent::Broken(error)) => return Err(error),
            }
        }
        match refused.len() {
            // There is one server at least, the configured.
            0 | 1 => Err(refused.pop().map_or_else(|| "no API server is known".into(), |(_, error)| error)),
            _ => {
                let words = refused.iter().map(|(place, error)| format!("{place}: {}", chain(error.as_ref())));
                Err(format!("no API server takes a connection: {}", words.collect::<Vec<_>>().join("; ")).into())
            }
        }
    }

    fn order(&self) -> Vec<(Place, Uri)> {
        let (configured, url) = &self.configured;
        if url.scheme() != Some(&Scheme::HTTPS) {
            // Credentials go to no server that nothing vouches for, but to the one that somebody has asked for.
            return vec![self.configured.clone()];
        }
        let learnt = |place: Place| {
            let url = if place == *configured { url.clone() } else { format!("https://{place}").parse().ok()? };
            Some((place, url))
        };
        self.servers.order().into_iter().filter_map(learnt).collect()
    }

    async fn ask(&self, place: &Place, url: Uri, parts: &Parts, body: &Bytes) -> Result<Response<Incoming>, Unsent> {
        let mut trial = Trial { servers: &self.servers, place, reads: parts.method == Method::GET, is_over: false };
        let request = Request::from_parts(parts.clone(), Body::from(body.clone()));
        let answer = BaseUriLayer::new(url).layer(self.http.clone()).oneshot(request).await;
        trial.is_over = true;
        match answer {
            // What it says of a write may be what an admission webhook says.
            Ok(answer) if answer.status().is_server_error() && trial.reads => {
                self.servers.failed(place, format!("it answers {}", answer.status()));
                Ok(answer)
            }
            Ok(answer) => {
                self.servers.answered(place);
                Ok(answer)
            }
            Err(error) if error.is_connect() => {
                self.servers.refused(place, chain(&error));
                Err(Unsent::Refused(error.into()))
            }
            Err(error) => {
                self.servers.failed(place, chain(&error));
                Err(Unsent::Broken(error.into()))
            }
        }
    }
}

/// Why a server has given no answer.
enum Unsent {
    /// It takes no connection, so it was sent nothing.
    Refused(BoxError),
    /// The connection broke.
    Broken(BoxError),
}

/// A question to a server. Whoever asks gives up after a time of his own, and then nobody goes on here.
struct Trial<'a> {
    servers: &'a Servers,
    place: &'a Place,
    /// Whether it only reads.
    reads: bool,
    is_over: bool,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.reads {
            self.servers.failed(self.place, "no answer in time".to_owned());
        }
    }
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
