//! What tests run on a cluster: pods that answer who they are, and Services over them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::cluster::{Cluster, LIMIT, PROBE, items};
use crate::netns::Netns;
use crate::process::ProcessId;
use crate::scratch::unique_name;
use crate::{tool, wait};

/// The port at which pods answer.
pub const PORT: u16 = 8080;

/// A pod that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name, which it answers with.
    pub name: String,
    /// The name of its node.
    pub node: String,
    /// Its address.
    pub ip: IpAddr,
    uid: String,
}

impl Pod {
    /// Where it answers.
    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.ip, PORT)
    }
}

/// A container that answers.
#[must_use]
pub fn container() -> Value {
    json!({
        "name": "probe", "image": PROBE, "imagePullPolicy": "Never", "args": [PORT.to_string()],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    })
}

/// A Deployment of pods that answer, at most one a node more than on any other.
#[must_use]
pub fn deployment(name: &str, replicas: usize) -> Value {
    let labels = json!({"app": name});
    let spread = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": labels}}]);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [container()], "topologySpreadConstraints": spread, "terminationGracePeriodSeconds": 2},
        }},
    })
}

/// A pod on a certain node.
#[must_use]
pub fn pod_on(node: &str, name: &str, container: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 2},
    })
}

/// A Service over the pods of a Deployment, at port 80.
#[must_use]
pub fn service(name: &str, kind: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": kind, "selector": {"app": app}, "ports": [{"port": 80, "targetPort": PORT}]},
    })
}

/// A pod's network while it is asked from there. The pod may end meanwhile.
#[derive(Debug)]
pub struct Inside(Netns);

impl std::ops::Deref for Inside {
    type Target = Netns;
    fn deref(&self) -> &Netns {
        &self.0
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // Only the name: the pod's processes are not ours to end.
        let _ = tool::call("ip", &["netns", "delete", self.0.name()]);
    }
}

impl Cluster {
    /// The pods with this label `app`, once so many are ready and no other is left.
    ///
    /// # Errors
    /// When that does not come about.
    pub fn pods(&self, app: &str, count: usize) -> Result<Vec<Pod>> {
        self.pods_in("default", app, count)
    }

    /// The same in another Kubernetes namespace.
    ///
    /// # Errors
    /// As [`Cluster::pods`].
    pub fn pods_in(&self, namespace: &str, app: &str, count: usize) -> Result<Vec<Pod>> {
        let pods = wait::until_ok(LIMIT, &format!("{count} pods {app}"), || {
            let list = self.get(&["pods", "--namespace", namespace, "--selector", &format!("app={app}")])?;
            let ready = items(&list).map(ready).collect::<Result<Vec<_>>>()?;
            anyhow::ensure!(ready.len() == count, "there are {}", ready.len());
            Ok(ready)
        })?;
        Ok(pods)
    }

    /// The address of a Service's own.
    ///
    /// # Errors
    /// When there is no such Service.
    pub fn cluster_ip(&self, service: &str) -> Result<IpAddr> {
        Ok(text(&self.get(&["service", service])?["spec"]["clusterIP"])?.parse()?)
    }

    /// Waits until the DaemonSet weft has a pod on so many nodes, all of the newest revision and ready.
    ///
    /// # Errors
    /// When that does not come about.
    pub fn await_rollout(&self, nodes: usize) -> Result<()> {
        self.await_rollout_of("weft", nodes)
    }

    /// The same of another DaemonSet in kube-system.
    ///
    /// # Errors
    /// When that does not come about.
    pub fn await_rollout_of(&self, name: &str, nodes: usize) -> Result<()> {
        wait::until_ok(LIMIT, &format!("DaemonSet {name}'s rollout"), || {
            let set = self.get(&["--namespace", "kube-system", "daemonset", name])?;
            let status = &set["status"];
            let seen = status["observedGeneration"] == set["metadata"]["generation"];
            let counts = ["desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable", "numberReady"];
            anyhow::ensure!(seen && counts.iter().all(|count| status[count] == nodes), "{status}");
            Ok(())
        })?;
        Ok(())
    }

    /// The process of weft's agent on a node.
    ///
    /// # Errors
    /// When there is none.
    pub fn agent(&self, node: &str) -> Result<ProcessId> {
        let selector = format!("spec.nodeName={node}");
        let weft = ["--namespace", "kube-system", "--selector", "app.kubernetes.io/name=weft", "--field-selector"];
        let pods = self.get(&[&["pods"], weft.as_slice(), &[&selector]].concat())?;
        let uids = items(&pods).filter_map(|pod| pod["metadata"]["uid"].as_str());
        let is_agent = |process: &ProcessId| {
            let words = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
            words.split(|byte| *byte == 0).nth(1) == Some(b"agent")
        };
        uids.flat_map(processes_of).find(is_agent).with_context(|| format!("no agent runs on {node}"))
    }

    /// Waits until a node has as many attachments on record as it has pods with a network of their own, and no other.
    ///
    /// # Errors
    /// When an address is kept for nobody, or a pod has none.
    pub fn await_no_leak(&self, node: &str) -> Result<()> {
        wait::until_ok(LIMIT, &format!("only live attachments on {node}"), || {
            let selector = format!("spec.nodeName={node}");
            let pods = self.get(&["pods", "--all-namespaces", "--field-selector", &selector])?;
            let own = |pod: &&Value| pod["spec"]["hostNetwork"] != true;
            let ips = items(&pods).filter(own).map(|pod| text(&pod["status"]["podIP"]));
            let ips = ips.collect::<Result<Vec<&str>>>()?;
            let (records, ports) = (self.records(node)?, self.ports(node)?);
            let counts = (records.len(), ports.len());
            anyhow::ensure!(counts == (ips.len(), ips.len()), "records and ports are {counts:?}, pods have {ips:?}");
            for ip in ips {
                let known = records.iter().any(|record| record.contains(&format!("\"{ip}/")));
                anyhow::ensure!(known, "no record has {ip}");
            }
            Ok(())
        })?;
        Ok(())
    }

    /// What weft's plugin keeps of its attachments on a node.
    fn records(&self, node: &str) -> Result<Vec<String>> {
        let networks = self.node(node).machine.inside("/run/weft/cni")?;
        let mut records = Vec::new();
        for network in std::fs::read_dir(networks)?.flatten() {
            for record in std::fs::read_dir(network.path().join("att")).into_iter().flatten().flatten() {
                records.push(String::from_utf8_lossy(&std::fs::read(record.path())?).into_owned());
            }
        }
        Ok(records)
    }

    /// The ports of a node's bridge.
    fn ports(&self, node: &str) -> Result<Vec<Value>> {
        self.node(node).machine.netns().objects("ip", &["link", "show", "master", "cni0"])
    }

    /// Enters a pod's network.
    ///
    /// # Errors
    /// When it has no process any more.
    pub fn inside(&self, pod: &Pod) -> Result<Inside> {
        inside(&pod.uid).with_context(|| pod.name.clone())
    }
}

/// Enters the network of the pod that has this UID.
///
/// # Errors
/// When it has no process.
pub fn inside(uid: &str) -> Result<Inside> {
    let process = processes_of(uid).next().with_context(|| format!("pod {uid} has no process"))?;
    let name = unique_name();
    tool::call("ip", &["netns", "attach", &name, &process.pid.to_string()])?;
    Ok(Inside(Netns::named(name)))
}

/// The processes of a pod: kubelet's groups have the pod's UID in their names.
fn processes_of(uid: &str) -> impl Iterator<Item = ProcessId> {
    let group = format!("pod{uid}");
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(move |entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let groups = std::fs::read_to_string(entry.path().join("cgroup")).ok()?;
        groups.contains(&group).then(|| ProcessId::of(pid))?
    })
}

fn ready(pod: &Value) -> Result<Pod> {
    let name = text(&pod["metadata"]["name"])?.to_owned();
    let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_ready = conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True");
    anyhow::ensure!(is_ready, "{name} is not ready: {}", pod["status"]);
    anyhow::ensure!(pod["metadata"]["deletionTimestamp"].is_null(), "{name} is going");
    Ok(Pod {
        node: text(&pod["spec"]["nodeName"])?.to_owned(),
        ip: text(&pod["status"]["podIP"])?.parse()?,
        uid: text(&pod["metadata"]["uid"])?.to_owned(),
        name,
    })
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("expected a string, found {value}"))
}
