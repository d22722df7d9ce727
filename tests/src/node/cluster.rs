//! A cluster: a control plane, nodes, and weft on them as users install it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::control::Control;
use super::kubelet;
use super::machine::{Machine, Service};
use super::{image, peers};
use crate::lab::underlay;
use crate::netns::{Netns, OwnedNetns};
use crate::scratch::{Scratch, unique_name};
use crate::{binaries, tool, wait};

/// How long what takes seconds may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(300);
/// The image of the pods that answer: `weft-probe`.
pub const PROBE: &str = "localhost/weft-probe:1";
/// The names that a node may have, so that the control plane knows their kubelets.
const NAMES: [&str; 4] = ["n1", "n2", "n3", "n4"];

/// A node: a machine with containerd and kubelet.
#[derive(Debug)]
pub struct Node {
    /// Its machine.
    pub machine: Machine,
    /// Its containerd.
    pub containerd: Service,
    /// Its kubelet.
    pub kubelet: Service,
}

/// A cluster that ends with its owner.
// Fields are dropped in this order: nodes before what they stand on.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    control: Control,
    underlay: OwnedNetns,
    scratch: Scratch,
}

/// Why a cluster cannot be had here; `None` if it can.
#[must_use]
pub fn obstacle() -> Option<String> {
    let image = weft_image();
    let built = |path: PathBuf| if path.is_file() { Ok(()) } else { Err(format!("needs {}", path.display())) };
    peers::check(&peers::CLUSTER)
        .and_then(|()| image.map(drop).map_err(|error| format!("{error:#}")))
        .and_then(|()| built(probe_program()))
        .err()
}

/// The archive that `make image` writes.
fn weft_image() -> Result<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let target = binaries::folder().join("../../image").join(format!("weft-{version}.oci.tar"));
    target.canonicalize().with_context(|| format!("needs {}: run `make image`", target.display()))
}

/// `weft-probe`, linked statically.
fn probe_program() -> PathBuf {
    binaries::folder().join("../debug/weft-probe")
}

impl Cluster {
    /// Brings up a control plane and nodes, without a network yet.
    ///
    /// # Errors
    /// When a part does not start; the error says what it said last.
    pub fn start(nodes: u8) -> Result<Self> {
        let name = unique_name();
        let (scratch, underlay) = (Scratch::new(), OwnedNetns::new(format!("{name}-underlay")));
        underlay::ensure(&underlay)?;
        fs::write(scratch.join("probe.tar"), image::of(PROBE, &probe_program())?)?;
        let first = Machine::boot(&underlay, 1, &scratch.join("n1"))?;
        let control = Control::start(first.netns(), first.ip(), &scratch.join("control"), &NAMES)?;
        let mut this = Self { nodes: Vec::new(), control, underlay, scratch };
        this.join(first)?;
        for number in 2..=nodes {
            this.add_node(number)?;
        }
        Ok(this)
    }

    /// Adds the node of this number.
    ///
    /// # Errors
    /// When a part of it does not start.
    pub fn add_node(&mut self, number: u8) -> Result<()> {
        let folder = self.scratch.join(format!("n{number}"));
        self.join(Machine::boot(&self.underlay, number, &folder)?)
    }

    fn join(&mut self, machine: Machine) -> Result<()> {
        kubelet::configure(&machine)?;
        let containerd = kubelet::containerd(&machine)?;
        kubelet::import(&machine, &weft_image()?)?;
        kubelet::import(&machine, &self.scratch.join("probe.tar"))?;
        let kubelet = kubelet::kubelet(&machine, &self.credentials(&machine)?)?;
        self.nodes.push(Node { machine, containerd, kubelet });
        Ok(())
    }

    /// Puts an image of one static program on every node that is there.
    ///
    /// # Errors
    /// When there is no such program, or containerd refuses.
    pub fn import_image(&self, name: &str, program: &Path) -> Result<()> {
        self.import_archive(&image::of(name, program)?)
    }

    /// Puts the images of an archive on every node that is there.
    ///
    /// # Errors
    /// When containerd refuses.
    pub fn import_archive(&self, archive: &[u8]) -> Result<()> {
        let file = self.scratch.join("image.tar");
        fs::write(&file, archive)?;
        self.nodes.iter().try_for_each(|node| kubelet::import(&node.machine, &file))
    }

    /// A folder that goes with the cluster.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.scratch.join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn credentials(&self, machine: &Machine) -> Result<PathBuf> {
        self.control.kubeconfig(&format!("system:node:{}", machine.name()))
    }

    /// Removes a node: its Node object, and then the machine with all that it has.
    ///
    /// # Errors
    /// When something of it stays.
    pub fn remove_node(&mut self, name: &str) -> Result<()> {
        self.kubectl(&["delete", "node", name])?;
        let at = self.nodes.iter().position(|node| node.machine.name() == name);
        let mut node = self.nodes.remove(at.with_context(|| format!("there is no node {name}"))?);
        node.machine.power_off()?;
        Ok(fs::remove_dir_all(node.machine.path(""))?)
    }

    /// Switches a node off at once and on again, with its folder as it was: a power cut.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn reboot(&mut self, name: &str) -> Result<()> {
        let kubeconfig = self.credentials(&self.node(name).machine)?;
        let node = self.node_mut(name);
        node.machine.power_off()?;
        node.machine.power_on()?;
        node.containerd = kubelet::containerd(&node.machine)?;
        node.kubelet = kubelet::kubelet(&node.machine, &kubeconfig)?;
        Ok(())
    }

    /// Kills a node's kubelet and starts it again; pods go on.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart_kubelet(&mut self, name: &str) -> Result<()> {
        let kubeconfig = self.credentials(&self.node(name).machine)?;
        let node = self.node_mut(name);
        node.kubelet.kill();
        node.kubelet = kubelet::kubelet(&node.machine, &kubeconfig)?;
        Ok(())
    }

    /// Installs weft as its README says: a folder of this repository (`manifests`, or one of its overlays), and what this
    /// cluster needs changed by kustomize.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub fn install_weft(&self, manifests: &str) -> Result<()> {
        self.install_weft_in(manifests, "auto")
    }

    /// The same with this `proxy-mode`.
    ///
    /// # Errors
    /// As [`Cluster::install_weft`].
    pub fn install_weft_in(&self, manifests: &str, mode: &str) -> Result<()> {
        // kustomize takes resources from a relative path only.
        let copy = self.scratch.join("manifests");
        if !copy.exists() {
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");
            tool::run(tool::command("cp").args(["-r", source]).arg(&copy))?;
        }
        let folder = self.folder("overlay")?;
        let settings = format!("proxy-mode: {mode}\nlog-level: info\nkube-api-server: {}\n", self.control.url());
        let config = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "weft-config", "namespace": "kube-system"},
            "data": {"config.yaml": settings},
        });
        fs::write(folder.join("config.json"), config.to_string())?;
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": [format!("../{manifests}")], "patches": [{"path": "config.json"}],
        });
        fs::write(folder.join("kustomization.yaml"), kustomization.to_string())?;
        self.kubectl(&["apply", "--kustomize", &folder.display().to_string()]).map(drop)
    }

    /// Waits until all nodes are Ready and weft says that their network is there.
    ///
    /// # Errors
    /// When that does not come about; the error says what is wrong.
    pub fn await_ready(&self) -> Result<()> {
        wait::until_ok(LIMIT, "all nodes to be ready", || -> Result<()> {
            let nodes = self.get(&["nodes"])?;
            for node in &self.nodes {
                let name = node.machine.name();
                let found = items(&nodes).find(|it| it["metadata"]["name"] == name);
                let conditions = &found.with_context(|| format!("{name} has not registered"))?["status"]["conditions"];
                let state = |kind: &str| {
                    let all = conditions.as_array().map(Vec::as_slice).unwrap_or_default();
                    all.iter().find(|it| it["type"] == kind).cloned().unwrap_or_default()
                };
                let (ready, network) = (state("Ready"), state("NetworkUnavailable"));
                anyhow::ensure!(ready["status"] == "True", "{name}: {ready}");
                anyhow::ensure!(network["status"] == "False", "{name}: {network}");
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Its nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by its name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        let found = self.nodes.iter().find(|node| node.machine.name() == name);
        found.unwrap_or_else(|| panic!("there is no node {name}"))
    }

    fn node_mut(&mut self, name: &str) -> &mut Node {
        let found = self.nodes.iter_mut().find(|node| node.machine.name() == name);
        found.unwrap_or_else(|| panic!("there is no node {name}"))
    }

    /// Where clients outside of the cluster are.
    #[must_use]
    pub fn outside(&self) -> &Netns {
        &self.underlay
    }

    /// The control plane.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The control plane, to stop parts of it.
    pub fn control_mut(&mut self) -> &mut Control {
        &mut self.control
    }

    /// A call of kubectl as an administrator.
    ///
    /// # Errors
    /// When it ends with another code than 0.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.control.kubectl(args)
    }

    /// What `kubectl get` says.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&[&["get", "--output", "json"], args].concat())?)?)
    }

    /// Creates objects or brings them to this state.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let file = self.scratch.join("objects.json");
        fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())?;
        self.kubectl(&["apply", "--filename", &file.display().to_string()]).map(drop)
    }

    /// What an operator would look at: for the report of a test that failed.
    #[must_use]
    pub fn state(&self) -> String {
        let mut text = String::new();
        for args in [
            &["get", "nodes,services,endpointslices", "--all-namespaces", "--output", "wide"] as &[&str],
            &["get", "pods", "--all-namespaces", "--output", "wide"],
            &["get", "events", "--all-namespaces", "--sort-by", ".lastTimestamp"],
        ] {
            text += &self.kubectl(args).unwrap_or_else(|error| format!("{error:#}\n"));
        }
        for node in &self.nodes {
            text += &format!("\n{}\n{}\n", node.kubelet.log(), node.containerd.log());
            let logs = node.machine.run("sh", &["-c", "tail -n 20 /var/log/pods/kube-system_weft*/*/*.log"]);
            text += &logs.unwrap_or_else(|error| format!("{error:#}"));
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.state());
        }
    }
}

/// The objects of a list.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default().iter()
}
