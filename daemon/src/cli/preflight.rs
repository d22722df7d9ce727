//! `weft preflight`: whether this machine can become a node, and what mends it if not.

use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use ipnetwork::IpNetwork;
use serde::Serialize;

use super::print::{self, Output};
use crate::bootstrap::host::containerd::mirrors::Mirror;
use crate::bootstrap::host::facts::RuntimeTold;
use crate::bootstrap::host::tools::System;
use crate::bootstrap::host::{
    Hand, Ignored, PreflightReport, Prepared, Role, SwapPolicy, Wanted, checks, gather, prepare,
};
use crate::bootstrap::journal::Journal;
use crate::bootstrap::resolved::Paths;
use crate::bootstrap::stable_name;

/// Find out whether this machine can become a node of a cluster, and say for each fault the cause and what mends it.
///
/// Makes the checks that weft init and weft join make, under kubeadm's names, and tells all of them at once. Nothing is
/// changed, but for what --fix does: the preparation that weft init makes anyway (swap, kernel settings, modules), and beyond it
/// containerd's configuration (its old content stays beside it), firewalld's ports and mirrors of registries. All of it goes
/// into the journal, and weft reset undoes it.
///
/// Exit codes: 0 nothing stands in the way; 1 something does; 2 it could not be found out.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft preflight\n  weft preflight init --fix --image-mirror docker.io=https://mirror.example\n  \
                  weft preflight join -o json | jq '.findings[] | select(.severity == \"error\")'"
)]
pub(super) struct PreflightArgs {
    /// What the machine is to become: the first node, or a further one
    #[arg(value_enum, default_value_t)]
    role: Part,

    /// A further node with a control plane
    #[arg(long)]
    control_plane: bool,

    /// Prepare the machine, and mend what can be mended
    #[arg(long)]
    fix: bool,

    /// Judge the machine as it is, without what weft init would make of it
    #[arg(long, conflicts_with = "fix")]
    no_prepare: bool,

    /// Checks whose errors only warn; "all" for all
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    ignore_preflight_errors: Vec<String>,

    /// What becomes of swap space
    #[arg(long, value_enum, default_value_t)]
    swap: Swap,

    /// The node's name [default: the host's, in lower case]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,

    /// The node's own address
    #[arg(long, value_name = "ADDRESS")]
    apiserver_advertise_address: Option<IpAddr>,

    /// Port of the node's API server
    #[arg(long, value_name = "PORT", default_value_t = 6443, value_parser = clap::value_parser!(u16).range(1..))]
    apiserver_bind_port: u16,

    /// Ranges of the pods, one a family
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', default_value = "10.244.0.0/16", value_parser = range)]
    pod_network_cidr: Vec<IpNetwork>,

    /// Ranges of the Services, one a family
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', default_value = "10.96.0.0/12", value_parser = range)]
    service_cidr: Vec<IpNetwork>,

    /// Socket of the container runtime [default: the one that is there]
    #[arg(long, value_name = "SOCKET")]
    cri_socket: Option<String>,

    /// Version of the control plane
    #[arg(long, value_name = "VERSION")]
    kubernetes_version: Option<String>,

    /// Directory of Kubernetes' binaries, kubelet among them
    #[arg(long, value_name = "DIRECTORY")]
    kubernetes_bin: Option<PathBuf>,

    /// A mirror of registries, [REGISTRY=][http[s]://]HOST[/PATH]; with --fix containerd gets to know it
    #[arg(long, value_name = "MIRROR")]
    image_mirror: Vec<Mirror>,

    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Part {
    #[default]
    Init,
    Join,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Swap {
    /// It is turned off
    #[default]
    Disable,
    /// It stays, and pods do not use it
    Tolerate,
    /// It stays, and pods may use some of it
    Limited,
}

#[derive(Debug, Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<String>,
    #[serde(flatten)]
    report: PreflightReport,
}

pub(super) fn run(args: &PreflightArgs) -> ExitCode {
    match examine(args) {
        Ok((prepared, report)) => {
            let exit = u8::from(!report.is_passed());
            let mut stderr = io::stderr().lock();
            for warning in &prepared.warnings {
                // Who has closed it does not want to know.
                let _ = writeln!(stderr, "weft preflight: {warning}");
            }
            if prepared.restart_runtime {
                let _ = writeln!(stderr, "weft preflight: start containerd anew, so that it reads its configuration");
            }
            let answer = Answer { changes: prepared.changes, report };
            print::whole(args.output, &answer, |_| text(&answer), exit)
        }
        Err(error) => print::failure("weft preflight", args.output, &error),
    }
}

/// Reads a range. One address without a prefix is none: its length is what was forgotten.
fn range(text: &str) -> Result<IpNetwork, String> {
    text.parse().ok().filter(|_| text.contains('/')).ok_or_else(|| "expected a range such as 10.244.0.0/16".to_owned())
}

fn text(answer: &Answer) -> String {
    let changes = answer.changes.iter().map(|change| format!("[preflight] {change}\n"));
    let report = &answer.report;
    let verdict = match (report.errors, report.warnings) {
        (0, 0) => "[preflight] this machine can become a node\n".to_owned(),
        (0, warnings) => format!("[preflight] this machine can become a node; {warnings} warnings\n"),
        (errors, warnings) => format!("[preflight] {errors} errors and {warnings} warnings stand in the way\n"),
    };
    changes.chain([report.to_string(), verdict]).collect()
}

fn examine(args: &PreflightArgs) -> anyhow::Result<(Prepared, PreflightReport)> {
    let ignored = Ignored::parse(&args.ignore_preflight_errors)?;
    let wanted = wanted(args)?;
    let tools = System;
    let look = || -> anyhow::Result<_> {
        let entries = Journal::read(&wanted.paths)?;
        Ok(gather::facts(&wanted, asked(&wanted), &entries, &tools))
    };
    let facts = look()?;
    let report = checks::judge(&facts, &wanted, &ignored);
    if !args.fix || facts.uid != 0 {
        return Ok((Prepared::default(), report));
    }
    let mut journal = Journal::open(&wanted.paths)?;
    let prepared = prepare(&mut Hand::new(&wanted.paths, &mut journal, &tools), &facts, &wanted, &args.image_mirror)?;
    Ok((prepared, checks::judge(&look()?, &wanted, &ignored)))
}

fn wanted(args: &PreflightArgs) -> anyhow::Result<Wanted> {
    let role = match args.role {
        Part::Init => Role::Init,
        Part::Join => Role::Join { control_plane: args.control_plane },
    };
    let paths = Paths::under("/");
    let hostname = nix::unistd::gethostname().context("cannot ask for the host's name")?;
    let hostname = hostname.to_string_lossy().to_lowercase();
    let of_cluster = |subnets: &[IpNetwork]| if role == Role::Init { subnets.to_vec() } else { Vec::new() };
    Ok(Wanted {
        role,
        node_name: args.node_name.clone().unwrap_or(hostname),
        address: args.apiserver_advertise_address,
        bind_port: args.apiserver_bind_port,
        // As they are unless a configuration says otherwise: in a cluster that weft has made.
        api_balancer_port: Some(stable_name::PORT),
        has_stable_name: true,
        endpoints: Vec::new(),
        pod_subnets: of_cluster(&args.pod_network_cidr),
        service_subnets: of_cluster(&args.service_cidr),
        kubernetes_version: args.kubernetes_version.clone(),
        etcd_data: role.has_control_plane().then(|| paths.root.join("var/lib/etcd")),
        cri_socket: args.cri_socket.clone(),
        sandbox_image: None,
        swap: match args.swap {
            Swap::Disable => SwapPolicy::Disable,
            Swap::Tolerate => SwapPolicy::Tolerate,
            Swap::Limited => SwapPolicy::Limited,
        },
        prepare: !args.no_prepare,
        fix: args.fix,
        brings_kubelet: args.kubernetes_bin.as_ref().is_some_and(|directory| directory.join("kubelet").exists()),
        paths,
    })
}

/// Whether anybody listens at the runtime's socket.
fn asked(wanted: &Wanted) -> RuntimeTold {
    let default = gather::sockets(&wanted.paths.root);
    let Some(socket) = wanted.cri_socket.as_ref().or(default.first()) else { return RuntimeTold::NoSocket };
    let path = socket.strip_prefix("unix://").unwrap_or(socket);
    match UnixStream::connect(wanted.paths.root.join(Path::new(path.trim_start_matches('/')))) {
        Ok(_) => RuntimeTold::NotAsked,
        Err(error) if error.kind() == ErrorKind::NotFound => RuntimeTold::NoSocket,
        Err(error) => RuntimeTold::Failed(error.to_string()),
    }
}
