//! `weft-bench`: weft beside its peers, in numbers.
//!
//! Every benchmark is a subcommand in a folder of its own. They share the machine they run on ([`machine`]), the way of
//! timing a process ([`call`]) or a list of plugins ([`chain`]) and of looking into it ([`memory`], [`trace`], [`usage`]),
//! daemons ([`agent`], [`flannel`], [`metric`]) on a node ([`site`]), a flow of datagrams ([`flow`]), statistics ([`stats`]),
//! and how a result is shown ([`promise`], [`table`]).

mod agent;
mod call;
mod chain;
mod cni;
mod crowd;
mod flannel;
mod flow;
mod machine;
mod memory;
mod metric;
mod overlay;
mod path;
mod pause;
mod ports;
mod promise;
mod services;
mod site;
mod stats;
mod table;
mod trace;
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Side-by-side measurements of weft and its peers. Exits with 1 if weft misses one of its promises.
#[derive(Debug, Parser)]
#[command(version, after_help = "Example:\n  weft-bench cni --rounds 1000 --output json")]
struct Cli {
    /// How to show the result.
    #[arg(long, global = true, default_value = "table")]
    output: Output,
    #[command(subcommand)]
    benchmark: Benchmark,
}

/// How to show the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs: JSON and nothing else on stdout.
    Json,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// CNI ADD and DEL: weft-cni, Debian's bridge with host-local, and the least that a process can do.
    #[command(after_help = "Example:\n  weft-bench cni --rounds 300 --standing 110")]
    Cni(cni::Options),
    /// CNI ADD on a full node: weft-cni with 10 pods, with 1000, and with 60,000 addresses given away.
    #[command(after_help = "Example:\n  weft-bench crowd --pods 500")]
    Crowd(crowd::Options),
    /// The other nodes: weft's agent and flanneld, from cold, at a change, while leases are renewed, restarted.
    #[command(after_help = "Example:\n  weft-bench overlay --peers 1000,5000 --rounds 3")]
    Overlay(overlay::Options),
    /// From pod to pod on another node: weft, the same by iproute2, and flannel; and what a restart of the agent costs.
    #[command(after_help = "Example:\n  weft-bench path --rounds 10 --seconds 3")]
    Path(path::Options),
    /// Pods with a host port, one after the other and 110 at once: weft-cni, and Debian's bridge with portmap.
    #[command(after_help = "Example:\n  weft-bench ports --rounds 100 --bursts 5")]
    Ports(ports::Options),
    /// Services: weft's agent and kube-proxy, both with nftables, from cold, at a change, restarted.
    #[command(after_help = "Example:\n  weft-bench services --shapes 1000x4,10000x4 --rounds 3")]
    Services(services::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.benchmark {
        Benchmark::Cni(options) => cni::run(options, cli.output),
        Benchmark::Crowd(options) => crowd::run(options, cli.output),
        Benchmark::Overlay(options) => overlay::run(options, cli.output),
        Benchmark::Path(options) => path::run(options, cli.output),
        Benchmark::Ports(options) => ports::run(options, cli.output),
        Benchmark::Services(options) => services::run(options, cli.output),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("weft-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}
