//! A real kube-apiserver for one test, over a real etcd: its own port and directory, gone when dropped.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::Request;
use kube::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use weft::cluster::kube::{Api, KubeOptions, connect};

use crate::etcd::{Etcd, free_port};

/// Starts a server over an etcd of its own, or skips the test aloud if there is no server to be had. The etcd is the caller's, so
/// that it is there as long as the server.
#[allow(unused_macros, reason = "not every test starts one so")]
macro_rules! server {
    ($etcd:ident) => {{
        $etcd = $crate::etcd::Etcd::start().await;
        match $crate::apiserver::ApiServer::start(&$etcd).await {
            Some(server) => server,
            None => weft_tests::skip!("WEFT_PEERS names no folder with a kube-apiserver"),
        }
    }};
}

/// How long the server may take to start, on a busy machine.
const START: Duration = Duration::from_secs(240);

/// A server process.
pub(crate) struct ApiServer {
    binary: PathBuf,
    directory: tempfile::TempDir,
    etcd: String,
    address: SocketAddr,
    /// The folder with the authority and the certificate of a server that is one of several.
    shared: Option<PathBuf>,
    process: Option<Child>,
}

impl ApiServer {
    /// Starts a server over an empty etcd, and waits until it is ready; `None` if there is none in `WEFT_PEERS`.
    pub(crate) async fn start(etcd: &Etcd) -> Option<Self> {
        Self::start_at(etcd, (IpAddr::V4(Ipv4Addr::LOCALHOST), free_port()).into(), None).await
    }

    /// Starts one of several servers, each at its own address and the same port, as in a cluster: it enters itself into
    /// EndpointSlice `default/kubernetes`. Its certificate is in the folder, by its address, beside `ca.crt`.
    #[allow(dead_code, reason = "most tests have one server alone")]
    pub(crate) async fn start_member(etcd: &Etcd, address: SocketAddr, shared: &Path) -> Option<Self> {
        Self::start_at(etcd, address, Some(shared.to_owned())).await
    }

    async fn start_at(etcd: &Etcd, address: SocketAddr, shared: Option<PathBuf>) -> Option<Self> {
        let binary = Self::binary()?;
        let directory = tempfile::tempdir().unwrap();
        let etcd = format!("http://127.0.0.1:{}", etcd.port());
        let mut server = Self { binary, directory, etcd, address, shared, process: None };
        server.prepare();
        server.resume().await;
        Some(server)
    }

    /// The program, if there is one.
    pub(crate) fn binary() -> Option<PathBuf> {
        let binary = PathBuf::from(std::env::var_os("WEFT_PEERS")?).join("kube-apiserver");
        binary.is_file().then_some(binary)
    }

    /// The file with an administrator's credentials.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig").into()
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// The files that a server starts from, and the credentials for a client.
    fn prepare(&self) {
        #[expect(clippy::disallowed_methods, reason = "a test makes a key with the usual tool")]
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-out", &self.path("account.key")])
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("openssl is installed").success());
        // The second is weft's account with a token of no node, which RBAC lets do anything here.
        let tokens = [("secret", "admin"), ("weft", "system:serviceaccount:kube-system:weft")];
        let line = |(token, name)| format!("{token},{name},{name},\"system:masters\"\n");
        // The last may do what RBAC lets it.
        std::fs::write(self.path("tokens"), tokens.map(line).concat() + "reader,reader,reader\n").unwrap();
        let own = || PathBuf::from(self.path("certificates/apiserver.crt"));
        let authority = self.shared.as_ref().map_or_else(own, |shared| shared.join("ca.crt"));
        let kubeconfig = json!({
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{}", self.address), "certificate-authority": authority}}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        });
        std::fs::write(self.kubeconfig(), kubeconfig.to_string()).unwrap();
    }

    /// Starts the server again with all that it had.
    pub(crate) async fn resume(&mut self) {
        let (address, port) = (self.address.ip().to_string(), self.address.port().to_string());
        #[expect(clippy::disallowed_methods, reason = "a test starts the real server")]
        let mut command = Command::new(&self.binary);
        command
            .args(["--etcd-servers", &self.etcd, "--bind-address", &address, "--secure-port", &port])
            .args(["--cert-dir", &self.path("certificates"), "--token-auth-file", &self.path("tokens")])
            .args(["--service-account-key-file", &self.path("account.key")])
            .args(["--service-account-signing-key-file", &self.path("account.key")])
            .args(["--service-account-issuer", "https://kubernetes.default.svc"])
            .args(["--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/16"])
            .arg("--profiling=false")
            // Its log is only of use when it does not start.
            .stderr(std::fs::File::create(self.path("log")).unwrap())
            .stdout(Stdio::null());
        match &self.shared {
            Some(shared) => {
                command.args(["--advertise-address", &address]);
                command.arg("--tls-cert-file").arg(shared.join(format!("{address}.crt")));
                command.arg("--tls-private-key-file").arg(shared.join(format!("{address}.key")));
            }
            None => {
                command.args(["--endpoint-reconciler-type", "none"]);
            }
        }
        self.process = Some(command.spawn().unwrap());
        let deadline = Instant::now() + START;
        while !self.is_ready().await {
            let has_ended = self.process.as_mut().is_none_or(|process| process.try_wait().unwrap().is_some());
            let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(Instant::now() < deadline && !has_ended, "the API server does not start: {}", log());
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn is_ready(&self) -> bool {
        let options = KubeOptions { kubeconfig: Some(self.kubeconfig()), kube_api_server: None };
        // Before it has made its certificate there is nothing to make a client of.
        let Ok(client) = connect(&options).await else { return false };
        for path in ["/readyz", "/api/v1/namespaces/default/services/kubernetes"] {
            let asked = timeout(Duration::from_secs(5), client.request_text(Request::get(path).body(vec![]).unwrap()));
            if !matches!(asked.await, Ok(Ok(_))) {
                return false;
            }
        }
        true
    }

    /// Kills the server.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Tells the server to end, as kubelet does, and waits until it has.
    pub(crate) async fn terminate(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        signal(&process, Signal::SIGTERM);
        let ended = timeout(START, async {
            while process.try_wait().unwrap().is_none() {
                sleep(Duration::from_millis(50)).await;
            }
        });
        if ended.await.is_err() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Lets the server stand still: its connections stay, and nobody answers.
    pub(crate) fn freeze(&self) {
        signal(self.process.as_ref().unwrap(), Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        signal(self.process.as_ref().unwrap(), Signal::SIGCONT);
    }

    /// A client that reads its token from a file.
    pub(crate) async fn client_with_token_in(&self, file: &Path) -> Client {
        let kubeconfig = Some(self.kubeconfig_with_token_in(file));
        connect(&KubeOptions { kubeconfig, kube_api_server: None }).await.unwrap()
    }

    fn kubeconfig_with_token_in(&self, file: &Path) -> PathBuf {
        let mut kubeconfig: Value = serde_json::from_slice(&std::fs::read(self.path("kubeconfig")).unwrap()).unwrap();
        kubeconfig["users"][0]["user"] = json!({"tokenFile": file});
        let path = file.with_extension("kubeconfig");
        std::fs::write(&path, kubeconfig.to_string()).unwrap();
        path
    }

    /// A client as the agent makes it.
    pub(crate) async fn client(&self) -> Client {
        let options = KubeOptions { kubeconfig: Some(self.kubeconfig()), kube_api_server: None };
        connect(&options).await.unwrap()
    }

    /// The same, as the parts of a source take it.
    pub(crate) async fn api(&self) -> Api {
        Api::new(self.client().await)
    }

    /// As weft's account, with a token that names no node.
    pub(crate) async fn api_of_account(&self) -> Api {
        let file = self.directory.path().join("weft.token");
        std::fs::write(&file, "weft").unwrap();
        Api::new(self.client_with_token_in(&file).await)
    }

    /// The file with the credentials of user `reader`, who may do what the test allows.
    pub(crate) fn kubeconfig_of_reader(&self) -> PathBuf {
        let file = self.directory.path().join("reader.token");
        std::fs::write(&file, "reader").unwrap();
        self.kubeconfig_with_token_in(&file)
    }

    /// Asks the server for something as an administrator would. A patch is a merge patch.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("content-type", kind).body(body).unwrap();
        self.client().await.request(request).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }
}

fn signal(process: &Child, signal: Signal) {
    kill(Pid::from_raw(process.id().try_into().unwrap()), signal).unwrap();
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}
