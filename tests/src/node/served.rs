//! What a cluster of [`Bare`] machines is for: pods on every node that reach each other, a Service and its name, in each family.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::bare::Bare;
use super::cluster::{PROBE, items};
use super::dns::{self, Record};
use super::workload::{PORT, container, inside, pod_on, service};
use crate::netns::Netns;
use crate::probe::{Question, ask};
use crate::{binaries, wait};

/// How long pods may take to come on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// The Service, and the label of its pods.
const NAME: &str = "probe";

/// Waits until the balancer of each node has learnt from the cluster where its API servers are: on these nodes, and nowhere else. No
/// helper may lack a right.
///
/// # Errors
/// When one does not learn it in time, or was denied something.
pub fn helpers(nodes: &[&Bare], servers: &[&Bare]) -> Result<()> {
    let servers: BTreeSet<String> =
        servers.iter().map(|node| SocketAddr::new(node.machine.ip(), 6443).to_string()).collect();
    for node in nodes {
        let known = node.machine.inside("/var/lib/weft/balancer/known")?;
        wait::until_ok(LIMIT, "the balancer to know the API servers", || {
            let list = fs::read_to_string(&known).unwrap_or_default();
            let known: BTreeSet<String> = list.lines().map(str::to_owned).collect();
            ensure!(known == servers, "{}: {list:?}", node.machine.name());
            Ok(())
        })?;
        let logs = node.machine.run("sh", &["-c", "cat /var/log/pods/kube-system_weft-*-n*/*/*.log"])?;
        ensure!(!logs.contains("denied"), "{}: {logs}", node.machine.name());
    }
    Ok(())
}

/// Puts a pod on each node and a Service over them, and asks from each node and from each pod: every pod, the Service by each of
/// its addresses, and its name for each of them. The first node has an administrator's credentials. `pods` are the beginnings of
/// pods' addresses, one a family.
///
/// # Errors
/// When one does not answer in time.
pub fn check(nodes: &[&Bare], pods: &[&str]) -> Result<()> {
    let first = nodes.first().context("a cluster has a node")?;
    let mut objects = vec![probe_service()];
    for node in nodes {
        node.import(PROBE, &binaries::folder().join("../debug/weft-probe"))?;
        objects.push(pod(node.machine.name()));
    }
    first.apply(&objects)?;
    let selector = format!("--selector=app={NAME}");
    let ready = ["wait", "--for=condition=Ready", "pod", &selector, "--timeout=55s"];
    wait::until_ok(LIMIT, "the pods", || first.kubectl(&ready))?;
    let found = first.get(&["pods", &selector])?;
    let known = items(&found).map(|pod| Known::of(pod, pods)).collect::<Result<Vec<_>>>()?;
    ensure!(known.len() == nodes.len(), "{} pods on {} nodes", known.len(), nodes.len());
    let services = addresses(&first.get(&["service", NAME])?["spec"]["clusterIPs"])?;
    ensure!(services.len() == pods.len(), "the Service has {services:?}, and there are pods of {pods:?}");
    let servers = addresses(&first.get(&["service", "kube-dns", "--namespace=kube-system"])?["spec"]["clusterIPs"])?;

    let ask_all = |from: &Netns, who: &str| -> Result<()> {
        let names: Vec<&str> = known.iter().map(|pod| pod.name.as_str()).collect();
        for pod in &known {
            for ip in &pod.ips {
                reaches(from, who, SocketAddr::new(*ip, PORT), &[&pod.name])?;
            }
        }
        for service in &services {
            reaches(from, who, SocketAddr::new(*service, 80), &names)?;
            for server in &servers {
                resolves(from, who, *server, *service)?;
            }
        }
        Ok(())
    };
    for node in nodes {
        ask_all(node.machine.netns(), node.machine.name())?;
    }
    for pod in &known {
        let inside = inside(&pod.uid)?;
        ask_all(&inside, &pod.name)?;
    }
    Ok(())
}

/// A pod that answers.
struct Known {
    name: String,
    uid: String,
    ips: Vec<IpAddr>,
}

impl Known {
    /// The pod of this object, which has an address of each kind.
    fn of(pod: &Value, kinds: &[&str]) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned).with_context(|| format!("no text: {value}"));
        let listed = pod["status"]["podIPs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ips = listed.iter().filter_map(|it| it["ip"].as_str()).collect::<Vec<_>>();
        let is_wefts = ips.len() == kinds.len() && kinds.iter().all(|kind| ips.iter().any(|ip| ip.starts_with(kind)));
        ensure!(is_wefts, "a pod has {ips:?}; expected one of each of {kinds:?}");
        let ips = ips.iter().map(|ip| Ok(ip.parse()?)).collect::<Result<_>>()?;
        Ok(Self { name: text(&pod["metadata"]["name"])?, uid: text(&pod["metadata"]["uid"])?, ips })
    }
}

fn pod(node: &str) -> Value {
    let mut pod = pod_on(node, &format!("on-{node}"), &container());
    pod["metadata"]["labels"]["app"] = json!(NAME);
    pod
}

/// It has an address of each family that the cluster has.
fn probe_service() -> Value {
    let mut service = service(NAME, "ClusterIP", NAME);
    service["spec"]["ipFamilyPolicy"] = json!("PreferDualStack");
    service
}

fn addresses(list: &Value) -> Result<Vec<IpAddr>> {
    let texts = list.as_array().with_context(|| format!("expected addresses, found {list}"))?;
    texts.iter().map(|text| Ok(text.as_str().unwrap_or_default().parse()?)).collect()
}

/// Asks until one of these has answered.
fn reaches(from: &Netns, who: &str, target: SocketAddr, names: &[&str]) -> Result<()> {
    wait::until_ok(LIMIT, &format!("{who} to reach one of {names:?} at {target}"), || {
        let outcome = ask(from, &Question::new(target), 1, 1)?;
        ensure!(names.iter().any(|name| outcome.by.contains_key(*name)), "{outcome:?}");
        Ok(())
    })?;
    Ok(())
}

/// Asks the cluster's DNS until it has the Service's address.
fn resolves(from: &Netns, who: &str, server: IpAddr, address: IpAddr) -> Result<()> {
    let name = format!("{NAME}.default.svc.cluster.local");
    let what = format!("{who} to learn {address} from {server}");
    let lookup = || dns::lookup(from, server, &name, Record::of(address));
    let found = wait::until_ok(LIMIT, &what, lookup)?;
    ensure!(found == address, "{who} has learnt {found} from {server}, not {address}");
    Ok(())
}
