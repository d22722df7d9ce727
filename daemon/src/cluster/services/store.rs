//! What a source has read so far, and which Services have changed since somebody last looked.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::object::{EndpointSlice, NodeObject, ObjectName, Service};

/// A Service that has changed, as it is now.
#[derive(Debug, Clone)]
pub struct Changed {
    /// Its name.
    pub name: ObjectName,
    /// The Service; `None` if there is none, or none that is ours to serve.
    pub service: Option<Arc<Service>>,
    /// Its slices, in the order of their names.
    pub slices: Vec<Arc<EndpointSlice>>,
}

/// Several changes that belong together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Services to put, or (`None`) to take out.
    pub services: Vec<(ObjectName, Option<Service>)>,
    /// Slices to put, or to take out.
    pub slices: Vec<(ObjectName, Option<EndpointSlice>)>,
    /// What has become of the node that we run on; the last one counts.
    pub node: Vec<Option<NodeObject>>,
}

/// All Services and slices, and the node that we run on. Shared: a source writes, whoever plans takes the changes.
#[derive(Debug, Default)]
pub struct ServiceStore {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    services: HashMap<ObjectName, Arc<Service>>,
    /// By Service, then in the order of their names. Most Services have one.
    slices: HashMap<ObjectName, Vec<Arc<EndpointSlice>>>,
    /// Which Service a slice belongs to, so that a deletion, which tells only a name, finds it.
    owners: HashMap<ObjectName, ObjectName>,
    node: Option<Arc<NodeObject>>,
    dirty: HashSet<ObjectName>,
    /// Revision of the source up to which everything is in here; 0 where a source has none.
    revision: i64,
    /// Both lists have been read in whole once. Before, nothing is given out: a Service without its slices would be rejected.
    synced: bool,
}

impl ServiceStore {
    /// Puts a Service, or takes it out.
    pub fn set_service(&self, name: &ObjectName, service: Option<Service>) {
        let mut inner = self.lock();
        inner.set_service(name, service);
        self.tell(&inner);
    }

    /// Puts a slice, or takes it out. It may belong to another Service than before.
    pub fn set_slice(&self, name: &ObjectName, slice: Option<EndpointSlice>) {
        let mut inner = self.lock();
        inner.set_slice(name, slice);
        self.tell(&inner);
    }

    /// Puts the node that we run on, or (`None`) says that nothing is known of it.
    pub fn set_node(&self, node: Option<NodeObject>) {
        self.update(Batch { node: vec![node], ..Batch::default() });
    }

    /// Makes several changes, so that nobody sees one without the others.
    pub fn update(&self, batch: Batch) {
        let mut inner = self.lock();
        for (name, service) in batch.services {
            inner.set_service(&name, service);
        }
        for (name, slice) in batch.slices {
            inner.set_slice(&name, slice);
        }
        let node = batch.node.into_iter().last();
        if node.is_some_and(|node| inner.set_node(node)) && inner.synced {
            self.changed.notify_one();
        }
        self.tell(&inner);
    }

    /// Puts everything that a whole list has: what is not in it is taken out. From now on changes are given out.
    pub fn replace(&self, services: Vec<Service>, slices: Vec<EndpointSlice>) {
        let mut inner = self.lock();
        let listed: HashSet<ObjectName> = services.iter().map(|service| service.name.clone()).collect();
        let gone: Vec<_> = inner.services.keys().filter(|name| !listed.contains(name)).cloned().collect();
        for name in gone {
            inner.set_service(&name, None);
        }
        for service in services {
            inner.set_service(&service.name.clone(), Some(service));
        }
        let listed: HashSet<ObjectName> = slices.iter().map(|slice| slice.name.clone()).collect();
        let gone: Vec<_> = inner.owners.keys().filter(|name| !listed.contains(name)).cloned().collect();
        for name in gone {
            inner.set_slice(&name, None);
        }
        for slice in slices {
            inner.set_slice(&slice.name.clone(), Some(slice));
        }
        drop(inner);
        self.set_synced();
    }

    /// Says that all lists have been read in whole once: from now on changes are given out.
    pub fn set_synced(&self) {
        self.lock().synced = true;
        // Also when nothing is there at all: somebody waits to know just that.
        self.changed.notify_one();
    }

    /// Whether both lists have been read in whole once.
    pub fn synced(&self) -> bool {
        self.lock().synced
    }

    /// The number of Services.
    pub fn len(&self) -> usize {
        self.lock().services.len()
    }

    /// Whether there is no Service.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says up to which revision of the source everything has been put in. Whoever waits for a change to be programmed waits
    /// for its revision.
    pub fn set_revision(&self, revision: i64) {
        let mut inner = self.lock();
        if inner.revision != revision {
            inner.revision = revision;
            drop(inner);
            self.changed.notify_one();
        }
    }

    /// Takes the Services that have changed since the last time, in no order, with the revision that they are at; none before
    /// the store is synced.
    pub fn take(&self) -> (Vec<Changed>, i64) {
        let mut inner = self.lock();
        if !inner.synced {
            return (Vec::new(), 0);
        }
        let dirty = std::mem::take(&mut inner.dirty);
        (dirty.into_iter().map(|name| inner.changed(name)).collect(), inner.revision)
    }

    /// Takes every Service there is, as if all had changed.
    pub fn take_all(&self) -> (Vec<Changed>, i64) {
        let mut inner = self.lock();
        inner.dirty.clear();
        (inner.services.keys().cloned().map(|name| inner.changed(name)).collect(), inner.revision)
    }

    /// The node that we run on: at least as new as what was last taken. `None` if nothing is known of it.
    pub fn node(&self) -> Option<Arc<NodeObject>> {
        self.lock().node.clone()
    }

    /// Waits until something has changed since the last [`take`](Self::take). One at a time may wait.
    pub async fn wait(&self) {
        self.changed.notified().await;
    }

    fn tell(&self, inner: &Inner) {
        if inner.synced && !inner.dirty.is_empty() {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change above is whole before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn set_service(&mut self, name: &ObjectName, service: Option<Service>) {
        let same = self.services.get(name).map(AsRef::as_ref) == service.as_ref();
        if same {
            return;
        }
        match service {
            Some(service) => self.services.insert(name.clone(), Arc::new(service)),
            None => self.services.remove(name),
        };
        self.dirty.insert(name.clone());
    }

    fn set_slice(&mut self, name: &ObjectName, slice: Option<EndpointSlice>) {
        let before = self.owners.get(name).cloned();
        if let (Some(owner), Some(slice)) = (&before, &slice)
            && self.slice(owner, name).map(AsRef::as_ref) == Some(slice)
        {
            return;
        }
        if let Some(owner) = before {
            self.owners.remove(name);
            if let Some(slices) = self.slices.get_mut(&owner) {
                slices.retain(|slice| slice.name != *name);
                if slices.is_empty() {
                    self.slices.remove(&owner);
                }
            }
            self.dirty.insert(owner);
        }
        if let Some(slice) = slice {
            self.owners.insert(name.clone(), slice.service.clone());
            self.dirty.insert(slice.service.clone());
            let slices = self.slices.entry(slice.service.clone()).or_default();
            let at = slices.partition_point(|other| other.name < slice.name);
            slices.insert(at, Arc::new(slice));
        }
    }

    /// Says whether that is news.
    fn set_node(&mut self, node: Option<NodeObject>) -> bool {
        let is_new = self.node.as_deref() != node.as_ref();
        if is_new {
            self.node = node.map(Arc::new);
        }
        is_new
    }

    fn slice(&self, owner: &ObjectName, name: &ObjectName) -> Option<&Arc<EndpointSlice>> {
        self.slices.get(owner)?.iter().find(|slice| slice.name == *name)
    }

    fn changed(&self, name: ObjectName) -> Changed {
        Changed {
            service: self.services.get(&name).cloned(),
            slices: self.slices.get(&name).cloned().unwrap_or_default(),
            name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::services::{Interner, parse};

    fn slice(name: &str, service: &str) -> EndpointSlice {
        let json = format!(
            r#"{{"metadata": {{"namespace": "default", "name": "{name}",
                "labels": {{"kubernetes.io/service-name": "{service}"}}}}, "addressType": "IPv4"}}"#
        );
        parse::slice(json.as_bytes(), None, &mut Interner::default()).unwrap().object.unwrap()
    }

    /// What has changed: the Service's name and its slices' names.
    fn taken(store: &ServiceStore) -> Vec<(String, Vec<String>)> {
        let mut all: Vec<_> = store
            .take()
            .0
            .iter()
            .map(|change| {
                let slices = change.slices.iter().map(|slice| slice.name.name.to_string()).collect();
                (change.name.name.to_string(), slices)
            })
            .collect();
        all.sort();
        all
    }

    fn told(name: &str, slices: &[&str]) -> (String, Vec<String>) {
        (name.to_owned(), slices.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn t22_nothing_is_given_out_before_everything_was_read_once() {
        let store = ServiceStore::default();
        store.update(Batch { slices: vec![(slice("a", "web").name, Some(slice("a", "web")))], ..Batch::default() });
        assert!(!store.synced() && taken(&store).is_empty());
        store.replace(Vec::new(), vec![slice("b", "web"), slice("a", "web")]);
        assert_eq!(taken(&store), [told("web", &["a", "b"])]);
        assert!(taken(&store).is_empty());
    }

    #[test]
    fn a_slice_that_moves_to_another_service_changes_both() {
        let store = ServiceStore::default();
        store.replace(Vec::new(), vec![slice("a", "web"), slice("b", "web")]);
        taken(&store);
        store.set_slice(&slice("a", "x").name, Some(slice("a", "x")));
        assert_eq!(taken(&store), [told("web", &["b"]), told("x", &["a"])]);
        store.set_slice(&slice("a", "x").name, Some(slice("a", "x")));
        assert!(taken(&store).is_empty(), "it is the same");
        store.set_slice(&slice("a", "x").name, None);
        assert_eq!(taken(&store), [told("x", &[])]);
    }

    #[test]
    fn a_list_takes_out_what_it_has_not() {
        let store = ServiceStore::default();
        store.replace(Vec::new(), vec![slice("a", "web"), slice("b", "x")]);
        taken(&store);
        store.replace(Vec::new(), vec![slice("b", "x")]);
        assert_eq!(taken(&store), [told("web", &[])]);
    }

    #[tokio::test]
    async fn t54_a_node_that_changes_is_told_of_once() {
        let store = ServiceStore::default();
        let zone = |zone: &str| Some(NodeObject { zone: Some(zone.into()), is_leaving: false });
        let is_told = async || tokio::time::timeout(std::time::Duration::ZERO, store.wait()).await.is_ok();
        store.set_node(zone("a"));
        assert!(!is_told().await, "before everything was read once");
        store.replace(Vec::new(), Vec::new());
        assert!(is_told().await);
        store.set_node(zone("a"));
        assert!(!is_told().await, "it is the same");
        for node in [zone("b"), None] {
            store.set_node(node.clone());
            assert!(is_told().await);
            assert_eq!(store.node().as_deref(), node.as_ref());
        }
    }
}
