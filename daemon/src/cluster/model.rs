//! The cluster as the overlay needs it: who leases which subnet, and how to reach them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::family::PerFamily;
use super::key::SubnetKey;
use super::lease_value::{BackendData, LeaseValue};
use super::node::{NodeName, NodeRecord};
use super::view::{Entry, StoreView};
use crate::overlay::backend;

/// One node's lease, checked: its data suits its subnets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Identity of the lease, and its subnets.
    pub key: SubnetKey,
    /// Where the node receives encapsulated packets, by outer family.
    pub public_ips: PerFamily<IpAddr>,
    /// How to reach the node.
    pub backend: BackendData,
    /// Name of the node; unknown where flannel made the lease in etcd, which records none.
    pub node: Option<NodeName>,
    /// When the lease was first made, in whatever grows with time where it is kept: the store revision in etcd, seconds since
    /// 1970 for a Node. The older of two that overlap stands.
    pub create_revision: i64,
}

/// An entry under `subnets/`, or a Node, that is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The key, without the prefix, as text, as it may not be a subnet key at all; or the name of the node.
    pub key: String,
    /// Why, for a log line or a status table.
    pub reason: String,
}

/// All leases at one revision. A bad entry affects nothing but itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The store's revision of which this is true.
    pub revision: i64,
    /// The network configuration as it was read, for whoever wants to know whether it changed.
    pub config: Option<Vec<u8>>,
    /// The usable leases, the own one among them.
    pub leases: BTreeMap<SubnetKey, Lease>,
    /// The entries that are not usable, in the order of their keys.
    pub rejected: Vec<Rejected>,
}

impl Snapshot {
    /// Whether another says the same, at whichever revision.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        (&self.config, &self.leases, &self.rejected) == (&other.config, &other.leases, &other.rejected)
    }

    /// Judges each entry of a view. Of two leases that overlap the older one stands, and every node comes to the same
    /// verdict, because it rests on the store's own history.
    #[must_use]
    pub fn of(view: &StoreView) -> Self {
        let owners: BTreeMap<SubnetKey, NodeName> = view
            .nodes
            .iter()
            .filter_map(|(name, entry)| Some((NodeRecord::parse(&entry.value)?.key, name.parse().ok()?)))
            .collect();
        let mut rejected = Vec::new();
        let mut usable = Vec::new();
        for (text, entry) in &view.subnets {
            match lease(text, entry, &owners) {
                Ok(lease) => usable.push(lease),
                Err(reason) => rejected.push(Rejected { key: text.clone(), reason }),
            }
        }
        let (leases, overlapping) = without_overlaps(usable, |lease| lease.key.to_string());
        rejected.extend(overlapping);
        rejected.sort_by(|a, b| a.key.cmp(&b.key));
        Self {
            revision: view.revision,
            config: view.config.as_ref().map(|entry| entry.value.clone()),
            leases,
            rejected,
        }
    }

    /// The leases of the other nodes, and those to ignore because they overlap this node's own subnets, whichever is
    /// older: a node's own pods are on its bridge whatever the store says.
    #[must_use]
    pub fn peers_of(&self, own: &SubnetKey, name: &NodeName) -> (Vec<&Lease>, Vec<Rejected>) {
        // Of a lease without a name only the subnets can tell whose it is.
        let is_own = |lease: &&Lease| lease.node.as_ref().map_or(lease.key == *own, |node| node == name);
        let others = || self.leases.values().filter(|lease| !is_own(lease));
        let refused = others()
            .filter(|lease| lease.key.overlaps(own))
            .map(|lease| {
                let owner = lease.node.as_ref().map(|node| format!(" of node {node}")).unwrap_or_default();
                Rejected {
                    key: format!("{}{owner}", lease.key),
                    reason: format!("overlaps {own}, the subnet of this node"),
                }
            })
            .collect();
        (others().filter(|lease| !lease.key.overlaps(own)).collect(), refused)
    }
}

/// Of leases that overlap the oldest one stands, of those of one age that of the first node and key. `label` names those
/// that are refused.
pub(super) fn without_overlaps(
    mut usable: Vec<Lease>,
    label: impl Fn(&Lease) -> String,
) -> (BTreeMap<SubnetKey, Lease>, Vec<Rejected>) {
    usable.sort_by(|a, b| (a.create_revision, a.key, &a.node).cmp(&(b.create_revision, b.key, &b.node)));
    let mut taken = Taken::default();
    let (mut leases, mut rejected) = (BTreeMap::new(), Vec::new());
    for lease in usable {
        match taken.conflict(&lease.key) {
            Some(older) => {
                let owner = leases.get(&older).and_then(|lease: &Lease| lease.node.as_ref());
                let owner = owner.map(|node| format!(" of node {node}")).unwrap_or_default();
                let reason = format!("overlaps {older}{owner}, which was leased first");
                rejected.push(Rejected { key: label(&lease), reason });
            }
            None => {
                taken.add(lease.key);
                leases.insert(lease.key, lease);
            }
        }
    }
    (leases, rejected)
}

/// Checks that what a node publishes suits its subnets.
pub(super) fn check_value(key: &SubnetKey, value: &LeaseValue) -> Result<(), String> {
    if value.backend.is_none() {
        return Ok(());
    }
    // Another back end's is its own affair.
    let needs_data = backend::kind(&value.backend.kind).is_some_and(|kind| (kind.check)(None).is_err());
    for family in key.subnets().families() {
        if needs_data && value.backend.data.get(family).is_none() {
            return Err(format!("has an {family} subnet, but no back-end data for it"));
        }
        if value.public_ips.get(family).is_none() {
            return Err(format!("has an {family} subnet, but its public {family} address is absent or unspecified"));
        }
    }
    Ok(())
}

fn lease(text: &str, entry: &Entry, owners: &BTreeMap<SubnetKey, NodeName>) -> Result<Lease, String> {
    let key: SubnetKey = text.parse().map_err(|e: super::key::KeyError| e.to_string())?;
    let value = LeaseValue::parse(&entry.value).map_err(|e| e.to_string())?;
    check_value(&key, &value)?;
    Ok(Lease {
        key,
        public_ips: value.public_ips,
        backend: value.backend,
        node: owners.get(&key).cloned(),
        create_revision: entry.create_revision,
    })
}

/// The subnets accepted so far, findable by overlap. They never overlap each other, so the one that a new subnet
/// touches is found beside it in address order.
#[derive(Default)]
struct Taken(BTreeMap<IpAddr, (IpNetwork, SubnetKey)>);

impl Taken {
    fn conflict(&self, key: &SubnetKey) -> Option<SubnetKey> {
        key.subnets().values().find_map(|subnet| {
            let before = self.0.range(..=subnet.broadcast()).next_back()?;
            let (other, owner) = before.1;
            super::key::overlap(*subnet, *other).then_some(*owner)
        })
    }

    fn add(&mut self, key: SubnetKey) {
        for subnet in key.subnets().values() {
            self.0.insert(subnet.network(), (*subnet, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VALUE: &str = r#"{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"},"BackendV6Data":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:45"}}"#;

    fn entry(value: &str, revision: i64) -> Entry {
        Entry { value: value.into(), create_revision: revision, mod_revision: revision, etcd_lease: 7 }
    }

    fn snapshot(subnets: &[(&str, &str, i64)]) -> Snapshot {
        let subnets =
            subnets.iter().map(|(key, value, revision)| ((*key).to_owned(), entry(value, *revision))).collect();
        Snapshot::of(&StoreView { revision: 99, subnets, ..StoreView::default() })
    }

    #[test]
    fn d58a_garbage_affects_only_itself() {
        let snapshot = snapshot(&[
            ("10.244.1.0-24", VALUE, 5),
            ("10.244.9.0-24", "notjson", 6),
            ("garbage", "x", 7),
            (
                "10.244.2.0-24",
                r#"{"PublicIP":"0.0.0.0","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#,
                8,
            ),
            (
                "10.244.3.0-24&fd00:3::-64",
                r#"{"PublicIP":"192.0.2.3","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#,
                9,
            ),
            ("10.244.4.0-24", r#"{"PublicIP":"192.0.2.4","PublicIPv6":null}"#, 10),
        ]);
        let keys: Vec<String> = snapshot.leases.keys().map(ToString::to_string).collect();
        assert_eq!(keys, ["10.244.1.0-24", "10.244.4.0-24"]);
        let reasons: Vec<&str> = snapshot.rejected.iter().map(|r| r.reason.as_str()).collect();
        assert!(reasons[0].contains("public IPv4 address"), "{reasons:?}");
        assert!(reasons[1].contains("no back-end data"), "{reasons:?}");
        assert!(reasons[2].contains("not a JSON object"), "{reasons:?}");
        assert!(reasons[3].contains("not a subnet key"), "{reasons:?}");
    }

    #[test]
    fn d50_of_two_that_overlap_the_older_one_stands() {
        let snapshot = snapshot(&[
            ("10.244.0.0-16", VALUE, 8),
            ("10.244.1.0-24", VALUE, 5),
            ("10.245.0.0-24&fd00::-64", VALUE, 6),
            ("10.246.0.0-24&fd00::-64", VALUE, 7),
        ]);
        let keys: Vec<String> = snapshot.leases.keys().map(ToString::to_string).collect();
        assert_eq!(keys, ["10.244.1.0-24", "10.245.0.0-24&fd00::-64"]);
        assert!(snapshot.rejected[0].reason.contains("overlaps 10.244.1.0-24, which was leased first"));
        assert!(snapshot.rejected[1].reason.contains("overlaps 10.245.0.0-24&fd00::-64"));
    }

    #[test]
    fn peers_are_the_others_without_those_that_overlap_the_own_subnet() {
        let snapshot =
            snapshot(&[("10.244.1.0-24", VALUE, 5), ("10.244.2.0-24", VALUE, 6), ("10.244.3.0-24", VALUE, 7)]);
        let name = "n2".parse().unwrap();
        let (peers, refused) = snapshot.peers_of(&"10.244.2.0-24".parse().unwrap(), &name);
        assert_eq!(peers.len(), 2);
        assert!(refused.is_empty());
        let (peers, refused) = snapshot.peers_of(&"10.244.2.0-23".parse().unwrap(), &name);
        assert_eq!(peers.len(), 1);
        assert!(refused.iter().all(|r| r.reason.contains("the subnet of this node")) && refused.len() == 2);

        // A lease with a name is that node's, also where it is of the subnet that this node still runs.
        let mut snapshot = snapshot;
        for (number, lease) in snapshot.leases.values_mut().enumerate() {
            lease.node = Some(format!("n{}", number + 1).parse().unwrap());
        }
        let (peers, refused) = snapshot.peers_of(&"10.244.3.0-24".parse().unwrap(), &name);
        assert_eq!((peers.len(), refused.len()), (1, 1));
        assert_eq!(refused[0].key, "10.244.3.0-24 of node n3");
    }

    #[test]
    fn nodes_are_named_by_their_records() {
        let mut view = StoreView::default();
        view.subnets.insert("10.244.1.0-24".into(), entry(VALUE, 5));
        view.nodes.insert("n1".into(), entry(r#"{"subnet":"10.244.1.0-24","publicIP":null,"publicIPv6":null}"#, 5));
        let snapshot = Snapshot::of(&view);
        assert_eq!(snapshot.leases.values().next().unwrap().node.as_ref().unwrap().as_str(), "n1");
    }

    proptest! {
        #[test]
        fn accepted_leases_never_overlap(keys in proptest::collection::vec((0u32..0x4000, 18u8..=26), 0..40)) {
            let subnets: Vec<(String, i64)> = keys.iter().enumerate().map(|(i, (low, len))| {
                let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 | (low << 2));
                let net = IpNetwork::new(IpAddr::V4(ip), *len).unwrap();
                (format!("{}-{len}", net.network()), i64::try_from(i).unwrap())
            }).collect();
            let view = StoreView {
                subnets: subnets.iter().map(|(key, revision)| (key.clone(), entry(VALUE, *revision))).collect(),
                ..StoreView::default()
            };
            let snapshot = Snapshot::of(&view);
            let accepted: Vec<&SubnetKey> = snapshot.leases.keys().collect();
            for (i, a) in accepted.iter().enumerate() {
                for b in &accepted[i + 1..] {
                    prop_assert!(!a.overlaps(b), "{a} {b}");
                }
            }
            prop_assert_eq!(accepted.len() + snapshot.rejected.len(), view.subnets.len());
        }
    }
}
