//! Tables, chains and rules of nf_tables, and what tells of iptables' old kind.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use ipnetwork::IpNetwork;
use weft_netlink::ipvs;
use weft_netlink::nft::{ChainInfo, ChainKind, Hook, Policy, RuleInfo, Socket, Table, TableFamily};

use super::links::View;
use crate::config::Settings;
use crate::doctor::Told;
use crate::doctor::firewall::{At, Dropping, FirewallFacts};
use crate::doctor::leftovers::{Found, LeftoverFacts};
use crate::filter::legacy::cut_off;
use crate::filter::{agent_table, plugin_table};
use crate::migrate::virtual_servers::{DEVICE, Ground, left};

/// What is known of the overlay's packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Overlay {
    /// Whether there are other nodes.
    pub(super) peers: bool,
    /// Whether some of them answers through the overlay.
    pub(super) comes_in: bool,
}

/// A table with its chains, those of them that drop, and its rules if some do.
#[derive(Debug, Clone)]
struct Read {
    table: Table,
    chains: Vec<ChainInfo>,
    dropping: Vec<(String, At)>,
    rules: Vec<RuleInfo>,
}

/// What there is of others' rules.
#[derive(Debug, Clone)]
pub(super) struct Rules(Told<Vec<Read>>);

impl Rules {
    /// Reads all tables but weft's own. The rules of a table are read only where they matter: there may be many.
    pub(super) fn read() -> Self {
        Self(read().map_err(|error| error.to_string()))
    }

    /// What packets of pods and of the overlay have to pass.
    pub(super) fn firewall(&self, view: &View, networks: &[String], port: u16, overlay: Overlay) -> FirewallFacts {
        let marks = Marks::of(view, networks, port);
        let dropping = |read: &Read| -> Vec<Dropping> {
            let count = |is: &dyn Fn(&[u8]) -> bool| read.rules.iter().filter(|rule| is(&rule.expressions)).count();
            let (takes_pods, takes_overlay) = (count(&|rule| marks.pods(rule)), count(&|rule| marks.overlay(rule)));
            let dropping = |(chain, at): &(String, At)| {
                let (table, chain) = (read.table.to_string(), chain.clone());
                Dropping { table, chain, at: *at, takes_pods, takes_overlay }
            };
            read.dropping.iter().map(dropping).collect()
        };
        let firewalld = |read: &Read| read.table.name == "firewalld";
        FirewallFacts {
            dropping: self.0.as_ref().map(|tables| tables.iter().flat_map(dropping).collect()).map_err(Clone::clone),
            legacy: legacy(),
            cut_off: cut_off(&networks.iter().filter_map(|network| network.parse().ok()).collect::<Vec<_>>())
                .map_err(|error| error.to_string()),
            firewalld: self.0.as_ref().map(|tables| tables.iter().any(firewalld)).map_err(Clone::clone),
            selinux: selinux(),
            networks: networks.to_vec(),
            outer: view.devices().iter().map(|device| device.outer).collect(),
            peers: overlay.peers,
            port,
            overlay_comes_in: overlay.comes_in,
        }
    }

    /// What others have left.
    pub(super) fn leftovers(
        &self,
        view: &View,
        settings: &Settings,
        port: u16,
        serving: Option<&str>,
        serves: bool,
    ) -> LeftoverFacts {
        let named = |read: &Read| -> Vec<Found> {
            let table = read.table.to_string();
            let chains = read.chains.iter().map(|chain| (table.clone(), chain.chain.name.to_string()));
            chains.chain([(table.clone(), String::new())]).collect()
        };
        // Pods' ends are nobody's leftovers, and there may be hundreds.
        let names = |links: &Vec<weft_netlink::Link>| {
            let names = links.iter().map(|link| link.name.clone());
            names.filter(|name| !name.starts_with("veth")).collect()
        };
        LeftoverFacts {
            chains: self.0.as_ref().map(|tables| tables.iter().flat_map(named).collect()).map_err(Clone::clone),
            links: view.links.as_ref().map(names).map_err(Clone::clone),
            overlays: view.others(),
            port,
            virtual_servers: virtual_servers().map(|found| left(&ground(view, settings), &found)),
            serves,
            serves_by_ipvs: serving == Some("ipvs"),
        }
    }
}

fn read() -> Result<Vec<Read>, weft_netlink::Error> {
    let mut socket = Socket::open()?;
    let ours = [agent_table(), plugin_table()];
    let mut tables = Vec::new();
    for info in socket.tables()? {
        let is_ours = ours.iter().any(|own| own.family == info.table.family && own.name == info.table.name);
        let sees_ip = matches!(info.table.family, TableFamily::Inet | TableFamily::Ip | TableFamily::Ip6);
        if info.dormant || is_ours || !sees_ip {
            continue;
        }
        let chains = socket.chains(&info.table)?;
        let mut dropping = Vec::new();
        for (chain, at, policy) in chains.iter().filter_map(filters) {
            let last = match policy {
                Policy::Drop => None,
                // Of this chain alone: the table may have thousands elsewhere.
                Policy::Accept => socket.rules(&info.table, Some(&chain.chain.name))?.pop(),
            };
            if policy == Policy::Drop || last.is_some_and(|rule| rule.refuses_all()) {
                dropping.push((chain.chain.name.to_string(), at));
            }
        }
        let rules = if dropping.is_empty() { Vec::new() } else { socket.rules(&info.table, None)? };
        tables.push(Read { table: info.table, chains, dropping, rules });
    }
    Ok(tables)
}

/// A chain that may drop what none of its rules takes: where it stands, and its policy. Distributions come with chains that
/// accept by their policy, and end in a rule that rejects everything.
fn filters(chain: &ChainInfo) -> Option<(&ChainInfo, At, Policy)> {
    let base = chain.chain.base.as_ref().filter(|base| base.kind == ChainKind::Filter)?;
    match base.hook {
        Hook::Input => Some((chain, At::Input, base.policy)),
        Hook::Forward => Some((chain, At::Forward, base.policy)),
        _ => None,
    }
}

/// What rules are recognised by, as it stands in their expressions: values that are compared with. Which of them belongs to
/// which field is not looked at; what matters is whether somebody has thought of the pods.
#[derive(Debug, Clone)]
struct Marks {
    pods: Vec<Vec<u8>>,
    overlay: Vec<u8>,
}

impl Marks {
    fn of(view: &View, networks: &[String], port: u16) -> Self {
        let networks = networks.iter().filter_map(|network| network.parse::<IpNetwork>().ok()).filter_map(prefix);
        let bridge = view.overlay.bridge.iter().flatten().map(|(name, ..)| name.clone());
        let links = view.devices().iter().map(|device| device.name.clone()).chain(bridge);
        let links = links.map(|name| [name.as_bytes(), &[0]].concat());
        Self { pods: networks.chain(links).collect(), overlay: value(&port.to_be_bytes()) }
    }

    fn pods(&self, rule: &[u8]) -> bool {
        self.pods.iter().any(|mark| has(rule, mark))
    }

    fn overlay(&self, rule: &[u8]) -> bool {
        has(rule, &self.overlay)
    }
}

/// A value in a comparison (`NFTA_DATA_VALUE`, linux/netfilter/nf_tables.h), with its length before it.
fn value(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len() + 4).unwrap_or(u16::MAX);
    [&length.to_ne_bytes()[..], &1u16.to_ne_bytes(), bytes].concat()
}

/// The leading bytes of a network, as rules have them: compared as they are, or the whole address behind a mask.
fn prefix(network: IpNetwork) -> Option<Vec<u8>> {
    let octets = match network.network() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    // Whole bytes alone, behind the kind of the attribute: its length depends on who has written the rule.
    let whole = octets.get(..usize::from(network.prefix() / 8)).filter(|whole| !whole.is_empty())?;
    Some([&1u16.to_ne_bytes()[..], whole].concat())
}

fn has(rule: &[u8], mark: &[u8]) -> bool {
    rule.windows(mark.len()).any(|window| window == mark)
}

/// The tables of iptables' old kind that are in use here.
fn legacy() -> Told<Vec<String>> {
    let mut tables = Vec::new();
    for (file, program) in [("ip_tables_names", "iptables"), ("ip6_tables_names", "ip6tables")] {
        // Of this thread's network namespace. A kernel without that kind has no such file; it is root's to read.
        let path = format!("/proc/thread-self/net/{file}");
        let names = match fs::read_to_string(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(format!("{path}: {error}")),
            read => read.unwrap_or_default(),
        };
        tables.extend(names.lines().map(|name| format!("{program} {name}")));
    }
    Ok(tables)
}

fn selinux() -> Told<Option<bool>> {
    match fs::read_to_string("/sys/fs/selinux/enforce") {
        Ok(text) => Ok(Some(text.trim() == "1")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("/sys/fs/selinux/enforce: {error}")),
    }
}

/// What tells kube-proxy's virtual servers from those of others.
fn ground(view: &View, settings: &Settings) -> Ground {
    let of = |is_device: bool| -> Vec<IpAddr> {
        let there = view.addresses.iter().filter(|(link, _)| (link == DEVICE) == is_device);
        there.map(|(_, address)| *address).collect()
    };
    let device = view.links.iter().flatten().any(|link| link.name == DEVICE);
    Ground {
        on_device: device.then(|| of(true)),
        service_cidrs: settings.service_cidr.clone(),
        own: of(false),
        // Where it has, nobody is asked.
        weft_has_ipvs: false,
    }
}

fn virtual_servers() -> Told<Vec<ipvs::Target>> {
    // To open IPVS would load it, where it is a module that nobody uses.
    if !Path::new("/proc/thread-self/net/ip_vs").exists() {
        return Ok(Vec::new());
    }
    let mut socket = match ipvs::Socket::open() {
        Ok(socket) => socket,
        Err(weft_netlink::Error::Unsupported { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    };
    let servers = socket.virtual_servers().map_err(|error| error.to_string())?;
    Ok(servers.iter().map(|info| info.server.target).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_recognised_by_its_whole_bytes() {
        let mark = prefix("10.244.0.0/16".parse().unwrap()).unwrap();
        // As iptables writes it: two bytes, compared as they are.
        assert!(has(&value(&[10, 244]), &mark));
        // As nft may: the whole address behind a mask.
        assert!(has(&value(&[10, 244, 0, 0]), &mark));
        assert!(!has(&value(&[10, 96]), &mark));
        assert_eq!(prefix("0.0.0.0/0".parse().unwrap()), None);
    }
}
