//! A model of etcd.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::key::SubnetKey;
use crate::cluster::layout::Layout;
use crate::cluster::view::{Entry, StoreView};
use crate::lease::machine::Outcome;
use crate::lease::transaction::{Transaction, Write};

/// etcd, as far as leases go.
#[derive(Default)]
pub(super) struct Etcd {
    pub(super) revision: i64,
    pub(super) keys: BTreeMap<String, Entry>,
    pub(super) leases: BTreeSet<i64>,
    pub(super) granted: i64,
}

impl Etcd {
    pub(super) fn view(&self, layout: &Layout) -> StoreView {
        let mut view = StoreView { revision: self.revision, ..StoreView::default() };
        for (key, entry) in &self.keys {
            view.set(layout, key, Some(entry.clone()));
        }
        view
    }

    pub(super) fn grant(&mut self) -> i64 {
        // Numbers are never used twice, not by a wiped store either: etcd makes them from the time.
        self.granted += 1;
        self.leases.insert(self.granted);
        self.granted
    }

    pub(super) fn commit(&mut self, layout: &Layout, transaction: &Transaction) -> Outcome {
        let (first, end) = layout.leases_and_nodes();
        let unchanged = transaction
            .unchanged
            .iter()
            .all(|(key, revision)| self.keys.get(key).map_or(0, |entry| entry.mod_revision) == *revision);
        let no_lease_since = transaction
            .no_lease_since
            .is_none_or(|since| self.keys.range(first..end).all(|(_, entry)| entry.mod_revision <= since));
        if !(unchanged && no_lease_since) {
            return Outcome::Conflict(self.view(layout));
        }
        let unknown_lease = |write: &Write| matches!(write, Write::Put { etcd_lease, .. } if *etcd_lease != 0 && !self.leases.contains(etcd_lease));
        if transaction.writes.iter().any(unknown_lease) {
            return Outcome::EtcdLeaseGone;
        }
        self.revision += 1;
        for write in &transaction.writes {
            match write {
                Write::Put { key, value, etcd_lease } => self.put(key, value.clone(), *etcd_lease),
                Write::Delete { key } => drop(self.keys.remove(key)),
            }
        }
        Outcome::Done(self.view(layout))
    }

    pub(super) fn put(&mut self, key: &str, value: Vec<u8>, etcd_lease: i64) {
        let create_revision = self.keys.get(key).map_or(self.revision, |entry| entry.create_revision);
        let entry = Entry { value, create_revision, mod_revision: self.revision, etcd_lease };
        self.keys.insert(key.to_owned(), entry);
    }

    pub(super) fn expire(&mut self, id: i64) {
        if self.leases.remove(&id) {
            self.revision += 1;
            self.keys.retain(|_, entry| entry.etcd_lease != id);
        }
    }

    /// New data, old endpoint; revisions start over and come by the same numbers again.
    pub(super) fn wipe(&mut self) {
        *self = Self { revision: 1, granted: self.granted, ..Self::default() };
    }

    pub(super) fn leased(&self, layout: &Layout) -> Vec<SubnetKey> {
        self.view(layout).subnets.keys().map(|key| key.parse().unwrap()).collect()
    }
}
