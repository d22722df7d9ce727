//! What the agent costs in a large cluster: 5,000 Nodes and 10,000 Services of 4 endpoints each, in a real API server.
//!
//! It takes minutes and a built `weft`, so it runs by name only, as root:
//!
//!     WEFT_PEERS=… cargo test -p weft --test kube_scale -- --ignored --nocapture
//!
//! ```text
//!  a network namespace of its own: etcd ── kube-apiserver ── weft agent (node n0, uplink up0)
//!                                    ▲
//!                  objects and heartbeats, written straight into etcd as the API server stores them
//! ```

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod agent;
#[expect(dead_code, reason = "this test takes less of it than others do")]
mod apiserver;
#[expect(dead_code, reason = "this test takes less of it than others do")]
mod etcd;

use std::time::Duration;

use agent::Agent;
use apiserver::ApiServer;
use etcd::Etcd;
use etcd_client::{Client, Txn, TxnOp};
use serde_json::{Value, json};
use tokio::time::{Instant, interval, sleep};
use weft_tests::scratch::Scratch;
use weft_tests::skip;

const NODES: u32 = 5_000;
const SERVICES: u32 = 10_000;

/// What the agent may take (issue 5, line 4).
const READY_IN: Duration = Duration::from_secs(10);
const MEMORY_MIB: u64 = 100;
const CPU_PERCENT: f64 = 1.0;

/// Node updates a second that 5,000 kubelets make, one every five minutes each.
const HEARTBEATS: u32 = 17;

/// Where the API server keeps Nodes.
const NODE_KEY: &str = "/registry/minions/";

fn time(seconds: u32) -> String {
    format!("2026-11-26T{:02}:{:02}:{:02}Z", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

fn uid(kind: u32, n: u32) -> String {
    format!("{kind:08x}-0000-4000-8000-{n:012x}")
}

fn digest(n: u32) -> String {
    format!("{:064x}", u128::from(n) * 0x9e37_79b9_7f4a_7c15)
}

/// A Node as large as those of real clusters: most of it is of no interest to anybody here.
fn node(n: u32, beat: u32) -> Value {
    let images: Vec<Value> = (0..30)
        .map(|i| {
            let name = format!("registry.example.com/team-{i}/service-{i}");
            json!({"names": [format!("{name}@sha256:{}", digest(i)), format!("{name}:v1.{i}.0")], "sizeBytes": 100_000_000 + i})
        })
        .collect();
    let conditions: Vec<Value> = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]
        .into_iter()
        .map(|kind| {
            let status = if kind == "Ready" { "True" } else { "False" };
            json!({"type": kind, "status": status, "reason": "Kubelet", "message": "kubelet says so",
                "lastHeartbeatTime": time(beat), "lastTransitionTime": time(0)})
        })
        .chain([json!({"type": "NetworkUnavailable", "status": "False", "reason": "FlannelIsUp"})])
        .collect();
    let fields: serde_json::Map<String, Value> = (0..40).map(|i| (format!("f:field-{i}"), json!({".": {}}))).collect();
    let cidr = format!("10.{}.{}.0/24", n >> 8, n & 255);
    let ip = format!("198.18.{}.{}", n >> 8, n & 255);
    let mac = format!("c6:d2:32:00:{:02x}:{:02x}", n >> 8, n & 255);
    let mut annotations = json!({
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-data": format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#),
        "flannel.alpha.coreos.com/public-ip": ip,
        "node.alpha.kubernetes.io/ttl": "0",
    });
    if n == 0 {
        annotations = json!({});
    }
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("n{n}"), "uid": uid(1, n), "creationTimestamp": time(0), "annotations": annotations,
            "labels": {"kubernetes.io/hostname": format!("n{n}"), "topology.kubernetes.io/zone": format!("z{}", n % 3)},
            "managedFields": [{"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": time(0),
                "fieldsType": "FieldsV1", "fieldsV1": {"f:status": fields}}]},
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {"conditions": conditions, "images": images, "addresses": [{"type": "InternalIP", "address": ip}],
            "capacity": {"cpu": "8", "memory": "32Gi", "pods": "110"}, "nodeInfo": {"kubeletVersion": "v1.36.2"}},
    })
}

fn service(n: u32) -> Value {
    let address = format!("10.96.{}.{}", 10 + (n >> 8), n & 255);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("s{n}"), "namespace": "default", "uid": uid(2, n), "creationTimestamp": time(0)},
        "spec": {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "selector": {"app": format!("s{n}")}, "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]},
        "status": {"loadBalancer": {}},
    })
}

fn slice(n: u32) -> Value {
    let endpoint = |i: u32| {
        let on = 1 + (n * 4 + i) % (NODES - 1);
        json!({"addresses": [format!("10.{}.{}.{}", on >> 8, on & 255, 2 + n % 200)], "nodeName": format!("n{on}"),
            "zone": format!("z{}", on % 3), "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("s{n}-{i}"), "uid": uid(4, n * 4 + i)}})
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("s{n}-1"), "namespace": "default", "uid": uid(3, n), "creationTimestamp": time(0),
            "labels": {"kubernetes.io/service-name": format!("s{n}")}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": (0..4).map(endpoint).collect::<Vec<_>>(),
    })
}

/// Writes objects as they are stored, many at once.
async fn store(etcd: &mut Client, objects: impl Iterator<Item = (String, Value)>) {
    let mut batch = Vec::new();
    let mut objects = objects.peekable();
    while let Some((key, value)) = objects.next() {
        batch.push(TxnOp::put(key, value.to_string(), None));
        if batch.len() == 100 || objects.peek().is_none() {
            etcd.txn(Txn::new().and_then(std::mem::take(&mut batch))).await.unwrap();
        }
    }
}

/// Lets so many Nodes a second say that they are well, and nothing else, for a time.
async fn heartbeats(etcd: &mut Client, a_second: u32, span: Duration, beat: &mut u32) {
    let began = Instant::now();
    let mut ticks = interval(Duration::from_secs(1) / 10);
    let mut sent = 0;
    while began.elapsed() < span {
        ticks.tick().await;
        let due = u32::try_from(began.elapsed().as_millis() * u128::from(a_second) / 1000).unwrap();
        let batch = (sent..due).map(|_| {
            *beat += 1;
            let n = 1 + *beat % (NODES - 1);
            (format!("{NODE_KEY}n{n}"), node(n, *beat))
        });
        store(etcd, batch).await;
        sent = due.max(sent);
    }
}

/// What is measured of the agent.
impl Agent {
    /// Waits until the node is ready; returns how long that took.
    async fn ready(&self) -> Duration {
        loop {
            let answer = self.get("/readyz").await.unwrap_or_default();
            if answer.starts_with("HTTP/1.1 200") {
                return self.began.elapsed();
            }
            assert!(self.began.elapsed() < READY_IN * 12, "not ready: {answer}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Kernel objects written so far.
    async fn writes(&self) -> f64 {
        let text = self.get("/metrics").await.unwrap();
        let is_write = |line: &&str| {
            line.starts_with("weft_kernel_writes_total{")
                || line.starts_with("weft_service_messages_total{")
                || line.starts_with("weft_service_elements_total{")
        };
        let number = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        text.lines().filter(is_write).map(number).sum()
    }

    /// The part of a core that the agent takes meanwhile, in percent, and the kernel objects that it writes.
    async fn cost(&self, work: impl Future<Output = ()>) -> (f64, f64) {
        let (writes, processor, began) = (self.writes().await, self.processor(), Instant::now());
        work.await;
        let took = began.elapsed().as_secs_f64();
        let percent = (self.processor() - processor).as_secs_f64() / took * 100.0;
        (percent, self.writes().await - writes)
    }
}

#[test]
#[ignore = "takes minutes, and measures; run by name"]
fn five_thousand_nodes_and_ten_thousand_services() {
    if ApiServer::binary().is_none() {
        skip!("WEFT_PEERS names no folder with a kube-apiserver");
    }
    agent::enter_a_namespace();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(measure());
}

async fn measure() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    // It checks at its start, and then only now and then, whether it has given out all service addresses itself.
    let server = ApiServer::start(&etcd).await.unwrap();
    store(&mut client, (0..NODES).map(|n| (format!("{NODE_KEY}n{n}"), node(n, 0)))).await;
    store(&mut client, (0..SERVICES).map(|n| (format!("/registry/services/specs/default/s{n}"), service(n)))).await;
    store(&mut client, (0..SERVICES).map(|n| (format!("/registry/endpointslices/default/s{n}-1"), slice(n)))).await;
    let count = server.ask("GET", "/api/v1/nodes?limit=1", None).await;
    assert_eq!(count["items"].as_array().map(Vec::len), Some(1), "{count}");

    let scratch = Scratch::new();
    let agent = Agent::start(&scratch, server.kubeconfig().to_str().unwrap());
    let ready = agent.ready().await;
    let (processor, memory, peak) = (agent.processor().as_secs_f64(), agent.memory("VmRSS"), agent.memory("VmHWM"));
    println!("ready after {ready:.1?} and {processor:.1} s of processor time, {memory} MiB, at most {peak} MiB");
    // What comes once: the last-known file, the lists' leftovers.
    sleep(Duration::from_secs(20)).await;
    let (idle, _) = agent.cost(sleep(Duration::from_secs(30))).await;
    println!("nothing happens: {idle:.2} % of a core");
    let mut beat = 0;
    let (usual, writes) = agent.cost(heartbeats(&mut client, HEARTBEATS, Duration::from_secs(60), &mut beat)).await;
    println!("{HEARTBEATS} heartbeats a second: {usual:.2} % of a core, {writes} kernel objects written");
    let (many, more_writes) = agent.cost(heartbeats(&mut client, 500, Duration::from_secs(20), &mut beat)).await;
    println!("500 heartbeats a second: {many:.2} % of a core, {more_writes} kernel objects written");
    let memory = agent.memory("VmRSS");
    println!("{memory} MiB in the end, at most {} MiB", agent.memory("VmHWM"));
    println!("{}", agent.get("/readyz").await.unwrap());

    assert!(writes + more_writes < 0.5, "a heartbeat is nothing to the kernel");
    assert!(memory <= MEMORY_MIB, "{memory} MiB");
    assert!(usual < CPU_PERCENT, "{usual:.2} % of a core");
    assert!(ready < READY_IN, "{ready:?}");
}
