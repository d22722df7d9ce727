//! Rules of others that packets of pods and of the overlay have to pass.

use super::check::Group;
use super::{Check, Told};

const GROUP: Group = Group("firewall");

/// Where a chain stands, of the places that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// For this machine: the overlay's packets, and those of pods to their node.
    Input,
    /// Through this machine: the packets of pods.
    Forward,
}

/// A base chain of somebody else's that drops what none of its rules takes.
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
    /// Whether firewalld has its rules here.
    pub firewalld: Told<bool>,
    /// Whether SELinux is there and enforces.
    pub selinux: Told<Option<bool>>,
    /// The pods' networks.
    pub networks: Vec<String>,
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
                "tables {} are there and cannot be looked into; iptables-legacy -S FORWARD and -S INPUT show policies, and with DROP they have to accept {}",
                tables.join(", "),
                facts.networks.join(", ")
            ),
        ),
        Err(reason) => GROUP.unknown("iptables-legacy", reason.clone()),
    });
    checks.push(firewalld(facts));
    checks.push(match &facts.selinux {
        Ok(Some(true)) => GROUP.note("SELinux", "enforcing; what it refuses is in ausearch -m avc -ts recent"),
        Ok(Some(false)) => GROUP.good("SELinux", "permissive"),
        Ok(None) => GROUP.good("SELinux", "not there"),
        Err(reason) => GROUP.unknown("SELinux", reason.clone()),
    });
    checks
}

fn dropping(chain: &Dropping, facts: &FirewallFacts) -> Check {
    let name = chain.name();
    match chain.at {
        At::Forward if chain.takes_pods > 0 => {
            GROUP.good(name, format!("drops what no rule takes, and {} rules are about the pods", chain.takes_pods))
        }
        At::Forward => {
            let cause = format!(
                "chain {name} at FORWARD drops what no rule of its takes, and no rule takes the pods' networks: pods are cut off from other nodes, from outside, and from Services"
            );
            GROUP.problem(name, cause, forward_remedy(chain, &facts.networks))
        }
        At::Input if chain.takes_overlay > 0 || facts.overlay_comes_in => {
            GROUP.good(name, format!("drops what no rule takes, and UDP {} comes in", facts.port))
        }
        At::Input => {
            let port = facts.port;
            let cause = format!(
                "chain {name} at INPUT drops what no rule of its takes, and no rule takes UDP {port}: the overlay's packets do not come in"
            );
            let remedy = if chain.is_iptables() {
                format!("{} -I INPUT -p udp --dport {port} -j ACCEPT", iptables(chain))
            } else {
                format!("nft insert rule {name} udp dport {port} accept")
            };
            GROUP.problem(name, cause, format!("{remedy}, and the same in whatever makes these rules at the next boot"))
        }
    }
}

fn iptables(chain: &Dropping) -> &'static str {
    if chain.table.starts_with("ip6 ") { "ip6tables" } else { "iptables" }
}

fn forward_remedy(chain: &Dropping, networks: &[String]) -> String {
    let is_v6 = |network: &&String| network.contains(':');
    let of_table: Vec<&String> = match chain.table.split(' ').next() {
        Some("ip") => networks.iter().filter(|network| !is_v6(network)).collect(),
        Some("ip6") => networks.iter().filter(is_v6).collect(),
        _ => networks.iter().collect(),
    };
    let commands: Vec<String> = of_table
        .into_iter()
        .map(|network| {
            if chain.is_iptables() {
                let program = iptables(chain);
                format!("{program} -I FORWARD -s {network} -j ACCEPT; {program} -I FORWARD -d {network} -j ACCEPT")
            } else {
                let family = if network.contains(':') { "ip6" } else { "ip" };
                let name = chain.name();
                format!("nft insert rule {name} {family} saddr {network} accept; nft insert rule {name} {family} daddr {network} accept")
            }
        })
        .collect();
    format!("{}; and the same in whatever makes these rules at the next boot", commands.join("; "))
}

fn firewalld(facts: &FirewallFacts) -> Check {
    match &facts.firewalld {
        Ok(false) => GROUP.good("firewalld", "not in use"),
        Ok(true) => {
            let sources: Vec<String> = facts.networks.iter().map(|network| format!("--add-source={network}")).collect();
            GROUP.note(
                "firewalld",
                format!(
                    "has its rules here; unless that is done: firewall-cmd --permanent --zone=trusted {} && firewall-cmd --permanent --add-port={}/udp && firewall-cmd --reload",
                    sources.join(" "),
                    facts.port
                ),
            )
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
            firewalld: Ok(false),
            selinux: Ok(None),
            networks: vec!["10.244.0.0/16".into(), "fd00:244::/48".into()],
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
