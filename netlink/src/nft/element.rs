//! Elements of sets and maps.

use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::expr::Verdict;
use super::set::Set;
use super::value::Value;
use super::{Name, data};
use crate::codec::Attributes;
use crate::codec::Writer;

/// The list of elements in a message about some.
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(super) const NFTA_LIST_ELEM: u16 = 1;
pub(super) const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
const NFTA_SET_ELEM_USERDATA: u16 = 6;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
const NFT_SET_ELEM_INTERVAL_END: u32 = 0x1;

/// What a map gives for one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ElementData {
    /// A value.
    Value(Value),
    /// A verdict.
    Verdict(Verdict),
}

/// One element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Element {
    /// The key; of a range, the first.
    pub key: Value,
    /// The last key of a range, itself included; only in interval sets. A concatenation's fields are ranges each.
    pub key_end: Option<Value>,
    /// What a map gives.
    pub data: Option<ElementData>,
    /// After what time it expires, in whole milliseconds; `None`: as its set says. A dump gives the whole time, not what
    /// is left of it.
    pub timeout: Option<Duration>,
    /// A comment for whoever lists it; at most 127 bytes.
    pub comment: Option<Name>,
}

impl Element {
    /// A single key.
    pub fn new(key: impl Into<Value>) -> Self {
        Self { key: key.into(), key_end: None, data: None, timeout: None, comment: None }
    }

    /// All keys from the first to the last, both included.
    pub fn range(first: impl Into<Value>, last: impl Into<Value>) -> Self {
        let (first, last) = (first.into(), last.into());
        Self { key_end: (first != last).then_some(last), ..Self::new(first) }
    }

    /// All addresses of a network.
    #[must_use]
    pub fn network(network: IpNetwork) -> Self {
        match network {
            IpNetwork::V4(v4) => Self::range(IpAddr::V4(v4.network()), IpAddr::V4(v4.broadcast())),
            IpNetwork::V6(v6) => Self::range(IpAddr::V6(v6.network()), IpAddr::V6(v6.broadcast())),
        }
    }

    /// The element of a map with its value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Value>) -> Self {
        self.data = Some(ElementData::Value(value.into()));
        self
    }

    /// The element of a verdict map with its verdict.
    #[must_use]
    pub fn verdict(mut self, verdict: Verdict) -> Self {
        self.data = Some(ElementData::Verdict(verdict));
        self
    }

    /// The element, gone after this time.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The element with a comment.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<Name>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// Writes the element, and in a set of plain intervals the one that ends it, behind the last key.
    ///
    /// Returns how many elements the kernel will count.
    pub(super) fn write(&self, set: &Set, w: &mut Writer) -> usize {
        let last = self.key_end.unwrap_or(self.key);
        w.nest(NFTA_LIST_ELEM, |w| {
            w.nest(NFTA_SET_ELEM_KEY, |w| data::write_value(w, &self.key));
            if set.has_key_end() {
                w.nest(NFTA_SET_ELEM_KEY_END, |w| data::write_value(w, &last));
            }
            match &self.data {
                Some(ElementData::Value(value)) => w.nest(NFTA_SET_ELEM_DATA, |w| data::write_value(w, value)),
                Some(ElementData::Verdict(verdict)) => w.nest(NFTA_SET_ELEM_DATA, |w| data::write_verdict(w, verdict)),
                None => {}
            }
            if let Some(timeout) = self.timeout {
                w.be64(NFTA_SET_ELEM_TIMEOUT, super::milliseconds(timeout));
            }
            if let Some(comment) = &self.comment {
                w.comment(NFTA_SET_ELEM_USERDATA, comment);
            }
        });
        if !set.interval || set.has_key_end() {
            return 1;
        }
        // A range up to the very last key has no end.
        let Some(end) = last.successor() else { return 1 };
        w.nest(NFTA_LIST_ELEM, |w| {
            w.nest(NFTA_SET_ELEM_KEY, |w| data::write_value(w, &end));
            w.be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
        });
        2
    }
}

/// An element as it comes from the kernel, where a plain interval is two of them.
#[derive(Debug)]
pub(super) struct RawElement {
    element: Element,
    ends_interval: bool,
}

impl RawElement {
    /// The element; meant for sets in which none is an end.
    pub(super) fn into_element(self) -> Element {
        self.element
    }

    pub(super) fn read(attributes: Attributes<'_>) -> Result<Self, String> {
        let key = attributes.nest(NFTA_SET_ELEM_KEY).and_then(data::read_value).ok_or("an element without a key")?;
        let key_end = attributes.nest(NFTA_SET_ELEM_KEY_END).and_then(data::read_value).filter(|end| *end != key);
        let data = match attributes.nest(NFTA_SET_ELEM_DATA) {
            Some(nest) => Some(match data::read_value(nest) {
                Some(value) => ElementData::Value(value),
                None => ElementData::Verdict(data::read_verdict(nest).ok_or("an element with unknown data")?),
            }),
            None => None,
        };
        let element = Element {
            key,
            key_end,
            data,
            timeout: attributes.be64(NFTA_SET_ELEM_TIMEOUT).filter(|time| *time > 0).map(Duration::from_millis),
            comment: attributes.comment(NFTA_SET_ELEM_USERDATA).map(Name::from),
        };
        let flags = attributes.be32(NFTA_SET_ELEM_FLAGS).unwrap_or_default();
        Ok(Self { element, ends_interval: flags & NFT_SET_ELEM_INTERVAL_END != 0 })
    }
}

/// The elements in order of their keys, each plain interval joined to its end.
pub(super) fn join(set: &Set, mut raw: Vec<RawElement>) -> Vec<Element> {
    // Where two intervals meet, the end of the one has the key of the next.
    raw.sort_by_key(|raw| (raw.element.key, !raw.ends_interval));
    if !set.interval || set.has_key_end() {
        return raw.into_iter().map(|raw| raw.element).collect();
    }
    let mut joined: Vec<Element> = Vec::with_capacity(raw.len() / 2 + 1);
    let mut open = false;
    for RawElement { element, ends_interval } in raw {
        match joined.last_mut() {
            Some(start) if ends_interval && open => {
                start.key_end = element.key.predecessor().filter(|last| *last != start.key);
                open = false;
            }
            _ if ends_interval => {}
            _ => {
                joined.push(element);
                open = true;
            }
        }
    }
    if let Some(last) = joined.last_mut().filter(|_| open) {
        let end = Value::zero(last.key.as_slice().len()).complement();
        last.key_end = Some(end).filter(|end| *end != last.key);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::set::Field;

    fn raw(key: [u8; 4], ends_interval: bool) -> RawElement {
        RawElement { element: Element::new(Value::bytes(&key)), ends_interval }
    }

    #[test]
    fn intervals_that_meet_are_told_apart() {
        let set = Set::new("s", [Field::Ipv4]).intervals();
        let dumped = vec![
            raw([10, 0, 1, 0], true),
            raw([10, 0, 2, 0], true),
            raw([255, 255, 255, 255], false),
            raw([10, 0, 1, 0], false),
            raw([0, 0, 0, 0], true),
            raw([10, 0, 0, 0], false),
        ];
        let expected = [
            Element::network("10.0.0.0/24".parse().unwrap()),
            Element::network("10.0.1.0/24".parse().unwrap()),
            Element::new(Value::bytes(&[255; 4])),
        ];
        assert_eq!(join(&set, dumped), expected);
    }

    #[test]
    fn an_interval_without_end_goes_to_the_last_key() {
        let set = Set::new("s", [Field::Ipv4]).intervals();
        let expected = [Element::network("128.0.0.0/1".parse().unwrap())];
        assert_eq!(join(&set, vec![raw([128, 0, 0, 0], false)]), expected);
    }
}
