//! From what was and what is to be to one transaction.

use std::collections::{BTreeMap, BTreeSet};

use weft_netlink::nft::{Batch, Element, Table};

use super::chains;
use super::class::Class;
use super::entry::{Datum, Entry, Key};
use super::layout::SetId;

/// What changes in the kernel, by element: what it has, and what it is to have. Changes that cancel each other are none.
#[derive(Debug, Default)]
pub(super) struct Changes {
    entries: BTreeMap<Key, (Option<Datum>, Option<Datum>)>,
    /// Elements that only have to go: keys that weft would not write.
    strays: Vec<(SetId, Element)>,
}

impl Changes {
    /// An element is to have another value, or to come or go.
    pub(super) fn change(&mut self, key: Key, before: Option<Datum>, after: Option<Datum>) {
        let entry = self.entries.entry(key).or_insert((before, after));
        entry.1 = after;
        if entry.0 == entry.1 {
            self.entries.remove(&key);
        }
    }

    /// All elements of one kind of change: from these to those, both sorted by key.
    pub(super) fn replace(&mut self, before: &[Entry], after: &[Entry]) {
        let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
        loop {
            match (before.peek(), after.peek()) {
                (None, None) => return,
                (Some((old, was)), Some((new, is))) if old == new => {
                    if was != is {
                        self.change(*old, Some(*was), Some(*is));
                    }
                    before.next();
                    after.next();
                }
                (Some((old, was)), next) if next.is_none_or(|(new, _)| old < new) => {
                    self.change(*old, Some(*was), None);
                    before.next();
                }
                (_, Some((new, is))) => {
                    self.change(*new, None, Some(*is));
                    after.next();
                }
                (Some(_), None) => {
                    before.next();
                }
            }
        }
    }

    /// An element that weft would not write has to go.
    pub(super) fn delete(&mut self, set: SetId, element: Element) {
        self.strays.push((set, element));
    }

    /// How many elements are deleted and added.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        let writes = |(before, after): &(Option<Datum>, Option<Datum>)| {
            usize::from(before.is_some()) + usize::from(after.is_some())
        };
        self.entries.values().map(writes).sum::<usize>() + self.strays.len()
    }

    /// Whether nothing changes.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.strays.is_empty()
    }

    /// The number of elements spoken of, which is at least half of [`len`](Self::len) and is known at once.
    #[must_use]
    pub(super) fn keys(&self) -> usize {
        self.entries.len() + self.strays.len()
    }

    /// What changes from what to what.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, Option<Datum>, Option<Datum>)> {
        self.entries.iter().map(|(key, (before, after))| (*key, *before, *after))
    }

    /// The classes that lists come to be of.
    pub(super) fn classes(&self) -> impl Iterator<Item = Class> {
        self.entries.values().filter_map(|(_, after)| match after {
            Some(Datum::Class(class)) => Some(*class),
            _ => None,
        })
    }

    /// Writes everything into the transaction: what goes, then the chains of classes that are new, then what comes.
    pub(super) fn write(&self, batch: &mut Batch, table: &Table, new: &BTreeSet<Class>) {
        let mut goes: BTreeMap<SetId, Vec<Element>> = BTreeMap::new();
        let mut comes: BTreeMap<SetId, Vec<Element>> = BTreeMap::new();
        for (key, (before, after)) in &self.entries {
            if before.is_some() {
                goes.entry(key.set()).or_default().push(key.element(Datum::None));
            }
            if let Some(datum) = after {
                comes.entry(key.set()).or_default().push(key.element(*datum));
            }
        }
        for (set, element) in &self.strays {
            goes.entry(*set).or_default().push(element.clone());
        }
        for class in new {
            let planned = chains::plan(*class);
            batch.add_chain(table, &planned.chain);
            // One that is left over from before may have rules.
            batch.flush_chain(table, &planned.chain.name);
            for rule in &planned.rules {
                batch.add_rule(table, rule);
            }
            let key = Key::Balancer(*class);
            comes.entry(key.set()).or_default().push(key.element(Datum::Chain));
        }
        for (set, elements) in goes {
            batch.delete_elements(table, &set.definition(), &elements);
        }
        for (set, elements) in comes {
            batch.add_elements(table, &set.definition(), &elements);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cancels_itself_is_no_change() {
        let mut changes = Changes::default();
        let key = Key::NoEndpoints(8);
        changes.change(key, None, Some(Datum::None));
        assert_eq!((changes.len(), changes.is_empty()), (1, false));
        changes.change(key, Some(Datum::None), None);
        assert!(changes.is_empty());
    }

    #[test]
    fn only_differences_between_two_states_are_written() {
        let backend =
            |port| Datum::Endpoint(super::super::entry::Endpoint { address: "10.0.0.1".parse().unwrap(), port });
        let at = |index| Key::Backend(crate::cluster::Family::V4, 8, index);
        let before = [(at(0), backend(1)), (at(1), backend(2)), (at(3), backend(4))];
        let after = [(at(0), backend(1)), (at(1), backend(3)), (at(2), backend(4))];
        let mut changes = Changes::default();
        changes.replace(&before, &after);
        assert_eq!(changes.keys(), 3);
        assert_eq!(changes.len(), 4, "one replaced, one gone, one come");
        changes.replace(&after, &before);
        assert!(changes.is_empty());
    }
}
