//! Pods' packets and the chain FORWARD of iptables, where that drops what none of its rules takes.
//!
//! An accept in a chain of weft's own cannot override it. So this one chain of others gets two rules, known by their comments,
//! written as iptables itself writes them. The table and the chain are never made, and nothing else in them is touched.

use std::collections::BTreeMap;
use std::fmt;

use ipnetwork::IpNetwork;
use weft_netlink::nft::{
    Batch, ChainInfo, CommitError, Hook, Policy, Position, Rule, RuleInfo, Socket, Table, TableFamily, expr,
};

use super::rules::fingerprint;
use super::table::FilterError;
use crate::reconcile::{self, Update};

/// The chain that every forwarded packet passes.
const CHAIN: &str = "FORWARD";
/// What the comments of weft's rules begin with.
pub const TAG: &str = "weft: ";

/// A chain FORWARD of iptables, by the family of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForwardChain(TableFamily);

impl ForwardChain {
    const ALL: [Self; 2] = [Self(TableFamily::Ip), Self(TableFamily::Ip6)];

    fn table(self) -> Table {
        Table::new(self.0, "filter")
    }

    fn sees(self, network: &IpNetwork) -> bool {
        network.is_ipv4() == (self.0 == TableFamily::Ip)
    }
}

impl fmt::Display for ForwardChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {CHAIN}", self.table())
    }
}

/// What was found in such a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// It drops what none of its rules takes.
    drops: bool,
    /// The first rule that refuses everything: the distributions' way to have a policy. Whatever stands behind it is dead.
    refusal: Option<u64>,
    /// Handles and comments of weft's rules that a packet gets to.
    ours: Vec<(u64, String)>,
    /// Handles of those behind the refusal.
    dead: Vec<u64>,
}

impl Found {
    fn of(chain: &ChainInfo, rules: &[RuleInfo]) -> Option<Self> {
        let base = chain.chain.base.as_ref().filter(|base| base.hook == Hook::Forward)?;
        let at = rules.iter().position(RuleInfo::refuses_all);
        let (live, behind) = rules.split_at(at.unwrap_or(rules.len()));
        let ours = |rule: &RuleInfo| Some((rule.handle, rule.remark().filter(|remark| remark.starts_with(TAG))?));
        Some(Self {
            drops: base.policy == Policy::Drop || at.is_some(),
            refusal: behind.first().map(|rule| rule.handle),
            ours: live.iter().filter_map(ours).collect(),
            dead: behind.iter().filter_map(ours).map(|(handle, _)| handle).collect(),
        })
    }

    /// Handles of weft's rules, wherever they stand.
    fn handles(&self) -> impl Iterator<Item = u64> {
        self.ours.iter().map(|(handle, _)| *handle).chain(self.dead.iter().copied())
    }

    /// What stands there of weft's. Dead rules differ from whatever is wanted.
    fn comments(&self) -> Vec<String> {
        let dead = self.dead.iter().map(|handle| format!("{TAG}behind a rule that refuses everything ({handle})"));
        self.ours.iter().map(|(_, comment)| comment.clone()).chain(dead).collect()
    }
}

/// The chains FORWARD of iptables as a table of the kernel: of each, the comments of weft's rules in it.
#[derive(Debug)]
pub struct ForwardTable {
    socket: Socket,
    networks: Vec<IpNetwork>,
    found: BTreeMap<ForwardChain, Found>,
    /// The number of transactions when that was found.
    generation: Option<u32>,
}

impl ForwardTable {
    /// Opens the way to nf_tables in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`FilterError::Read`] if the kernel lacks nf_tables.
    pub fn open() -> Result<Self, FilterError> {
        let socket = Socket::open()?;
        Ok(Self { socket, networks: Vec::new(), found: BTreeMap::new(), generation: None })
    }

    /// Takes the pods' networks, and returns the desired state: weft's rules in those chains that drop.
    ///
    /// # Errors
    /// [`FilterError::Read`] if the kernel cannot be asked.
    pub fn plan(&mut self, networks: &[IpNetwork]) -> Result<BTreeMap<ForwardChain, Vec<String>>, FilterError> {
        self.networks = networks.to_vec();
        self.look()?;
        let dropping = self.found.iter().filter(|(_, found)| found.drops).map(|(chain, _)| *chain);
        let wanted = dropping.map(|chain| (chain, rules(chain, networks).into_iter().filter_map(comment).collect()));
        Ok(wanted.filter(|(_, comments): &(_, Vec<String>)| !comments.is_empty()).collect())
    }

    /// Looks at the chains, if anybody has written to nf_tables since it was last done.
    fn look(&mut self) -> Result<(), FilterError> {
        let generation = self.socket.generation()?;
        if self.generation == Some(generation) {
            return Ok(());
        }
        self.found.clear();
        for key in ForwardChain::ALL {
            let Some(chain) = self.socket.chain(&key.table(), CHAIN)? else { continue };
            let rules = self.socket.rules(&key.table(), Some(CHAIN))?;
            self.found.extend(Found::of(&chain, &rules).map(|found| (key, found)));
        }
        self.generation = Some(generation);
        Ok(())
    }

    fn write(&mut self, chain: ForwardChain, rules: &[Rule]) -> Result<(), CommitError> {
        let Some(found) = self.found.get(&chain) else { return Ok(()) };
        let (table, mut batch) = (chain.table(), Batch::new());
        for handle in found.handles() {
            batch.delete_rule(&table, CHAIN, handle);
        }
        for rule in rules {
            match found.refusal {
                // Behind all rules that say more than a policy does: whoever refuses some packets of pods means it.
                None => batch.add_rule(&table, rule),
                Some(refusal) => batch.add_rule_at(&table, rule, Position::Before(refusal)),
            }
        }
        self.socket.commit(batch)
    }
}

impl reconcile::Table for ForwardTable {
    type Key = ForwardChain;
    type Value = Vec<String>;
    type Error = FilterError;

    async fn dump(&mut self) -> Result<BTreeMap<ForwardChain, Vec<String>>, FilterError> {
        self.look()?;
        let there = self.found.iter().map(|(chain, found)| (*chain, found.comments()));
        Ok(there.filter(|(_, comments)| !comments.is_empty()).collect())
    }

    async fn update(&mut self, objects: &[Update<ForwardChain, Vec<String>>]) -> Vec<Result<(), FilterError>> {
        let networks = self.networks.clone();
        let write = |update: &Update<ForwardChain, _>| self.write(update.key, &rules(update.key, &networks));
        objects.iter().map(write).map(|result| result.map_err(FilterError::from)).collect()
    }

    async fn delete(&mut self, objects: &[(ForwardChain, Vec<String>)]) -> Vec<Result<(), FilterError>> {
        objects.iter().map(|(chain, _)| self.write(*chain, &[]).map_err(FilterError::from)).collect()
    }
}

/// Takes weft's rules out of the chains of others.
///
/// # Errors
/// [`FilterError`] if the kernel cannot be asked, or refuses.
pub fn withdraw() -> Result<(), FilterError> {
    let mut table = ForwardTable::open()?;
    table.look()?;
    let ours = table.found.iter().filter(|(_, found)| found.handles().next().is_some()).map(|(chain, _)| *chain);
    for chain in ours.collect::<Vec<_>>() {
        table.write(chain, &[])?;
    }
    Ok(())
}

/// Two rules a network: a rule can ask for one thing or another only by way of a set, which iptables does not understand.
fn rules(chain: ForwardChain, networks: &[IpNetwork]) -> Vec<Rule> {
    let accept = |words: &str, phrase: Vec<expr::Expr>| {
        let rule = Rule::new(CHAIN).with(phrase).with(expr::counter()).with(expr::accept());
        let comment = format!("{TAG}{words} [{}]", fingerprint(&rule));
        rule.comment(comment)
    };
    let seen = networks.iter().filter(|network| chain.sees(network));
    seen.flat_map(|network| {
        [accept("from a pod", expr::saddr_in(*network)), accept("to a pod", expr::daddr_in(*network))]
    })
    .collect()
}

fn comment(rule: Rule) -> Option<String> {
    rule.comment.map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_netlink::nft::{Chain, ChainKind};

    fn rule(handle: u64, comment: Option<&str>) -> RuleInfo {
        RuleInfo {
            chain: CHAIN.to_owned(),
            handle,
            comment: comment.map(str::to_owned),
            // An empty list of expressions asks for nothing and refuses nothing.
            expressions: Vec::new(),
        }
    }

    #[test]
    fn only_a_chain_at_forward_counts_and_only_rules_with_the_tag_are_ours() {
        let at = |hook, policy| ChainInfo {
            chain: Chain::base(CHAIN, ChainKind::Filter, hook, 0).policy(policy),
            handle: 1,
        };
        let rules = [rule(2, Some("weft: from a pod [0]")), rule(3, Some("weftless")), rule(4, None)];
        let found = Found::of(&at(Hook::Forward, Policy::Drop), &rules).unwrap();
        assert!(found.drops && found.refusal.is_none());
        assert_eq!(found.ours, [(2, "weft: from a pod [0]".to_owned())]);
        assert!(!Found::of(&at(Hook::Forward, Policy::Accept), &rules).unwrap().drops);
        assert_eq!(Found::of(&at(Hook::Input, Policy::Drop), &rules), None);
    }

    #[test]
    fn each_family_has_rules_for_its_own_networks() {
        let networks = ["10.244.0.0/16".parse().unwrap(), "fd00:244::/48".parse().unwrap()];
        for chain in ForwardChain::ALL {
            let comments: Vec<String> = rules(chain, &networks).into_iter().filter_map(comment).collect();
            assert!(comments.len() == 2 && comments.iter().all(|comment| comment.starts_with(TAG)), "{comments:?}");
        }
        assert_eq!(rules(ForwardChain::ALL[1], &networks[..1]), []);
    }
}
