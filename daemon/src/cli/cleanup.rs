//! `weft cleanup`: the machine as it was before the agent's first start.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use weft_cni::formats::attachment;
use weft_cni::formats::conflist::BRIDGE_ALIAS;
use weft_netlink::nft::{Batch, Socket};
use weft_netlink::sysctl::Sysctl;
use weft_netlink::{Link, LinkKind, Route, RouteFilter, RouteSocket, Verb, delete_link};

use super::lease::LEASE_LOCK;
use super::logging;
use super::settings::places;
use crate::cluster::etcd::Store;
use crate::cluster::{kube::servers, last_known};
use crate::config::{AgentConfig, AgentFlags, SourceKind};
use crate::filter::{agent_table, forward, plugin_table};
use crate::lease::release;
use crate::node::{NODE_RECORD, Owned};
use crate::overlay::{ROUTE_PROTOCOL, links};
use crate::service::{SERVICES_RECORD, cleanup_ipvs};

/// How long the store may take to answer. A machine must be cleanable without it.
const STORE_LIMIT: Duration = Duration::from_secs(5);

/// Remove everything that the agent and the plugin have made on this node, and give its lease back.
///
/// Removes the conflist, the subnet file, the overlay's devices with their routes, the private key that it has made, the routes through peers, the bridge with its pods' ports, the
/// nf_tables tables, its rules in iptables' chain FORWARD, the IPVS virtual servers of weft's and their route, and the recorded state, and gives changed kernel settings their old values. A bridge that was there
/// before weft stays. Stop the agent first. What cannot be removed is reported, and the rest removed all the same. Needs the
/// agent's paths, bridge and node name where they are not the defaults.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft cleanup --etcd-endpoints http://192.0.2.10:2379")]
pub(super) struct CleanupArgs {
    #[command(flatten)]
    flags: AgentFlags,

    /// Leave the node's lease in the store
    #[arg(long)]
    keep_lease: bool,
}

pub(super) fn run(args: &CleanupArgs) -> anyhow::Result<ExitCode> {
    let config = AgentConfig::load(&args.flags)?;
    logging::start(&config.settings);
    let mut problems = Problems::default();
    clean_node(&config, &mut problems);
    // In Kubernetes the subnet is the Node's, and its annotations tell no peer more than it knows.
    if !args.keep_lease && config.settings.source == SourceKind::Etcd {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        runtime.block_on(give_lease_back(&config, &mut problems));
    }
    if problems.0 == 0 {
        println!("{} is clean", config.settings.node_name);
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("weft cleanup: {} left as reported above; run it again when the cause is gone", problems.0);
    Ok(ExitCode::FAILURE)
}

/// Cleans the node, and says whether all has gone.
pub(super) fn node(config: &AgentConfig) -> bool {
    let mut problems = Problems::default();
    clean_node(config, &mut problems);
    problems.0 == 0
}

/// Counts what could not be removed, and says so at once.
#[derive(Debug, Default)]
struct Problems(usize);

impl Problems {
    fn note<T, E: std::fmt::Display>(&mut self, result: Result<T, E>) -> Option<T> {
        result
            .map_err(|error| {
                eprintln!("weft cleanup: {error}");
                self.0 += 1;
            })
            .ok()
    }

    fn note_all<E: std::fmt::Display>(&mut self, result: Result<(), Vec<E>>) {
        for error in result.err().into_iter().flatten() {
            self.note(Err::<(), _>(error));
        }
    }
}

/// The conflist first, so that no runtime calls the plugin any more.
fn clean_node(config: &AgentConfig, problems: &mut Problems) {
    let settings = &config.settings;
    problems.note_all(places(settings).withdraw());
    // Before the tables: what leads packets to virtual servers must not outlive the guard.
    problems.note_all(cleanup_ipvs(&settings.run_dir));
    problems.note(remove_tables());
    problems.note(forward::withdraw());
    if let Some(owned) = problems.note(Owned::load(&settings.run_dir, SERVICES_RECORD)) {
        problems.note_all(owned.restore(&Sysctl::at(&settings.sysctl_dir)));
    }
    let owned = problems.note(Owned::load(&settings.run_dir, NODE_RECORD));
    let devices: Vec<String> = owned.iter().flat_map(Owned::devices).map(str::to_owned).collect();
    problems.note(remove_links(settings.bridge.as_str(), &devices));
    problems.note(remove_routes());
    problems.note(remove_attachments(&settings.cni_state_dir));
    problems.note(remove_file(&settings.run_dir.join(LEASE_LOCK)));
    for file in [last_known::FILE, servers::FILE] {
        problems.note(remove_file(&settings.state_dir.join(file)));
    }
    if let Some(owned) = owned {
        problems.note_all(owned.restore(&Sysctl::at(&settings.sysctl_dir)));
    }
    let subnet_dir = settings.subnet_file.parent().map(Path::to_path_buf).unwrap_or_default();
    for directory in [&settings.cni_state_dir, &settings.run_dir, &settings.state_dir, &subnet_dir] {
        // Whoever else keeps something there keeps the directory.
        let _ = std::fs::remove_dir(directory);
    }
}

fn remove_tables() -> anyhow::Result<()> {
    let mut socket = Socket::open()?;
    let mut batch = Batch::new();
    batch.remove_table(&agent_table());
    batch.remove_table(&plugin_table());
    socket.commit(batch).context("cannot remove the nf_tables tables")
}

/// The overlay's devices take their routes, neighbours, FDB entries and peers with them; the ports of the bridge go first, as the
/// bridge does not take them along.
fn remove_links(bridge: &str, devices: &[String]) -> anyhow::Result<()> {
    let mut socket = RouteSocket::open()?;
    let found = socket.links()?;
    let bridge = found.iter().find(|link| link.kind == LinkKind::Bridge && link.name == bridge);
    let is_port = |link: &&Link| {
        bridge.is_some_and(|bridge| link.master == Some(bridge.index))
            && link.kind == LinkKind::Veth
            && link.name.starts_with("veth")
    };
    let is_device = |link: &&Link| links::is_device(link) && devices.contains(&link.name);
    // What limits pods has the name of a port, and is none.
    let is_limiter = |link: &&Link| {
        attachment::limiter_digits(&link.name).is_some() && link.kind == LinkKind::Other("ifb".to_owned())
    };
    let made_bridge = bridge.filter(|bridge| bridge.alias.as_deref() == Some(BRIDGE_ALIAS));
    let doomed = found.iter().filter(is_port).chain(found.iter().filter(is_limiter));
    let doomed = doomed.chain(found.iter().filter(is_device)).chain(made_bridge);
    for verdict in socket.run(doomed.map(|link| delete_link(link.index)).collect())? {
        match verdict {
            Err(error) if !error.is_absent() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// The routes that no device has taken along: through peers that share a link with this node.
fn remove_routes() -> anyhow::Result<()> {
    let mut socket = RouteSocket::open()?;
    let ours = RouteFilter { protocol: Some(ROUTE_PROTOCOL), table: Some(Route::MAIN), ..RouteFilter::default() };
    let requests = socket.routes(ours)?.iter().map(|route| route.request(Verb::Delete)).collect();
    for verdict in socket.run(requests)? {
        match verdict {
            Err(error) if !error.is_absent() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// The plugin's records of all networks, and nothing else that lies there.
fn remove_attachments(state_dir: &Path) -> anyhow::Result<()> {
    remove_file(&state_dir.join(attachment::LEASE_LOCK))?;
    for network in entries(state_dir)? {
        let records = network.join(attachment::RECORDS);
        for record in entries(&records)? {
            remove_file(&record)?;
        }
        let _ = std::fs::remove_dir(&records);
        remove_file(&network.join(attachment::POOL))?;
        remove_file(&network.join(attachment::LOCK))?;
        let _ = std::fs::remove_dir(&network);
    }
    Ok(())
}

fn entries(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    match std::fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        listed => listed
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .with_context(|| format!("cannot list {}", directory.display())),
    }
}

fn remove_file(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

async fn give_lease_back(config: &AgentConfig, problems: &mut Problems) {
    let settings = &config.settings;
    let store = Store::new(config.etcd.clone());
    let released = release(&store, &settings.etcd_prefix, &settings.node_name, STORE_LIMIT).await;
    if let Some(Some(key)) = problems.note(released) {
        println!("gave {key} back");
    }
}
