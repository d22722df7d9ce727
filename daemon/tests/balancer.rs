//! The node-local balancer of the API: real connections through it, to servers that come, go, fall silent and are not ready.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[macro_use]
#[allow(dead_code, unused_macros, reason = "these tests take less of it than others do")]
mod control_plane;
#[allow(dead_code, reason = "these tests take less of it than others do")]
mod etcd;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use control_plane::authority::{Authority, Issued};
use control_plane::{ControlPlane, until};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};
use weft::balancer::{Options, StandIn, run};
use weft::bootstrap::kubeconfig::Kubeconfig;
use weft::bootstrap::resolved::Paths;
use weft::bootstrap::stable_name;
use weft::bootstrap::static_pods::{Helper, HelperFacts, helper_pod};
use weft_tests::skip;

/// What a client may have to wait for a new connection, and the answer on it.
const AT_ONCE: Duration = Duration::from_secs(1);

/// An API server as a balancer sees one: TLS, `/readyz`, the EndpointSlice, and `/id`. All that it has ends with it.
struct Fake {
    address: SocketAddr,
    ready: Arc<AtomicBool>,
    slice: Arc<Mutex<Value>>,
    task: JoinHandle<()>,
}

impl Fake {
    async fn start(id: &'static str, issued: &Issued) -> Self {
        let certificate = CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ready, slice) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Value::Null)));
        let (told, known) = (ready.clone(), slice.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, told, known) = (acceptor.clone(), told.clone(), known.clone());
                connections.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    while let Some(path) = request(&mut stream).await {
                        let (status, body) = match path.as_str() {
                            "/readyz" if told.load(Ordering::SeqCst) => ("200 OK", "ok".to_owned()),
                            "/readyz" => ("500 Internal Server Error", "not yet".to_owned()),
                            "/id" => ("200 OK", id.to_owned()),
                            _ => ("200 OK", known.lock().unwrap().to_string()),
                        };
                        let length = body.len();
                        let answer = format!(
                            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                        );
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, ready, slice, task }
    }

    /// Ends it with all of its connections, as a process that is killed.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// The path of the next request; `None` when there is none any more.
async fn request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).ok()?.split(' ').nth(1)?.to_owned())
}

/// A balancer and who asks through it. It ends with the runtime of its test.
struct Bench {
    authority: Authority,
    directory: tempfile::TempDir,
    listen: SocketAddr,
    connector: TlsConnector,
    task: Option<JoinHandle<()>>,
}

impl Bench {
    fn new() -> Self {
        let authority = Authority::new("kubernetes");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.crt"), authority.pem()).unwrap();
        let node = authority.client("system:node:n1", Some("system:nodes"));
        fs::write(directory.path().join("node.pem"), node.cert + &node.key).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], etcd::free_port()));
        Self { authority, directory, listen, connector, task: None }
    }

    async fn server(&self, id: &'static str) -> Fake {
        Fake::start(id, &self.authority.server(&["kubernetes", "api.weft.internal"])).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn lists(&self, name: &str, servers: &[SocketAddr]) {
        fs::write(self.path(name), servers.iter().map(|address| format!("{address}\n")).collect::<String>()).unwrap();
    }

    /// Starts it anew, as after a reboot.
    async fn run(&mut self, learns: bool) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
        let options = Options {
            listen: vec![self.listen],
            state: self.directory.path().to_owned(),
            authority: Some(self.path("ca.crt")),
            certificate: learns.then(|| self.path("node.pem")),
            every: Duration::from_millis(200),
        };
        self.task = Some(tokio::spawn(async move {
            let error = run(options).await.unwrap_err();
            panic!("{error}");
        }));
        until("the balancer to listen", async || TcpStream::connect(self.listen).await.ok()).await;
    }

    async fn connect(&self) -> std::io::Result<client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.listen).await?;
        self.connector.connect(ServerName::try_from("api.weft.internal").unwrap(), stream).await
    }

    /// Who answers a new connection, by the stable name, and at once.
    async fn ask(&self) -> String {
        let began = Instant::now();
        let asked = timeout(AT_ONCE, async { id(&mut self.connect().await?).await }).await;
        let answer = asked.unwrap_or_else(|_| panic!("no answer within {AT_ONCE:?}"));
        answer.unwrap_or_else(|error| panic!("a connection was lost after {:?}: {error}", began.elapsed()))
    }

    /// Asks until a certain one answers, and keeps that connection.
    async fn held(&self, wanted: &str) -> client::TlsStream<TcpStream> {
        until("one of the servers", async || {
            let mut stream = self.connect().await.ok()?;
            (id(&mut stream).await.ok()? == wanted).then_some(stream)
        })
        .await
    }

    /// Waits until these answer, and nobody else for a while.
    async fn settles(&self, wanted: &[&str]) {
        let wanted: BTreeSet<String> = wanted.iter().map(|id| (*id).to_owned()).collect();
        until("the servers to be used", async || {
            let mut seen = BTreeSet::new();
            for _ in 0..12 {
                seen.insert(id(&mut self.connect().await.ok()?).await.ok()?);
            }
            (seen == wanted).then_some(())
        })
        .await;
    }
}

/// Who is at the other end of a connection.
async fn id(stream: &mut client::TlsStream<TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"GET /id HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let mut body = [0; 1];
    stream.read_exact(&mut body).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

fn slice(servers: &[&Fake]) -> Value {
    // All of a cluster's servers listen on one port; here each has its own, and its own slice would do: the last one counts.
    let endpoints: Vec<Value> = servers.iter().map(|it| json!({"addresses": [it.address.ip()]})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "endpoints": endpoints, "ports": [{"name": "https", "port": servers.last().unwrap().address.port()}],
    })
}

fn known(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn p0_18_one_of_three_servers_is_killed_and_nobody_waits_for_it() {
    control_plane::runtime().block_on(async {
        let mut bench = Bench::new();
        let (a, b, c) = (bench.server("a").await, bench.server("b").await, bench.server("c").await);
        bench.lists("start", &[a.address, b.address, c.address]);
        bench.run(false).await;
        bench.settles(&["a", "b", "c"]).await;
        let mut held = bench.held("a").await;
        b.kill().await;
        let mut seen = BTreeSet::new();
        for _ in 0..60 {
            seen.insert(bench.ask().await);
        }
        assert_eq!(seen, BTreeSet::from(["a".to_owned(), "c".to_owned()]));
        assert_eq!(id(&mut held).await.unwrap(), "a", "a connection that was open stays");
        // The last one that lives takes all.
        c.kill().await;
        for _ in 0..20 {
            assert_eq!(bench.ask().await, "a");
        }
    });
}

#[test]
fn p0_18_a_server_that_has_fallen_silent_costs_no_client_a_second() {
    control_plane::runtime().block_on(async {
        let mut bench = Bench::new();
        let a = bench.server("a").await;
        // Its queue is full and nobody accepts: what comes is dropped, as by a machine that is gone.
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        silent.listen(0).unwrap();
        let address = silent.local_addr().unwrap().as_socket().unwrap();
        let mut full = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            full.push(stream);
        }
        bench.lists("start", &[address, a.address]);
        bench.run(false).await;
        for _ in 0..20 {
            assert_eq!(bench.ask().await, "a");
        }
    });
}

#[test]
fn p0_18_a_server_that_is_not_ready_gets_nothing_new() {
    control_plane::runtime().block_on(async {
        let mut bench = Bench::new();
        let (a, b) = (bench.server("a").await, bench.server("b").await);
        bench.lists("start", &[a.address, b.address]);
        a.ready.store(false, Ordering::SeqCst);
        bench.run(false).await;
        bench.settles(&["b"]).await;
        a.ready.store(true, Ordering::SeqCst);
        bench.settles(&["a", "b"]).await;
        // When none is, one that starts is better than nobody.
        a.ready.store(false, Ordering::SeqCst);
        b.kill().await;
        bench.settles(&["a"]).await;
    });
}

#[test]
fn p0_18_the_list_follows_the_cluster_and_open_connections_stay() {
    control_plane::runtime().block_on(async {
        let mut bench = Bench::new();
        let (a, b) = (bench.server("a").await, bench.server("b").await);
        *a.slice.lock().unwrap() = slice(&[&a]);
        *b.slice.lock().unwrap() = slice(&[&b]);
        bench.lists("start", &[a.address]);
        bench.run(true).await;
        bench.settles(&["a"]).await;
        let mut held = bench.held("a").await;
        // A second control plane takes the first one's place.
        *a.slice.lock().unwrap() = slice(&[&b]);
        bench.settles(&["b"]).await;
        let list = bench.path("known");
        until("the list on disk", async || (known(&list) == format!("{}\n", b.address)).then_some(())).await;
        assert_eq!(id(&mut held).await.unwrap(), "a", "it is in the list no more, and its connection stays");
        // The node starts again after the server that it joined by is gone for good.
        a.kill().await;
        bench.run(true).await;
        for _ in 0..10 {
            assert_eq!(bench.ask().await, "b");
        }
        // An answer that names nobody teaches nothing.
        *b.slice.lock().unwrap() = json!({"endpoints": [], "ports": []});
        bench.settles(&["b"]).await;
        assert_eq!(known(&list), format!("{}\n", b.address));
    });
}

#[test]
fn p0_18_a_stand_in_hands_over_without_a_gap() {
    control_plane::runtime().block_on(async {
        let mut bench = Bench::new();
        let a = bench.server("a").await;
        bench.lists("start", &[a.address]);
        let stand_in = StandIn::begin(&[bench.listen], bench.directory.path()).unwrap();
        let mut held = bench.connect().await.unwrap();
        assert_eq!(id(&mut held).await.unwrap(), "a");
        // The node's own, on the same port; `run` comes back as soon as anybody accepts.
        bench.run(false).await;
        bench.settles(&["a"]).await;
        stand_in.end().await;
        for _ in 0..50 {
            assert_eq!(bench.ask().await, "a");
        }
        assert_eq!(id(&mut held).await.unwrap(), "a", "a connection that was open stays");

        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = StandIn::begin(&[taken.local_addr().unwrap()], bench.directory.path()).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse, "{refused}");
    });
}

#[test]
fn a_balancer_that_can_do_nothing_says_why() {
    control_plane::runtime().block_on(async {
        let bench = Bench::new();
        let options = Options {
            listen: vec![bench.listen],
            state: bench.directory.path().to_owned(),
            authority: None,
            certificate: None,
            every: Duration::from_secs(10),
        };
        let error = run(options.clone()).await.unwrap_err().to_string();
        assert!(error.contains("start") && error.contains("HOST:PORT"), "{error}");
        bench.lists("start", &[bench.listen]);
        fs::write(bench.path("empty.crt"), "").unwrap();
        let error = run(Options { authority: Some(bench.path("empty.crt")), ..options }).await.unwrap_err().to_string();
        assert!(error.contains("empty.crt") && error.contains("no certificate"), "{error}");
    });
}

/// A node's own certificate, the Role that init makes, and a server that a real kube-apiserver names.
#[test]
fn p0_18_a_node_learns_from_a_real_api_server_what_servers_there_are() {
    let runtime = control_plane::runtime();
    let Some(plane) = runtime.block_on(ControlPlane::start()) else {
        skip!("WEFT_PEERS names no folder with kube-apiserver and kube-controller-manager");
    };
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let node = plane.authority.client("system:node:n1", Some("system:nodes"));
        fs::write(directory.path().join("node.pem"), node.cert + &node.key).unwrap();
        fs::write(directory.path().join("start"), format!("{}\n", plane.address)).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], etcd::free_port()));
        let options = Options {
            listen: vec![listen],
            state: directory.path().to_owned(),
            authority: Some(plane.paths.pki.join("ca.crt")),
            certificate: Some(directory.path().join("node.pem")),
            every: Duration::from_millis(200),
        };
        tokio::spawn(async move { panic!("{}", run(options).await.unwrap_err()) });
        weft::bootstrap::api::publish_cluster_info(&plane.server().await, &plane.info()).await.unwrap();
        let body = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "kubernetes", "namespace": "default"},
            "endpoints": [{"addresses": ["192.0.2.11"]}, {"addresses": ["192.0.2.10"]}],
            "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
        });
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        plane.ask("POST", slices, Some(&body)).await.unwrap();
        let list = directory.path().join("known");
        until("the list on disk", async || (known(&list) == "192.0.2.10:6443\n192.0.2.11:6443\n").then_some(())).await;
        // Neither of the two is there, and the one that the node was told at first is a last resort.
        let user = plane.authority.client("system:node:n1", Some("system:nodes"));
        let path = plane.kubeconfig("through.conf", &user);
        // As kubelet.conf has it on a node that has joined.
        let mut config = Kubeconfig::load(&path).unwrap().unwrap();
        config.set_server(&format!("https://{listen}"), Some(stable_name::NAME));
        fs::write(&path, config.render().expose()).unwrap();
        let client = plane.client(&path).await;
        until("an answer through the balancer", async || {
            control_plane::ask(&client, "GET", &format!("{slices}/kubernetes"), None).await.ok()
        })
        .await;
        let others = control_plane::ask(&client, "GET", slices, None).await;
        assert_eq!(others.unwrap_err(), 403, "that one object, and no other");
        helpers_are_pods(&plane).await;
    });
}

/// A real API server takes weft's static pods for what they are meant to be: no field is unknown, and none is wrong.
async fn helpers_are_pods(plane: &ControlPlane) {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    // The controller manager may have been first.
    let _ = plane.ask("POST", "/api/v1/namespaces/kube-system/serviceaccounts", Some(&account)).await;
    let listen = ["127.0.0.1:7443", "[::1]:7443"].map(|address| address.parse().unwrap());
    let paths = Paths::under("/");
    let facts = HelperFacts { image: "localhost/weft:1", paths: &paths, listen: &listen };
    for helper in [Helper::Balancer, Helper::CertRenewal] {
        let path = "/api/v1/namespaces/kube-system/pods?dryRun=All&fieldValidation=Strict";
        let mut pod = helper_pod(helper, &facts);
        // What only the API's own pods can have: without it the ServiceAccount's token would be mounted.
        pod["spec"]["automountServiceAccountToken"] = json!(false);
        let made = plane.ask("POST", path, Some(&pod)).await;
        assert_eq!(made.unwrap()["spec"]["hostNetwork"], true, "{}", helper.name());
    }
}
