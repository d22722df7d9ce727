//! Which peers take a TCP connection.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::doctor::path::Connect;

/// How long an answer may take: a SYN that is lost is sent again after one second.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Connections that are tried at the same time.
const AT_ONCE: usize = 64;

/// Whether each address answers at `port`. To be refused is an answer.
pub(super) async fn connect(addresses: &[IpAddr], port: u16) -> Vec<Connect> {
    let tries = addresses.iter().map(|address| async move {
        match timeout(PATIENCE, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(_)) => Connect::Answered,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Connect::Answered,
            _ => Connect::Silent,
        }
    });
    stream::iter(tries).buffered(AT_ONCE).collect().await
}
