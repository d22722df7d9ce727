//! The table, its sets and chains as the kernel has them, and what they lack.

use std::collections::{BTreeMap, BTreeSet};

use weft_netlink::nft::{Batch, ChainInfo, RuleInfo, Set, Socket, Table};
use weft_netlink::{Error, nft};

use super::chains;
use super::class::Class;
use super::layout::SetId;
use crate::filter::SERVICE_PREFIX;
use crate::filter::plan::PlannedChain;

/// The rules of each chain as the kernel had them when they were known to be right: a comment can be kept on a rule that is
/// another one.
pub(super) type Known = BTreeMap<String, Vec<Vec<u8>>>;

/// What the kernel has of ours, without elements.
#[derive(Debug, Default)]
pub(super) struct Structure {
    /// Whether the table is there and awake.
    awake: bool,
    chains: BTreeMap<String, Option<nft::BaseChain>>,
    rules: BTreeMap<String, Vec<RuleInfo>>,
    sets: BTreeMap<String, Set>,
}

/// What has to be done.
#[derive(Debug)]
pub(super) struct Mending {
    /// The transaction; empty if nothing has to be done.
    pub(super) batch: Batch,
    /// How many chains and sets are written.
    pub(super) written: usize,
    /// The classes whose chains are there afterwards.
    pub(super) classes: BTreeSet<Class>,
    /// Chains that are nobody's, whose rules go with the transaction, and which can be deleted when no element leads there.
    pub(super) strays: Vec<String>,
}

impl Structure {
    /// Reads it.
    ///
    /// # Errors
    /// As all dumps of [`Socket`].
    pub(super) fn read(socket: &mut Socket, table: &Table) -> Result<Self, Error> {
        let mut found = Self::default();
        let info = socket
            .tables()?
            .into_iter()
            .find(|info| (info.table.family, &info.table.name) == (table.family, &table.name));
        let Some(info) = info else { return Ok(found) };
        found.awake = !info.dormant;
        let ours = |name: &str| name.starts_with(SERVICE_PREFIX);
        for ChainInfo { chain, .. } in socket.chains(table)?.into_iter().filter(|info| ours(&info.chain.name)) {
            found.chains.insert(chain.name.into_owned(), chain.base);
        }
        for rule in socket.rules(table, None)?.into_iter().filter(|rule| ours(&rule.chain)) {
            found.rules.entry(rule.chain.clone()).or_default().push(rule);
        }
        let sets = socket.sets(table)?.into_iter().map(|info| info.set).filter(|set| ours(&set.name));
        found.sets = sets.map(|set| (set.name.to_string(), set)).collect();
        Ok(found)
    }

    /// Whether nothing of ours is there.
    pub(super) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty()
    }

    /// The classes whose chains are there.
    pub(super) fn classes(&self) -> impl Iterator<Item = Class> {
        self.chains.keys().filter_map(|name| Class::from_chain(name))
    }

    /// What is missing or wrong. `needed` are the classes of lists that there are to be; the chains of others stay if they are
    /// there. What the kernel made of right rules is noted in `known`.
    #[must_use]
    pub(super) fn mend(
        &self,
        table: &Table,
        skeleton: &[PlannedChain],
        needed: &BTreeSet<Class>,
        known: &mut Known,
    ) -> Mending {
        let classes: BTreeSet<Class> = needed.iter().copied().chain(self.classes()).collect();
        let planned: Vec<PlannedChain> = classes.iter().map(|class| chains::plan(*class)).collect();
        let planned: Vec<&PlannedChain> = planned.iter().chain(skeleton).collect();
        let names: BTreeSet<&str> = planned.iter().map(|planned| &*planned.chain.name).collect();
        let stray_chains: Vec<&String> = self.chains.keys().filter(|name| !names.contains(name.as_str())).collect();
        let wanted_sets: Vec<Set> = SetId::all().map(SetId::definition).collect();
        let set_names: BTreeSet<&str> = wanted_sets.iter().map(|set| &*set.name).collect();
        let stray_sets: Vec<&String> = self.sets.keys().filter(|name| !set_names.contains(name.as_str())).collect();
        let missing_sets: Vec<&Set> = wanted_sets.iter().filter(|set| !self.sets.contains_key(&*set.name)).collect();
        // A set cannot be changed, and not be deleted while rules use it.
        let changed_sets: Vec<&Set> =
            wanted_sets.iter().filter(|set| self.sets.get(&*set.name).is_some_and(|found| found != *set)).collect();
        let all = !changed_sets.is_empty();
        let wrong_chains: Vec<&PlannedChain> =
            planned.iter().copied().filter(|planned| !self.is_right(planned, known) || all).collect();

        let mut batch = Batch::new();
        let written =
            wrong_chains.len() + missing_sets.len() + changed_sets.len() + stray_sets.len() + stray_chains.len();
        if written > 0 || !self.awake {
            batch.add_table(table);
        }
        for chain in wrong_chains.iter().map(|planned| &*planned.chain.name).chain(stray_chains.iter().map(|n| &***n)) {
            known.remove(chain);
            if self.chains.contains_key(chain) {
                batch.flush_chain(table, chain);
            }
        }
        for set in changed_sets.iter().map(|set| &*set.name).chain(stray_sets.iter().map(|name| &***name)) {
            batch.delete_set(table, set);
        }
        for set in missing_sets.iter().chain(&changed_sets) {
            batch.add_set(table, set);
        }
        for PlannedChain { chain, .. } in &wrong_chains {
            let found = self.chains.get(&*chain.name);
            // A chain's hook and priority cannot be changed.
            if found.is_some_and(|base| *base != chain.base) {
                batch.delete_chain(table, &chain.name);
            }
            batch.add_chain(table, chain);
        }
        for planned in &wrong_chains {
            for rule in &planned.rules {
                batch.add_rule(table, rule);
            }
        }
        let strays = stray_chains.into_iter().cloned().collect();
        Mending { batch, written, classes, strays }
    }

    fn is_right(&self, planned: &PlannedChain, known: &mut Known) -> bool {
        let name = &*planned.chain.name;
        if self.chains.get(name) != Some(&planned.chain.base) {
            return false;
        }
        let rules = self.rules.get(name).map(Vec::as_slice).unwrap_or_default();
        let found = rules.iter().map(|rule| rule.comment.as_deref());
        if !found.eq(planned.rules.iter().map(|rule| rule.comment.as_deref())) {
            return false;
        }
        let bytes = || rules.iter().map(|rule| &rule.expressions);
        match known.get(name) {
            Some(known) => bytes().eq(known),
            // Right after it was written, or after a restart, the comments alone vouch for the rules.
            None => {
                known.insert(name.to_owned(), bytes().cloned().collect());
                true
            }
        }
    }
}

/// Takes everything of ours out of the table: in two transactions, as a chain cannot always be deleted together with the
/// elements that led to it.
#[must_use]
pub(super) fn removal(found: &Structure, table: &Table) -> [Batch; 2] {
    let (mut first, mut second) = (Batch::new(), Batch::new());
    for chain in found.chains.keys() {
        first.flush_chain(table, chain);
        second.delete_chain(table, chain);
    }
    for set in found.sets.keys() {
        first.delete_set(table, set);
    }
    [first, second]
}
