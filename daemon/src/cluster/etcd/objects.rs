//! Keys and values to Services, slices and the own Node.

use std::collections::{HashMap, HashSet};

use crate::cluster::layout::Layout;
use crate::cluster::node::NodeName;
use crate::cluster::services::reader::{self, Kind, Reader, Version};
use crate::cluster::services::{Batch, ObjectName};

/// All there is in the store.
const ALL: &[Kind] = &[Kind::Service, Kind::Slice, Kind::Node];

/// Which key holds what.
#[derive(Debug)]
struct Keys {
    /// What all Services' keys begin with.
    services: String,
    /// What all slices' keys begin with.
    slices: String,
    /// The key of our Node. The others' are passed over unread.
    node: String,
}

impl Keys {
    /// Kind, namespace and name in a key.
    fn split<'a>(&self, key: &'a str) -> Option<(Kind, &'a str, &'a str)> {
        if key == self.node {
            return Some((Kind::Node, "", key.rsplit('/').next()?));
        }
        let (kind, rest) = match (key.strip_prefix(&self.services), key.strip_prefix(&self.slices)) {
            (Some(rest), _) => (Kind::Service, rest),
            (None, Some(rest)) => (Kind::Slice, rest),
            (None, None) => return None,
        };
        let (namespace, name) = rest.split_once('/')?;
        let is_whole = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
        is_whole.then_some((kind, namespace, name))
    }
}

/// The objects in the store.
#[derive(Debug)]
pub(super) struct Objects {
    keys: Keys,
    reader: Reader,
    /// Keys that name no object, with the revision at which that was said.
    nameless: HashMap<String, i64>,
}

/// A list in the making: nothing of it counts before it is whole.
#[derive(Debug, Default)]
pub(super) struct Listing {
    objects: reader::Listing,
    nameless: HashSet<String>,
}

impl Objects {
    pub(super) fn new(layout: &Layout, node: &NodeName) -> Self {
        Self {
            keys: Keys {
                services: layout.services(),
                slices: layout.endpoint_slices(),
                node: layout.node_object(node),
            },
            reader: Reader::default(),
            nameless: HashMap::new(),
        }
    }

    /// How many keys hold something that cannot be used.
    pub(super) fn rejected(&self) -> usize {
        self.reader.rejected() + self.nameless.len()
    }

    /// Takes one key of a list. If `is_same_store`, a revision that is known need not be looked at again.
    pub(super) fn list(&mut self, listing: &mut Listing, key: &[u8], json: &[u8], revision: i64, is_same_store: bool) {
        let label = &*String::from_utf8_lossy(key);
        match self.identify(label, revision) {
            Some(id) => {
                let version = Version { label, json, revision };
                self.reader.list(&mut listing.objects, id, version, is_same_store);
            }
            None => drop(listing.nameless.insert(label.to_owned())),
        }
    }

    /// A list is whole: what has changed, and what is not there any more.
    pub(super) fn listed(&mut self, listing: Listing) -> Batch {
        self.nameless.retain(|key, _| listing.nameless.contains(key));
        self.reader.listed(listing.objects, ALL)
    }

    /// Takes one change: a new value, or that the key was deleted.
    pub(super) fn change(&mut self, batch: &mut Batch, key: &[u8], value: Option<&[u8]>, revision: i64) {
        let label = &*String::from_utf8_lossy(key);
        if value.is_none() {
            self.nameless.remove(label);
            if let Some((kind, namespace, name)) = self.keys.split(label) {
                self.reader.delete(batch, (kind, ObjectName::new(namespace, name)));
            }
        } else if let (Some(json), Some(id)) = (value, self.identify(label, revision)) {
            self.reader.change(batch, id, Version { label, json, revision });
        }
    }

    fn identify(&mut self, key: &str, revision: i64) -> Option<(Kind, ObjectName)> {
        if let Some((kind, namespace, name)) = self.keys.split(key) {
            return Some((kind, self.reader.name(namespace, name)));
        }
        if key.starts_with(&self.keys.services) || key.starts_with(&self.keys.slices) {
            let said = self.nameless.insert(key.to_owned(), revision);
            if said != Some(revision) {
                tracing::warn!(key, revision, "the key does not end in <namespace>/<name>; ignored");
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::services::ServiceStore;

    const WEB: &str = "/coreos.com/network/services/default/web";
    const GOOD: &[u8] = br#"{"spec": {"clusterIP": "172.30.0.41", "ports": [{"port": 80}]}}"#;
    const BAD: &[u8] = br#"{"spec": {"clusterIP": "172.30.0.41", "ports": [{"port": 0}]}}"#;

    /// A store with the objects as they were listed.
    fn listed(objects: &mut Objects, store: &ServiceStore, all: &[(&str, &[u8], i64)], is_same_store: bool) {
        let mut listing = Listing::default();
        for (key, value, revision) in all {
            objects.list(&mut listing, key.as_bytes(), value, *revision, is_same_store);
        }
        store.update(objects.listed(listing));
    }

    fn change(objects: &mut Objects, store: &ServiceStore, key: &str, value: Option<&[u8]>, revision: i64) {
        let mut batch = Batch::default();
        objects.change(&mut batch, key.as_bytes(), value, revision);
        store.update(batch);
    }

    fn start() -> (Objects, ServiceStore) {
        let store = ServiceStore::default();
        store.replace(Vec::new(), Vec::new());
        (Objects::new(&Layout::default(), &"n1".parse().unwrap()), store)
    }

    #[test]
    fn a_bad_version_leaves_the_good_one_and_is_counted_until_it_is_mended_or_gone() {
        let (mut objects, store) = start();
        listed(&mut objects, &store, &[(WEB, GOOD, 1)], false);
        change(&mut objects, &store, WEB, Some(BAD), 2);
        assert_eq!((store.len(), objects.rejected()), (1, 1));
        // Whether it is listed as known or anew.
        for is_same_store in [true, false] {
            listed(&mut objects, &store, &[(WEB, BAD, 2)], is_same_store);
            assert_eq!((store.len(), objects.rejected()), (1, 1));
        }
        change(&mut objects, &store, WEB, Some(GOOD), 3);
        assert_eq!((store.len(), objects.rejected()), (1, 0));
        change(&mut objects, &store, WEB, Some(b"x"), 4);
        change(&mut objects, &store, WEB, None, 5);
        assert_eq!((store.len(), objects.rejected()), (0, 0));
    }

    #[test]
    fn a_list_that_breaks_off_takes_nothing_out_and_is_read_again() {
        let (mut objects, store) = start();
        listed(&mut objects, &store, &[(WEB, GOOD, 1)], false);
        let other = b"/coreos.com/network/services/default/other";
        // This one fails after its first page.
        objects.list(&mut Listing::default(), other, GOOD, 2, true);
        assert_eq!(store.len(), 1);
        listed(&mut objects, &store, &[(WEB, GOOD, 1), (std::str::from_utf8(other).unwrap(), GOOD, 2)], true);
        assert_eq!(store.len(), 2);
        listed(&mut objects, &store, &[(WEB, GOOD, 1)], true);
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn in_another_store_a_known_revision_is_another_value() {
        let (mut objects, store) = start();
        listed(&mut objects, &store, &[(WEB, GOOD, 1)], false);
        let moved = br#"{"spec": {"clusterIP": "172.30.0.42", "ports": [{"port": 80}]}}"#;
        listed(&mut objects, &store, &[(WEB, moved, 1)], false);
        let service = store.take_all().0[0].service.clone().unwrap();
        assert_eq!(service.cluster_ips.v4, Some([172, 30, 0, 42].into()));
    }

    #[test]
    fn t54_of_nodes_only_our_own_is_read_and_it_goes_with_its_key() {
        let (mut objects, store) = start();
        let (own, other) = ("/coreos.com/network/nodes/n1", "/coreos.com/network/nodes/n2");
        let zone = |zone: &str| format!(r#"{{"metadata": {{"labels": {{"topology.kubernetes.io/zone": "{zone}"}}}}}}"#);
        let (a, b) = (zone("a"), zone("b"));
        let known = || store.node().map(|node| node.zone.as_deref().unwrap_or_default().to_owned());
        listed(&mut objects, &store, &[(own, a.as_bytes(), 1), (other, b.as_bytes(), 1)], false);
        assert_eq!(known().as_deref(), Some("a"));
        change(&mut objects, &store, other, Some(b"x"), 2);
        change(&mut objects, &store, own, Some(b"x"), 3);
        assert_eq!((known().as_deref(), objects.rejected()), (Some("a"), 1));
        change(&mut objects, &store, own, Some(b.as_bytes()), 4);
        assert_eq!((known().as_deref(), objects.rejected()), (Some("b"), 0));
        change(&mut objects, &store, own, None, 5);
        assert_eq!(known(), None);
        // And if only a list shows that it is gone.
        listed(&mut objects, &store, &[(own, a.as_bytes(), 6)], true);
        listed(&mut objects, &store, &[(other, b.as_bytes(), 1)], true);
        assert_eq!(known(), None);
    }

    #[test]
    fn keys_that_name_nothing_are_counted() {
        let (mut objects, store) = start();
        for key in ["services/web", "services/a/b/c", "services//web", "endpointslices/a/", "services/"] {
            change(&mut objects, &store, &format!("/coreos.com/network/{key}"), Some(GOOD), 1);
        }
        for key in ["gateways/a/b", "nodes/n2", "nodes/n1/x", "nodes/"] {
            change(&mut objects, &store, &format!("/coreos.com/network/{key}"), Some(GOOD), 1);
        }
        assert_eq!((store.len(), objects.rejected()), (0, 5));
        change(&mut objects, &store, "/coreos.com/network/services/web", None, 2);
        assert_eq!(objects.rejected(), 4);
        listed(&mut objects, &store, &[("/coreos.com/network/services/a/b/c", GOOD, 1)], true);
        assert_eq!(objects.rejected(), 1);
    }
}
