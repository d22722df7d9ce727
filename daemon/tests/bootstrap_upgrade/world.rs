//! A machine of its own with a control plane on it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;
use weft::bootstrap::api::{self, Server};
use weft::bootstrap::config::{self, Facts};
use weft::bootstrap::kubeconfig;
use weft::bootstrap::kubelet::service::ServiceManager;
use weft::bootstrap::patches::Patches;
use weft::bootstrap::pki::{Options, ensure_all};
use weft::bootstrap::resolved::{Limits, Node, Paths};
use weft::bootstrap::static_pods::{self, EtcdVersion, Part, manifests, write};
use weft_tests::netns::OwnedNetns;
use weft_tests::node::peers;
use weft_tests::scratch::{Scratch, unique_name};
use weft_tests::tool;

use crate::kubelet::Kubelet;

pub(crate) const OLD: &str = "v1.36.1";
pub(crate) const NEW: &str = "v1.36.2";
/// No runtime has its images.
pub(crate) const MISSING: &str = "v1.36.9";
/// What a patch adds to etcd's manifest.
pub(crate) const MARK: &str = "example.org/patched";
const ADDRESS: &str = "192.0.2.10";
const START: Duration = Duration::from_secs(240);

/// What has been uploaded by whoever has made the cluster.
const CONFIGURATION: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.36.1
networking: {serviceSubnet: 10.96.0.0/12, podSubnet: 10.244.0.0/16, dnsDomain: cluster.local}
encryptionAlgorithm: ECDSA-P256
proxy: {disabled: true}
etcd:
  local:
    dataDir: /var/lib/etcd
    extraArgs: [{name: unsafe-no-fsync, value: 'true'}]
";

pub(crate) struct World {
    // Ends before the folder goes.
    pub(crate) kubelet: Kubelet,
    pub(crate) machine: OwnedNetns,
    pub(crate) paths: Paths,
    folder: Scratch,
}

/// Nobody who could tell of kubelet.
pub(crate) fn services() -> ServiceManager {
    ServiceManager::Systemd("/none".into())
}

impl World {
    pub(crate) fn start() -> Self {
        let folder = Scratch::new();
        let paths = Paths::under(folder.join("root"));
        let machine = OwnedNetns::new(unique_name());
        machine.tool("ip", &["address", "add", &format!("{ADDRESS}/32"), "dev", "lo"]).unwrap();
        let cluster = config::read_uploaded(CONFIGURATION).unwrap().cluster;
        let node = Node {
            name: "n1".into(),
            hostname: "n1".into(),
            address: ADDRESS.parse().unwrap(),
            second_address: None,
            bind_port: 6443,
            taints: Vec::new(),
            registration: config::model::NodeRegistration::default(),
            cri_socket: "unix:///none".into(),
        };
        let now = Timestamp::now();
        ensure_all(&cluster, &node, &paths, &Options::default(), now).unwrap();
        let names = ["admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"];
        kubeconfig::ensure(&names, &cluster, &node, &paths, now).unwrap();
        let version = tool::call(&peers::need("etcd").unwrap().display().to_string(), &["--version"]).unwrap();
        let facts = static_pods::Facts {
            etcd_version: EtcdVersion::parse(&version).unwrap(),
            ca_directories: static_pods::ca_directories(&paths.root),
            ..static_pods::Facts::default()
        };
        for manifest in manifests(&cluster, &node, &facts) {
            write(&paths, &cluster, &manifest, &Patches::default()).unwrap();
        }
        let kubelet = Kubelet::start((*machine).clone(), paths.clone(), folder.path().to_owned());
        let world = Self { kubelet, machine, paths, folder };
        world.settle();
        world
    }

    /// This machine, as far as an upgrade asks.
    pub(crate) fn facts(&self) -> Facts {
        Facts { hostname: "n1".to_owned(), ..Facts::unknown() }
    }

    /// A folder with a patch that makes etcd's manifest another one.
    pub(crate) fn patches(&self) -> PathBuf {
        let folder = self.folder.join("patches");
        fs::create_dir_all(&folder).unwrap();
        let patch = format!("metadata: {{annotations: {{{MARK}: here}}}}\n");
        fs::write(folder.join("etcd+merge.yaml"), patch).unwrap();
        folder
    }

    /// An administrator.
    pub(crate) async fn server(&self) -> Server {
        let admin = self.paths.kubernetes.join("admin.conf");
        Server::connect(&admin, None, &Limits { api_call: START, ..Limits::default() }).await.unwrap()
    }

    /// On this machine.
    pub(crate) fn inside<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work())
        };
        self.machine.run(run).unwrap()
    }

    /// What init leaves in a cluster, and pods that are mirrored.
    fn settle(&self) {
        let limits = Limits { api_call: START, ..Limits::default() };
        let settled = self.inside(async || {
            let endpoint = format!("https://{ADDRESS}:6443");
            let (server, _) = api::admin(&self.paths, &endpoint, &limits).await.map_err(|error| error.to_string())?;
            api::upload_kubeadm_config(&server, CONFIGURATION).await.map_err(|error| error.to_string())?;
            api::upload_kubelet_config(&server, &json!({"kind": "KubeletConfiguration"}).to_string(), true)
                .await
                .map_err(|error| error.to_string())?;
            let end = Instant::now() + START;
            loop {
                let pods = api::control_plane_pods(&server).await.map_err(|error| error.to_string())?;
                let nodes = api::nodes(&server).await.map_err(|error| error.to_string())?;
                if pods.len() == Part::ALL.len() && nodes.iter().any(|node| node.ready) {
                    return Ok(());
                }
                if Instant::now() > end {
                    return Err(format!("{pods:?} {nodes:?}"));
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        settled.unwrap_or_else(|error: String| panic!("{error}\n{}", self.logs()));
    }

    fn logs(&self) -> String {
        let names = Part::ALL.map(|part| format!("{}.log", part.name()));
        let last = |name: String| {
            let log = fs::read_to_string(self.folder.join(&name)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(10).collect();
            format!("--- {name}\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        names.map(last).join("\n")
    }
}
