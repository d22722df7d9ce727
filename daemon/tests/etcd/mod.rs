//! A real etcd for one test: its own port and directory, gone when dropped.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::Client;
use tokio::io::copy_bidirectional;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use weft::cluster::etcd::{EtcdOptions, connect};

/// Longest time that anything in these tests may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A server process.
pub(crate) struct Etcd {
    directory: tempfile::TempDir,
    client_url: String,
    peer_url: String,
    process: Option<Child>,
}

impl Etcd {
    /// Starts a server with no data, and waits until it answers.
    pub(crate) async fn start() -> Self {
        let mut etcd = Self {
            directory: tempfile::tempdir().unwrap(),
            client_url: format!("http://127.0.0.1:{}", free_port()),
            peer_url: format!("http://127.0.0.1:{}", free_port()),
            process: None,
        };
        etcd.resume().await;
        etcd
    }

    /// Starts the server with the data that it had.
    pub(crate) async fn resume(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "a test starts the real server")]
        let mut command = Command::new("etcd");
        command
            .args(["--name", "test", "--logger", "zap", "--log-level", "fatal"])
            .arg("--data-dir")
            .arg(self.directory.path().join("data"))
            .args(["--listen-client-urls", &self.client_url, "--advertise-client-urls", &self.client_url])
            .args(["--listen-peer-urls", &self.peer_url, "--initial-advertise-peer-urls", &self.peer_url])
            .args(["--initial-cluster", &format!("test={}", self.peer_url)])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.process = Some(command.spawn().expect("etcd is installed (Debian: etcd-server)"));
        let deadline = Instant::now() + LIMIT;
        while self.client().await.get("up", None).await.is_err() {
            assert!(Instant::now() < deadline, "etcd does not answer");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills the server.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Kills the server, throws its data away and starts it again.
    pub(crate) async fn wipe(&mut self) {
        self.stop();
        std::fs::remove_dir_all(self.directory.path().join("data")).unwrap();
        self.resume().await;
    }

    /// Keeps a copy of the data as it is now, for [`put_back`](Self::put_back).
    pub(crate) async fn keep_a_copy(&mut self) {
        self.stop();
        self.copy("data", "copy");
        self.resume().await;
    }

    /// Kills the server and starts it with the data of the copy, as after a restore of a backup.
    pub(crate) async fn put_back(&mut self) {
        self.stop();
        std::fs::remove_dir_all(self.directory.path().join("data")).unwrap();
        self.copy("copy", "data");
        self.resume().await;
    }

    fn copy(&self, from: &str, to: &str) {
        let path = |name: &str| self.directory.path().join(name).to_str().unwrap().to_owned();
        weft_tests::tool::call("cp", &["--archive", &path(from), &path(to)]).unwrap();
    }

    /// A client straight to the server.
    pub(crate) async fn client(&self) -> Client {
        client_of(&self.client_url).await
    }

    /// The port that the server listens on.
    pub(crate) fn port(&self) -> u16 {
        self.client_url.rsplit(':').next().unwrap().parse().unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A client as the agent makes it.
pub(crate) async fn client_of(url: &str) -> Client {
    connect(&EtcdOptions { endpoints: vec![url.to_owned()], ..EtcdOptions::default() }).await.unwrap()
}

/// A wire to the server that can be cut: while it is, connections end and no new ones are made.
pub(crate) struct Wire {
    url: String,
    whole: watch::Sender<bool>,
}

impl Wire {
    /// A wire to the server.
    pub(crate) async fn to(etcd: &Etcd) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let whole = watch::Sender::new(true);
        let (states, port) = (whole.subscribe(), etcd.port());
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut state = states.clone();
                tokio::spawn(async move {
                    if !*state.borrow() {
                        return Ok(());
                    }
                    let mut far = tokio::net::TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
                    tokio::select! {
                        copied = copy_bidirectional(&mut near, &mut far) => copied.map(drop),
                        _ = state.wait_for(|whole| !whole) => io::Result::Ok(()),
                    }
                });
            }
        });
        Self { url, whole }
    }

    /// A client over the wire.
    pub(crate) async fn client(&self) -> Client {
        client_of(&self.url).await
    }

    /// Cuts the wire.
    pub(crate) fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Mends it.
    pub(crate) fn mend(&self) {
        self.whole.send_replace(true);
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
