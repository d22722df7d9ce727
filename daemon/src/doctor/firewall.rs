//! Rules of others that packets of pods and of the overlay have to pass.

use super::check::Group;
use super::{Check, Told};
use crate::cluster::Family;
use crate::filter::legacy::CutOff;

const GROUP: Group = Group("firewall");

/// Where a chain stands, of the places that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// For this machine: the overlay's packets, and those of pods to their node.
    Input,
    /// Through this machine: the packets of pods.
    Forward,
}

/// A base chain of somebody else's that drops what none of its rules takes: by its policy, or by its last rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropping {
    /// Its table as nft says it: `ip filter`.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// Where it stands.
    pub at: At,
    /// Rules of its table that take packets from or to the pods' networks, by network or by link.
    pub takes_pods: usize,
    /// Rules of its table that take the overlay's UDP port.
    pub takes_overlay: usize,
}

impl Dropping {
    /// Whether it is iptables' own, through nf_tables.
    fn is_iptables(&self) -> bool {
        matches!(self.table.as_str(), "ip filter" | "ip6 filter")
    }

    /// Whether it sees packets of that family.
    fn sees(&self, family: Family) -> bool {
        match self.table.split(' ').next() {
            Some("ip") => family == Family::V4,
            Some("ip6") => family == Family::V6,
            _ => true,
        }
    }

    fn is_firewalld(&self) -> bool {
        self.table.ends_with(" firewalld")
    }

    fn name(&self) -> String {
        format!("{} {}", self.table, self.chain)
    }
}

/// What is asked of the rules.
#[derive(Debug, Clone)]
pub struct FirewallFacts {
    /// Chains that drop.
    pub dropping: Told<Vec<Dropping>>,
    /// Tables of iptables' old kind (`/proc/net/ip_tables_names`, `ip6_tables_names`), whose rules netlink does not show.
    pub legacy: Told<Vec<String>>,
    /// Networks of pods that the chain FORWARD of that kind cuts off.
    pub cut_off: Told<Vec<CutOff>>,
    /// Whether firewalld has its rules here.
    pub firewalld: Told<bool>,
    /// Whether SELinux is there and enforces.
    pub selinux: Told<Option<bool>>,
    /// The pods' networks; none if nobody tells them.
    pub networks: Vec<String>,
    /// The families of the overlay's outer packets.
    pub outer: Vec<Family>,
    /// Whether there are other nodes.
    pub peers: bool,
    /// The UDP port of the overlay.
    pub port: u16,
    /// Whether some peer has answered through the overlay, so that its packets do come in.
    pub overlay_comes_in: bool,
}

/// The checks.
#[must_use]
pub fn judge(facts: &FirewallFacts) -> Vec<Check> {
    let mut checks = Vec::new();
    match &facts.dropping {
        Ok(chains) => {
            checks.extend(chains.iter().map(|chain| dropping(chain, facts)));
            for (at, name) in [(At::Forward, "forward"), (At::Input, "input")] {
                if !chains.iter().any(|chain| chain.at == at) {
                    checks.push(GROUP.good(name, "no chain of nf_tables drops what no rule takes"));
                }
            }
        }
        Err(reason) => checks.push(GROUP.unknown("policies", reason.clone())),
    }
    checks.push(match &facts.legacy {
        Ok(tables) if tables.is_empty() => GROUP.good("iptables-legacy", "not in use"),
        Ok(tables) => GROUP.note(
            "iptables-legacy",
            format!(
                "tables {} are there, and only FORWARD is looked into; iptables-legacy -S INPUT shows whether UDP {} comes in",
                tables.join(", "),
                facts.port
            ),
        ),
        Err(reason) => GROUP.unknown("iptables-legacy", reason.clone()),
    });
    checks.extend(cut_off(facts));
    checks.push(firewalld(facts));
    checks.push(match &facts.selinux {
        Ok(Some(true)) => GROUP.note("SELinux", "enforcing; what it refuses is in ausearch -m avc -ts recent"),
        Ok(Some(false)) => GROUP.good("SELinux", "permissive"),
        Ok(None) => GROUP.good("SELinux", "not there"),
        Err(reason) => GROUP.unknown("SELinux", reason.clone()),
    });
    checks
}

fn cut_off(facts: &FirewallFacts) -> Vec<Check> {
    const NAME: &str = "iptables-legacy FORWARD";
    match &facts.cut_off {
        Ok(found) => found.iter().map(|found| GROUP.problem(NAME, found.cause(), for_good(&found.remedy))).collect(),
        Err(reason) => vec![GROUP.unknown(NAME, reason.clone())],
    }
}

fn dropping(chain: &Dropping, facts: &FirewallFacts) -> Check {
    let name = chain.name();
    let seen = seen(chain, &facts.networks);
    match chain.at {
        At::Forward if facts.networks.is_empty() => {
            GROUP.unknown(name, "it drops what no rule takes, and the pods' networks are not known")
        }
        At::Forward if seen.is_empty() => GROUP.moot(name, "pods have no addresses of that family"),
        At::Input if !facts.outer.iter().any(|family| chain.sees(*family)) => {
            GROUP.moot(name, "the overlay sends no packets of that family")
        }
        At::Input if !facts.peers => {
            GROUP.moot(name, "it drops what no rule takes, and there is no other node that sends")
        }
        At::Forward if chain.takes_pods > 0 => {
            GROUP.good(name, format!("drops what no rule takes, and {} rules are about the pods", chain.takes_pods))
        }
        At::Forward => {
            let cause = format!(
                "chain {name} at FORWARD drops what no rule of its takes, and no rule takes the pods' networks: pods are cut off from other nodes, from outside, and from Services"
            );
            GROUP.problem(name, cause, forward_remedy(chain, &seen))
        }
        At::Input if chain.takes_overlay > 0 || facts.overlay_comes_in => {
            GROUP.good(name, format!("drops what no rule takes, and UDP {} comes in", facts.port))
        }
        At::Input => {
            let port = facts.port;
            let cause = format!(
                "chain {name} at INPUT drops what no rule of its takes, and no rule takes UDP {port}: the overlay's packets do not come in"
            );
            let remedy = if chain.is_firewalld() {
                format!("firewall-cmd --permanent --add-port={port}/udp && firewall-cmd --reload")
            } else if chain.is_iptables() {
                format!("{} -I INPUT -p udp --dport {port} -j ACCEPT", iptables(chain))
            } else {
                format!("nft insert rule {name} udp dport {port} accept")
            };
            GROUP.problem(name, cause, lasting(chain, &remedy))
        }
    }
}

fn iptables(chain: &Dropping) -> &'static str {
    if chain.table.starts_with("ip6 ") { "ip6tables" } else { "iptables" }
}

/// firewalld makes its rules again by itself; whoever has made others has to be told.
fn lasting(chain: &Dropping, commands: &str) -> String {
    if chain.is_firewalld() {
        return commands.to_owned();
    }
    for_good(commands)
}

fn for_good(commands: &str) -> String {
    format!("{commands}; and the same in whatever makes these rules at the next boot")
}

fn family_of(network: &str) -> Family {
    if network.contains(':') { Family::V6 } else { Family::V4 }
}

/// The networks whose packets the chain sees.
fn seen<'a>(chain: &Dropping, networks: &'a [String]) -> Vec<&'a String> {
    networks.iter().filter(|network| chain.sees(family_of(network))).collect()
}

fn forward_remedy(chain: &Dropping, networks: &[&String]) -> String {
    if chain.is_firewalld() {
        return trust(networks.iter().map(|network| network.as_str()));
    }
    let commands: Vec<String> = networks
        .iter()
        .map(|network| {
            if chain.is_iptables() {
                let program = iptables(chain);
                format!("{program} -I FORWARD -s {network} -j ACCEPT; {program} -I FORWARD -d {network} -j ACCEPT")
            } else {
                let family = if family_of(network) == Family::V6 { "ip6" } else { "ip" };
                let name = chain.name();
                format!("nft insert rule {name} {family} saddr {network} accept; nft insert rule {name} {family} daddr {network} accept")
            }
        })
        .collect();
    lasting(chain, &commands.join("; "))
}

/// What has firewalld let the pods through.
fn trust<'a>(networks: impl Iterator<Item = &'a str>) -> String {
    let sources: Vec<String> = networks.map(|network| format!("--add-source={network}")).collect();
    format!("firewall-cmd --permanent --zone=trusted {} && firewall-cmd --reload", sources.join(" "))
}

fn firewalld(facts: &FirewallFacts) -> Check {
    match &facts.firewalld {
        Ok(false) => GROUP.good("firewalld", "not in use"),
        Ok(true) => {
            let port = format!("firewall-cmd --permanent --add-port={}/udp", facts.port);
            let trust = match facts.networks.is_empty() {
                true => "the pods' networks into its zone trusted, and firewall-cmd --reload".to_owned(),
                false => trust(facts.networks.iter().map(String::as_str)),
            };
            GROUP.note("firewalld", format!("has its rules here; unless that is done: {port} && {trust}"))
        }
        Err(reason) => GROUP.unknown("firewalld", reason.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    fn facts(dropping: Vec<Dropping>) -> FirewallFacts {
        FirewallFacts {
            dropping: Ok(dropping),
            legacy: Ok(Vec::new()),
            cut_off: Ok(Vec::new()),
            firewalld: Ok(false),
            selinux: Ok(None),
            networks: vec!["10.244.0.0/16".into(), "fd00:244::/48".into()],
            outer: vec![Family::V4],
            peers: true,
            port: 8472,
            overlay_comes_in: false,
        }
    }

    fn chain(table: &str, at: At) -> Dropping {
        let chain = if at == At::Forward { "FORWARD" } else { "INPUT" }.to_owned();
        Dropping { table: table.into(), chain, at, takes_pods: 0, takes_overlay: 0 }
    }

    fn first(facts: &FirewallFacts) -> Check {
        judge(facts).remove(0)
    }

    #[test]
    fn a_machine_without_rules_is_good() {
        assert!(judge(&facts(Vec::new())).iter().all(|check| check.outcome == Outcome::Good));
    }

    #[test]
    fn forward_drop_is_a_problem_unless_the_pods_are_taken() {
        let check = first(&facts(vec![chain("ip filter", At::Forward)]));
        assert_eq!((check.outcome, check.name.as_str()), (Outcome::Problem, "ip filter FORWARD"));
        let remedy = check.remedy.unwrap();
        assert!(
            remedy.starts_with("iptables -I FORWARD -s 10.244.0.0/16 -j ACCEPT; iptables -I FORWARD -d"),
            "{remedy}"
        );
        assert!(!remedy.contains("fd00"), "{remedy}");
        let six = first(&facts(vec![chain("ip6 filter", At::Forward)])).remedy.unwrap();
        assert!(six.starts_with("ip6tables -I FORWARD -s fd00:244::/48"), "{six}");
        let own = first(&facts(vec![chain("inet firewall", At::Forward)])).remedy.unwrap();
        assert!(own.starts_with("nft insert rule inet firewall FORWARD ip saddr 10.244.0.0/16 accept"), "{own}");

        let taken = Dropping { takes_pods: 2, ..chain("ip filter", At::Forward) };
        assert_eq!(first(&facts(vec![taken])).outcome, Outcome::Good);
    }

    #[test]
    fn input_drop_is_a_problem_unless_the_overlay_comes_in() {
        let closed = facts(vec![chain("ip filter", At::Input)]);
        assert_eq!(first(&closed).outcome, Outcome::Problem);
        assert_eq!(first(&FirewallFacts { overlay_comes_in: true, ..closed }).outcome, Outcome::Good);
    }

    #[test]
    fn a_family_that_the_cluster_does_not_have_is_moot_and_no_remedy_is_empty() {
        let four = |chain: Dropping| FirewallFacts { networks: vec!["10.244.0.0/16".into()], ..facts(vec![chain]) };
        assert_eq!(first(&four(chain("ip6 filter", At::Forward))).outcome, Outcome::Moot);
        assert_eq!(first(&four(chain("ip6 filter", At::Input))).outcome, Outcome::Moot);
        assert_eq!(first(&four(chain("inet f", At::Forward))).outcome, Outcome::Problem);
        // The family of the outer packets counts, not that of the pods.
        let mut outer = facts(vec![chain("ip6 filter", At::Input)]);
        outer.outer = vec![Family::V6];
        assert_eq!(first(&outer).outcome, Outcome::Problem);
        let dark = FirewallFacts { networks: Vec::new(), ..facts(vec![chain("ip filter", At::Forward)]) };
        assert_eq!(first(&dark).outcome, Outcome::Unknown);
        let alone = FirewallFacts { peers: false, ..facts(vec![chain("ip filter", At::Input)]) };
        assert_eq!(first(&alone).outcome, Outcome::Moot);
    }

    #[test]
    fn firewalld_is_told_by_its_own_command() {
        let remedy = |at| first(&facts(vec![chain("inet firewalld", at)])).remedy.unwrap();
        let forward =
            "firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16 --add-source=fd00:244::/48 &&";
        assert!(remedy(At::Forward).starts_with(forward), "{}", remedy(At::Forward));
        assert!(remedy(At::Input).starts_with("firewall-cmd --permanent --add-port=8472/udp"));
    }

    #[test]
    fn what_an_old_iptables_cuts_off_is_a_problem_with_its_remedy() {
        let found = CutOff { network: "10.244.0.0/16".parse().unwrap(), remedy: "mend".to_owned() };
        let checks = judge(&FirewallFacts { cut_off: Ok(vec![found]), ..facts(Vec::new()) });
        let check = checks.iter().find(|check| check.outcome == Outcome::Problem).unwrap();
        assert!(check.remedy.as_ref().is_some_and(|remedy| remedy.starts_with("mend;")), "{check:?}");
    }

    #[test]
    fn what_cannot_be_looked_into_is_said() {
        let facts = FirewallFacts {
            dropping: Err("denied".into()),
            legacy: Ok(vec!["filter".into()]),
            firewalld: Ok(true),
            selinux: Ok(Some(true)),
            ..facts(Vec::new())
        };
        let outcomes: Vec<Outcome> = judge(&facts).iter().map(|check| check.outcome).collect();
        assert_eq!(outcomes, [Outcome::Unknown, Outcome::Note, Outcome::Note, Outcome::Note]);
    }
}
