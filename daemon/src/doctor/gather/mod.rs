//! Brings the facts that the doctor judges: from the kernel, the node's files, its agent, its peers and its store.
//!
//! Nothing is written to the kernel: what is asked is read, or sent as packets that any node may send. Each file is about one
//! source of facts, and a fact that cannot be had is told as such.

mod answers;
mod echo;
mod files;
mod links;
mod machine;
mod path;
mod rules;
mod store;
mod wire;

use std::time::Duration;

use weft_netlink::RouteSocket;
use weft_netlink::sysctl::Sysctl;

use super::agent::AgentFacts;
use super::clock::{Ahead, ClockFacts};
use super::path::PathFacts;
use super::{Check, Report, Told};
use super::{
    agent, clock, cluster, cni, disk, firewall, kernel, leftovers, offload, overlay, path as ways, store as stores,
    sysctls,
};
use crate::config::{AgentConfig, ProxyMode};
use crate::serve::document::NodeStatus;
use crate::status::fetch;

/// How long an agent may take to answer.
const LIMIT: Duration = Duration::from_secs(3);

/// Examines this node; `most` peers are asked.
///
/// The groups come in the order in which one rests on the other, so that the first problem is often the cause of the next.
pub async fn examine(config: &AgentConfig, most: usize) -> Report {
    let settings = &config.settings;
    let sysctl = Sysctl::at(&settings.sysctl_dir);
    let errors_before = machine::checksum_errors();
    let own = fetch::status(fetch::from_own_node(settings.healthz_bind), LIMIT).await;
    let status: Told<NodeStatus> = own.map(|(status, _)| status).map_err(|error| error.to_string());
    let view = links::View::read(settings.bridge.as_str(), status.as_ref().ok());
    let (store, clock) = store(config, status.as_ref().ok()).await;
    let peers = path::peers(&view, status.as_ref().ok(), most);
    let (peers, skipped) = match peers {
        Ok((peers, skipped)) => (Ok(path::ask(peers, &view, settings.healthz_bind.port()).await), skipped),
        Err(reason) => (Err(reason), 0),
    };
    let asked = peers.as_deref().unwrap_or_default();
    let clocks = clocks(clock, asked, settings.healthz_bind.port()).await;
    let port = view.port().unwrap_or(settings.vxlan_port);
    let networks = networks(&status, config);

    let agent_facts = AgentFacts { status: status.clone(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let comes_in = asked.iter().any(ways::Peer::reached);
    let rules = rules::Rules::read();
    let serving =
        status.as_ref().ok().and_then(|status| status.services.as_ref()).map(|services| services.mode.clone());
    let mut checks: Vec<Check> = agent::judge(&agent_facts);
    checks.extend(kernel::judge(&machine::kernel(settings, &view, &sysctl)));
    checks.extend(sysctls::judge(&machine::sysctls(&sysctl, &view, asked, serving.as_deref())));
    checks.extend(overlay::judge(&view.overlay));
    checks.extend(cluster::judge(&status));
    checks.extend(firewall::judge(&rules.firewall(&view, &networks, port, comes_in)));
    checks.extend(leftovers::judge(&rules.leftovers(&view, settings, port, serving.as_deref())));
    checks.extend(offload::judge(&machine::offload(&view, &errors_before), asked));
    checks.extend(ways::judge(&PathFacts { peers, port, skipped }));
    checks.extend(cni::judge(&files::cni(settings, status.as_ref().ok())));
    checks.extend(disk::judge(&files::directories(settings)));
    checks.extend(store);
    checks.extend(clock::judge(&clocks));
    Report::new(settings.node_name.to_string(), checks)
}

/// The store's checks, and its clock.
async fn store(config: &AgentConfig, status: Option<&NodeStatus>) -> (Vec<Check>, Told<Ahead>) {
    let given = config.settings.source.name();
    match status.map(|status| status.source.as_str()).filter(|source| *source != given) {
        Some(source) => (vec![stores::another_source(source, given)], Err("the agent has another source".to_owned())),
        None => {
            let store::Asked { facts, ahead } = store::ask(config).await;
            (stores::judge(&facts), ahead)
        }
    }
}

/// The pods' networks, as text: those of the lease, else those of the configuration.
fn networks(status: &Told<NodeStatus>, config: &AgentConfig) -> Vec<String> {
    match status.as_ref().ok().and_then(|status| status.lease.as_ref()) {
        Some(lease) => lease.networks.iter().map(ToString::to_string).collect(),
        None => config.network.pools.values().map(|pool| pool.network().to_string()).collect(),
    }
}

/// Peers whose clocks are asked: more would only tell the same.
const CLOCKS: usize = 8;

async fn clocks(store: Told<Ahead>, peers: &[ways::Peer], port: u16) -> ClockFacts {
    let mut ahead = Vec::new();
    for peer in peers.iter().filter(|peer| peer.underlay_tcp == ways::Connect::Answered).take(CLOCKS) {
        let address = std::net::SocketAddr::new(peer.outer, port);
        if let Ok(answer) = fetch::get(address, "/livez", LIMIT).await
            && let Some(seconds) = answer.date.and_then(store::ahead)
        {
            ahead.push(Ahead { whose: peer.name.clone(), seconds });
        }
    }
    ClockFacts { store, peers: ahead }
}

/// Whether weft is to serve Services.
fn serves(mode: ProxyMode) -> bool {
    mode != ProxyMode::None
}

/// A socket for links and routes.
fn route_socket() -> Told<RouteSocket> {
    RouteSocket::open().map_err(|error| error.to_string())
}
