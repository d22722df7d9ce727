//! weft's agent, against an etcd that only it sees.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use weft_netlink::nft::TableFamily;
use weft_tests::etcd::Etcd;
use weft_tests::netns::Netns;
use weft_tests::process::ProcessId;

use super::cluster::{Cluster, NAMESPACE, service, service_name, slice_name};
use super::contenders::{Contender, Mode, metric, passes};
use super::kernel::Frontends;
use crate::agent::{PREFIX, Place};
use crate::site::UPLINK;

/// The lease of another node.
const OTHER_NODE: &str = r#"{"PublicIP":"172.16.2.9","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0a:00:00:00:00:09"}}"#;

/// The agent and its etcd.
pub(crate) struct Weft {
    node: Netns,
    mode: Mode,
    etcd: Etcd,
    folder: PathBuf,
    process: Option<ProcessId>,
}

impl Weft {
    /// On a node, with its files in a folder that is there.
    pub(crate) fn new(mode: Mode, node: &Netns, folder: PathBuf) -> Result<Self> {
        let etcd = Etcd::start(node, "127.0.0.1:2379".parse()?, &folder.join("etcd"))?;
        // Where nobody has a subnet the agent waits 2 s for those who run one; a cluster has other nodes.
        etcd.put(&format!("{PREFIX}/subnets/10.244.9.0-24"), OTHER_NODE)?;
        Ok(Self { node: node.clone(), mode, etcd, folder, process: None })
    }
}

impl Contender for Weft {
    fn name(&self) -> &'static str {
        "weft"
    }

    fn provide(&mut self, cluster: &Cluster) -> Result<()> {
        let all = 0..cluster.shape().services;
        let services = all.clone().map(|number| {
            let key = format!("{PREFIX}/services/{NAMESPACE}/{}", service_name(number));
            (key, service(number, 1).to_string())
        });
        let slices = all.map(|number| (slice_key(number), cluster.slice(number, 1, None).to_string()));
        self.etcd.put_all(services.chain(slices))
    }

    fn publish(&self, number: u32, slice: &Value) -> Result<()> {
        self.etcd.put(&slice_key(number), &slice.to_string())
    }

    fn start(&mut self) -> Result<()> {
        let place =
            Place { node: &self.node, name: "bench-node", uplink: UPLINK, folder: &self.folder, etcd: &self.etcd };
        self.process = Some(place.start(&["--proxy-mode", self.mode.name()])?);
        Ok(())
    }

    fn process(&self) -> Option<ProcessId> {
        self.process
    }

    fn frontends(&self) -> Frontends {
        Frontends { family: TableFamily::Inet, table: "weft", map: "svc-frontends4" }
    }

    fn synced(&self) -> Result<bool> {
        Ok(passes(&self.node)?.0 >= 1.0)
    }

    fn own_time(&self) -> Result<Option<Duration>> {
        Ok(Some(Duration::from_secs_f64(passes(&self.node)?.1)))
    }

    fn messages(&self) -> Result<Option<f64>> {
        metric(&self.node, "weft_service_messages_total").map(Some)
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(50)
    }
}

fn slice_key(number: u32) -> String {
    format!("{PREFIX}/endpointslices/{NAMESPACE}/{}", slice_name(number))
}
