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

use std::fs;
use std::time::Duration;

use path::Found;
use rules::Overlay;
use weft_netlink::RouteSocket;
use weft_netlink::sysctl::Sysctl;

use super::agent::AgentFacts;
use super::clock::{Ahead, ClockFacts};
use super::path::PathFacts;
use super::rights::{Rights, effective};
use super::{Check, Outcome, Report, Told};
use super::{
    agent, clock, cluster, cni, disk, firewall, kernel, leftovers, offload, overlay, path as ways,
    rights as rights_group, store as stores, sysctls,
};
use crate::config::{AgentConfig, ProxyMode};
use crate::serve::document::NodeStatus;
use crate::status::fetch;

/// How long an agent may take to answer.
const LIMIT: Duration = Duration::from_secs(3);

/// What this process may do.
fn rights() -> Rights {
    let path = "/proc/thread-self/status";
    let status = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let capabilities =
        status.and_then(|text| effective(&text).ok_or_else(|| format!("{path} does not tell the capabilities")));
    Rights { root: nix::unistd::geteuid().is_root(), capabilities }
}

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
    let (peers, found) = match path::peers(&view, status.as_ref().ok(), most) {
        Ok(mut found) => {
            let peers = std::mem::take(&mut found.peers);
            (Ok(path::ask(peers, &view, settings.healthz_bind.port()).await), found)
        }
        Err(reason) => (Err(reason), Found::default()),
    };
    let asked = peers.as_deref().unwrap_or_default();
    // Without a look into the tables nobody is taken to be alone.
    let others = peers.is_err() || !asked.is_empty() || found.skipped + found.broken.len() + found.absent.len() > 0;
    let rights = rights();
    let clocks = clocks(clock, asked, settings.healthz_bind.port()).await;
    let port = view.port().unwrap_or(settings.vxlan_port);
    let networks = networks(&status, config);

    let known = status.as_ref().ok();
    let node = known.map_or_else(|| settings.node_name.to_string(), |status| status.node.clone());
    let agent_facts =
        AgentFacts { status: status.clone(), version: env!("CARGO_PKG_VERSION").to_owned(), node: node.clone() };
    let overlay_seen = Overlay { peers: others, comes_in: asked.iter().any(ways::Peer::reached) };
    let rules = rules::Rules::read();
    let serving =
        status.as_ref().ok().and_then(|status| status.services.as_ref()).map(|services| services.mode.clone());
    let strange = strange_settings(known, config);
    let mut checks: Vec<Check> = vec![rights_group::judge(&rights)];
    checks.extend(agent::judge(&agent_facts));
    checks.extend(kernel::judge(&machine::kernel(settings, &view, &sysctl, serving.as_deref())));
    checks.extend(sysctls::judge(&machine::sysctls(&sysctl, &view, asked, serving.as_deref())));
    checks.extend(unless_strange(overlay::judge(&view.overlay), strange.as_deref()));
    checks.extend(cluster::judge(&status));
    checks.extend(firewall::judge(&rules.firewall(&view, &networks, port, overlay_seen)));
    checks.extend(leftovers::judge(&rules.leftovers(
        &view,
        settings,
        port,
        serving.as_deref(),
        serves(known, settings.proxy_mode),
    )));
    checks.extend(offload::judge(&machine::offload(&view, &errors_before), asked));
    let Found { skipped, broken, absent, .. } = found;
    checks.extend(ways::judge(&PathFacts { peers, broken, absent, skipped }));
    checks.extend(unless_strange(cni::judge(&files::cni(settings, known)), strange.as_deref()));
    checks.extend(unless_strange(disk::judge(&files::directories(settings, rights.root)), strange.as_deref()));
    checks.extend(unless_strange(store, strange.as_deref()).into_iter().map(|check| unless_denied(check, &rights)));
    checks.extend(clock::judge(&clocks));
    Report::new(node, checks)
}

/// Why this program's settings are not the agent's, if they are not: its files may be elsewhere, and its bridge another one.
fn strange_settings(status: Option<&NodeStatus>, config: &AgentConfig) -> Option<String> {
    let (status, settings) = (status?, &config.settings);
    let differs = |what: &str, agent: &str, given: &str| {
        (agent != given).then(|| format!("the agent's {what} is {agent}, this program's {given}"))
    };
    let node = differs("node-name", &status.node, settings.node_name.as_str());
    node.or_else(|| differs("source", &status.source, settings.source.name()))
}

/// Findings that rest on settings which are not the agent's are none.
fn unless_strange(mut checks: Vec<Check>, strange: Option<&str>) -> Vec<Check> {
    let Some(reason) = strange else { return checks };
    for check in checks.iter_mut().filter(|check| check.outcome == Outcome::Problem) {
        check.outcome = Outcome::Unknown;
        check.remedy = None;
        check.words = format!(
            "{reason}: give it the agent's settings, or run it in the agent's pod; with these, {}",
            check.words
        );
    }
    checks
}

/// A file that is root's, and that another user may not read, is no fault.
fn unless_denied(check: Check, rights: &Rights) -> Check {
    let denied = !rights.root && check.words.to_lowercase().contains("permission denied");
    if denied { Check { outcome: Outcome::Unknown, remedy: None, ..check } } else { check }
}

/// The store's checks, and its clock.
async fn store(config: &AgentConfig, status: Option<&NodeStatus>) -> (Vec<Check>, Told<Option<Ahead>>) {
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

async fn clocks(store: Told<Option<Ahead>>, peers: &[ways::Peer], port: u16) -> ClockFacts {
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

/// Whether weft serves Services: what the agent says counts, as somebody may have given this program other settings. Whoever
/// takes another's rules for leftovers cuts the node off.
fn serves(status: Option<&NodeStatus>, mode: ProxyMode) -> bool {
    status.map_or(mode != ProxyMode::None, |status| status.services.is_some())
}

/// A socket for links and routes.
fn route_socket() -> Told<RouteSocket> {
    RouteSocket::open().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Group;
    use crate::serve::document::ServicesStatus;

    #[test]
    fn the_agent_says_whether_services_are_served() {
        assert!(serves(None, ProxyMode::Auto) && !serves(None, ProxyMode::None));
        assert!(!serves(Some(&NodeStatus::default()), ProxyMode::Auto));
        let serving = NodeStatus { services: Some(ServicesStatus::default()), ..NodeStatus::default() };
        assert!(serves(Some(&serving), ProxyMode::None));
    }

    #[test]
    fn what_rests_on_another_programs_settings_or_on_missing_rights_is_no_finding() {
        let group = Group("disk");
        let checks = || vec![group.good("run-dir", "fine"), group.problem("state-dir", "Permission denied", "chmod")];
        assert_eq!(unless_strange(checks(), None), checks());
        let strange = unless_strange(checks(), Some("the agent's node-name is a, this program's b"));
        assert_eq!((&strange[0], strange[1].outcome), (&checks()[0], Outcome::Unknown));
        assert!(strange[1].words.contains("give it the agent's settings"), "{}", strange[1].words);

        let outcome = |root| {
            let rights = Rights { root, capabilities: Ok(u64::MAX) };
            unless_denied(checks().remove(1), &rights).outcome
        };
        assert_eq!((outcome(true), outcome(false)), (Outcome::Problem, Outcome::Unknown));
    }
}
