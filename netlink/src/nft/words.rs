//! Says in words what a request asks for, read back from its own bytes.
//!
//! So nothing needs to be formatted for the thousands of requests that go well.

use super::message::{self, SUBSYSTEM, TABLE_NAME};
use super::table::TableFamily;
use super::value::Value;
use super::{chain, data, element, rule, set};
use crate::codec::Attributes;
use crate::codec::MESSAGE_HEADER;

const LIST: u16 = 3;

/// The request as an operator would say it. `offset` is where the kernel found fault with it.
pub(super) fn describe(request: &[u8], offset: Option<u32>) -> String {
    let attributes = Attributes(request.get(MESSAGE_HEADER..).unwrap_or_default());
    let kind = request.get(4..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_ne_bytes(*bytes));
    if kind >> 8 != SUBSYSTEM {
        return "commit an nftables transaction".to_owned();
    }
    let family = request.get(16).copied().and_then(TableFamily::from_number);
    let family = family.map(|family| format!("{family} ")).unwrap_or_default();
    let name = |kind: u16| attributes.string(kind).unwrap_or_default();
    let table = format!("table {family}{}", name(TABLE_NAME));
    match kind & 0xff {
        message::NEW_TABLE => format!("add {table}"),
        message::DELETE_TABLE => format!("delete {table}"),
        message::NEW_CHAIN => format!("add chain {} to {table}", name(chain::NFTA_CHAIN_NAME)),
        message::DELETE_CHAIN => format!("delete chain {} of {table}", name(chain::NFTA_CHAIN_NAME)),
        message::NEW_RULE => {
            format!("add a rule to chain {} of {table}{}", name(rule::NFTA_RULE_CHAIN), which_rule(attributes))
        }
        message::DELETE_RULE => {
            match (attributes.string(rule::NFTA_RULE_CHAIN), attributes.be64(rule::NFTA_RULE_HANDLE)) {
                (None, _) => format!("flush {table}"),
                (Some(chain), None) => format!("flush chain {chain} of {table}"),
                (Some(chain), Some(_)) => {
                    format!("delete a rule of chain {chain} of {table}{}", which_rule(attributes))
                }
            }
        }
        message::NEW_SET => format!("add set {} to {table}", name(set::NFTA_SET_NAME)),
        message::DELETE_SET => format!("delete set {} of {table}", name(set::NFTA_SET_NAME)),
        message::NEW_ELEMENTS => {
            format!("add elements to set {} of {table}{}", name(set::NFTA_SET_NAME), which_element(request, offset))
        }
        message::DELETE_ELEMENTS if attributes.raw(LIST).is_none() => {
            format!("flush set {} of {table}", name(set::NFTA_SET_NAME))
        }
        message::DELETE_ELEMENTS => {
            format!("delete elements of set {} of {table}{}", name(set::NFTA_SET_NAME), which_element(request, offset))
        }
        other => format!("nftables request {other} about {table}"),
    }
}

/// The comment or the handle of the rule.
fn which_rule(attributes: Attributes<'_>) -> String {
    let comment = attributes.comment(rule::NFTA_RULE_USERDATA).map(|comment| format!(" ({comment})"));
    let handle = || attributes.be64(rule::NFTA_RULE_HANDLE).map(|handle| format!(" (handle {handle})"));
    comment.or_else(handle).unwrap_or_default()
}

/// The key of the element in which the offset lies.
fn which_element(request: &[u8], offset: Option<u32>) -> String {
    let (Some(offset), Some(body)) = (offset, request.get(MESSAGE_HEADER..)) else { return String::new() };
    let start = request.as_ptr() as usize;
    let spans = |value: &[u8]| {
        let first = value.as_ptr() as usize - start;
        // The offset may point at the header of the attribute.
        (first - 4..first + value.len()).contains(&(offset as usize))
    };
    let key: Option<Value> = Attributes(body)
        .nest(LIST)
        .and_then(|list| list.iter().find(|(_, element)| spans(element)))
        .and_then(|(_, found)| Attributes(found).nest(element::NFTA_SET_ELEM_KEY))
        .and_then(data::read_value);
    key.map(|key| format!(" (key {key})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, Element, Field, Rule, Set, Table, TableFamily, Value, expr};
    use super::*;

    fn said(fill: impl FnOnce(&mut Batch, &Table), offset: Option<u32>) -> Vec<String> {
        let mut batch = Batch::default();
        fill(&mut batch, &Table::new(TableFamily::Inet, "weft"));
        batch.requests().map(|request| describe(request, offset)).collect()
    }

    #[test]
    fn requests_are_said_in_words() {
        let set = Set::new("pods", [Field::Ipv4]);
        let words = said(
            |batch, table| {
                batch.remove_table(table);
                batch.add_rule(table, &Rule::new("forward").with(expr::drop()).comment("no way"));
                batch.delete_rule(table, "forward", 7);
                batch.flush_chain(table, "forward");
                batch.flush_table(table);
                batch.flush_set(table, "pods");
                batch.add_elements(table, &set, &[]);
                batch.delete_set(table, "pods");
            },
            None,
        );
        assert_eq!(
            words,
            [
                "commit an nftables transaction",
                "add table inet weft",
                "delete table inet weft",
                "add a rule to chain forward of table inet weft (no way)",
                "delete a rule of chain forward of table inet weft (handle 7)",
                "flush chain forward of table inet weft",
                "flush table inet weft",
                "flush set pods of table inet weft",
                "delete set pods of table inet weft",
            ]
        );
    }

    #[test]
    fn an_element_is_named_by_the_offset() {
        let set = Set::new("marks", [Field::Port]);
        let elements = [Element::new(Value::port(80)), Element::new(Value::port(0x1234))];
        // Header 20, table name 4 + 8, set name 4 + 8, list 4, each element 4 + (4 + 4 + 4).
        let words = said(|batch, table| batch.add_elements(table, &set, &elements), Some(20 + 12 + 12 + 4 + 16));
        assert_eq!(words[1], "add elements to set marks of table inet weft (key 0x1234)");
    }
}
