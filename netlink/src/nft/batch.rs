//! A transaction: changes of which the kernel makes all or none.

use super::element::{Element, NFTA_SET_ELEM_LIST_ELEMENTS};
use super::message::{self, BATCH_BEGIN, BATCH_END, about};
use super::rule::{NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_POSITION};
use super::set::NFTA_SET_NAME;
use super::{Chain, Rule, Set, Table};
use crate::codec::Writer;

const REQUEST: u16 = 0x1;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NFTA_CHAIN_NAME: u16 = super::chain::NFTA_CHAIN_NAME;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFNL_BATCH_GENID: u16 = 1;
/// Elements in one message. A list's length has 16 bits, so that many elements need many messages.
const ELEMENTS_PER_MESSAGE: usize = 500;
/// When a list has so many bytes it ends: the longest element (64-byte keys, comment, chain name) still fits behind.
const BYTES_PER_LIST: usize = 60_000;

/// Where a rule goes among those of its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// In front of the rule with this handle.
    Before(u64),
    /// Behind the rule with this handle.
    After(u64),
}

/// Changes that [`Socket::commit`](super::Socket::commit) makes together, in this order.
///
/// * `add_…` is content with what exists already, `create_…` is not.
/// * `delete_…` is refused for what does not exist; `remove_…` is not, as it adds first. What is removed must therefore
///   be described as it would be added, and its table must exist or be added before.
/// * The elements of a set and the rules of a chain go with it.
#[derive(Debug, Clone)]
pub struct Batch {
    writer: Writer,
    sets: u32,
    only_at: bool,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// A transaction without changes.
    #[must_use]
    pub fn new() -> Self {
        let mut writer = Writer::default();
        writer.message(BATCH_BEGIN, REQUEST, message::transaction_header(), |_| {});
        Self { writer, sets: 0, only_at: false }
    }

    /// A transaction that is refused (`ERESTART`) if anyone has changed anything since
    /// [`Socket::generation`](super::Socket::generation) returned this number; it is not tried again then.
    #[must_use]
    pub fn only_at(generation: u32) -> Self {
        let mut writer = Writer::default();
        writer.message(BATCH_BEGIN, REQUEST, message::transaction_header(), |w| w.be32(NFNL_BATCH_GENID, generation));
        Self { writer, sets: 0, only_at: true }
    }

    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests().nth(1).is_none()
    }

    /// Its length in bytes.
    #[must_use]
    pub fn byte_length(&self) -> usize {
        self.writer.len()
    }

    /// How many netlink messages it is, with the two that open and close it.
    #[must_use]
    pub fn message_count(&self) -> usize {
        self.requests().count() + 1
    }

    /// Adds a table.
    pub fn add_table(&mut self, table: &Table) {
        about(&mut self.writer, message::NEW_TABLE, REQUEST | CREATE, table, |w| table.write(w));
    }

    /// Adds a table that must not exist.
    pub fn create_table(&mut self, table: &Table) {
        about(&mut self.writer, message::NEW_TABLE, REQUEST | CREATE | EXCLUSIVE, table, |w| table.write(w));
    }

    /// Deletes a table with all that is in it.
    pub fn delete_table(&mut self, table: &Table) {
        about(&mut self.writer, message::DELETE_TABLE, REQUEST, table, |_| {});
    }

    /// Deletes a table with all that is in it, if it exists.
    pub fn remove_table(&mut self, table: &Table) {
        self.add_table(table);
        self.delete_table(table);
    }

    /// Deletes the rules of all chains of a table; its chains and sets stay.
    pub fn flush_table(&mut self, table: &Table) {
        about(&mut self.writer, message::DELETE_RULE, REQUEST, table, |_| {});
    }

    /// Adds a chain, or changes the policy of one that exists. Kind, hook and priority cannot be changed.
    pub fn add_chain(&mut self, table: &Table, chain: &Chain) {
        about(&mut self.writer, message::NEW_CHAIN, REQUEST | CREATE, table, |w| chain.write(table.family, w));
    }

    /// Adds a chain that must not exist.
    pub fn create_chain(&mut self, table: &Table, chain: &Chain) {
        let flags = REQUEST | CREATE | EXCLUSIVE;
        about(&mut self.writer, message::NEW_CHAIN, flags, table, |w| chain.write(table.family, w));
    }

    /// Deletes a chain with its rules. It is refused while a rule or an element jumps to it.
    pub fn delete_chain(&mut self, table: &Table, chain: &str) {
        about(&mut self.writer, message::DELETE_CHAIN, REQUEST, table, |w| w.string(NFTA_CHAIN_NAME, chain));
    }

    /// Deletes a chain with its rules, if it exists.
    pub fn remove_chain(&mut self, table: &Table, chain: &str) {
        // Without hook: this fits whatever kind of chain there is.
        about(&mut self.writer, message::NEW_CHAIN, REQUEST | CREATE, table, |w| w.string(NFTA_CHAIN_NAME, chain));
        self.delete_chain(table, chain);
    }

    /// Deletes the rules of a chain.
    pub fn flush_chain(&mut self, table: &Table, chain: &str) {
        about(&mut self.writer, message::DELETE_RULE, REQUEST, table, |w| w.string(NFTA_RULE_CHAIN, chain));
    }

    /// Adds a rule at the end of its chain.
    pub fn add_rule(&mut self, table: &Table, rule: &Rule) {
        about(&mut self.writer, message::NEW_RULE, REQUEST | CREATE | APPEND, table, |w| rule.write(w));
    }

    /// Adds a rule at the beginning of its chain.
    pub fn insert_rule(&mut self, table: &Table, rule: &Rule) {
        about(&mut self.writer, message::NEW_RULE, REQUEST | CREATE, table, |w| rule.write(w));
    }

    /// Adds a rule beside another.
    pub fn add_rule_at(&mut self, table: &Table, rule: &Rule, position: Position) {
        let (handle, flags) = match position {
            Position::Before(handle) => (handle, REQUEST | CREATE),
            Position::After(handle) => (handle, REQUEST | CREATE | APPEND),
        };
        about(&mut self.writer, message::NEW_RULE, flags, table, |w| {
            rule.write(w);
            w.be64(NFTA_RULE_POSITION, handle);
        });
    }

    /// Puts a rule in the place of another.
    pub fn replace_rule(&mut self, table: &Table, handle: u64, rule: &Rule) {
        about(&mut self.writer, message::NEW_RULE, REQUEST | REPLACE, table, |w| {
            rule.write(w);
            w.be64(NFTA_RULE_HANDLE, handle);
        });
    }

    /// Deletes a rule.
    pub fn delete_rule(&mut self, table: &Table, chain: &str, handle: u64) {
        about(&mut self.writer, message::DELETE_RULE, REQUEST, table, |w| {
            w.string(NFTA_RULE_CHAIN, chain);
            w.be64(NFTA_RULE_HANDLE, handle);
        });
    }

    /// Adds a set or map. Since Linux 6.3 it is refused (`EEXIST`) if one of that name and another layout exists; before,
    /// that one stays as it is.
    pub fn add_set(&mut self, table: &Table, set: &Set) {
        self.new_set(table, set, REQUEST | CREATE);
    }

    /// Adds a set or map that must not exist.
    pub fn create_set(&mut self, table: &Table, set: &Set) {
        self.new_set(table, set, REQUEST | CREATE | EXCLUSIVE);
    }

    fn new_set(&mut self, table: &Table, set: &Set, flags: u16) {
        self.sets += 1;
        let id = self.sets;
        about(&mut self.writer, message::NEW_SET, flags, table, |w| set.write(id, w));
    }

    /// Deletes a set or map with its elements. It is refused while a rule uses it.
    pub fn delete_set(&mut self, table: &Table, set: &str) {
        about(&mut self.writer, message::DELETE_SET, REQUEST, table, |w| w.string(NFTA_SET_NAME, set));
    }

    /// Deletes a set or map with its elements, if it exists.
    pub fn remove_set(&mut self, table: &Table, set: &Set) {
        self.add_set(table, set);
        self.delete_set(table, &set.name);
    }

    /// Deletes all elements of a set or map.
    pub fn flush_set(&mut self, table: &Table, set: &str) {
        about(&mut self.writer, message::DELETE_ELEMENTS, REQUEST, table, |w| w.string(NFTA_SET_ELEM_LIST_SET, set));
    }

    /// Adds elements. For a map, an element with the same key and other data is refused (`EEXIST`): delete it first, in
    /// the same transaction.
    pub fn add_elements<'a>(&mut self, table: &Table, set: &Set, elements: impl IntoIterator<Item = &'a Element>) {
        self.elements(message::NEW_ELEMENTS, REQUEST | CREATE, table, set, elements);
    }

    /// Adds elements that must not exist.
    pub fn create_elements<'a>(&mut self, table: &Table, set: &Set, elements: impl IntoIterator<Item = &'a Element>) {
        self.elements(message::NEW_ELEMENTS, REQUEST | CREATE | EXCLUSIVE, table, set, elements);
    }

    /// Deletes elements. Only keys count; if one does not exist, the transaction is refused.
    pub fn delete_elements<'a>(&mut self, table: &Table, set: &Set, elements: impl IntoIterator<Item = &'a Element>) {
        self.elements(message::DELETE_ELEMENTS, REQUEST, table, set, elements);
    }

    /// Deletes those elements that exist. A map's must have the data that they exist with: see
    /// [`add_elements`](Self::add_elements).
    pub fn remove_elements<'a, I>(&mut self, table: &Table, set: &Set, elements: I)
    where
        I: IntoIterator<Item = &'a Element, IntoIter: Clone>,
    {
        let elements = elements.into_iter();
        self.add_elements(table, set, elements.clone());
        self.delete_elements(table, set, elements);
    }

    fn elements<'a>(
        &mut self,
        kind: u16,
        flags: u16,
        table: &Table,
        set: &Set,
        elements: impl IntoIterator<Item = &'a Element>,
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            about(&mut self.writer, kind, flags, table, |w| {
                w.string(NFTA_SET_ELEM_LIST_SET, &set.name);
                w.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |w| {
                    let start = w.len();
                    let mut count = 0;
                    // Room for two: an interval and its end stay together.
                    while count + 2 <= ELEMENTS_PER_MESSAGE && w.len() - start < BYTES_PER_LIST {
                        let Some(element) = elements.next() else { break };
                        count += element.write(set, w);
                    }
                });
            });
        }
    }

    /// The messages, the first of which opens the transaction.
    pub(super) fn requests(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.writer.bytes();
        std::iter::from_fn(move || {
            let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
            let (request, behind) = rest.split_at_checked(length)?;
            rest = behind;
            Some(request)
        })
    }

    pub(super) fn fault(&self) -> Option<&str> {
        self.writer.fault()
    }

    /// Whether it may be tried again when somebody else was quicker.
    pub(super) fn may_repeat(&self) -> bool {
        !self.only_at
    }

    /// Closes the transaction: no more changes go in.
    pub(super) fn close(&mut self) {
        self.writer.message(BATCH_END, REQUEST, message::transaction_header(), |_| {});
    }

    /// Numbers the messages from `first` on.
    pub(super) fn number(&mut self, first: u32) {
        let mut rest = self.writer.bytes_mut();
        let mut sequence = first;
        while let Some(length) = rest.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes) as usize) {
            let Some((request, behind)) = rest.split_at_mut_checked(length) else { break };
            if let Some(field) = request.get_mut(8..12) {
                field.copy_from_slice(&sequence.to_ne_bytes());
            }
            sequence = sequence.wrapping_add(1);
            rest = behind;
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.writer.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Field, TableFamily, Value};
    use super::*;

    fn lengths(set: &Set, elements: &[Element]) -> Vec<usize> {
        let mut batch = Batch::new();
        batch.add_elements(&Table::new(TableFamily::Inet, "weft"), set, elements);
        assert_eq!(batch.fault(), None);
        batch.requests().skip(1).map(<[u8]>::len).collect()
    }

    #[test]
    fn many_elements_are_many_messages() {
        let elements: Vec<Element> = (0..1200).map(|number| Element::new(Value::number(number))).collect();
        let head = 20 + 12 + 12 + 4;
        // 4 (element) + 4 (key) + 4 (data) + 4; one place stays free for the end of an interval.
        let expected = [head + 499 * 16, head + 499 * 16, head + 202 * 16];
        assert_eq!(lengths(&Set::new("marks", [Field::Mark]), &elements), expected);
    }

    #[test]
    fn long_elements_are_even_more_messages() {
        let key = [Field::Ipv6, Field::Ipv6, Field::InterfaceName, Field::InterfaceName];
        let set = Set::new("long", key).intervals().verdicts();
        let chain: &str = &"c".repeat(255);
        let elements: Vec<Element> = (0..400u32)
            .map(|number| {
                let key = Value::bytes(&[&number.to_be_bytes()[..], &[0; 60]].concat());
                Element::new(key).verdict(super::super::Verdict::Jump(chain.to_owned().into())).comment("k".repeat(127))
            })
            .collect();
        let lengths = lengths(&set, &elements);
        assert!(lengths.len() > 3 && lengths.iter().all(|length| *length < 65_000), "{lengths:?}");
    }

    #[test]
    fn messages_are_numbered_in_order() {
        let mut batch = Batch::new();
        assert!(batch.is_empty());
        batch.add_table(&Table::new(TableFamily::Inet, "weft"));
        assert!(!batch.is_empty());
        batch.close();
        batch.number(u32::MAX);
        let numbers: Vec<u32> =
            batch.requests().map(|request| u32::from_ne_bytes(*request[8..].first_chunk().unwrap())).collect();
        assert_eq!(numbers, [u32::MAX, 0, 1]);
    }
}
