//! Asking agents over HTTP.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::serve::document::NodeStatus;

/// The document of a node with 5,000 peers has 1 MiB, one in brief some KiB.
const LARGEST: usize = 8 * 1024 * 1024;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// What time the server believes it is, to the second.
    pub date: Option<SystemTime>,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection.
    #[error("nobody answers at {address}: {cause}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// The system's reason.
        cause: std::io::Error,
    },
    /// Nothing came in time.
    #[error("no answer from {address} within {} s", .limit.as_secs())]
    Late {
        /// From where.
        address: SocketAddr,
        /// The time that it had.
        limit: Duration,
    },
    /// Something else than an answer came.
    #[error("{address} does not answer as an agent does: {message}")]
    Odd {
        /// From where.
        address: SocketAddr,
        /// What is odd.
        message: String,
    },
}

/// Where an agent that binds its health end points to `bind` is asked from its own node.
#[must_use]
pub fn from_own_node(bind: SocketAddr) -> SocketAddr {
    // A socket of `::` takes IPv4, too, and where IPv6 is off altogether it is one of IPv4.
    let ip = if bind.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { bind.ip() };
    SocketAddr::new(ip, bind.port())
}

/// `GET path`.
///
/// # Errors
/// [`FetchError`]; an answer of any status is none.
pub async fn get(address: SocketAddr, path: &str, limit: Duration) -> Result<Answer, FetchError> {
    timeout(limit, exchange(address, path)).await.map_err(|_| FetchError::Late { address, limit })?
}

/// As [`get`], for callers that are in no runtime, and in the network namespace of the calling thread.
///
/// # Errors
/// [`FetchError`].
pub fn get_blocking(address: SocketAddr, path: &str, limit: Duration) -> Result<Answer, FetchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|cause| FetchError::Connect { address, cause })?.block_on(get(address, path, limit))
}

/// The document of the agent at that address.
///
/// # Errors
/// [`FetchError`].
pub async fn status(address: SocketAddr, limit: Duration) -> Result<(NodeStatus, Option<SystemTime>), FetchError> {
    document(address, "/status", limit).await
}

/// The same without what grows with the cluster, as far as the agent knows how to leave it out.
///
/// # Errors
/// [`FetchError`].
pub async fn brief(address: SocketAddr, limit: Duration) -> Result<NodeStatus, FetchError> {
    document(address, "/status?brief", limit).await.map(|(status, _)| status)
}

async fn document(
    address: SocketAddr,
    path: &str,
    limit: Duration,
) -> Result<(NodeStatus, Option<SystemTime>), FetchError> {
    let odd = |message: String| FetchError::Odd { address, message };
    let answer = get(address, path, limit).await?;
    match answer.status {
        200 => {}
        404 => return Err(odd("it has no /status; is it an agent of an older version?".to_owned())),
        other => return Err(odd(format!("status {other}"))),
    }
    let document = serde_json::from_slice(&answer.body).map_err(|error| odd(error.to_string()))?;
    Ok((document, answer.date))
}

async fn exchange(address: SocketAddr, path: &str) -> Result<Answer, FetchError> {
    let odd = |message: String| FetchError::Odd { address, message };
    let stream = TcpStream::connect(address).await.map_err(|cause| FetchError::Connect { address, cause })?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| odd(error.to_string()))?;
    // Ends with the exchange; what goes wrong with it, the exchange is told.
    tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, address.to_string()).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| odd(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| odd(error.to_string()))?;
    let (head, body) = answer.into_parts();
    let date = head.headers.get(header::DATE).and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok());
    let body = Limited::new(body, LARGEST).collect().await.map_err(|error| odd(error.to_string()))?;
    Ok(Answer { status: head.status.as_u16(), date, body: body.to_bytes() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_listens_everywhere_is_asked_at_the_loopback() {
        for (bind, asked) in
            [("0.0.0.0:8081", "127.0.0.1:8081"), ("[::]:8081", "127.0.0.1:8081"), ("192.0.2.1:9", "192.0.2.1:9")]
        {
            assert_eq!(from_own_node(bind.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
