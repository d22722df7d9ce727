//! HTTP servers that come up when they can: nothing in the data plane depends on one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The wait before an address that cannot be had is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How a kernel refuses an IPv6 socket that was started without IPv6 (`ipv6.disable=1`), or with it turned off.
const NO_IPV6: [i32; 2] = [nix::libc::EAFNOSUPPORT, nix::libc::EADDRNOTAVAIL];

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 128;

/// One server.
#[derive(Debug)]
pub struct Server {
    /// What it serves, in words for the log.
    pub what: String,
    /// Where.
    pub address: SocketAddr,
    /// Whether an IPv6 address is that alone; otherwise `::` stands for all IPv4 addresses, too.
    pub own_family: bool,
    /// How it answers.
    pub router: Router,
    /// Who else is told, beside the log, that its address cannot be had.
    pub on_failure: Option<OnFailure>,
}

/// Somebody who is told why a server does not come up.
#[derive(Clone)]
pub struct OnFailure(Arc<dyn Fn(&str) + Send + Sync>);

impl OnFailure {
    /// Tells it so.
    #[must_use]
    pub fn new(tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl std::fmt::Debug for OnFailure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("OnFailure")
    }
}

impl Server {
    /// Serves until `stop`, and from then on takes no connection and closes those that ask for nothing.
    ///
    /// An address that cannot be had is tried again until it can; the log has each reason once.
    pub async fn run(self, stop: CancellationToken) {
        let Self { what, address, .. } = &self;
        let mut said = String::new();
        while !stop.is_cancelled() {
            let failure = match self.bind() {
                Ok(listener) => {
                    tracing::info!(%address, "serving {what}");
                    let served = axum::serve(listener, self.router.clone());
                    let stopped = stop.clone().cancelled_owned();
                    served.with_graceful_shutdown(stopped).await.err().map(|error| format!("{what} stopped: {error}"))
                }
                Err(error) => Some(format!("{what} cannot be served yet: {error}")),
            };
            if let Some(failure) = failure.filter(|failure| *failure != said) {
                tracing::warn!(%address, "{failure}");
                if let Some(OnFailure(tell)) = &self.on_failure {
                    tell(&failure);
                }
                said = failure;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    fn bind(&self) -> io::Result<TcpListener> {
        let every = self.address.ip().is_unspecified() && self.address.is_ipv6() && !self.own_family;
        match self.bind_to(self.address) {
            // All addresses are those of IPv4 where the kernel has no IPv6.
            Err(error) if every && NO_IPV6.contains(&error.raw_os_error().unwrap_or_default()) => {
                self.bind_to((Ipv4Addr::UNSPECIFIED, self.address.port()).into())
            }
            other => other,
        }
    }

    fn bind_to(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // An agent that starts again does not wait for the connections of the last one to be forgotten.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(self.own_family)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    }
}

/// An answer with metrics, in the version of the format that prometheus-client writes.
pub(super) fn openmetrics(text: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}
