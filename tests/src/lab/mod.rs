//! A cluster of namespaces, converged towards what its [`Spec`] says.
//!
//! Every step looks at what is there first, so `up` after a failure, after a kill, or with more nodes simply goes on.
//! What the lab has made is kept in `state.json` in its folder, for later calls of `weft-lab`.

mod agent;
mod balance;
mod flannel;
mod kernel;
mod matrix;
mod node;
mod outside;
mod reboot;
mod services;
mod spec;
mod state;
pub mod underlay;
mod view;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::etcd::Etcd;
use crate::netns::Netns;

pub use agent::AGENT_READY_LIMIT;
pub use balance::{Balance, Way};
pub use flannel::flannel_obstacle;
pub use kernel::{agent_status, difference, kernel, without_numbers};
pub use matrix::{Matrix, Pair};
pub use node::{Node, PodRecord};
pub use outside::OUTSIDE;
pub use services::{PROBE_PORT, ServiceRequest};
pub use spec::{NETWORK_PREFIX, Spec};
pub use state::root;
pub use view::{LabView, NodeView, PodView, Vtep, tail};

use state::{Lock, State};

/// A lab that this process may change: it holds the lab's lock.
#[derive(Debug)]
pub struct Lab {
    state: State,
    _lock: Lock,
    begin: Instant,
}

impl Lab {
    /// The lab that is there, to look at it. Nothing if there is none of this name.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn look(name: &str) -> Result<Option<LabView>> {
        spec::check_name(name)?;
        Ok(State::load(name)?.as_ref().map(view::look))
    }

    /// The lab that is there, to change it.
    ///
    /// # Errors
    /// When there is none of this name, or another process is changing it.
    pub fn open(name: &str) -> Result<Self> {
        spec::check_name(name)?;
        if State::load(name)?.is_none() {
            bail!("there is no lab `{name}`; `weft-lab up --name {name}` makes one");
        }
        let lock = Lock::take(name)?;
        let state = State::load(name)?.with_context(|| format!("lab `{name}` has just gone"))?;
        Ok(Self { state, _lock: lock, begin: Instant::now() })
    }

    /// The lab of that specification, new or taken up where it is. Of a lab that is there only the number of nodes and
    /// pods can grow.
    ///
    /// # Errors
    /// When another process is changing it, or the specification is bad.
    pub fn prepare(spec: Spec) -> Result<Self> {
        spec.check()?;
        let lock = Lock::take(&spec.name)?;
        let state = match State::load(&spec.name)? {
            Some(mut state) => {
                state.spec.nodes = state.spec.nodes.max(spec.nodes);
                state.spec.pods = state.spec.pods.max(spec.pods);
                state
            }
            None => State::new(spec),
        };
        Ok(Self { state, _lock: lock, begin: Instant::now() })
    }

    /// Brings everything up that is not: the underlay, etcd, nodes, agents, pods.
    ///
    /// # Errors
    /// At the first step that fails, with the end of the logs that tell why.
    pub fn converge(&mut self) -> Result<()> {
        self.underlay()?;
        let missing = usize::from(self.state.spec.nodes).saturating_sub(self.state.nodes.len());
        for _ in 0..missing {
            self.new_node()?;
        }
        for name in self.node_names() {
            self.start_agent(&name)?;
        }
        for name in self.node_names() {
            self.await_ready(&name)?;
            self.fill(&name)?;
        }
        Ok(())
    }

    /// The underlay and etcd on it, without any node.
    ///
    /// # Errors
    /// When `ip` refuses or etcd does not start.
    pub fn underlay(&mut self) -> Result<()> {
        underlay::ensure(&self.state.underlay())?;
        self.state.save()?;
        if self.state.etcd.as_ref().is_none_or(|etcd| !etcd.process().alive()) {
            self.start_etcd()?;
        }
        if let (Some(config), etcd) = (self.state.spec.network_config(), self.etcd()?)
            && etcd.get(&format!("{NETWORK_PREFIX}/config"))?.is_empty()
        {
            etcd.put(&format!("{NETWORK_PREFIX}/config"), &config)?;
        }
        Ok(())
    }

    /// Starts etcd with the data that it had.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_etcd(&mut self) -> Result<()> {
        let address = SocketAddr::from((underlay::GATEWAY, underlay::ETCD_PORT));
        let etcd = Etcd::start(&self.state.underlay(), address, &self.state.folder().join("etcd"))?;
        self.tell(&format!("etcd: ready ({})", etcd.endpoint()));
        self.state.etcd = Some(etcd);
        self.state.save()
    }

    /// Kills etcd; its data stays.
    ///
    /// # Errors
    /// When none has been started.
    pub fn kill_etcd(&self) -> Result<()> {
        self.etcd()?.process().kill();
        Ok(())
    }

    /// Takes its data from an etcd that does not run.
    ///
    /// # Errors
    /// When it runs, or the data cannot be removed.
    pub fn wipe_etcd(&self) -> Result<()> {
        if self.etcd()?.process().alive() {
            bail!("etcd runs; its data cannot be taken away");
        }
        std::fs::remove_dir_all(self.state.folder().join("etcd/data")).context("cannot remove etcd's data")
    }

    /// Adds a node with its agent and pods, and waits until it is ready. Returns its name.
    ///
    /// # Errors
    /// As [`Lab::converge`].
    pub fn add_node(&mut self) -> Result<String> {
        let name = self.new_node()?;
        self.start_agent(&name)?;
        self.await_ready(&name)?;
        self.fill(&name)?;
        Ok(name)
    }

    /// Makes a node without starting its agent. Returns its name.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn new_node(&mut self) -> Result<String> {
        let number = self.state.next_number()?;
        let mut node = Node::new(&self.state.spec.name, number, &self.state.folder());
        // The last ones of those that the lab shall have.
        let Spec { nodes, flannel, .. } = self.state.spec;
        node.flannel = (nodes.saturating_sub(flannel) + 1..=nodes).contains(&u16::from(number));
        // Recorded before it is made, so that `down` after a kill right here finds it.
        let name = node.name.clone();
        self.state.nodes.push(node.clone());
        self.state.spec.nodes = self.state.spec.nodes.max(u16::try_from(self.state.nodes.len())?);
        self.state.save()?;
        underlay::attach(&self.state.underlay(), &node, self.state.spec.nodes)?;
        Ok(name)
    }

    /// Takes a node out for good: its pods, then everything that the agent left (`weft cleanup`, which gives its lease
    /// back), then the node itself.
    ///
    /// # Errors
    /// When there is no such node, or a step fails; the node is gone even then.
    pub fn remove_node(&mut self, name: &str) -> Result<()> {
        let emptied = self.empty(name);
        let stopped = self.stop_agent(name);
        let endpoint = self.etcd()?.endpoint();
        let cleaned = self.node(name).and_then(|node| match node.flannel {
            true => flannel::release(self, node),
            false => agent::cleanup(node, &endpoint),
        });
        let node = self.node(name)?.clone();
        Netns::delete_all(&node.namespaces())?;
        underlay::detach(&self.state.underlay(), &node)?;
        std::fs::remove_dir_all(&node.folder)?;
        self.state.nodes.retain(|other| other.name != name);
        self.state.spec.nodes = u16::try_from(self.state.nodes.len())?;
        self.state.save()?;
        emptied.and(stopped.map(drop)).and(cleaned)
    }

    /// Cuts a node off from all others and from etcd.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn cut(&mut self, name: &str) -> Result<()> {
        self.plug(name, false)
    }

    /// Undoes [`Lab::cut`], for all nodes if none is named.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn heal(&mut self, name: Option<&str>) -> Result<()> {
        let names = name.map_or_else(|| self.node_names(), |name| vec![name.to_owned()]);
        names.iter().try_for_each(|name| self.plug(name, true))
    }

    fn plug(&mut self, name: &str, plugged: bool) -> Result<()> {
        underlay::plug(&self.state.underlay(), self.node(name)?, plugged)?;
        self.node_mut(name)?.cut = !plugged;
        self.state.save()
    }

    /// Asks every pod for every other, again and again until all have answered or `limit` has passed.
    ///
    /// # Errors
    /// When a pod's namespace cannot be entered.
    pub fn matrix(&self, limit: Duration) -> Result<Matrix> {
        matrix::measure(&self.state.nodes, limit)
    }

    /// How it is now.
    #[must_use]
    pub fn view(&self) -> LabView {
        view::look(&self.state)
    }

    /// Removes every trace of the lab of that name. Says whether there was any.
    ///
    /// # Errors
    /// When another process is changing it, or something cannot be removed.
    pub fn down(name: &str) -> Result<bool> {
        spec::check_name(name)?;
        let namespaces = Netns::matching(|found| spec::is_of_lab(name, found))?;
        let folder = root().join(name);
        if namespaces.is_empty() && !folder.exists() {
            return Ok(false);
        }
        let lock = Lock::take(name)?;
        // Also what no state file tells of: a state file may be lost, namespaces and folders are found by name.
        Netns::delete_all(&namespaces)?;
        lock.remove_folder()?;
        Ok(true)
    }

    /// The lab's specification.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.state.spec
    }

    /// Its nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.state.nodes
    }

    /// Its underlay's namespace, where etcd is.
    #[must_use]
    pub fn underlay_netns(&self) -> Netns {
        self.state.underlay()
    }

    /// Its etcd.
    ///
    /// # Errors
    /// When none has been started.
    pub fn etcd(&self) -> Result<&Etcd> {
        self.state.etcd.as_ref().context("the lab has no etcd yet")
    }

    /// A node by name.
    ///
    /// # Errors
    /// When there is none; the error lists those there are.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let found = self.state.nodes.iter().find(|node| node.name == name);
        found.with_context(|| format!("there is no node `{name}`; there are {}", self.node_names().join(", ")))
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> std::path::PathBuf {
        self.state.folder()
    }

    fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        let found = self.state.nodes.iter_mut().find(|node| node.name == name);
        found.with_context(|| format!("there is no node `{name}`"))
    }

    fn node_names(&self) -> Vec<String> {
        self.state.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// A line of progress, on stderr as stdout belongs to the result.
    fn tell(&self, line: &str) {
        eprintln!("[{:5.1}s] {line}", self.begin.elapsed().as_secs_f64());
    }
}

/// What of this machine's belongs to a lab of that name: namespaces, files, processes.
///
/// # Errors
/// When `/run/netns` or `/proc` cannot be listed.
pub fn traces(name: &str) -> Result<Vec<String>> {
    let namespaces = Netns::matching(|found| found.starts_with(&format!("{name}-")))?;
    let mut found: Vec<String> = namespaces.iter().map(|netns| netns.name().to_owned()).collect();
    found.extend(root().join(name).exists().then(|| "its folder".to_owned()));
    let needle = format!("/{name}/");
    for process in std::fs::read_dir("/proc")?.filter_map(Result::ok) {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        found.extend(line.contains(&needle).then_some(line));
    }
    Ok(found)
}

/// A lab that goes away with its owner, also when the test panics; then the ends of its logs are shown.
#[derive(Debug)]
pub struct OwnedLab(Lab);

impl OwnedLab {
    /// A lab of its own name, with everything up.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn up(spec: Spec) -> Self {
        let mut this = Self::prepare(spec);
        this.converge().unwrap_or_else(|error| panic!("the lab did not come up: {error:#}"));
        this
    }

    /// A lab of its own name with the underlay and etcd only.
    ///
    /// # Panics
    /// When that does not come up.
    #[must_use]
    pub fn bare(spec: Spec) -> Self {
        let mut this = Self::prepare(spec);
        this.underlay().unwrap_or_else(|error| panic!("the lab's underlay did not come up: {error:#}"));
        this
    }

    fn prepare(spec: Spec) -> Self {
        Self(Lab::prepare(spec).unwrap_or_else(|error| panic!("{error:#}")))
    }
}

impl std::ops::Deref for OwnedLab {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl std::ops::DerefMut for OwnedLab {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.0
    }
}

impl Drop for OwnedLab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in self.nodes() {
                eprintln!("{}", agent::story(node));
            }
        }
        let namespaces: Vec<Netns> =
            Netns::matching(|found| spec::is_of_lab(&self.spec().name, found)).unwrap_or_default();
        let gone = Netns::delete_all(&namespaces).and_then(|()| remove_tree(&self.folder()));
        if let Err(error) = gone {
            eprintln!("left behind: lab {}: {error:#}", self.spec().name);
        }
    }
}

/// Removes a lab's folder, and the folder of all labs if this was the last one.
fn remove_tree(folder: &Path) -> Result<()> {
    std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    // Not empty while there are other labs.
    let _ = std::fs::remove_dir(root());
    Ok(())
}
