//! `weft-lab`: a cluster network of many nodes on this machine, to look at and to break.

mod commands;
mod service;
mod show;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::service::{Ask, ProbeServer, ServiceVerb};

/// A cluster network of many nodes on this machine: namespaces as nodes and pods, real etcd, real VXLAN.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  weft-lab up --nodes 3\n  weft-lab exec node1-pod1 ping -c 3 10.244.2.2\n  \
weft-lab service add web --port 80; weft-lab ask node1-pod1 10.96.0.17:80\n  \
weft-lab cut node2; weft-lab ping; weft-lab heal\n  weft-lab down"
)]
struct Cli {
    /// The lab's name; labs of different names do not touch each other.
    #[arg(long, global = true, default_value = "lab")]
    name: String,
    /// How to show the result.
    #[arg(long, global = true, default_value = "table")]
    output: Output,
    #[command(subcommand)]
    verb: Verb,
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
enum Verb {
    /// Bring the lab up, or to the end where it is; then have every pod ask every other, and the Service `default/lab` over
    /// all pods be asked from inside and outside.
    #[command(
        after_help = "Example:\n  weft-lab up --nodes 20 --output json\n  weft-lab up --dual-stack --proxy-mode ipvs"
    )]
    Up {
        /// How many nodes. A lab that is up only grows.
        #[arg(long, default_value_t = 3)]
        nodes: u16,
        /// How many pods on each node.
        #[arg(long, default_value_t = 2)]
        pods: u16,
        /// How many of them flannel has, the last ones (new labs only). Needs its programs in the folder that `WEFT_PEERS` names.
        #[arg(long, default_value_t = 0)]
        flannel: u16,
        /// Give pods an address of each family (new labs only).
        #[arg(long)]
        dual_stack: bool,
        /// What serves Services: ipvs, nftables, auto (new labs only).
        #[arg(long, default_value = "auto")]
        proxy_mode: String,
    },
    /// Remove every trace of the lab.
    #[command(after_help = "Example:\n  weft-lab down --name lab")]
    Down,
    /// Show the nodes and pods.
    #[command(after_help = "Example:\n  weft-lab status --output json")]
    Status,
    /// Have every pod ask every other.
    #[command(after_help = "Example:\n  weft-lab ping")]
    Ping,
    /// Run a command on a node or in a pod.
    #[command(after_help = "Example:\n  weft-lab exec node1 ip route\n  weft-lab exec node1-pod1 ping 10.244.2.2")]
    Exec {
        /// `node1`, `node1-pod2`, …
        place: String,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Write, remove and show Services.
    Service {
        #[command(subcommand)]
        verb: ServiceVerb,
    },
    /// Ask an address many times who is there, and sum up who answered and whom he saw.
    #[command(
        after_help = "Example:\n  weft-lab ask node1-pod1 10.96.0.16:80 --count 1000\n  weft-lab ask outside 192.168.100.12:30000"
    )]
    Ask(Ask),
    /// Tell whoever asks who is here, until killed.
    #[command(hide = true)]
    ProbeServer(ProbeServer),
    /// Add a node with an agent and pods.
    #[command(after_help = "Example:\n  weft-lab add-node")]
    AddNode,
    /// Clean a node up and take it out.
    #[command(after_help = "Example:\n  weft-lab remove-node node3")]
    RemoveNode {
        /// `node1`, …
        node: String,
    },
    /// Kill a node's agent with SIGKILL; its pods go on.
    #[command(after_help = "Example:\n  weft-lab kill-agent node1; weft-lab ping")]
    KillAgent {
        /// `node1`, …
        node: String,
    },
    /// Start a node's agent again.
    #[command(after_help = "Example:\n  weft-lab start-agent node1")]
    StartAgent {
        /// `node1`, …
        node: String,
    },
    /// Cut a node off from the others and from etcd.
    #[command(after_help = "Example:\n  weft-lab cut node2; weft-lab ping")]
    Cut {
        /// `node1`, …
        node: String,
    },
    /// Undo `cut`, for all nodes if none is named.
    #[command(after_help = "Example:\n  weft-lab heal")]
    Heal {
        /// `node1`, …
        node: Option<String>,
    },
}

fn main() -> ExitCode {
    match commands::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weft-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
