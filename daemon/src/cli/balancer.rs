//! `weft balancer`: a loopback address behind which all API servers of the cluster stand.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::logging;
use crate::balancer::{Options, run as balance};
use crate::config::time;

/// Forward connections from this node to the cluster's API servers.
///
/// `weft init` and `weft join` run it as the static pod weft-api-balancer, and have the name api.weft.internal lead to it in
/// /etc/hosts. TLS goes through it untouched. It keeps two lists under --state, one HOST:PORT a line: `start`, which weft join
/// writes, and `known`, which the cluster told last. A server that takes no connection, or is not ready, is passed over;
/// connections that are open stay open whatever becomes of the lists.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  weft balancer --listen 127.0.0.1:7443 --state /var/lib/weft/balancer \\\n    --authority \
                  /etc/kubernetes/pki/ca.crt --certificate /var/lib/kubelet/pki/kubelet-client-current.pem"
)]
pub(super) struct BalancerArgs {
    /// Address to listen on; may be given more than once
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',', default_values = ["127.0.0.1:7443", "[::1]:7443"])]
    listen: Vec<SocketAddr>,

    /// Directory of the lists of API servers
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weft/balancer")]
    state: PathBuf,

    /// The cluster's certificate authority, by which health checks know the servers; without, whoever accepts is well
    #[arg(long, value_name = "FILE")]
    authority: Option<PathBuf>,

    /// kubelet's certificate and key in one file, to ask the cluster for its servers with
    #[arg(long, value_name = "FILE", requires = "authority")]
    certificate: Option<PathBuf>,

    /// How often the cluster is asked
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    every: Duration,
}

pub(super) fn run(args: BalancerArgs) -> anyhow::Result<ExitCode> {
    logging::start_plain();
    let BalancerArgs { listen, state, authority, certificate, every } = args;
    let options = Options { listen, state, authority, certificate, every };
    // One thread is enough: it waits for sockets.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let mut ended = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupted = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        tokio::select! {
            failed = balance(options) => failed.map(|never| match never {}).map_err(Into::into),
            _ = ended.recv() => Ok(ExitCode::SUCCESS),
            _ = interrupted.recv() => Ok(ExitCode::SUCCESS),
        }
    })
}
