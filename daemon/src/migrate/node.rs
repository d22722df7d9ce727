//! A node changes over: what flannel, its plugins and kube-proxy have left goes, and pods stay.
//!
//! The order is one of service: host ports lead to their pods by weft's table before portmap's chains go, and everything of
//! kube-proxy's goes last, when weft serves Services. Established connections keep the translation that they began with.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use weft_netlink::{LinkKind, RouteSocket};

use super::agent::{self, AgentState, Services};
use super::conflists::{self, SAVED};
use super::daemons;
use super::kernel::{self, Device, FLANNEL_TABLES, KUBE_PROXY_TABLES, Kernel, Removed};
use super::legacy;
use super::obstacles::{Obstacle, before_changing_over};
use super::plan::Step;
use super::plugins::{self, Holders};
use super::ports;
use super::report::Report;
use super::rules::{self, Found, Removal};
use super::virtual_servers::{DEVICE, Ground, left};

/// What makes each step of a node.
const MIGRATE: &str = "weft migrate node";

/// What is known of the node.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Where the agent answers.
    pub healthz: SocketAddr,
    /// The runtime's directory for network configurations.
    pub conf_dir: PathBuf,
    /// Name of the CNI network.
    pub network: String,
    /// Name of the bridge that pods are on.
    pub bridge: String,
    /// libcni's cache.
    pub cache_dir: PathBuf,
    /// host-local's directory.
    pub data_dir: PathBuf,
    /// The networks that cluster IPs are taken from.
    pub service_cidrs: Vec<IpNetwork>,
    /// Whether k3s runs here without flannel and kube-proxy in it.
    pub k3s_bare: bool,
    /// Whether somebody has cleaned the tables of iptables-legacy.
    pub legacy_cleaned: bool,
}

/// Whether the node may change over, and who serves Services then; else what is in the way.
///
/// # Errors
/// If the node's processes cannot be listed.
pub fn readiness(options: &NodeOptions) -> std::io::Result<Result<Services, Vec<Obstacle>>> {
    let state = agent::ask(options.healthz);
    let mut running = daemons::running()?;
    running.retain(|running| !(options.k3s_bare && daemons::is_k3s(running.name)));
    let obstacles = before_changing_over(&state, &running);
    Ok(match state {
        AgentState::Serves { services } if obstacles.is_empty() => Ok(services),
        _ => Err(obstacles),
    })
}

/// Changes the node over. Each step that fails is told, and the others are made all the same.
pub fn change_over(options: &NodeOptions, services: Services, report: &mut Report) {
    step_aside(options, report);
    show_devices(options, report);
    let taken = take_ports(options, report);
    let mut kernel = match Kernel::open() {
        Ok(kernel) => kernel,
        Err(error) => return report.failed("rules", &error.to_string()),
    };
    remove_plugins(&mut kernel, options, &taken, report);
    remove(&mut kernel, report, "flannel's rules", rules::flannel);
    tell_of_forward(&mut kernel, report);
    remove_tables(&mut kernel, report, "flannel's tables", &FLANNEL_TABLES);
    if services == Services::Others {
        report.nothing("kube-proxy", "Services are left to it (proxy-mode none)");
    } else {
        remove_kube_proxy(&mut kernel, options, services, report);
    }
    tell_of_legacy(options, &taken, report);
}

/// What [`change_over`] would find, without changing anything.
///
/// # Errors
/// The first thing that cannot be read.
pub fn foretell(options: &NodeOptions) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut step =
        |count: usize, what: String| steps.push(Step { done: count == 0, what, command: MIGRATE.to_owned() });
    let aside = conflists::step_aside(&conflists::list(&options.conf_dir, &options.network)?);
    let first = [aside.rename.as_slice(), &aside.in_the_way].concat();
    step(first.len(), format!("weft's conflist is the first (before it: {})", words(&first)));
    let survey = ports::survey(&options.cache_dir, &options.data_dir, &options.network)?;
    let missing = ports::missing(&survey.pods)?.len() + survey.problems.len();
    step(
        missing,
        format!("host ports of {} pods of portmap's lead by weft's table ({missing} do not)", survey.pods.len()),
    );
    let mut kernel = Kernel::open()?;
    let tables = kernel.iptables()?;
    let nobody = Holders::default();
    let mut chains = |whose: &str, plan: &dyn Fn(&Found) -> Removal| {
        let count = tables.iter().map(|found| plan(found).chains.len()).sum();
        step(count, format!("no chains of {whose} in iptables' tables ({count} are there)"));
    };
    chains("the plugins", &|found| plugins::plugins(found, &options.network, &nobody));
    chains("flannel", &rules::flannel);
    chains("kube-proxy", &rules::kube_proxy);
    let named = kernel.tables_named(&[&FLANNEL_TABLES[..], &KUBE_PROXY_TABLES].concat())?;
    let named: Vec<String> = named.iter().map(ToString::to_string).collect();
    step(named.len(), format!("no nftables tables of flannel and kube-proxy ({})", words(&named)));
    let sets = kernel::ip_sets()?.len();
    step(sets, format!("no IP sets of kube-proxy ({sets} are there)"));
    let (device, own) = kernel::device()?;
    step(usize::from(device.is_some()), format!("no {DEVICE}"));
    let weft_has_ipvs = agent::ask(options.healthz) == AgentState::Serves { services: Services::Ipvs };
    let servers = left(&ground(options, weft_has_ipvs, device.as_ref(), own), &kernel::virtual_servers()?).len();
    step(servers, format!("no virtual servers of kube-proxy ({servers} are there)"));
    let legacy = if options.legacy_cleaned { Vec::new() } else { kernel::legacy_tables() };
    step(legacy.len(), format!("nothing of theirs in tables of iptables-legacy ({})", words(&legacy)));
    Ok(steps)
}

fn ground(options: &NodeOptions, weft_has_ipvs: bool, device: Option<&Device>, own: Vec<IpAddr>) -> Ground {
    let on_device = device.map(|device| device.addresses.clone());
    Ground { on_device, service_cidrs: options.service_cidrs.clone(), own, weft_has_ipvs }
}

fn words(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn step_aside(options: &NodeOptions, report: &mut Report) {
    let files = match conflists::list(&options.conf_dir, &options.network) {
        Ok(files) => files,
        Err(error) => {
            return report.failed("conflist", &format!("cannot list {}: {error}", options.conf_dir.display()));
        }
    };
    let plan = conflists::step_aside(&files);
    for name in &plan.rename {
        let words = format!("{name} renamed to {name}{SAVED}");
        report.outcome("conflist", conflists::save(&options.conf_dir, name), &words);
    }
    for name in &plan.in_the_way {
        let path = options.conf_dir.join(name);
        let words = format!("the runtime takes {0} before weft's; if it is not to: mv {0} {0}{SAVED}", path.display());
        report.failed("conflist", &words);
    }
    if plan == conflists::StepAside::default() {
        report.nothing("conflist", "weft's is the first");
    }
}

/// The agent has taken them over by the time that it serves; this says so.
fn show_devices(options: &NodeOptions, report: &mut Report) {
    let links = match RouteSocket::open().and_then(|mut socket| socket.links()) {
        Ok(links) => links,
        Err(error) => return report.failed("devices", &error.to_string()),
    };
    let bridge = links.iter().find(|link| link.name == options.bridge).map(|link| link.index);
    let pods = links.iter().filter(|link| bridge.is_some() && link.master == bridge).count();
    let is_overlay = |link: &&weft_netlink::Link| match link.kind {
        LinkKind::Vxlan { .. } => true,
        // Others than the overlay's are the user's own.
        LinkKind::Wireguard => link.name.starts_with("flannel-wg"),
        _ => false,
    };
    let overlay: Vec<&str> = links.iter().filter(is_overlay).map(|link| link.name.as_str()).collect();
    let words = format!("{} with {pods} ports and {} are weft's, in place", options.bridge, overlay.join(", "));
    report.nothing("devices", &words);
}

/// Takes host ports over; returns the containers that have all of theirs in weft's table.
fn take_ports(options: &NodeOptions, report: &mut Report) -> BTreeSet<String> {
    const STEP: &str = "host ports";
    let mut taken = BTreeSet::new();
    let survey = match ports::survey(&options.cache_dir, &options.data_dir, &options.network) {
        Ok(survey) => survey,
        Err(error) => {
            report.failed(STEP, &format!("cannot look for pods in {}: {error}", options.cache_dir.display()));
            return taken;
        }
    };
    survey.problems.iter().for_each(|problem| report.failed(STEP, problem));
    let missing = match ports::missing(&survey.pods) {
        Ok(missing) => missing,
        Err(error) => {
            report.failed(STEP, &error.to_string());
            return taken;
        }
    };
    taken.extend(survey.pods.iter().map(|pod| pod.identity.container.clone()));
    for pod in &missing {
        let listed: Vec<String> = pod.host_ports.mappings.iter().map(ToString::to_string).collect();
        let words = format!("{} of container {} taken over", listed.join(", "), pod.identity.container);
        let outcome = ports::take(pod);
        if outcome.is_err() {
            taken.remove(&pod.identity.container);
        }
        report.outcome(STEP, outcome, &words);
    }
    if missing.is_empty() && survey.problems.is_empty() {
        report.nothing(STEP, &format!("{} pods of portmap's have all of theirs", survey.pods.len()));
    }
    taken
}

/// Who has an address is asked after the rules were read: an ADD that ended before has one.
fn remove_plugins(kernel: &mut Kernel, options: &NodeOptions, taken: &BTreeSet<String>, report: &mut Report) {
    const STEP: &str = "plugins' rules";
    let network = &options.network;
    let unknown = RefCell::new(None);
    let holders = || {
        let reserved = ports::reserved(&options.data_dir, network);
        let reserved = reserved.map_err(|error| unknown.replace(Some(error.to_string()))).ok()?;
        Some(Holders { taken: taken.clone(), reserved })
    };
    let removed = kernel.iptables().and_then(|tables| {
        kernel.remove(tables, |found| {
            holders().map_or_else(|| Removal::none(found), |all| plugins::plugins(found, network, &all))
        })
    });
    told(report, STEP, removed);
    let removed = kernel.plugins().and_then(|tables| {
        kernel.remove(tables, |found| {
            holders().map_or_else(|| Removal::none(found), |all| plugins::of_nftables(found, network, &all))
        })
    });
    told(report, "plugins' tables", removed);
    let left = kernel.iptables().and_then(|mut left| {
        left.extend(kernel.plugins()?);
        Ok(left)
    });
    match (left, holders()) {
        (Ok(left), Some(all)) => {
            let kept: BTreeSet<String> = left.iter().flat_map(|found| plugins::kept(found, network, &all)).collect();
            for container in kept {
                let words = format!(
                    "container {container} lives, and its host ports have not been taken over: they stay portmap's; run this \
                     again, or delete its pod"
                );
                report.failed(STEP, &words);
            }
        }
        (Err(error), _) => report.failed(STEP, &error.to_string()),
        (_, None) => {
            let why = unknown.take().unwrap_or_default();
            report.failed(STEP, &format!("they stay, as {} cannot be read: {why}", options.data_dir.display()));
        }
    }
}

/// Removes from iptables' tables what `plan` finds in them.
fn remove(kernel: &mut Kernel, report: &mut Report, step: &str, plan: impl Fn(&Found) -> Removal) {
    let removed = kernel.iptables().and_then(|tables| kernel.remove(tables, plan));
    told(report, step, removed);
}

fn told(report: &mut Report, step: &str, removed: Result<Removed, weft_netlink::Error>) {
    match removed {
        Ok(Removed { chains: 0, rules: 0, .. }) => report.nothing(step, "there are none"),
        Ok(Removed { chains, rules, foreign }) => {
            report.done(step, &format!("{chains} chains removed, and {rules} rules beside them"));
            foreign.iter().for_each(|rule| report.note(step, &format!("removed, and somebody else's: {rule}")));
        }
        Err(error) => report.failed(step, &error.to_string()),
    }
}

fn remove_tables(kernel: &mut Kernel, report: &mut Report, step: &str, names: &[&str]) {
    match kernel.tables_named(names) {
        Ok(tables) if tables.is_empty() => report.nothing(step, "there are none"),
        Ok(tables) => {
            let listed: Vec<String> = tables.iter().map(ToString::to_string).collect();
            report.outcome(step, kernel.remove_tables(&tables), &format!("{} removed", listed.join(", ")));
        }
        Err(error) => report.failed(step, &error.to_string()),
    }
}

/// Rules first: they ask the sets, and lead past what serves now. The device last: its addresses are those that virtual
/// servers are reached at.
fn remove_kube_proxy(kernel: &mut Kernel, options: &NodeOptions, services: Services, report: &mut Report) {
    remove(kernel, report, "kube-proxy's rules", rules::kube_proxy);
    remove_tables(kernel, report, "kube-proxy's tables", &KUBE_PROXY_TABLES);
    match kernel::ip_sets() {
        Ok(sets) if sets.is_empty() => report.nothing("kube-proxy's IP sets", "there are none"),
        Ok(sets) => {
            let words = format!("{} removed", sets.len());
            report.outcome("kube-proxy's IP sets", kernel::remove_ip_sets(&sets), &words);
        }
        Err(error) => report.failed("kube-proxy's IP sets", &error.to_string()),
    }
    let outcome = remove_ipvs(options, services, report);
    if let Err(error) = outcome {
        report.failed("kube-proxy's virtual servers", &error.to_string());
    }
}

fn remove_ipvs(options: &NodeOptions, services: Services, report: &mut Report) -> Result<(), weft_netlink::Error> {
    const STEP: &str = "kube-proxy's virtual servers";
    let (device, own) = kernel::device()?;
    let ground = ground(options, services == Services::Ipvs, device.as_ref(), own);
    let doomed = left(&ground, &kernel::virtual_servers()?);
    if doomed.is_empty() {
        report.nothing(STEP, "there are none");
    } else {
        kernel::remove_virtual_servers(&doomed)?;
        report.done(STEP, &format!("{} removed", doomed.len()));
    }
    if let Some(device) = device {
        kernel::remove_link(device.index)?;
        report.done(STEP, &format!("{DEVICE} removed, with {} addresses", device.addresses.len()));
    }
    Ok(())
}

/// A DROP policy is the machine's, and flannel's chain the only one that lets pods through.
fn tell_of_forward(kernel: &mut Kernel, report: &mut Report) {
    if kernel.iptables().is_ok_and(|tables| tables.iter().any(rules::needs_flannel_forward)) {
        let words = "FLANNEL-FWD stays, as FORWARD drops what nobody accepts; if it need not: \
                     iptables --policy FORWARD ACCEPT, and run this again";
        report.note("flannel's rules", words);
    }
}

/// It would go on leading Services and host ports past weft, so that the node is not done before somebody has looked.
fn tell_of_legacy(options: &NodeOptions, taken: &BTreeSet<String>, report: &mut Report) {
    let tables = kernel::legacy_tables();
    if !tables.is_empty() && !options.legacy_cleaned {
        let words = format!(
            "the kernel has tables of iptables-legacy ({}), in which others' chains cannot be seen from here; remove them on the \
             node by the command that follows, then run this with --legacy-cleaned: {}",
            tables.join(", "),
            legacy::command(&options.network, taken)
        );
        report.failed("iptables-legacy", &words);
    }
}
