//! Dialling a server: one of its addresses, with a limit; and the first that answers for who cannot use the balancer itself.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::lists::{self, KNOWN, START};
use crate::cluster::kube::place::Place;

/// How long a server may take to accept: within a data centre it is a millisecond; a second is a way that loses packets.
pub(super) const CONNECT: Duration = Duration::from_millis(1500);

/// Connects to a server; a name may have several addresses, which are tried one after the other.
///
/// # Errors
/// Nobody accepts in time, or the name has no address.
pub(super) async fn dial(place: &Place) -> io::Result<TcpStream> {
    let dialling = async {
        let addresses: Vec<SocketAddr> = lookup_host((place.host.as_str(), place.port)).await?.collect();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    timeout(CONNECT, dialling).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The URL of the first server in a balancer's lists that accepts a connection, for who asks while the balancer does not run:
/// `https://192.0.2.10:6443`. `None` if there are no lists, or nobody accepts.
pub async fn first_reachable(directory: &Path) -> Option<String> {
    let lists = [KNOWN, START].map(|name| lists::read(directory, name).unwrap_or_default());
    for place in lists.into_iter().flatten() {
        if dial(&place).await.is_ok() {
            return Some(format!("https://{place}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_that_accepts_is_found() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(first_reachable(directory.path()).await, None);
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let there = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = there.local_addr().unwrap();
        lists::write_known(directory.path(), &[gone.into()]).unwrap();
        std::fs::write(directory.path().join(START), format!("{address}\n")).unwrap();
        assert_eq!(first_reachable(directory.path()).await, Some(format!("https://{address}")));
    }
}
