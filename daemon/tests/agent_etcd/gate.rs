//! A way to etcd on which calls can be refused by their name, for faults that etcd itself has no switch for.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};

use crate::etcd::Etcd;

/// What the gate has seen and what it is to refuse.
#[derive(Default)]
struct Calls {
    refused: Option<&'static str>,
    seen: BTreeSet<String>,
}

/// The gate.
pub(crate) struct Gate {
    /// Where clients come in.
    pub(crate) url: String,
    calls: Arc<Mutex<Calls>>,
}

impl Gate {
    /// An open gate before a server.
    pub(crate) async fn before(etcd: &Etcd) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::<Mutex<Calls>>::default();
        let (shared, far) = (Arc::clone(&calls), SocketAddr::from(([127, 0, 0, 1], etcd.port())));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                // A connection that breaks is its two ends' business.
                tokio::spawn(serve(near, far, Arc::clone(&shared)));
            }
        });
        Self { url, calls }
    }

    /// From now on refuses calls whose path begins so; all pass if it is `None`.
    pub(crate) fn refuse(&self, path: Option<&'static str>) {
        self.calls.lock().unwrap().refused = path;
    }

    /// The paths that were called.
    pub(crate) fn seen(&self) -> BTreeSet<String> {
        self.calls.lock().unwrap().seen.clone()
    }
}

async fn serve(near: TcpStream, far: SocketAddr, calls: Arc<Mutex<Calls>>) -> Result<(), h2::Error> {
    let mut server = h2::server::handshake(near).await?;
    let Ok(stream) = TcpStream::connect(far).await else { return Ok(()) };
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    while let Some(call) = server.accept().await {
        let (request, respond) = call?;
        let path = request.uri().path().to_owned();
        let is_refused = {
            let mut calls = calls.lock().unwrap();
            let is_refused = calls.refused.is_some_and(|refused| path.starts_with(refused));
            calls.seen.insert(path);
            is_refused
        };
        if is_refused {
            refuse(respond)?;
        } else {
            tokio::spawn(forward(request, respond, client.clone()));
        }
    }
    Ok(())
}

/// gRPC's UNAVAILABLE, in an answer without a body.
fn refuse(mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let answer = Response::builder().header("content-type", "application/grpc").header("grpc-status", "14");
    let answer = answer.header("grpc-message", "refused by the test").body(()).unwrap();
    respond.send_response(answer, true).map(drop)
}

async fn forward(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    client: SendRequest<Bytes>,
) -> Result<(), h2::Error> {
    let (head, body) = request.into_parts();
    let (answer, up) = client.ready().await?.send_request(Request::from_parts(head, ()), false)?;
    tokio::spawn(pump(body, up));
    let (head, body) = answer.await?.into_parts();
    pump(body, respond.send_response(Response::from_parts(head, ()), false)?).await
}

async fn pump(mut from: RecvStream, mut to: SendStream<Bytes>) -> Result<(), h2::Error> {
    while let Some(data) = from.data().await {
        let data = data?;
        from.flow_control().release_capacity(data.len())?;
        to.send_data(data, false)?;
    }
    match from.trailers().await? {
        Some(trailers) => to.send_trailers(trailers),
        None => to.send_data(Bytes::new(), true),
    }
}
