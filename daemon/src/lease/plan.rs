//! From one view of the store to what the node has to do about its lease: a pure function.
//!
//! In this order, a node takes: the lease its record names; the subnet it runs; a lease that was published under its
//! address and that no record claims (left by flannel); the subnet it ran before; a free one.

use std::net::IpAddr;
use std::sync::Arc;

use super::allocate::{Occupied, allocate};
use super::transaction::{Transaction, Write};
use crate::cluster::family::PerFamily;
use crate::cluster::key::SubnetKey;
use crate::cluster::layout::Layout;
use crate::cluster::lease_value::LeaseValue;
use crate::cluster::netconf::NetConf;
use crate::cluster::node::{NodeName, NodeRecord};
use crate::cluster::view::{Entry, StoreView};

/// Who asks, and what they know.
#[derive(Debug, Clone)]
pub struct Asking<'a> {
    /// Where things stand in the store.
    pub layout: &'a Layout,
    /// The node's identity.
    pub node: &'a NodeName,
    /// What the lease is to say. Back-end data of `None` has nothing to say and leaves what is there.
    pub wanted: &'a LeaseValue,
    /// The lease that this node has held and still runs.
    pub running: Option<SubnetKey>,
    /// The subnets that it ran in an earlier life.
    pub previous: Option<SubnetKey>,
    /// The network configuration to put where there is none.
    pub network: &'a [u8],
    /// An etcd lease to attach new keys to, if one was granted, and granted before the view was read.
    pub etcd_lease: Option<i64>,
    /// Whether nodes that run a subnet have had their time to claim it in a store that has no leases.
    pub grace_over: bool,
}

/// How full the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Subnets that are taken, in the family that has the least left.
    pub used: u128,
    /// Subnets there are.
    pub total: u128,
}

impl Usage {
    /// Whether so many are taken (80 %) that someone should know.
    #[must_use]
    pub const fn is_high(&self) -> bool {
        self.used.saturating_mul(5) >= self.total.saturating_mul(4)
    }

    /// The same in words, as a notice.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        self.is_high().then(|| format!("{} of {} subnets are taken", self.used, self.total))
    }
}

/// What has to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// Nothing: the lease stands and says what it is to say.
    Hold(Holding),
    /// This write, and then look again. The key is the lease it is about.
    Write(SubnetKey, Transaction),
    /// There is no network configuration: this write makes it.
    Configure(Transaction),
    /// An etcd lease has to be granted before a key can be attached to it.
    Grant,
    /// Wait for nodes that run a subnet to claim theirs.
    Grace,
    /// Nothing can be done now, for this reason; the flag says whether the node has lost the lease it ran.
    Stuck(String, bool),
}

/// A lease that stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Holding {
    /// The lease.
    pub key: SubnetKey,
    /// What the store says about it.
    pub published: LeaseValue,
    /// The store's revision of which this is true.
    pub revision: i64,
    /// The network configuration it belongs to.
    pub config: Arc<NetConf>,
    /// The text of the network configuration.
    pub config_text: Vec<u8>,
    /// Number of the etcd lease to keep alive; 0 for a reservation, which lasts by itself.
    pub etcd_lease: i64,
    /// How full the network is.
    pub usage: Usage,
    /// Something that someone should see to, although the lease stands.
    pub notice: Option<String>,
}

/// What to do, given what the store says.
#[must_use]
pub fn plan(view: &StoreView, asking: &Asking<'_>) -> Plan {
    let Some(config) = &view.config else {
        let key = asking.layout.config();
        let put = Write::Put { key: key.clone(), value: asking.network.to_vec(), etcd_lease: 0 };
        return Plan::Configure(Transaction { no_lease_since: None, unchanged: vec![(key, 0)], writes: vec![put] });
    };
    match NetConf::parse(&config.value) {
        Ok((conf, _)) => Planner::new(view, asking, config, Arc::new(conf)).plan(),
        Err(error) => Plan::Stuck(format!("{}: {error}", asking.layout.config()), false),
    }
}

/// A key under `subnets/` that names a subnet, with its history.
type Leased<'a> = (SubnetKey, &'a Entry);

struct Planner<'a> {
    view: &'a StoreView,
    asking: &'a Asking<'a>,
    config: &'a Entry,
    conf: Arc<NetConf>,
    /// What the lease is to say, of the families that the network has.
    wanted: LeaseValue,
    /// Each entry that names a subnet, whatever its value.
    leased: Vec<Leased<'a>>,
    /// The subnets that the records of other nodes name; they are taken even while the lease itself is gone.
    of_others: Vec<SubnetKey>,
    /// The node's own record.
    record: Option<(NodeRecord, &'a Entry)>,
}

impl<'a> Planner<'a> {
    fn new(view: &'a StoreView, asking: &'a Asking<'a>, config: &'a Entry, conf: Arc<NetConf>) -> Self {
        let records =
            || view.nodes.iter().filter_map(|(name, entry)| Some((name, NodeRecord::parse(&entry.value)?, entry)));
        let own = asking.node.as_str();
        let public_ips = asking.wanted.public_ips.filter_map(|family, ip| conf.pools.get(family).map(|_| *ip));
        Self {
            view,
            asking,
            config,
            wanted: LeaseValue { public_ips, backend: asking.wanted.backend.clone() },
            conf,
            leased: view.subnets.iter().filter_map(|(text, entry)| Some((text.parse().ok()?, entry))).collect(),
            of_others: records().filter(|(name, ..)| *name != own).map(|(_, record, _)| record.key).collect(),
            record: records().find(|(name, ..)| *name == own).map(|(_, record, entry)| (record, entry)),
        }
    }

    fn plan(&self) -> Plan {
        if let Some(missing) = self.conf.pools.families().find(|family| self.wanted.public_ips.get(*family).is_none()) {
            let reason = format!("the network has {missing} subnets, but this node has no public {missing} address");
            return Plan::Stuck(reason, false);
        }
        let recorded = self.record.as_ref().map(|(record, _)| record.key);
        let candidates = [recorded, self.asking.running];
        for key in candidates.into_iter().flatten() {
            match self.entry(&key) {
                Some(entry) if self.is_mine(&key, entry) && (self.fits(&key) || self.asking.running == Some(key)) => {
                    return self.settle(key, entry);
                }
                None if self.fits(&key) && self.is_free(&key) => return self.claim(key),
                _ => {}
            }
        }
        if let Some((key, entry)) =
            self.leased.iter().find(|(key, entry)| self.is_adoptable(key, entry) && self.fits(key))
        {
            return self.settle(*key, entry);
        }
        if let Some(key) = self.asking.previous.filter(|key| self.fits(key) && self.is_free(key)) {
            return self.claim(key);
        }
        let ran_nothing = self.asking.running.is_none() && self.asking.previous.is_none();
        if ran_nothing && self.leased.is_empty() && !self.asking.grace_over {
            return Plan::Grace;
        }
        match allocate(&self.conf.pools, &self.occupied(), self.asking.node) {
            Some(key) => self.claim(key),
            None => {
                let Usage { used, total } = self.usage();
                let reason =
                    format!("out of subnets: {used} of {total} are taken; enlarge Network or give back leases");
                Plan::Stuck(reason, self.asking.running.is_some())
            }
        }
    }

    /// The lease is there and mine: hold it, after making it say what it is to say.
    fn settle(&self, key: SubnetKey, entry: &Entry) -> Plan {
        let published = LeaseValue::parse(&entry.value).ok();
        let up_to_date = published.as_ref().is_some_and(|published| self.says_what_it_should(published));
        let recorded = self.record.as_ref().is_some_and(|(record, at)| {
            record.key == key && record.public_ips == self.wanted.public_ips && at.etcd_lease == entry.etcd_lease
        });
        if let (Some(published), true, true) = (published, up_to_date, recorded) {
            return Plan::Hold(Holding {
                key,
                published,
                revision: self.view.revision,
                config: Arc::clone(&self.conf),
                config_text: self.config.value.clone(),
                etcd_lease: entry.etcd_lease,
                usage: self.usage(),
                notice: self.notice(&key),
            });
        }
        // A lease of ours stays on its etcd lease, a reservation stays one; what flannel leased would expire with flannel.
        let etcd_lease = if entry.etcd_lease == 0 || self.is_recorded(&key, entry) {
            entry.etcd_lease
        } else {
            match self.asking.etcd_lease {
                Some(granted) => granted,
                None => return Plan::Grant,
            }
        };
        let mut unchanged = self.unchanged();
        unchanged.push((self.asking.layout.subnet(&key), entry.mod_revision));
        let writes = self.puts(&key, Some(entry), etcd_lease);
        Plan::Write(key, Transaction { no_lease_since: None, unchanged, writes })
    }

    /// The subnets are free as far as this view can tell: take them, if no lease has been made since.
    fn claim(&self, key: SubnetKey) -> Plan {
        let Some(etcd_lease) = self.asking.etcd_lease else { return Plan::Grant };
        let mut unchanged = self.unchanged();
        unchanged.push((self.asking.layout.subnet(&key), 0));
        let mut writes = self.puts(&key, None, etcd_lease);
        // A lease of mine that the configuration has no room for any more.
        for (stale, entry) in &self.leased {
            if self.is_stale(stale, entry) {
                let full_key = self.asking.layout.subnet(stale);
                unchanged.push((full_key.clone(), entry.mod_revision));
                writes.push(Write::Delete { key: full_key });
            }
        }
        Plan::Write(key, Transaction { no_lease_since: Some(self.view.revision), unchanged, writes })
    }

    /// The configuration and my record, as they were read.
    fn unchanged(&self) -> Vec<(String, i64)> {
        let record = self.view.nodes.get(self.asking.node.as_str()).map_or(0, |entry| entry.mod_revision);
        vec![
            (self.asking.layout.config(), self.config.mod_revision),
            (self.asking.layout.node(self.asking.node), record),
        ]
    }

    /// The lease and the record of it.
    fn puts(&self, key: &SubnetKey, existing: Option<&Entry>, etcd_lease: i64) -> Vec<Write> {
        let record = NodeRecord { key: *key, public_ips: self.wanted.public_ips };
        vec![
            Write::Put { key: self.asking.layout.subnet(key), value: self.value(existing).into_bytes(), etcd_lease },
            Write::Put {
                key: self.asking.layout.node(self.asking.node),
                value: record.to_json().into_bytes(),
                etcd_lease,
            },
        ]
    }

    /// What the lease is to say. Whoever has no back-end data to give must not erase what peers reach this node by.
    fn value(&self, existing: Option<&Entry>) -> String {
        let wanted = &self.wanted;
        let text = existing.and_then(|entry| String::from_utf8(entry.value.clone()).ok());
        if wanted.backend.is_none()
            && let Some(text) = text
            && let Ok(published) = LeaseValue::parse(text.as_bytes())
        {
            if published.public_ips == wanted.public_ips {
                return text;
            }
            return LeaseValue { public_ips: wanted.public_ips, backend: published.backend }.to_json();
        }
        wanted.to_json()
    }

    fn says_what_it_should(&self, published: &LeaseValue) -> bool {
        let wanted = &self.wanted;
        published.public_ips == wanted.public_ips && (wanted.backend.is_none() || published.backend == wanted.backend)
    }

    fn entry(&self, key: &SubnetKey) -> Option<&'a Entry> {
        self.leased.iter().find(|(leased, _)| leased == key).map(|(_, entry)| *entry)
    }

    /// Mine by my record, or by my address.
    fn is_mine(&self, key: &SubnetKey, entry: &Entry) -> bool {
        self.is_recorded(key, entry) || self.is_adoptable(key, entry)
    }

    /// Whether this is the lease that my record was written with: both hang on one etcd lease. A lease that was taken by
    /// another after mine had expired hangs on theirs. Reservations hang on none, there the published address decides.
    fn is_recorded(&self, key: &SubnetKey, entry: &Entry) -> bool {
        self.record.as_ref().is_some_and(|(record, at)| {
            record.key == *key
                && at.etcd_lease == entry.etcd_lease
                && (entry.etcd_lease != 0 || public_ips(entry) == Some(record.public_ips))
        })
    }

    /// Whether a lease was published under my address, and no other node's record claims it.
    fn is_adoptable(&self, key: &SubnetKey, entry: &Entry) -> bool {
        let mine = &self.wanted.public_ips;
        let same_address = public_ips(entry).is_some_and(|theirs| {
            key.subnets()
                .families()
                .all(|family| theirs.get(family).is_some() && theirs.get(family) == mine.get(family))
        });
        same_address && !self.of_others.contains(key)
    }

    fn fits(&self, key: &SubnetKey) -> bool {
        let pools = &self.conf.pools;
        key.subnets().same_families(pools)
            && key.subnets().iter().all(|(family, subnet)| pools.get(family).is_some_and(|pool| pool.leases(*subnet)))
    }

    fn is_free(&self, key: &SubnetKey) -> bool {
        self.taken().all(|taken| !taken.overlaps(key))
    }

    /// A lease of mine that goes when I claim another. A reservation is not: it is the operator's to remove.
    fn is_stale(&self, key: &SubnetKey, entry: &Entry) -> bool {
        entry.etcd_lease != 0 && self.is_mine(key, entry)
    }

    /// All that is not free for me to claim.
    fn taken(&self) -> impl Iterator<Item = &SubnetKey> {
        let leased = self.leased.iter().filter(|(key, entry)| !self.is_stale(key, entry)).map(|(key, _)| key);
        leased.chain(&self.of_others)
    }

    fn occupied(&self) -> PerFamily<Occupied> {
        self.conf
            .pools
            .filter_map(|family, pool| Some(Occupied::of(pool, self.taken().filter_map(|key| key.subnet(family)))))
    }

    /// Counts my own lease among the used.
    fn usage(&self) -> Usage {
        let keys = || self.leased.iter().map(|(key, _)| key).chain(&self.of_others);
        self.conf
            .pools
            .iter()
            .map(|(family, pool)| Usage {
                used: Occupied::of(pool, keys().filter_map(|key| key.subnet(family))).count(),
                total: pool.size(),
            })
            .min_by_key(|usage| usage.total - usage.used)
            .unwrap_or(Usage { used: 0, total: 0 })
    }

    fn notice(&self, key: &SubnetKey) -> Option<String> {
        if !self.fits(key) {
            return Some(format!(
                "{key} does not fit the network configuration any more; it is kept until the agent restarts"
            ));
        }
        self.usage().notice()
    }
}

fn public_ips(entry: &Entry) -> Option<PerFamily<IpAddr>> {
    LeaseValue::parse(&entry.value).ok().map(|value| value.public_ips)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
