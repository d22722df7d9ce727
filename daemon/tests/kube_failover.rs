//! A cluster of two API servers, of which the agent is told one: when that ends, or stands still, the agent goes on with the
//! other, also when it has just been started. Against real API servers, from `WEFT_PEERS`.
//!
//! ```text
//!  a network namespace of its own:  etcd ─┬─ kube-apiserver 198.18.0.11 ──┐ (configured)
//!                                         └─ kube-apiserver 198.18.0.12 ──┴── weft agent (node n0, uplink up0)
//!                                                  impostor 198.18.0.13
//! ```

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "this test takes less of it than others do")]
mod agent;
#[expect(dead_code, reason = "this test takes less of it than others do")]
mod apiserver;
#[expect(dead_code, reason = "this test takes less of it than others do")]
#[path = "control_plane/authority.rs"]
mod authority;
#[expect(dead_code, reason = "this test takes less of it than others do")]
mod etcd;
#[expect(dead_code, reason = "this test takes less of it than others do")]
#[path = "control_plane/impostor.rs"]
mod impostor;

use std::path::Path;
use std::time::Duration;

use agent::Agent;
use apiserver::ApiServer;
use authority::Authority;
use etcd::{Etcd, free_port};
use impostor::{Impostor, response};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use weft_tests::scratch::Scratch;
use weft_tests::{binaries, skip, tool};

/// How long a busy machine may take for what should be done in seconds.
const LIMIT: Duration = Duration::from_secs(90);

const FIRST: &str = "198.18.0.11";
const SECOND: &str = "198.18.0.12";
const IMPOSTOR: &str = "198.18.0.13";

/// Two servers, an agent that knows the first, and where it has its files.
struct Cluster {
    first: ApiServer,
    second: ApiServer,
    agent: Option<Agent>,
    scratch: Scratch,
    mode: &'static str,
    port: u16,
}

/// Runs a case in a namespace of its own, or skips it aloud.
fn case(mode: &'static str, body: impl AsyncFnOnce(Cluster, Authority)) {
    if ApiServer::binary().is_none() {
        skip!("WEFT_PEERS names no folder with a kube-apiserver");
    }
    agent::enter_a_namespace();
    for address in [FIRST, SECOND, IMPOSTOR] {
        tool::call("ip", &["address", "add", address, "dev", "lo"]).unwrap();
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let etcd = Etcd::start().await;
        let scratch = Scratch::new();
        let authority = authority(&scratch);
        let cluster = Cluster::start(&etcd, scratch, mode).await;
        body(cluster, authority).await;
    });
}

/// An authority, and the servers' certificates, each with its own address alone.
fn authority(scratch: &Scratch) -> Authority {
    let authority = Authority::new("kubernetes");
    let pki = scratch.join("pki");
    std::fs::create_dir(&pki).unwrap();
    std::fs::write(pki.join("ca.crt"), authority.pem()).unwrap();
    for address in [FIRST, SECOND] {
        let issued = authority.server(&[address]);
        std::fs::write(pki.join(format!("{address}.crt")), issued.cert).unwrap();
        std::fs::write(pki.join(format!("{address}.key")), issued.key).unwrap();
    }
    authority
}

impl Cluster {
    /// The agent serves the first Service, and knows both servers.
    async fn start(etcd: &Etcd, scratch: Scratch, mode: &'static str) -> Self {
        let (pki, port) = (scratch.join("pki"), free_port());
        let at = |address: &str| format!("{address}:{port}").parse().unwrap();
        let first = ApiServer::start_member(etcd, at(FIRST), &pki).await.unwrap();
        let second = ApiServer::start_member(etcd, at(SECOND), &pki).await.unwrap();
        let node =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n0"}, "spec": {"podCIDR": "10.0.1.0/24"}});
        second.ask("POST", "/api/v1/nodes", Some(&node)).await;
        let mut cluster = Self { first, second, agent: None, scratch, mode, port };
        cluster.start_agent();
        cluster.asks(FIRST).await;
        cluster.until("the list of servers", async |it| it.list().lines().count() == 2).await;
        cluster
    }

    fn start_agent(&mut self) {
        // The one before has ended when the new one begins.
        self.agent = None;
        let kubeconfig = self.first.kubeconfig();
        let mode = ["--proxy-mode", self.mode];
        self.agent = Some(Agent::start_with(&self.scratch, kubeconfig.to_str().unwrap(), &mode));
    }

    /// What the agent has kept of the servers.
    fn list(&self) -> String {
        std::fs::read_to_string(self.scratch.join("state/api-servers")).unwrap_or_default()
    }

    /// Waits for something.
    async fn until(&self, what: &str, condition: impl AsyncFn(&Self) -> bool) {
        let wait = async {
            while !condition(self).await {
                sleep(Duration::from_millis(100)).await;
            }
        };
        if timeout(LIMIT, wait).await.is_err() {
            let log = std::fs::read_to_string(self.scratch.join("err")).unwrap();
            panic!("waited in vain for {what}; {}\n{log}", self.get("/readyz").await);
        }
    }

    async fn get(&self, path: &str) -> String {
        match &self.agent {
            Some(agent) => agent.get(path).await.unwrap_or_default(),
            None => String::new(),
        }
    }

    /// Waits until the agent is ready and says everywhere that it asks this server.
    async fn asks(&self, address: &str) {
        let server = format!("{address}:{}", self.port);
        let says = async |it: &Self| {
            let status = it.get("/status").await;
            let status: Value = serde_json::from_str(status.split("\r\n\r\n").last().unwrap()).unwrap_or_default();
            let (ready, metrics) = (it.get("/readyz").await, it.get("/metrics").await);
            status["apiServer"]["inUse"] == server.as_str()
                && ready.starts_with("HTTP/1.1 200")
                && ready.lines().any(|line| line.starts_with("[+] store: connected") && line.contains(&server))
                && metrics.contains(&format!("weft_api_server{{server=\"{server}\"}} 1\n"))
        };
        self.until(&format!("the agent to ask {server}"), says).await;
    }

    /// Makes a Service through the second server, waits until the kernel has it, and returns its address.
    async fn serves_one_more(&self, name: &str) -> String {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        let made = self.second.ask("POST", "/api/v1/namespaces/default/services", Some(&service)).await;
        let address = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
        let began = Instant::now();
        self.until(&format!("Service {name}"), async |_| in_kernel(&address)).await;
        eprintln!("{name} is in the kernel after {:.1?}", began.elapsed());
        address
    }

    /// What `weft status --all` shows of the node, which it finds by way of the API.
    fn status_of_all(&self) -> String {
        let agent = self.agent.as_ref().unwrap();
        let (kubeconfig, state) = (self.first.kubeconfig(), self.scratch.join("state"));
        let mut command = tool::command(binaries::find("weft").unwrap());
        command.args(["status", "--all", "--source", "kube", "--node-name", "n0", "--rootfs"]).arg(self.scratch.path());
        command.arg("--kubeconfig").arg(kubeconfig).arg("--state-dir").arg(state);
        command.args(["--healthz-bind", &format!("127.0.0.1:{}", agent.port)]);
        let output = tool::run_with(&mut command, tool::Stdin::Bytes(b"")).unwrap();
        output.stdout + &output.stderr
    }

    /// The lines of the log that say where the API is asked.
    fn told(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.scratch.join("err")).unwrap();
        log.lines().filter(|line| line.contains("the API is asked at")).map(str::to_owned).collect()
    }
}

fn in_kernel(address: &str) -> bool {
    tool::call("nft", &["list", "table", "inet", "weft"]).unwrap_or_default().contains(address)
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[test]
fn an_agent_whose_api_server_ends_goes_on_with_another_and_finds_it_when_it_starts() {
    case("nftables", async |mut cluster: Cluster, authority: Authority| {
        let before = cluster.serves_one_more("before").await;
        cluster.first.terminate().await;
        cluster.asks(SECOND).await;
        assert!(in_kernel(&before), "the data plane stays");
        assert_eq!(cluster.agent.as_mut().unwrap().process.try_wait().unwrap(), None, "the agent has ended");
        cluster.serves_one_more("while-away").await;
        // The control plane that the kubeconfig leads to is not well; the node is found all the same.
        let shown = cluster.status_of_all();
        assert!(shown.contains("n0 *   yes") && shown.contains("   well\n"), "{shown}");
        assert!(shown.contains(&format!("note: the configured API server {FIRST}:")), "{shown}");
        let told = cluster.told();
        assert!(told.len() == 2 && told[1].contains(SECOND) && told[1].contains("refused"), "one line: {told:?}");
        cluster.until("the list", async |it| it.list().starts_with(&format!("{SECOND}:{}\n", it.port))).await;

        // An agent that starts now finds its way, past garbage and past one that the authority vouches for at another
        // address: a server that is on the list for no good reason must not be given the token.
        cluster.agent = None;
        let impostor = format!("{IMPOSTOR}:{}", cluster.port);
        let issued = authority.server(&[SECOND, "kubernetes"]);
        let impostor_server = Impostor::start_at(&impostor, &issued, |_, _| response("{}", None)).await;
        let list = format!("garbage\n{impostor}\n{SECOND}:{}\n", cluster.port);
        write(&cluster.scratch.join("state/api-servers"), &list);
        cluster.start_agent();
        cluster.asks(SECOND).await;
        cluster.serves_one_more("after-start").await;
        assert_eq!(impostor_server.seen(), [""; 0]);
        let log = std::fs::read_to_string(cluster.scratch.join("err")).unwrap();
        assert!(log.contains("api-servers: 1 of its lines") && log.contains("ignored"), "{log}");

        // The next start is the configured one's again.
        cluster.first.resume().await;
        cluster.start_agent();
        cluster.asks(FIRST).await;
    });
}

#[test]
fn an_agent_whose_api_server_stands_still_goes_on_with_another_and_finds_it_when_it_starts() {
    case("nftables", async |mut cluster: Cluster, _| {
        cluster.serves_one_more("before").await;
        cluster.first.freeze();
        let began = Instant::now();
        cluster.serves_one_more("while-still").await;
        cluster.asks(SECOND).await;
        eprintln!("the other server is asked {:.1?} after the first stood still", began.elapsed());
        let began = Instant::now();
        cluster.start_agent();
        cluster.asks(SECOND).await;
        cluster.serves_one_more("after-start").await;
        let took = began.elapsed();
        eprintln!("a new agent is there after {took:.1?}");
        assert!(took < Duration::from_secs(30), "one that stands still costs seconds: {took:?}");
        cluster.first.thaw();
    });
}

#[test]
fn an_agent_that_serves_no_services_learns_of_the_other_servers_too() {
    case("none", async |mut cluster: Cluster, _| {
        cluster.first.terminate().await;
        cluster.asks(SECOND).await;
        cluster.start_agent();
        cluster.asks(SECOND).await;
    });
}
