//! As much of a Kubernetes API server as kube-proxy asks for: lists, watches, and events that nobody reads.
//!
//! HTTP/1.1 and JSON without TLS. Objects that have changed are told to every watch in the order of their versions.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use weft_tests::netns::Netns;

/// How long a watch waits before it looks whether its client is still there.
const BREATH: Duration = Duration::from_secs(1);

/// A kind of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Service,
    EndpointSlice,
    Node,
    ServiceCidr,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Service, Self::EndpointSlice, Self::Node, Self::ServiceCidr];

    /// `apiVersion`, name, path.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Service => ("v1", "Service", "/api/v1/services"),
            Self::EndpointSlice => ("discovery.k8s.io/v1", "EndpointSlice", "/apis/discovery.k8s.io/v1/endpointslices"),
            Self::Node => ("v1", "Node", "/api/v1/nodes"),
            Self::ServiceCidr => ("networking.k8s.io/v1", "ServiceCIDR", "/apis/networking.k8s.io/v1/servicecidrs"),
        }
    }
}

/// The server. It answers for as long as the process lives.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    shared: Arc<Shared>,
    address: SocketAddr,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// By kind and name, as JSON.
    objects: BTreeMap<(Kind, String), String>,
    /// What has changed since the start, each with its version: the line that watches are told.
    log: Vec<(u64, Kind, String)>,
}

impl Api {
    /// Starts it on the loopback address of a namespace.
    pub(crate) fn start(netns: &Netns) -> Result<Self> {
        let listener = netns.run(|| TcpListener::bind("127.0.0.1:0"))?.context("cannot listen for kube-proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&server);
                // A connection ends when its client does; why is nobody's business.
                std::thread::spawn(move || drop(shared.serve(&stream)));
            }
        });
        Ok(Self { shared, address })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The version that the next object gets.
    pub(crate) fn next_version(&self) -> u64 {
        self.shared.lock().version + 1
    }

    /// Puts an object, and tells all watches.
    pub(crate) fn put(&self, kind: Kind, name: &str, object: &Value) {
        let text = object.to_string();
        let mut state = self.shared.lock();
        state.version += 1;
        let version = state.version;
        let known = state.objects.insert((kind, name.to_owned()), text.clone()).is_some();
        let change = if known { "MODIFIED" } else { "ADDED" };
        state.log.push((version, kind, format!("{{\"type\":\"{change}\",\"object\":{text}}}\n")));
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the requests of a connection, one after the other.
    fn serve(&self, stream: &TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        while let Some(request) = Request::read(&mut reader)? {
            let kind = Kind::ALL.into_iter().find(|kind| request.path == kind.names().2);
            match kind {
                Some(kind) if request.has("watch", "true") || request.has("watch", "1") => {
                    return self.watch(stream, kind, &request);
                }
                Some(kind) => answer(stream, 200, &self.list(kind))?,
                // Events: taken, and forgotten.
                None if request.method == "POST" || request.method == "PATCH" => answer(stream, 201, &request.body)?,
                None => match self.single(&request.path) {
                    Some(object) => answer(stream, 200, &object)?,
                    None => answer(stream, 404, NOT_FOUND)?,
                },
            }
        }
        Ok(())
    }

    fn list(&self, kind: Kind) -> String {
        let state = self.lock();
        let (api, name, _) = kind.names();
        let mut text = format!(
            "{{\"apiVersion\":\"{api}\",\"kind\":\"{name}List\",\"metadata\":{{\"resourceVersion\":\"{}\"}},\"items\":[",
            state.version
        );
        for (i, (_, object)) in state.objects.iter().filter(|((of, _), _)| *of == kind).enumerate() {
            text.push_str(if i == 0 { "" } else { "," });
            text.push_str(object);
        }
        text.push_str("]}");
        text
    }

    /// An object that is not in a namespace, by the path of its kind and its name.
    fn single(&self, path: &str) -> Option<String> {
        let (parent, name) = path.rsplit_once('/')?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.names().2 == parent)?;
        self.lock().objects.get(&(kind, name.to_owned())).cloned()
    }

    /// Tells changes until the client goes. The first of them may be all objects (`sendInitialEvents`).
    fn watch(&self, mut stream: &TcpStream, kind: Kind, request: &Request) -> Result<()> {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let mut from: u64 = request.value("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or_default();
        if request.has("sendInitialEvents", "true") {
            let (text, version) = self.initial_events(kind);
            chunk(stream, &text)?;
            from = version;
        }
        loop {
            let mut state = self.lock();
            if state.version == from {
                state = self.changed.wait_timeout(state, BREATH).unwrap_or_else(PoisonError::into_inner).0;
            }
            let first = state.log.partition_point(|(version, _, _)| *version <= from);
            let news = state.log.iter().skip(first).filter(|(_, of, _)| *of == kind);
            let text: String = news.map(|(_, _, line)| line.as_str()).collect();
            from = state.version;
            drop(state);
            if !text.is_empty() {
                chunk(stream, &text)?;
            }
        }
    }

    fn initial_events(&self, kind: Kind) -> (String, u64) {
        let state = self.lock();
        let mut text = String::new();
        for (_, object) in state.objects.iter().filter(|((of, _), _)| *of == kind) {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{{\"type\":\"ADDED\",\"object\":{object}}}");
        }
        let (api, name, _) = kind.names();
        let bookmark = json!({"type": "BOOKMARK", "object": {
            "apiVersion": api, "kind": name, "metadata": {
                "resourceVersion": state.version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"},
            },
        }});
        let _ = writeln!(text, "{bookmark}");
        (text, state.version)
    }
}

const NOT_FOUND: &str = r#"{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"NotFound","code":404}"#;

fn answer(mut stream: &TcpStream, status: u16, body: &str) -> Result<()> {
    let head = format!(
        "HTTP/1.1 {status} As said\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    Ok(stream.write_all(body.as_bytes())?)
}

/// One piece of a stream (RFC 9112 section 7.1).
fn chunk(mut stream: &TcpStream, text: &str) -> Result<()> {
    Ok(stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())?)
}

#[derive(Debug)]
struct Request {
    method: String,
    path: String,
    query: String,
    body: String,
}

impl Request {
    /// The next one; `None` at the end of the connection.
    fn read(reader: &mut impl BufRead) -> Result<Option<Self>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            match header.trim_end().split_once(':') {
                None => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
                Some(_) => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Some(Self { method, path, query, body: String::from_utf8_lossy(&body).into_owned() }))
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.value(name) == Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use weft_tests::netns::OwnedNetns;
    use weft_tests::scratch::unique_name;

    use super::*;

    #[test]
    fn a_request_is_read_with_its_body() {
        let mut bytes: &[u8] = b"POST /x?watch=true&a=b HTTP/1.1\r\ncontent-length: 2\r\n\r\nokGET / HTTP/1.1\r\n\r\n";
        let first = Request::read(&mut bytes).unwrap().unwrap();
        assert_eq!((first.path.as_str(), first.body.as_str()), ("/x", "ok"));
        assert!(first.has("watch", "true") && !first.has("a", "c"));
        assert_eq!(Request::read(&mut bytes).unwrap().unwrap().method, "GET");
        assert!(Request::read(&mut bytes).unwrap().is_none());
    }

    #[test]
    fn what_is_put_is_listed_and_told() {
        let netns = OwnedNetns::new(unique_name());
        let api = Api::start(&netns).unwrap();
        api.put(Kind::Node, "n", &json!({"metadata": {"name": "n"}}));
        let mut watch = netns.run(|| TcpStream::connect(api.address())).unwrap().unwrap();
        watch.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        watch.write_all(b"GET /api/v1/nodes?watch=true&resourceVersion=1 HTTP/1.1\r\n\r\n").unwrap();
        api.put(Kind::Service, "s", &json!({}));
        api.put(Kind::Node, "n", &json!({"metadata": {"name": "n", "uid": "new"}}));
        let mut lines = BufReader::new(watch).lines().map_while(Result::ok);
        let told = lines.find(|line| line.contains("type")).unwrap();
        assert!(told.contains("MODIFIED") && told.contains("new"), "{told}");
        assert_eq!(api.next_version(), 4);

        let ask = |path: &str| {
            let mut stream = netns.run(|| TcpStream::connect(api.address())).unwrap().unwrap();
            stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        let list = ask("/api/v1/nodes");
        let list: Value = serde_json::from_str(list.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((&list["kind"], &list["items"][0]["metadata"]["uid"]), (&json!("NodeList"), &json!("new")));
        assert!(ask("/api/v1/nodes/other").contains("404"));
    }
}
