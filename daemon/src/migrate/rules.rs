//! Which chains in iptables' tables are whose, and what has to go so that they are gone. Pure.
//!
//! iptables-nft keeps its tables in nf_tables, as `ip nat` and so on. kube-proxy's chains are told by name from those of
//! kubelet (`KUBE-FIREWALL`, `KUBE-KUBELET-CANARY`, `KUBE-IPTABLES-HINT`) and of kube-router (`KUBE-ROUTER-…`,
//! `KUBE-NWPLCY-…`, `KUBE-POD-FW-…`), which stay. The plugins' are told in `plugins`.

use weft_netlink::nft::{ChainInfo, Policy, RuleInfo, Table};

use crate::filter::forward::TAG as FORWARD_TAG;

/// Chains of kube-proxy, in all of its modes that use iptables (kubernetes/kubernetes, `pkg/proxy/iptables`,
/// `pkg/proxy/ipvs`, and the two that older kubelets made for it).
pub(super) const KUBE_PROXY_CHAINS: [&str; 14] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    "KUBE-PROXY-CANARY",
    "KUBE-MARK-MASQ",
    "KUBE-MARK-DROP",
    "KUBE-NODE-PORT",
    "KUBE-LOAD-BALANCER",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
];
/// What the names of its chains of one Service or endpoint begin with.
pub(super) const KUBE_PROXY_PARTS: [&str; 6] =
    ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-", "KUBE-XLB-"];
/// flannel's chain of masquerade.
pub(super) const FLANNEL_MASQUERADE: &str = "FLANNEL-POSTRTG";
/// flannel's chain that lets forwarded packets of pods pass.
pub(super) const FLANNEL_FORWARD: &str = "FLANNEL-FWD";
/// What the names of its chains begin with that others lead to from chains of the kernel's.
const KUBE_PROXY_MARKS: &str = "KUBE-MARK-";
/// The tables in which kube-proxy has chains.
const TABLES: [&str; 3] = ["filter", "nat", "mangle"];
/// A table of iptables' as it was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The table.
    pub table: Table,
    /// Its chains.
    pub chains: Vec<ChainInfo>,
    /// The rules of all of its chains.
    pub rules: Vec<RuleInfo>,
}

/// What has to go from one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The table.
    pub table: Table,
    /// Rules by chain and handle; first, as they lead to the chains.
    pub rules: Vec<(String, u64)>,
    /// Chains, with the rules in them.
    pub chains: Vec<String>,
    /// In words: those of the rules that nobody knows whose they are, and that led to the chains.
    pub foreign: Vec<String>,
}

impl Removal {
    /// That nothing has to go.
    #[must_use]
    pub fn none(found: &Found) -> Self {
        Self { table: found.table.clone(), rules: Vec::new(), chains: Vec::new(), foreign: Vec::new() }
    }

    /// Whether nothing has to go.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.chains.is_empty()
    }
}

/// kube-proxy's part of a table.
#[must_use]
pub fn kube_proxy(found: &Found) -> Removal {
    let is_its = |name: &str| {
        let is_part = KUBE_PROXY_PARTS.iter().any(|prefix| name.starts_with(prefix));
        // In ipvs mode it had a chain of this name here; that in `filter` is kubelet's.
        let is_of_nat = found.table.name == "nat" && name == "KUBE-FIREWALL";
        KUBE_PROXY_CHAINS.contains(&name) || is_part || is_of_nat
    };
    let mut removal = without(found, |name| TABLES.contains(&found.table.name.as_str()) && is_its(name), |_| false);
    removal.foreign = foreign(found, &removal.rules);
    removal
}

/// kube-proxy leads to its chains from the kernel's; others have rules in chains of their own, or lead to one Service.
fn foreign(found: &Found, rules: &[(String, u64)]) -> Vec<String> {
    let is_base = |name: &str| found.chains.iter().any(|info| info.chain.name == name && info.chain.base.is_some());
    let is_of_one = |name: &str| {
        name.starts_with(KUBE_PROXY_MARKS) || KUBE_PROXY_PARTS.iter().any(|prefix| name.starts_with(prefix))
    };
    let goes = |rule: &&RuleInfo| rules.iter().any(|(chain, handle)| (chain, *handle) == (&rule.chain, rule.handle));
    let named = found.rules.iter().filter(goes).filter_map(|rule| {
        let target = rule.leads_to().filter(|target| !is_base(&rule.chain) || is_of_one(target))?;
        let remark = rule.remark().map(|remark| format!(" ({remark})")).unwrap_or_default();
        Some(format!("table {}, chain {}: a rule{remark} that led to {target}", found.table, rule.chain))
    });
    named.collect()
}

/// flannel's part of a table. Where FORWARD drops what nobody accepts and has no rules of weft's (`iptables-forward-rules` is off),
/// its chain for forwarded packets stays.
#[must_use]
pub fn flannel(found: &Found) -> Removal {
    let keeps = forward_drops(found);
    without(found, |name| name == FLANNEL_MASQUERADE || (name == FLANNEL_FORWARD && !keeps), |_| false)
}

/// Whether flannel's chain for forwarded packets is there, and needed.
#[must_use]
pub fn needs_flannel_forward(found: &Found) -> bool {
    forward_drops(found) && found.chains.iter().any(|chain| chain.chain.name == FLANNEL_FORWARD)
}

fn forward_drops(found: &Found) -> bool {
    let is_ours = |rule: &RuleInfo| rule.remark().is_some_and(|remark| remark.starts_with(FORWARD_TAG));
    found.table.name == "filter"
        && !found.rules.iter().any(|rule| rule.chain == "FORWARD" && is_ours(rule))
        && found.chains.iter().any(|info| {
            let policy = info.chain.base.as_ref().map(|base| base.policy);
            info.chain.name == "FORWARD" && policy == Some(Policy::Drop)
        })
}

/// The removal of chains, and of the rules elsewhere that lead to them or are `doomed` themselves.
pub(super) fn without(found: &Found, is_doomed: impl Fn(&str) -> bool, doomed: impl Fn(&RuleInfo) -> bool) -> Removal {
    // One of that name that packets enter by itself is nobody's whom we know.
    let chains: Vec<String> = found
        .chains
        .iter()
        .filter(|info| info.chain.base.is_none() && is_doomed(&info.chain.name))
        .map(|info| info.chain.name.to_string())
        .collect();
    let goes = |name: &str| chains.iter().any(|chain| chain == name);
    let rules = found
        .rules
        .iter()
        .filter(|rule| !goes(&rule.chain))
        .filter(|rule| doomed(rule) || rule.leads_to().is_some_and(|chain| goes(&chain)))
        .map(|rule| (rule.chain.clone(), rule.handle))
        .collect();
    Removal { rules, chains, ..Removal::none(found) }
}

#[cfg(test)]
pub(super) mod tests {
    use weft_netlink::nft::{Chain, ChainKind, Hook, TableFamily};

    use super::*;

    /// A table of chains (base ones in capitals without a dash) and rules `chain > target` or `chain # remark > target`.
    pub(in super::super) fn found(table: &str, chains: &[&str], rules: &[&str]) -> Found {
        let chain = |name: &&str| {
            let chain = match *name {
                "FORWARD" | "INPUT" | "PREROUTING" | "POSTROUTING" | "OUTPUT" => {
                    Chain::base((*name).to_owned(), ChainKind::Filter, Hook::Forward, 0)
                }
                name => Chain::regular(name.to_owned()),
            };
            ChainInfo { chain, handle: 0 }
        };
        let rule = |(number, text): (usize, &&str)| {
            let (place, target) = text.split_once(" > ").unwrap();
            let (chain, remark) =
                place.split_once(" # ").map_or((place, None), |(chain, remark)| (chain, Some(remark)));
            RuleInfo {
                chain: chain.to_owned(),
                handle: u64::try_from(number).unwrap() + 1,
                comment: remark.map(str::to_owned),
                expressions: jump(target),
            }
        };
        Found {
            table: Table::new(TableFamily::Ip, table),
            chains: chains.iter().map(chain).collect(),
            rules: rules.iter().enumerate().map(rule).collect(),
        }
    }

    /// The bytes of a jump as the kernel writes it: attributes in attributes.
    fn jump(target: &str) -> Vec<u8> {
        let attribute = |kind: u16, value: &[u8]| {
            let length = u16::try_from(value.len() + 4).unwrap();
            let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let verdict = attribute(2, &attribute(2, target.as_bytes()));
        let data = attribute(2, &verdict);
        attribute(1, &[attribute(1, b"immediate\0"), attribute(2, &data)].concat())
    }

    #[test]
    fn kube_proxys_chains_go_and_its_neighbours_stay() {
        let nat = found(
            "nat",
            &[
                "PREROUTING",
                "KUBE-SERVICES",
                "KUBE-SVC-ABC",
                "KUBE-SEP-ABC",
                "KUBE-KUBELET-CANARY",
                "MINE",
                "KUBE-FIREWALL",
            ],
            &["PREROUTING > KUBE-SERVICES", "KUBE-SERVICES > KUBE-SVC-ABC", "PREROUTING > MINE", "MINE > KUBE-SVC-ABC"],
        );
        let removal = kube_proxy(&nat);
        assert_eq!(removal.chains, ["KUBE-SERVICES", "KUBE-SVC-ABC", "KUBE-SEP-ABC", "KUBE-FIREWALL"]);
        assert_eq!(removal.rules, [("PREROUTING".to_owned(), 1), ("MINE".to_owned(), 4)]);
        assert_eq!(removal.foreign, ["table ip nat, chain MINE: a rule that led to KUBE-SVC-ABC"]);
        // A rule of the kernel's chains may be another's, too.
        let marks = found("nat", &["OUTPUT", "KUBE-MARK-MASQ"], &["OUTPUT # hairpin > KUBE-MARK-MASQ"]);
        assert_eq!(
            kube_proxy(&marks).foreign,
            ["table ip nat, chain OUTPUT: a rule (hairpin) that led to KUBE-MARK-MASQ"]
        );

        let kept = ["KUBE-FIREWALL", "KUBE-ROUTER-INPUT", "KUBE-NWPLCY-X", "KUBE-POD-FW-X", "KUBE-IPTABLES-HINT"];
        assert!(kube_proxy(&found("filter", &kept, &["INPUT > KUBE-FIREWALL"])).is_empty());
        assert!(kube_proxy(&found("other", &["KUBE-SERVICES"], &[])).is_empty());
    }

    #[test]
    fn a_chain_for_forwarded_packets_stays_where_it_is_needed() {
        let filter = found("filter", &["FORWARD", "FLANNEL-FWD"], &["FORWARD > FLANNEL-FWD"]);
        assert_eq!(flannel(&filter).chains, ["FLANNEL-FWD"]);
        assert!(!needs_flannel_forward(&filter));
        let mut dropping = filter;
        dropping.chains[0].chain.base.as_mut().unwrap().policy = Policy::Drop;
        assert!(flannel(&dropping).is_empty() && needs_flannel_forward(&dropping));
        let ours = RuleInfo { comment: Some(format!("{FORWARD_TAG}from a pod [0]")), ..dropping.rules[0].clone() };
        dropping.rules.push(ours);
        assert!(flannel(&dropping).chains == ["FLANNEL-FWD"] && !needs_flannel_forward(&dropping));
        let nat = found("nat", &["POSTROUTING", "FLANNEL-POSTRTG"], &["POSTROUTING > FLANNEL-POSTRTG"]);
        assert_eq!(flannel(&nat).rules, [("POSTROUTING".to_owned(), 1)]);
    }
}
