//! One agent, its namespace, its store, and its peers, which are entries in the store and nothing else.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::process::ExitStatus;
use std::time::Duration;

use etcd_client::{Client, GetOptions, PutOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use weft_tests::scratch::Scratch;
use weft_tests::tool;

use crate::agent::{Agent, enter_a_namespace};
use crate::etcd::LIMIT;

pub(crate) const PREFIX: &str = "/coreos.com/network";

/// The address of the agent's node.
pub(crate) const OWN: &str = "198.18.0.0";

/// How often something is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Runs a test in a network namespace of its own, on one thread: what it starts, and what it listens at, is in there.
pub(crate) fn in_a_namespace(test: impl AsyncFnOnce()) {
    enter_a_namespace();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
}

/// How long an outage lasts, in seconds: as the contract has it, or for short.
pub(crate) fn outage(full: u64, short: u64) -> Duration {
    let is_full = std::env::var("WEFT_TEST_OUTAGES").is_ok_and(|value| value == "full");
    Duration::from_secs(if is_full { full } else { short })
}

/// The agent of node n0, which runs or does not.
pub(crate) struct World {
    scratch: Scratch,
    args: Vec<String>,
    agent: Option<Agent>,
}

impl World {
    /// Starts the agent with these endpoints of etcd and further arguments.
    pub(crate) fn start(endpoints: &str, args: &[&str]) -> Self {
        let mut world = Self::new(endpoints, args);
        world.start_agent();
        world
    }

    /// The same without an agent yet.
    pub(crate) fn new(endpoints: &str, args: &[&str]) -> Self {
        let args = ["--etcd-endpoints", endpoints].iter().chain(args).map(|arg| (*arg).to_owned()).collect();
        Self { scratch: Scratch::new(), args, agent: None }
    }

    /// Starts the agent again, with the files that it had.
    pub(crate) fn start_agent(&mut self) {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.agent = Some(Agent::spawn(&self.scratch, &args));
    }

    /// A file of the agent's.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.scratch.join(name)
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("it was started")
    }

    /// Whether the agent runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.agent.as_mut().expect("it was started").process.try_wait().unwrap().is_none()
    }

    /// What it says on a path, status line and all; nothing if it does not answer.
    pub(crate) async fn get(&self, path: &str) -> String {
        self.agent().get(path).await.unwrap_or_default()
    }

    /// Waits until it is ready for pods.
    pub(crate) async fn ready(&self) {
        self.says("/readyz", "HTTP/1.1 200").await;
    }

    /// Waits until it says these words on a path; gives back all that it says.
    pub(crate) async fn says(&self, path: &str, words: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let answer = self.get(path).await;
            if answer.contains(words) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{path} does not say {words:?}: {answer}\n{}", self.log());
            sleep(LOOK).await;
        }
    }

    /// `/status` as a value.
    pub(crate) async fn status(&self) -> Value {
        let answer = self.get("/status").await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
        serde_json::from_str(body).unwrap()
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("err")).unwrap_or_default()
    }

    /// The lines of its log that have all these words.
    pub(crate) fn logged(&self, words: &[&str]) -> usize {
        self.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// Waits until the kernel reaches these peers and no others: their subnets, and where they are.
    pub(crate) async fn reaches(&self, peers: &[(&str, &str)]) {
        let wanted: BTreeMap<String, String> =
            peers.iter().map(|(subnet, ip)| ((*subnet).to_owned(), (*ip).to_owned())).collect();
        until(&wanted, reached).await.unwrap_or_else(|now| panic!("wanted {wanted:?}, not {now:?}\n{}", self.log()));
    }

    /// Watches for so long that the agent runs and that its kernel stays as it is.
    pub(crate) async fn nothing_changes_for(&mut self, span: Duration) {
        let before = kernel();
        let end = Instant::now() + span;
        while Instant::now() < end {
            assert!(self.is_alive(), "it has ended\n{}", self.log());
            assert_eq!(kernel(), before, "{}", self.log());
            sleep(LOOK).await;
        }
    }

    /// Processor time that the agent has used.
    pub(crate) fn processor(&self) -> Duration {
        self.agent().processor()
    }

    /// The most memory that it has had, in MiB.
    pub(crate) fn peak(&self) -> u64 {
        self.agent().memory("VmHWM")
    }

    /// Tells the agent to end; says how it did and how long that took.
    pub(crate) async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let mut agent = self.agent.take().expect("it was started");
        kill(Pid::from_raw(agent.process.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = agent.process.try_wait().unwrap() {
                return (status, began.elapsed());
            }
            assert!(began.elapsed() < LIMIT, "it does not end\n{}", self.log());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The subnet in the subnet file, such as `10.244.3.1/24`.
    pub(crate) fn gateway(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.path("subnet.env")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET=")).map(str::to_owned)
    }

    /// The same as the lease's key, such as `10.244.3.0-24`.
    pub(crate) fn key(&self) -> String {
        self.gateway().expect("there is a subnet file").replace(".1/", ".0-")
    }
}

/// Waits until something is as wanted; what it was at last if it never is.
pub(crate) async fn until<T: PartialEq + Debug>(wanted: &T, look: impl Fn() -> T) -> Result<(), T> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let now = look();
        if now == *wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(now);
        }
        sleep(LOOK).await;
    }
}

/// All of the overlay's objects, as iproute2 shows them, without what changes by itself.
pub(crate) fn kernel() -> Vec<Value> {
    let mut all = Vec::new();
    for (program, words) in [
        ("ip", &["-j", "route", "show", "dev", "flannel.1"][..]),
        ("ip", &["-j", "neigh", "show", "dev", "flannel.1", "nud", "permanent"]),
        ("bridge", &["-j", "fdb", "show", "dev", "flannel.1"]),
        ("ip", &["-j", "-4", "address", "show", "dev", "cni0"]),
    ] {
        let mut objects = objects(program, words);
        objects.sort_by_key(Value::to_string);
        all.extend(objects);
    }
    let links = objects("ip", &["-j", "link", "show", "dev", "flannel.1"]);
    all.extend(links.iter().map(|link| json!([link["ifindex"], link["address"], link["mtu"]])));
    all
}

fn objects(program: &str, words: &[&str]) -> Vec<Value> {
    // No device, no objects.
    let text = tool::call(program, words).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// The peers of which the kernel has route, neighbour and FDB entry: subnet and public address.
pub(crate) fn reached() -> BTreeMap<String, String> {
    let find = |objects: &[Value], key: &str, value: &Value, wanted: &str| {
        objects.iter().find(|object| object[key] == *value).map(|object| object[wanted].clone())
    };
    let neighbours = objects("ip", &["-j", "neigh", "show", "dev", "flannel.1", "nud", "permanent"]);
    let entries = objects("bridge", &["-j", "fdb", "show", "dev", "flannel.1"]);
    let peer = |route: &Value| {
        let mac = find(&neighbours, "dst", &route["gateway"], "lladdr")?;
        let dst = find(&entries, "mac", &mac, "dst")?;
        Some((route["dst"].as_str()?.to_owned(), dst.as_str()?.to_owned()))
    };
    objects("ip", &["-j", "route", "show", "dev", "flannel.1"]).iter().filter_map(peer).collect()
}

/// What flannel on such a node writes.
pub(crate) fn flannel(ip: &str, last: u8) -> String {
    format!(
        r#"{{"PublicIP":"{ip}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:{last:02x}"}}}}"#
    )
}

/// Where peer number `n` is.
pub(crate) fn address(n: u8) -> String {
    format!("198.18.1.{n}")
}

/// A peer as flannel registers it: `10.244.<n>.0/24` at [`address`].
pub(crate) async fn put_peer(client: &Client, n: u8) {
    let mut client = client.clone();
    let lease = client.lease_grant(86_400, None).await.unwrap().id();
    let key = format!("{PREFIX}/subnets/10.244.{n}.0-24");
    client.put(key, flannel(&address(n), n), Some(PutOptions::new().with_lease(lease))).await.unwrap();
}

pub(crate) async fn put(client: &Client, key: &str, value: &str) {
    client.clone().put(format!("{PREFIX}/{key}"), value, None).await.unwrap();
}

pub(crate) async fn delete(client: &Client, key: &str) {
    client.clone().delete(format!("{PREFIX}/{key}"), None).await.unwrap();
}

/// The leases in the store: key and value.
pub(crate) async fn leases(client: &Client) -> BTreeMap<String, String> {
    let prefix = format!("{PREFIX}/subnets/");
    let answer = client.clone().get(prefix.as_str(), Some(GetOptions::new().with_prefix())).await.unwrap();
    // Some tests write what is no text.
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let lease = |kv: &etcd_client::KeyValue| (text(&kv.key()[prefix.len()..]), text(kv.value()));
    answer.kvs().iter().map(lease).collect()
}
