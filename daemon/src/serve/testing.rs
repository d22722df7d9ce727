//! A machine of its own for a server, and a client that hides nothing of the answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_netlink::netns::NetNs;
use weft_netlink::{LinkChange, RouteSocket};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs a test in a network namespace of its own, in which `lo` is up. Needs root.
pub(crate) fn on_own_loopback<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    let namespace = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
        NetNs::current().unwrap()
    });
    let namespace = namespace.join().unwrap();
    let work = || {
        let up = vec![LinkChange::new(1).up().request()];
        assert!(RouteSocket::open().unwrap().run(up).unwrap().iter().all(Result::is_ok));
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    };
    namespace.run(work).unwrap();
}

/// An answer: status, headers as they came, body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn has(&self, header: &str) -> bool {
        self.headers.iter().any(|found| found.eq_ignore_ascii_case(header))
    }
}

/// `GET path`; `None` if nobody listens.
pub(crate) async fn try_get(server: SocketAddr, path: &str) -> Option<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        Some(Answer { status, headers: lines.map(str::to_owned).collect(), body: body.to_owned() })
    };
    tokio::time::timeout(LIMIT, exchange).await.expect("an answer in time")
}

/// `GET path`, once somebody listens.
pub(crate) async fn get(server: SocketAddr, path: &str) -> Answer {
    let mut answer = None;
    until(async || {
        answer = try_get(server, path).await;
        answer.is_some()
    })
    .await;
    answer.unwrap()
}

/// Waits for a condition.
pub(crate) async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("the condition in time");
}
