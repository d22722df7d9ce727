//! A real etcd for one test: its own port and directory, gone when dropped.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::{Client, Permission, PermissionType};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::copy_bidirectional;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use weft::cluster::etcd::{EtcdOptions, Store};

/// Longest time that anything in these tests may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A server process.
pub(crate) struct Etcd {
    directory: tempfile::TempDir,
    /// How a client reaches it that may do everything.
    pub(crate) options: EtcdOptions,
    name: String,
    peer_url: String,
    /// All members, as etcd takes them.
    members: String,
    /// Further arguments of the server.
    args: Vec<String>,
    process: Option<Child>,
}

impl Etcd {
    /// Starts a server with no data, and waits until it answers.
    pub(crate) async fn start() -> Self {
        let mut etcd = Self::new("http", "test");
        etcd.resume().await;
        etcd
    }

    /// Starts a server that speaks TLS, with these arguments; whoever has its certificates can ask whether it answers.
    pub(crate) async fn start_with_tls(args: &[&str]) -> Self {
        let mut etcd = Self::new("https", "test");
        etcd.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        etcd.spawn();
        let deadline = Instant::now() + LIMIT;
        while tokio::net::TcpStream::connect(("127.0.0.1", etcd.port())).await.is_err() {
            assert!(Instant::now() < deadline, "etcd does not listen");
            sleep(Duration::from_millis(50)).await;
        }
        etcd
    }

    /// Has the server ask for users from now on: these, with their passwords and whether they may write flannel's keys,
    /// and root, as whom the tests go on.
    pub(crate) async fn ask_for_users(&mut self, users: &[(&str, &str, bool)]) {
        let mut client = self.client().await;
        client.role_add("root").await.unwrap();
        client.role_add("network").await.unwrap();
        let keys = Permission::new(PermissionType::Readwrite, "/coreos.com/network/").with_prefix();
        client.role_grant_permission("network", keys).await.unwrap();
        for (name, password, may_write) in users {
            client.user_add(*name, *password, None).await.unwrap();
            if *may_write {
                client.user_grant_role(*name, "network").await.unwrap();
            }
        }
        client.user_add("root", "root", None).await.unwrap();
        client.user_grant_role("root", "root").await.unwrap();
        client.auth_enable().await.unwrap();
        self.options.user = Some(("root".to_owned(), "root".to_owned()));
    }

    /// Starts a cluster of so many members, each of which is reached by itself.
    pub(crate) async fn start_members(count: usize) -> Vec<Self> {
        let mut all: Vec<Self> = (1..=count).map(|n| Self::new("http", &format!("m{n}"))).collect();
        let members: Vec<String> = all.iter().map(|etcd| etcd.members.clone()).collect();
        for etcd in &mut all {
            etcd.members = members.join(",");
            etcd.spawn();
        }
        for etcd in &all {
            etcd.answers().await;
        }
        all
    }

    fn new(scheme: &str, name: &str) -> Self {
        let peer_url = format!("http://127.0.0.1:{}", free_port());
        Self {
            directory: tempfile::tempdir().unwrap(),
            options: EtcdOptions {
                endpoints: vec![format!("{scheme}://127.0.0.1:{}", free_port())],
                ..EtcdOptions::default()
            },
            name: name.to_owned(),
            members: format!("{name}={peer_url}"),
            peer_url,
            args: Vec::new(),
            process: None,
        }
    }

    /// Starts the server with the data that it had.
    pub(crate) async fn resume(&mut self) {
        self.spawn();
        self.answers().await;
    }

    /// Starts the server without waiting for it: a member that has no majority does not answer.
    pub(crate) fn spawn(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "a test starts the real server")]
        let mut command = Command::new("etcd");
        let url = &self.options.endpoints[0];
        command
            .args(["--name", &self.name, "--logger", "zap", "--log-level", "fatal"])
            // A password is to be taken at once, also on a busy machine.
            .args(["--bcrypt-cost", "4"])
            .arg("--data-dir")
            .arg(self.directory.path().join("data"))
            .args(["--listen-client-urls", url, "--advertise-client-urls", url])
            .args(["--listen-peer-urls", &self.peer_url, "--initial-advertise-peer-urls", &self.peer_url])
            .args(["--initial-cluster", &self.members])
            .args(&self.args)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.process = Some(command.spawn().expect("etcd is installed (Debian: etcd-server)"));
    }

    /// Waits until the server answers.
    pub(crate) async fn answers(&self) {
        self.client().await;
    }

    /// Lets the server stand still: its connections stay, and nobody answers.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill(Pid::from_raw(process.id().try_into().unwrap()), signal).unwrap();
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

    /// A client straight to the server, which answers; to take a user may take a busy one long.
    pub(crate) async fn client(&self) -> Client {
        let deadline = Instant::now() + LIMIT;
        loop {
            let answer = match self.store().client().await {
                Ok(mut client) => match client.get("up", None).await {
                    Ok(_) => return client,
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            assert!(Instant::now() < deadline, "etcd does not answer: {answer}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The server, as the agent reaches it.
    pub(crate) fn store(&self) -> Store {
        Store::new(self.options.clone())
    }

    /// The port that the server listens on.
    pub(crate) fn port(&self) -> u16 {
        self.options.endpoints[0].rsplit(':').next().unwrap().parse().unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A store as the agent has it.
pub(crate) fn store_at(url: &str) -> Store {
    Store::new(EtcdOptions { endpoints: vec![url.to_owned()], ..EtcdOptions::default() })
}

/// A wire to the server that can be cut: while it is, connections end and no new ones are made.
pub(crate) struct Wire {
    pub(crate) url: String,
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

    /// The server at the other end.
    pub(crate) fn store(&self) -> Store {
        store_at(&self.url)
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
