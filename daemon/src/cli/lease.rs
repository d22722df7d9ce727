//! `weft lease`: gets this node a subnet and writes the subnet file, once, for a plugin that runs before any agent does.
//!
//! The lease names no back end, so peers do not take the node for reachable; the agent takes the lease over when it comes.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use weft_cni::formats::files::{Durability, write_atomically};
use weft_cni::formats::subnet_env::MODE;
use weft_netlink::RouteSocket;

use super::settings::{public_ips, uplink_spec};
use super::{TRY_AGAIN, logging};
use crate::cluster::etcd::{ConnectError, Store};
use crate::cluster::lease_value::{BackendData, LeaseValue};
use crate::config::{AgentConfig, LeaseFlags, Settings};
use crate::lease::subnet_file::{subnet_env, subnets_in};
use crate::lease::{AcquireError, LEASE_TTL, LeaseRequest, acquire_once};
use crate::overlay::uplink::{self, Uplink};

/// The lock of a node's `weft lease`, below the run directory.
pub(super) const LEASE_LOCK: &str = "lease.lock";

/// How often a lock that another process holds is tried again.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Lease a subnet for this node and write the subnet file, then exit.
///
/// If the file is there and the lease is this node's, nothing changes. Exit code 0: the node has a subnet and the file says
/// so; 75: not now, try again (etcd does not answer, no subnet is free); 1: something has to be mended first.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  weft lease --etcd-endpoints http://192.0.2.10:2379 --subnet-file /run/flannel/subnet.env"
)]
pub(super) struct LeaseArgs {
    #[command(flatten)]
    flags: LeaseFlags,

    /// Seconds after which to give up
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    timeout: u64,
}

pub(super) fn run(args: &LeaseArgs) -> anyhow::Result<ExitCode> {
    let config = AgentConfig::load(&args.flags)?;
    logging::start(&config.settings);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    match runtime.block_on(lease(&config, deadline)) {
        Ok(message) => {
            println!("{message}");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if is_temporary(&error) => {
            eprintln!("weft lease: {error:#}");
            Ok(ExitCode::from(TRY_AGAIN))
        }
        Err(error) => Err(error),
    }
}

/// Whether the same command may work later without anybody doing anything.
fn is_temporary(error: &anyhow::Error) -> bool {
    error.is::<AcquireError>()
        || error.is::<LockBusy>()
        || error.downcast_ref::<ConnectError>().is_some_and(ConnectError::is_temporary)
}

/// Another `weft lease` has been at work on this node all the time.
#[derive(Debug, thiserror::Error)]
#[error("another weft lease holds {0}")]
struct LockBusy(String);

/// Leases, writes the file if it does not say so yet, and tells what was done.
async fn lease(config: &AgentConfig, deadline: Instant) -> anyhow::Result<String> {
    let settings = &config.settings;
    let _lock = lock(&settings.run_dir, deadline).await?;
    let uplink = uplink(settings)?;
    let (env, previous) = subnets_in(&settings.subnet_file).unzip();
    let store = Store::new(config.etcd.clone());
    // A file that cannot be read is told at once: to try that again is of no use.
    store.client().await?;
    let (_value, value) =
        watch::channel(LeaseValue { public_ips: public_ips(settings, &uplink), backend: BackendData::default() });
    let request = LeaseRequest {
        layout: settings.etcd_prefix.clone(),
        node: settings.node_name.clone(),
        network: config.network.clone(),
        previous,
        ttl: LEASE_TTL,
        renew_margin: settings.subnet_lease_renew_margin.duration(),
        value,
        snapshots: None,
    };
    let held = acquire_once(store, request, deadline.saturating_duration_since(Instant::now())).await?;
    let wanted = subnet_env(&held.key, &held.config, uplink.mtu, settings.ip_masq);
    let file = settings.subnet_file.display();
    let subnets = held.key.subnets().values().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    // What the agent has written may differ in more than the subnets, and the agent knows better.
    if env.is_some_and(|env| env.subnets == wanted.subnets) {
        return Ok(format!("{} has {subnets}, as {file} says; nothing changed", settings.node_name));
    }
    write_atomically(&settings.subnet_file, wanted.to_string().as_bytes(), MODE, Durability::UntilReboot)
        .with_context(|| format!("cannot write the subnet file {file}"))?;
    Ok(format!("leased {subnets} for {}; wrote {file}", settings.node_name))
}

/// The lock of this node, held until dropped: of two plugins that find no subnet file one waits for the other.
async fn lock(run_dir: &Path, deadline: Instant) -> anyhow::Result<File> {
    let path = run_dir.join(LEASE_LOCK);
    std::fs::create_dir_all(run_dir).with_context(|| format!("cannot make the directory {}", run_dir.display()))?;
    let file = File::create(&path).with_context(|| format!("cannot open the lock {}", path.display()))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {}
            Err(TryLockError::WouldBlock) => return Err(LockBusy(path.display().to_string()).into()),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => bail!("cannot lock {}: {error}", path.display()),
        }
        sleep(LOCK_POLL).await;
    }
}

fn uplink(settings: &Settings) -> anyhow::Result<Uplink> {
    let mut socket = RouteSocket::open().context("cannot open a netlink socket")?;
    Ok(uplink::select(&mut socket, &uplink_spec(settings))?)
}
