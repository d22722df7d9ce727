//! A control plane of plain processes for one test file: etcd, kube-apiserver and kube-controller-manager on loopback, with
//! certificates as bring-up leaves them in a root of its own. Gone when dropped.

pub(crate) mod authority;
pub(crate) mod impostor;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::Request;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use weft::bootstrap::api::{ClusterInfo, Pin, Server};
use weft::bootstrap::resolved::{Limits, Paths};
use weft::cluster::kube::{KubeOptions, connect};

use crate::etcd::{Etcd, free_port};
use authority::{Authority, Issued};

/// How long a part may take to start, on a busy machine.
const START: Duration = Duration::from_secs(240);

/// How long anything may take that is waited for.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Runs cases one after the other over one control plane, each on a runtime of its own; one that fails is named, and the
/// others still run.
macro_rules! cases {
    ($plane:expr, [$($case:ident),* $(,)?]) => {{
        let plane = $plane;
        let mut failed = Vec::new();
        $(
            let began = std::time::Instant::now();
            let ended = std::thread::scope(|scope| {
                let name = concat!("case ", stringify!($case)).to_owned();
                let case = || $crate::control_plane::runtime().block_on($case(&plane));
                std::thread::Builder::new().name(name).spawn_scoped(scope, case).unwrap().join()
            });
            let outcome = if ended.is_ok() { "ok" } else { "FAILED" };
            eprintln!("case {}: {outcome} in {:.1?}", stringify!($case), began.elapsed());
            if ended.is_err() {
                failed.push(stringify!($case));
            }
        )*
        assert!(failed.is_empty(), "failed: {failed:?}");
    }};
}

/// A runtime for one case.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The processes, and what they were started with.
pub(crate) struct ControlPlane {
    /// The root that bring-up works in.
    pub(crate) root: tempfile::TempDir,
    pub(crate) paths: Paths,
    pub(crate) authority: Authority,
    /// `127.0.0.1:port` of the API server.
    pub(crate) address: SocketAddr,
    processes: Vec<Child>,
    // After the processes that live by it.
    _etcd: Etcd,
}

impl ControlPlane {
    /// Starts one; `None` if the programs are not in `WEFT_PEERS`.
    pub(crate) async fn start() -> Option<Self> {
        let peers = PathBuf::from(std::env::var_os("WEFT_PEERS")?);
        let programs = ["kube-apiserver", "kube-controller-manager"].map(|name| peers.join(name));
        if !programs.iter().all(|program| program.is_file()) {
            return None;
        }
        let etcd = Etcd::start().await;
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let authority = Authority::new("kubernetes");
        let mut plane = Self { root, paths, authority, address, processes: Vec::new(), _etcd: etcd };
        plane.lay_out();
        plane.start_server(&programs[0]);
        plane.await_ready("kube-apiserver").await;
        plane.start_manager(&programs[1]);
        Some(plane)
    }

    /// The limits that cases work with.
    pub(crate) fn limits() -> Limits {
        Limits { api_call: Duration::from_secs(30), discovery: LIMIT, tls_bootstrap: LIMIT, ..Limits::default() }
    }

    /// Where the API server is.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// What cluster-info has to say.
    pub(crate) fn info(&self) -> ClusterInfo {
        ClusterInfo { server: self.url(), ca: self.authority.pem() }
    }

    /// The pin of its authority.
    pub(crate) fn pin(&self) -> String {
        Pin::of_all(self.authority.pem().as_bytes()).unwrap().remove(0).to_string()
    }

    /// With the rights of `super-admin.conf`.
    pub(crate) async fn server(&self) -> Server {
        Server::connect(&self.paths.kubernetes.join("super-admin.conf"), None, &Self::limits()).await.unwrap()
    }

    /// The same as a plain client.
    pub(crate) async fn client(&self, kubeconfig: &Path) -> Client {
        connect(&KubeOptions { kubeconfig: Some(kubeconfig.to_owned()), kube_api_server: None }).await.unwrap()
    }

    /// Asks as an administrator; a patch is a merge patch.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, u16> {
        let client = self.client(&self.paths.kubernetes.join("super-admin.conf")).await;
        ask(&client, method, path, body).await
    }

    /// What is at a path.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ask("GET", path, None).await.unwrap_or_else(|code| panic!("GET {path}: {code}"))
    }

    /// Writes a kubeconfig with a client certificate, embedded.
    pub(crate) fn kubeconfig(&self, name: &str, issued: &Issued) -> PathBuf {
        let path = self.paths.kubernetes.join(name);
        std::fs::create_dir_all(&self.paths.kubernetes).unwrap();
        let user = json!({"client-certificate-data": base64(&issued.cert), "client-key-data": base64(&issued.key)});
        std::fs::write(&path, self.kubeconfig_of(&user).to_string()).unwrap();
        path
    }

    /// A kubeconfig with this user.
    pub(crate) fn kubeconfig_of(&self, user: &Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config",
            "clusters": [{"name": "kubernetes", "cluster": {
                "server": self.url(), "certificate-authority-data": base64(&self.authority.pem())}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "kubernetes", "user": "u"}}],
            "current-context": "x",
        })
    }

    /// Certificates, keys and kubeconfigs.
    fn lay_out(&self) {
        let pki = &self.paths.pki;
        std::fs::create_dir_all(pki.join("etcd")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(pki.join(name), text).unwrap();
        write("ca.crt", &self.authority.pem());
        write("ca.key", &self.authority.key());
        for (name, front) in [("front-proxy-ca", "front-proxy-ca"), ("etcd/ca", "etcd-ca")] {
            let authority = Authority::new(front);
            write(&format!("{name}.crt"), &authority.pem());
            write(&format!("{name}.key"), &authority.key());
        }
        let server = self.authority.server(&["127.0.0.1", "localhost", "kubernetes", "api.weft.internal"]);
        write("apiserver.crt", &server.cert);
        write("apiserver.key", &server.key);
        let accounts = rcgen::KeyPair::generate().unwrap();
        write("sa.key", &accounts.serialize_pem());
        write("sa.pub", &accounts.public_key_pem());
        for (file, name, group) in [
            ("admin.conf", "kubernetes-admin", Some("kubeadm:cluster-admins")),
            ("super-admin.conf", "kubernetes-super-admin", Some("system:masters")),
            ("controller-manager.conf", "system:kube-controller-manager", None),
        ] {
            self.kubeconfig(file, &self.authority.client(name, group));
        }
    }

    fn start_server(&mut self, program: &Path) {
        let file = |name: &str| self.paths.pki.join(name).into_os_string().into_string().unwrap();
        let etcd = format!("http://127.0.0.1:{}", self._etcd.port());
        let mut command = self.command(program);
        for (flag, value) in [
            ("etcd-servers", etcd.as_str()),
            ("bind-address", "127.0.0.1"),
            ("secure-port", &self.address.port().to_string()),
            ("client-ca-file", &file("ca.crt")),
            ("tls-cert-file", &file("apiserver.crt")),
            ("tls-private-key-file", &file("apiserver.key")),
            ("service-account-key-file", &file("sa.pub")),
            ("service-account-signing-key-file", &file("sa.key")),
            ("service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
            ("authorization-mode", "Node,RBAC"),
            ("enable-admission-plugins", "NodeRestriction"),
            ("enable-bootstrap-token-auth", "true"),
            ("service-cluster-ip-range", "10.96.0.0/12"),
            ("endpoint-reconciler-type", "none"),
            ("profiling", "false"),
        ] {
            command.arg(format!("--{flag}={value}"));
        }
        self.processes.push(command.spawn().unwrap());
    }

    fn start_manager(&mut self, program: &Path) {
        let file = |name: &str| self.paths.pki.join(name).into_os_string().into_string().unwrap();
        let kubeconfig = self.paths.kubernetes.join("controller-manager.conf");
        let mut command = self.command(program);
        for (flag, value) in [
            ("kubeconfig", kubeconfig.to_str().unwrap()),
            ("bind-address", "127.0.0.1"),
            ("secure-port", &free_port().to_string()),
            ("leader-elect", "false"),
            ("controllers", "*,bootstrap-signer-controller,token-cleaner-controller"),
            ("cluster-signing-cert-file", &file("ca.crt")),
            ("cluster-signing-key-file", &file("ca.key")),
            ("root-ca-file", &file("ca.crt")),
            ("service-account-private-key-file", &file("sa.key")),
            ("use-service-account-credentials", "true"),
            ("profiling", "false"),
        ] {
            command.arg(format!("--{flag}={value}"));
        }
        self.processes.push(command.spawn().unwrap());
    }

    /// A program whose output is only of use when it does not start.
    fn command(&self, program: &Path) -> Command {
        let name = program.file_name().unwrap().to_str().unwrap();
        let log = std::fs::File::create(self.root.path().join(format!("{name}.log"))).unwrap();
        let mut command = weft_tests::tool::command(program);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    async fn await_ready(&mut self, name: &str) {
        let deadline = Instant::now() + START;
        let client = self.client(&self.paths.kubernetes.join("super-admin.conf")).await;
        loop {
            let asked = client.request_text(Request::get("/readyz").body(vec![]).unwrap());
            if matches!(timeout(Duration::from_secs(5), asked).await, Ok(Ok(_))) {
                return;
            }
            let ended = self.processes.iter_mut().any(|process| process.try_wait().unwrap().is_some());
            if ended || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.root.path().join(format!("{name}.log"))).unwrap_or_default();
                panic!("{name} does not start: {}", &log[log.len().saturating_sub(4000)..]);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(keep) = std::env::var_os("WEFT_KEEP_LOGS") {
            for name in ["kube-apiserver", "kube-controller-manager"] {
                let name = format!("{name}.log");
                let _ = std::fs::copy(self.root.path().join(&name), Path::new(&keep).join(&name));
            }
        }
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Asks; the code of a refusal.
pub(crate) async fn ask(client: &Client, method: &str, path: &str, body: Option<&Value>) -> Result<Value, u16> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    let request = Request::builder().method(method).uri(path).header("content-type", kind).body(body).unwrap();
    client.request(request).await.map_err(|error| match error {
        kube::Error::Api(status) => status.code,
        other => panic!("{method} {path}: {other}"),
    })
}

/// As data in JSON.
pub(crate) fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// The text of data in JSON.
pub(crate) fn unbase64(value: &Value) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// Waits until a condition yields something.
pub(crate) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        sleep(Duration::from_millis(200)).await;
    }
}
