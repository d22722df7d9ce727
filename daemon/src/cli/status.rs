//! `weft status`: the nodes and the control plane, and what is wrong with them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures_util::future::{OptionFuture, join};

use super::print::{self, Output};
use crate::bootstrap::resolved::Paths;
use crate::cluster::kube::Servers;
use crate::config::{AgentConfig, AgentFlags, SourceKind};
use crate::status::control_plane::{self, Place};
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
/// A node with a control plane shows that, too, as does --kubeconfig: its components as they say themselves (those of other
/// nodes as the API server says), etcd's members, how many days certificates still hold, and versions. It needs no agent.
///
/// Exit codes: 0 nothing is wrong; 1 something is wrong, and is named under the table; 2 it cannot be told, as an agent, the
/// store or the API server does not answer.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft status\n  weft status --all -o wide\n  weft status -o json | jq .controlPlane.components\n  \
                  kubectl -n kube-system exec ds/weft -- /weft status --all\n  \
                  weft status --all --source kube --kubeconfig ~/.kube/config -o json | jq .verdict"
)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    flags: AgentFlags,

    /// All nodes, not this one and its view alone
    #[arg(long)]
    all: bool,

    /// Directory that /etc/kubernetes and /var/lib/kubelet are under, in place of /
    #[arg(long, value_name = "DIR", default_value = "/")]
    rootfs: PathBuf,

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
    let place = Place::find(Paths::under(&args.rootfs), args.flags.given("kubeconfig").map(PathBuf::from));
    let config = AgentConfig::load(&args.flags).map_err(anyhow::Error::from);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let (nodes, plane) = runtime.block_on(async {
        let plane = OptionFuture::from(place.as_ref().map(control_plane::look));
        join(nodes(args.all, &config), plane).await
    });
    // Without waiting for whoever still looks up a name.
    runtime.shutdown_background();
    let plane = plane.map(|found| control_plane::judge(&found));
    // What a kubeconfig leads to may be well and only not be reached from here.
    let is_shown =
        plane.as_ref().is_some_and(|plane| plane.versions.api_server.is_some() || place.is_some_and(|it| it.is_node()));
    let report = match nodes {
        Ok(sightings) => judge::judge(&sightings),
        // The control plane is there to be shown, even where no agent runs or the store is what is broken.
        Err(error) if is_shown => judge::judge(&[silent(&error, config.ok())]),
        Err(error) => return Err(error),
    };
    Ok(report.with_control_plane(plane))
}

async fn nodes(all: bool, config: &anyhow::Result<AgentConfig>) -> anyhow::Result<Vec<Sighting>> {
    match config {
        Ok(config) if all => everywhere(config).await,
        Ok(config) => here(config).await,
        Err(error) => Err(anyhow::anyhow!("{error:#}")),
    }
}

/// This node, of which nothing can be told.
fn silent(error: &anyhow::Error, config: Option<AgentConfig>) -> Sighting {
    Sighting {
        name: config.map(|config| config.settings.node_name.as_str().to_owned()),
        own: true,
        subnets: Vec::new(),
        addresses: Vec::new(),
        wrong: Vec::new(),
        agent: Agent::Silent(format!("{error:#}")),
    }
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
        SourceKind::Kube => {
            let (servers, prefix) =
                (Arc::new(Servers::of_agent(&settings.state_dir)), &settings.kube_annotation_prefix);
            nodes::in_kube(&config.kube, &servers, prefix, &config.network, own).await
        }
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
