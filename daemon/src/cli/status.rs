//! `weft status`: the nodes, and what is wrong with them.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::print::{self, Output};
use crate::config::{AgentConfig, AgentFlags, SourceKind};
use crate::status::judge::{self, Agent, Report, Sighting};
use crate::status::nodes::Limits;
use crate::status::{fetch, nodes, table};

/// How long an agent may take to answer, and all of them together.
const LIMITS: Limits = Limits { each: Duration::from_secs(3), all: Duration::from_secs(60) };

/// Show nodes, leases, peers, Services, repairs and versions, and what is wrong.
///
/// Without --all it is what this node's agent knows (from its port of healthz-bind, path /status): its own node, marked with a
/// star, and the leases of its peers. With --all the nodes come from the store (etcd, or the Kubernetes API with --source kube),
/// and each agent is asked at its node's address; whose turn does not come within a minute is not asked, and said to be so.
///
/// Columns: PEERS are those that are in the node's kernel, and all; SERVICES are mode, number, and @ the source's revision that
/// the kernel has; REPAIRS are objects put back since the agent's start because somebody else had changed them, by kind.
///
/// Exit codes: 0 nothing is wrong; 1 something is wrong, and is named under the table; 2 it cannot be told, as an agent or the
/// store does not answer.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  weft status\n  weft status --all -o wide\n  \
                  kubectl -n kube-system exec ds/weft -- /weft status --all\n  \
                  weft status --all --source kube --kubeconfig ~/.kube/config -o json | jq .verdict")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    flags: AgentFlags,

    /// All nodes, not this one and its view alone
    #[arg(long)]
    all: bool,

    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &StatusArgs) -> ExitCode {
    match look(args) {
        Ok(report) => print::whole(args.output, &report, |wide| table::text(&report, wide), report.verdict.exit_code()),
        Err(error) => print::failure("weft status", args.output, &error),
    }
}

fn look(args: &StatusArgs) -> anyhow::Result<Report> {
    let config = AgentConfig::load(&args.flags)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let sightings = runtime.block_on(async { if args.all { everywhere(&config).await } else { here(&config).await } });
    // Without waiting for whoever still looks up a name.
    runtime.shutdown_background();
    Ok(judge::judge(&sightings?))
}

async fn here(config: &AgentConfig) -> anyhow::Result<Vec<Sighting>> {
    let own = fetch::from_own_node(config.settings.healthz_bind);
    let asked = fetch::status(own, LIMITS.each).await;
    let (status, _) =
        asked.context("this node's agent does not tell; does it run, and is healthz-bind its address?")?;
    Ok(judge::seen_by(&status))
}

async fn everywhere(config: &AgentConfig) -> anyhow::Result<Vec<Sighting>> {
    let settings = &config.settings;
    let own = settings.node_name.as_str();
    let listed = match settings.source {
        SourceKind::Etcd => nodes::in_etcd(&config.etcd, &settings.etcd_prefix, own).await,
        SourceKind::Kube => nodes::in_kube(&config.kube, &settings.kube_annotation_prefix, &config.network, own).await,
    };
    let listed = listed.map_err(anyhow::Error::msg).context("the nodes cannot be listed")?;
    let here = fetch::from_own_node(settings.healthz_bind);
    let mut sightings = nodes::ask(listed, here, settings.healthz_bind.port(), LIMITS).await;
    for sighting in &mut sightings {
        // Agents answer by their names: what answers with another one is reached through a wrong address.
        if let (Agent::Answered(status), Some(name)) = (&sighting.agent, &sighting.name)
            && status.node != *name
        {
            sighting.wrong.push(format!("the agent at its address is that of {}", status.node));
        }
    }
    Ok(sightings)
}
