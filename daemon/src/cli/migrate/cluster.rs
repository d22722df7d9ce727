//! `weft migrate plan` and `weft migrate finish`: what concerns the whole cluster.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use kube::Client;
use serde_json::json;

use super::super::TRY_AGAIN;
use super::node::{self, NodeArgs};
use super::tell;
use crate::cluster::kube::{KubeOptions, connect, explain};
use crate::config::AgentConfig;
use crate::migrate::api;
use crate::migrate::cluster::{Cluster, SAVED, read};
use crate::migrate::node::{foretell, readiness};
use crate::migrate::plan::{Finish, Leave, finish, plan};
use crate::migrate::report::Report;

/// Where an administrator's credentials are on a node of the control plane.
const ADMIN: &str = "/etc/kubernetes/admin.conf";

/// How an answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// Say what the cluster has, what has been done, what comes next, and what is in the way. Changes nothing.
///
/// Exit code 0 if nothing is in the way, 1 if something is, 75 if the API server does not answer. The credentials are those of
/// the agent's settings, else of ~/.kube/config or /etc/kubernetes/admin.conf.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  weft migrate plan -o json\n  weft migrate plan --node-only")]
pub(super) struct PlanArgs {
    #[command(flatten)]
    node: NodeArgs,

    /// Look at this node only, without the API server: what `weft migrate node` would do
    #[arg(long)]
    node_only: bool,

    /// How the answer looks
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// Remove flannel and kube-proxy from the cluster, when each node is weft's.
///
/// Changes nothing (exit code 1) while a node is not; `weft migrate unfinish` takes it back. Then: kubeadm's configuration says that there is no kube-proxy, so that
/// no upgrade brings it back, and the DaemonSets of flannel and kube-proxy go, and the one that changed nodes over. Their
/// objects are kept in ConfigMap kube-system/weft-migration-saved, and their own ConfigMaps stay.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft migrate finish --dry-run")]
pub(super) struct FinishArgs {
    /// File with an administrator's credentials; ~/.kube/config, /etc/kubernetes/admin.conf, or the pod's if not given
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// URL of the API server; that of the kubeconfig if not given
    #[arg(long, value_name = "URL")]
    kube_api_server: Option<String>,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Leave kube-proxy where it is, for a cluster whose agents run with proxy-mode none
    #[arg(long)]
    keep_kube_proxy: bool,

    /// Leave kubeadm's configuration as it is, whatever it says of kube-proxy
    #[arg(long)]
    leave_kubeadm: bool,
}

pub(super) fn run_plan(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let config = AgentConfig::load(&args.node.flags)?;
    if args.node_only {
        return plan_node(args, &config);
    }
    block_on(async {
        let Some((_, cluster)) = look(config.kube).await? else { return Ok(ExitCode::from(TRY_AGAIN)) };
        let plan = plan(&cluster);
        if args.output == Output::Json {
            println!(
                "{:#}",
                json!({"cluster": cluster, "steps": plan.steps, "obstacles": plan.obstacles, "notes": plan.notes})
            );
        } else {
            show(&cluster);
            for step in &plan.steps {
                match step.done {
                    true => println!("[x] {}", step.what),
                    false => println!("[ ] {}\n      {}", step.what, step.command),
                }
            }
            plan.notes.iter().for_each(|note| println!("note: {note}"));
            tell(&plan.obstacles);
        }
        Ok(if plan.obstacles.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// What `weft migrate node` would find on this node.
fn plan_node(args: &PlanArgs, config: &AgentConfig) -> anyhow::Result<ExitCode> {
    let options = node::options(&args.node, config);
    let obstacles = readiness(&options).context("cannot see this node's processes")?.err().unwrap_or_default();
    let steps = foretell(&options)?;
    if args.output == Output::Json {
        println!("{:#}", json!({"steps": steps, "obstacles": obstacles}));
    } else {
        for step in &steps {
            println!("[{}] {}", if step.done { 'x' } else { ' ' }, step.what);
        }
        tell(&obstacles);
    }
    Ok(if obstacles.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn run_finish(args: &FinishArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let options =
            KubeOptions { kubeconfig: args.kubeconfig.clone(), kube_api_server: args.kube_api_server.clone() };
        let Some((client, cluster)) = look(options).await? else { return Ok(ExitCode::from(TRY_AGAIN)) };
        let wanted = finish(&cluster, Leave { kube_proxy: args.keep_kube_proxy, kubeadm: args.leave_kubeadm });
        if !wanted.obstacles.is_empty() {
            tell(&wanted.obstacles);
            return Ok(ExitCode::FAILURE);
        }
        let mut report = Report::default();
        if let Some(note) = &wanted.note {
            report.note("kubeadm", note);
        }
        if args.dry_run {
            announce(&wanted, &mut report);
        } else {
            carry_out(&client, &cluster, &wanted, &mut report).await;
        }
        Ok(if report.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

fn announce(wanted: &Finish, report: &mut Report) {
    if wanted.kubeadm.is_some() {
        report.note("kubeadm", "proxy.disabled would be set to true in ConfigMap kube-system/kubeadm-config");
    }
    for (namespace, name) in &wanted.delete {
        report.note("daemonsets", &format!("{namespace}/{name} would be deleted"));
    }
}

/// kubeadm's configuration first: an upgrade in between would bring back what is deleted.
async fn carry_out(client: &Client, cluster: &Cluster, wanted: &Finish, report: &mut Report) {
    match (&wanted.kubeadm, &cluster.kubeadm) {
        (Some(text), Some(before)) => {
            let set = api::set_kubeadm(client, before, text).await;
            let failed = set.is_err();
            report.outcome("kubeadm", set, "proxy.disabled is true in ConfigMap kube-system/kubeadm-config");
            if failed {
                return;
            }
        }
        _ => report.nothing("kubeadm", "its configuration stays as it is"),
    }
    if wanted.delete.is_empty() {
        return report.nothing("daemonsets", "those of flannel and kube-proxy are gone");
    }
    let listed: Vec<String> = wanted.delete.iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
    let words = format!("{} deleted, and kept in ConfigMap {}/{}", listed.join(", "), SAVED.0, SAVED.1);
    let deleted = api::delete(client, &wanted.delete).await.map_err(|error| explain(&error));
    report.outcome("daemonsets", deleted, &words);
}

fn show(cluster: &Cluster) {
    let sets: Vec<String> = cluster.flannel.iter().map(|set| format!("{}/{}", set.namespace, set.name)).collect();
    println!("flannel: {}", if sets.is_empty() { "none".to_owned() } else { sets.join(", ") });
    let proxy = cluster.kube_proxy.as_ref().map_or("none", |_| match cluster.kube_proxy_mode.as_deref() {
        None => "its mode is not known",
        Some("") => "iptables mode",
        Some(mode) => mode,
    });
    println!("kube-proxy: {proxy}");
    println!("API server: {}", cluster.api_server.as_deref().unwrap_or("kube-proxy's ConfigMap does not say"));
    for node in cluster.nodes.iter().filter(|node| !node.host_port_pods.is_empty()) {
        println!("host ports on {}: {}", node.name, node.host_port_pods.join(", "));
    }
}

/// The cluster; `None` if the API server does not answer, which has been told then.
pub(super) async fn look(mut options: KubeOptions) -> anyhow::Result<Option<(Client, Cluster)>> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
    let mut usual = std::env::var_os("KUBECONFIG").map(PathBuf::from).into_iter().chain(home).chain([ADMIN.into()]);
    options.kubeconfig = options.kubeconfig.or_else(|| usual.find(|path| path.is_file()));
    let client = connect(&options).await?;
    match api::read(&client).await {
        Ok(objects) => Ok(Some((client, read(&objects)))),
        Err(error) => {
            eprintln!("weft migrate: {}", explain(&error));
            Ok(None)
        }
    }
}

pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(work)
}
