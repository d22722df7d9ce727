//! kube-proxy, against an API server that only it sees.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use weft_netlink::nft::TableFamily;
use weft_tests::netns::Netns;
use weft_tests::process::{self, ProcessId};
use weft_tests::tool;

use super::api::{Api, Kind};
use super::cluster::{Cluster, service, service_name, slice_name};
use super::contenders::{Contender, Mode, passes};
use super::kernel::Frontends;
use crate::site::NODE;

/// The binary, in the folder that `WEFT_PEERS` names.
pub(crate) const BINARY: &str = "kube-proxy";
/// The node that it runs on.
const NODE_NAME: &str = "bench-node";

/// kube-proxy and its API server.
pub(crate) struct KubeProxy {
    binary: PathBuf,
    node: Netns,
    api: Api,
    folder: PathBuf,
    process: Option<ProcessId>,
}

impl KubeProxy {
    /// On a node, with its files in a folder that is there.
    pub(crate) fn new(binary: PathBuf, mode: Mode, node: &Netns, folder: PathBuf) -> Result<Self> {
        let api = Api::start(node)?;
        let address = json!({"type": "InternalIP", "address": NODE});
        api.put(
            Kind::Node,
            NODE_NAME,
            &json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": NODE_NAME, "uid": "node", "resourceVersion": api.next_version().to_string()},
                "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]},
                "status": {"addresses": [address]},
            }),
        );
        api.put(
            Kind::ServiceCidr,
            "kubernetes",
            &json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
                "metadata": {"name": "kubernetes", "resourceVersion": api.next_version().to_string()},
                "spec": {"cidrs": ["10.96.0.0/12"]},
            }),
        );
        let this = Self { binary, node: node.clone(), api, folder, process: None };
        this.write(
            "kubeconfig",
            &json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "bench",
                "clusters": [{"name": "bench", "cluster": {"server": format!("http://{}", this.api.address())}}],
                "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
                "users": [{"name": "bench", "user": {}}],
            }),
        )?;
        this.write(
            "config",
            &json!({
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": mode.name(),
                // The API server here speaks JSON only.
                "clientConnection": {
                    "kubeconfig": this.folder.join("kubeconfig"), "contentType": "application/json",
                    "acceptContentTypes": "application/json",
                },
                "clusterCIDR": "10.244.0.0/16", "hostnameOverride": NODE_NAME,
                // nf_conntrack_max belongs to the whole machine; kube-proxy would end without it.
                "conntrack": {"maxPerCore": 0, "min": 0},
            }),
        )?;
        Ok(this)
    }

    /// JSON is YAML.
    fn write(&self, name: &str, content: &Value) -> Result<()> {
        let path = self.folder.join(name);
        std::fs::write(&path, content.to_string()).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Contender for KubeProxy {
    fn name(&self) -> &'static str {
        "kube-proxy"
    }

    fn provide(&mut self, cluster: &Cluster) -> Result<()> {
        for number in 0..cluster.shape().services {
            let object = service(number, self.api.next_version());
            self.api.put(Kind::Service, &service_name(number), &object);
            self.publish(number, &cluster.slice(number, self.api.next_version(), None))?;
        }
        Ok(())
    }

    fn publish(&self, number: u32, slice: &Value) -> Result<()> {
        self.api.put(Kind::EndpointSlice, &slice_name(number), slice);
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        let mut command = tool::command(&self.binary);
        command.arg("--config").arg(self.folder.join("config"));
        self.process = Some(process::spawn(&self.node, &mut command, &self.folder.join("kube-proxy.log"))?);
        Ok(())
    }

    fn process(&self) -> Option<ProcessId> {
        self.process
    }

    fn frontends(&self) -> Frontends {
        Frontends { family: TableFamily::Ip, table: "kube-proxy", map: "service-ips" }
    }

    fn synced(&self) -> Result<bool> {
        Ok(passes(&self.node)?.0 >= 1.0)
    }

    fn own_time(&self) -> Result<Option<Duration>> {
        Ok(Some(Duration::from_secs_f64(passes(&self.node)?.1)))
    }

    fn pause(&self) -> Duration {
        // Its minSyncPeriod, 1 s by default, counts from the end of a pass.
        Duration::from_millis(1100)
    }
}
