//! What the store held at one revision, unjudged: keys and values as they were read.
//!
//! The lease machine decides on a view, and each write is a transaction that fails if anything in the view has changed.

use std::collections::BTreeMap;

use super::layout::Layout;

/// One key's value and its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Vec<u8>,
    /// Store revision at which the key came to be.
    pub create_revision: i64,
    /// Store revision of the last write to the key.
    pub mod_revision: i64,
    /// Number of the etcd lease that the key dies with; 0 for none (a flannel reservation).
    pub etcd_lease: i64,
}

/// Everything that concerns leases, read in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreView {
    /// The store's revision when it was read.
    pub revision: i64,
    /// `<prefix>/config`.
    pub config: Option<Entry>,
    /// Keys under `<prefix>/subnets/`, without that prefix.
    pub subnets: BTreeMap<String, Entry>,
    /// Keys under `<prefix>/weft/nodes/`, without that prefix.
    pub nodes: BTreeMap<String, Entry>,
}

impl StoreView {
    /// Puts a key that was read or changed, or takes it out; a key that is not ours to know is passed over. Says whether the
    /// store says something else now: renewing a lease writes what was there before.
    pub fn set(&mut self, layout: &Layout, key: &str, entry: Option<Entry>) -> bool {
        let (map, name) = if let Some(name) = key.strip_prefix(&layout.subnets()) {
            (&mut self.subnets, name)
        } else if let Some(name) = key.strip_prefix(&layout.nodes()) {
            (&mut self.nodes, name)
        } else {
            if key != layout.config() {
                return false;
            }
            let before = std::mem::replace(&mut self.config, entry);
            return differ(before.as_ref(), self.config.as_ref());
        };
        match entry {
            Some(entry) => {
                let is_news = differ(map.get(name), Some(&entry));
                map.insert(name.to_owned(), entry);
                is_news
            }
            None => map.remove(name).is_some(),
        }
    }
}

/// Whether two say something different of a key. With which etcd lease it was written, and when, is no part of that.
fn differ(one: Option<&Entry>, other: Option<&Entry>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one.create_revision, &one.value) != (other.create_revision, &other.value),
        (one, other) => one.is_some() != other.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_find_their_place() {
        let layout = Layout::default();
        let entry = || Some(Entry { value: vec![], create_revision: 1, mod_revision: 1, etcd_lease: 0 });
        let mut view = StoreView::default();
        for key in ["config", "subnets/a", "subnets/b", "weft/nodes/n", "services/x"] {
            view.set(&layout, &format!("/coreos.com/network/{key}"), entry());
        }
        assert!(view.config.is_some());
        assert_eq!((view.subnets.len(), view.nodes.len()), (2, 1));
        view.set(&layout, "/coreos.com/network/subnets/a", None);
        view.set(&layout, "/coreos.com/network/config", None);
        assert!(view.config.is_none() && view.subnets.len() == 1);
        let (first, end) = layout.leases_and_nodes();
        for key in [layout.subnets() + "z", layout.nodes() + "~"] {
            assert!(key >= first && key < end, "{key}");
        }
        assert!("/coreos.com/network/services/x" < first.as_str());
    }

    #[test]
    fn a_renewed_key_is_no_news() {
        let layout = Layout::default();
        let entry = |value: &str, create_revision, mod_revision| {
            Some(Entry { value: value.into(), create_revision, mod_revision, etcd_lease: mod_revision })
        };
        let mut view = StoreView::default();
        let mut set = |key: &str, entry| view.set(&layout, &format!("/coreos.com/network/{key}"), entry);
        for key in ["config", "subnets/a"] {
            assert!(set(key, entry("x", 1, 1)));
            assert!(!set(key, entry("x", 1, 2)), "renewed");
            assert!(set(key, entry("y", 1, 3)));
            assert!(set(key, entry("y", 4, 4)), "made anew");
            assert!(set(key, None) && !set(key, None));
        }
        assert!(!set("services/x", entry("x", 1, 1)));
    }
}
