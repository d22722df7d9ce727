//! A stand-in for kubelet: it runs the commands of the manifests as processes, starts them anew when a manifest changes, and
//! mirrors them to the API server. Images whose tag is that of no release here it does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::Request;
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::timeout;
use weft::bootstrap::resolved::Paths;
use weft::bootstrap::static_pods::Part;
use weft::cluster::kube::{KubeOptions, connect};
use weft_tests::netns::Netns;
use weft_tests::node::peers;
use weft_tests::process::{self, ProcessId};
use weft_tests::{tool, wait};

/// What it says its version is.
pub(crate) const VERSION: &str = "v1.36.0";
const LOOK: Duration = Duration::from_millis(100);
/// Between two starts of what ends at once.
const RESTART: Duration = Duration::from_secs(1);
/// Between two signs of life of the Node: the controller manager takes it for dead without.
const BEAT: Duration = Duration::from_secs(5);
const PODS: &str = "/api/v1/namespaces/kube-system/pods";

#[derive(Default)]
struct Orders {
    stop: bool,
    held: BTreeSet<Part>,
}

pub(crate) struct Kubelet {
    orders: Arc<Mutex<Orders>>,
    running: Arc<Mutex<BTreeMap<Part, Running>>>,
    thread: Option<JoinHandle<()>>,
}

/// A manifest that is obeyed.
struct Running {
    text: String,
    process: Option<ProcessId>,
    started: Instant,
    mirrored: bool,
}

impl Kubelet {
    pub(crate) fn start(machine: Netns, paths: Paths, logs: PathBuf) -> Self {
        let (orders, running) = (Arc::new(Mutex::new(Orders::default())), Arc::default());
        let (told, kept) = (Arc::clone(&orders), Arc::clone(&running));
        let work = move || {
            let inside = || Worker { machine: &machine, paths, logs, told, running: kept, beat: None }.run();
            machine.run(inside).unwrap();
        };
        Self { orders, running, thread: Some(std::thread::spawn(work)) }
    }

    /// Kills a part, and does not start it again.
    pub(crate) fn hold(&self, part: Part) {
        self.orders.lock().unwrap().held.insert(part);
        let process = self.running.lock().unwrap().get(&part).and_then(|running| running.process);
        process.unwrap().kill();
    }

    /// Waits until a part does not run.
    pub(crate) fn await_end(&self, part: Part) {
        let ended = || self.running.lock().unwrap().get(&part).is_some_and(|running| running.process.is_none());
        wait::until(Duration::from_secs(60), "a part to be ended", ended).unwrap();
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.orders.lock().unwrap_or_else(std::sync::PoisonError::into_inner).stop = true;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        running.values().filter_map(|running| running.process).for_each(ProcessId::kill);
    }
}

struct Worker<'a> {
    machine: &'a Netns,
    paths: Paths,
    logs: PathBuf,
    told: Arc<Mutex<Orders>>,
    running: Arc<Mutex<BTreeMap<Part, Running>>>,
    beat: Option<Instant>,
}

impl Worker<'_> {
    fn run(mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        while !self.told.lock().unwrap().stop {
            Part::ALL.into_iter().for_each(|part| self.obey(part));
            runtime.block_on(async {
                // Mostly because the API server is away; the next look tries again.
                let _ = timeout(Duration::from_secs(5), self.mirror()).await;
            });
            wait::pause(LOOK);
        }
    }

    fn obey(&self, part: Part) {
        let Ok(text) = fs::read_to_string(self.paths.manifest(part)) else { return };
        let mut all = self.running.lock().unwrap();
        if all.get(&part).is_none_or(|running| running.text != text) {
            if let Some(process) = all.remove(&part).and_then(|old| old.process) {
                process.end(Duration::from_secs(10));
            }
            let process = self.spawn(&text);
            all.insert(part, Running { text, process, started: Instant::now(), mirrored: false });
            return;
        }
        let is_held = self.told.lock().unwrap().held.contains(&part);
        let Some(running) = all.get_mut(&part) else { return };
        let is_dead = running.process.is_some_and(|process| !process.alive());
        if is_dead && !is_held && running.started.elapsed() >= RESTART {
            running.process = self.spawn(&running.text);
            running.started = Instant::now();
        }
    }

    /// The container's command, with the host's files where the test has them; nothing without the image.
    fn spawn(&self, text: &str) -> Option<ProcessId> {
        let pod: Value = serde_saphyr::from_str(text).unwrap();
        let container = &pod["spec"]["containers"][0];
        if container["image"].as_str().unwrap().ends_with(crate::world::MISSING) {
            return None;
        }
        let root = self.paths.root.display();
        let place = |word: &Value| {
            let word = word.as_str().unwrap().replace("=/etc/kubernetes/", &format!("={root}/etc/kubernetes/"));
            word.replace("=/var/lib/", &format!("={root}/var/lib/"))
        };
        let words: Vec<String> = container["command"].as_array().unwrap().iter().map(place).collect();
        let mut command = tool::command(peers::need(&words[0]).unwrap());
        command.args(&words[1..]);
        Some(process::spawn(self.machine, &mut command, &self.logs.join(format!("{}.log", words[0]))).unwrap())
    }

    async fn mirror(&mut self) -> Result<(), kube::Error> {
        let missing: Vec<(Part, String)> = {
            let all = self.running.lock().unwrap();
            let missing = all.iter().filter(|(_, running)| !running.mirrored);
            missing.map(|(part, running)| (*part, running.text.clone())).collect()
        };
        let is_alive = self.beat.is_some_and(|beat| beat.elapsed() < BEAT);
        if missing.is_empty() && is_alive {
            return Ok(());
        }
        let client = client(&self.paths.kubernetes.join("super-admin.conf")).await;
        if !is_alive {
            beat(&client).await?;
            self.beat = Some(Instant::now());
        }
        for (part, text) in missing {
            let name = format!("{}-n1", part.name());
            // One that is not there is as good as gone.
            let _ = ask(&client, "DELETE", &format!("{PODS}/{name}"), &json!({"gracePeriodSeconds": 0})).await;
            ask(&client, "POST", PODS, &mirrored(&name, &text)).await?;
            if let Some(running) = self.running.lock().unwrap().get_mut(&part) {
                running.mirrored = running.text == text;
            }
        }
        Ok(())
    }
}

async fn client(kubeconfig: &Path) -> Client {
    connect(&KubeOptions { kubeconfig: Some(kubeconfig.to_owned()), kube_api_server: None }).await.unwrap()
}

async fn ask(client: &Client, method: &str, path: &str, body: &Value) -> Result<Value, kube::Error> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    client.request(request.body(body.to_string().into_bytes()).unwrap()).await
}

/// Says that the Node is alive, and makes it if there is none.
async fn beat(client: &Client) -> Result<(), kube::Error> {
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
        "lastHeartbeatTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
    let status = json!({"conditions": [ready], "nodeInfo": {"kubeletVersion": VERSION}});
    let patch = json!({"status": status});
    if ask(client, "PATCH", "/api/v1/nodes/n1/status", &patch).await.is_ok() {
        return Ok(());
    }
    let labels = json!({"node-role.kubernetes.io/control-plane": "", "kubernetes.io/hostname": "n1"});
    let node =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}, "status": status});
    ask(client, "POST", "/api/v1/nodes", &node).await.map(drop)
}

/// The manifest as its mirror pod.
fn mirrored(name: &str, text: &str) -> Value {
    let mut pod: Value = serde_saphyr::from_str(text).unwrap();
    let mut hash = DefaultHasher::new();
    text.hash(&mut hash);
    let hash = format!("{:x}", hash.finish());
    pod["metadata"]["name"] = json!(name);
    for (key, value) in [("config.hash", hash.as_str()), ("config.mirror", hash.as_str()), ("config.source", "file")] {
        pod["metadata"]["annotations"][format!("kubernetes.io/{key}")] = json!(value);
    }
    pod["spec"]["nodeName"] = json!("n1");
    pod
}
