//! From a client on the node to one of the servers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::pool::Health;
use super::reach::dial;
use super::run::Shared;
use crate::cluster::kube::place::Place;

/// After so long without an answer the next server is asked as well: one that has vanished costs a client no more than this.
const NEXT: Duration = Duration::from_millis(250);
/// The wait before connections are accepted again when the process has no file descriptors left.
const BREATH: Duration = Duration::from_millis(100);
/// A silent connection is asked for a sign of life after so long, and again each [`ASK_AGAIN`].
const SILENCE: Duration = Duration::from_secs(15);
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// A connection whose bytes nobody acknowledges for so long is over: its machine is gone.
const UNHEARD: Duration = Duration::from_secs(20);

/// Takes connections for ever.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(forward(client, shared.clone()));
            }
            Err(error) => {
                tracing::warn!("no connection can be taken: {error}");
                sleep(BREATH).await;
            }
        }
    }
}

async fn forward(mut client: TcpStream, shared: Arc<Shared>) {
    let Some(mut server) = connect(&shared).await else {
        tracing::debug!("no API server takes a connection");
        return;
    };
    let _ = client.set_nodelay(true);
    // Both ends tell their own stories; how it ended is of no interest here.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

/// A connection to the best server that accepts: each is given a moment before the next is asked as well.
async fn connect(shared: &Shared) -> Option<TcpStream> {
    let mut waiting = shared.pool().choose().into_iter();
    let mut asked = FuturesUnordered::new();
    let mut ask = |asked: &mut FuturesUnordered<_>| waiting.next().map(|place| asked.push(attempt(place))).is_some();
    let mut more = ask(&mut asked);
    while !asked.is_empty() {
        let next = sleep(NEXT);
        tokio::select! {
            Some((place, result)) = asked.next() => match result {
                Ok(stream) => {
                    shared.alive(&place);
                    return Some(stream);
                }
                Err(error) => {
                    shared.note(&place, Health::Dead, &error.to_string());
                    more = more && ask(&mut asked);
                }
            },
            () = next, if more => more = ask(&mut asked),
        }
    }
    None
}

async fn attempt(place: Place) -> (Place, io::Result<TcpStream>) {
    let stream = dial(&place).await;
    if let Ok(stream) = &stream {
        watch(stream);
    }
    (place, stream)
}

/// Has the kernel notice when the machine at the other end is gone: the client then asks anew, and is led elsewhere. That this
/// is not possible is no reason not to forward.
fn watch(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let _ = stream.set_nodelay(true);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENCE).with_interval(ASK_AGAIN).with_retries(3));
    let _ = socket.set_tcp_user_timeout(Some(UNHEARD));
}
