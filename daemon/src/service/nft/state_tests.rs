//! Any way to a set of plans ends in the same elements as a fresh start with them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::changes::Changes;
use super::entry::{Datum, Key};
use super::layout::{Entrance, LOCAL_LIST};
use super::state::{Draft, State};
use crate::cluster::Family;
use crate::cluster::services::{ObjectName, Protocol, TrafficPolicy};
use crate::service::model::{Backend, Frontend, FrontendKey, FrontendKind, PortKey, PortPlan};

/// What a port is made of, small enough that ports meet each other.
#[derive(Debug, Clone, Copy)]
struct Features {
    backends: u8,
    local: u8,
    policies: (bool, bool),
    sticky: bool,
    /// Which load balancer address it would like.
    address: u8,
    node_port: u8,
    ranges: bool,
}

fn features() -> impl Strategy<Value = Features> {
    (any::<u8>(), any::<u8>(), any::<(bool, bool)>(), any::<bool>(), 0u8..3, 0u8..3, any::<bool>()).prop_map(
        |(backends, local, policies, sticky, address, node_port, ranges)| Features {
            backends: backends & 0x1f,
            local,
            policies,
            sticky,
            address,
            node_port,
            ranges,
        },
    )
}

fn pod(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

fn plan(number: u8, features: Features, taken: &mut BTreeSet<FrontendKey>) -> Arc<PortPlan> {
    let protocol = Protocol::Tcp;
    let at = |address, port| FrontendKey::Address { address, protocol, port };
    let wanted = [
        // Two ports of a Service share its cluster IP.
        (at(IpAddr::from([172, 30, 0, number / 2]), u16::from(number)), FrontendKind::ClusterIp),
        (at(IpAddr::from([203, 0, 113, features.address]), 443), FrontendKind::LoadBalancer),
        (
            FrontendKey::NodePort { family: Family::V4, protocol, port: 30_000 + u16::from(features.node_port) },
            FrontendKind::NodePort,
        ),
    ];
    let free = wanted.into_iter().filter(|(key, _)| taken.insert(*key));
    let cluster: Vec<Backend> = (0..5u8)
        .filter(|bit| features.backends & 1 << bit != 0)
        .map(|bit| Backend { address: pod(bit), port: 80, local: features.local & 1 << bit != 0 })
        .collect();
    let policy = |local| if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
    Arc::new(PortPlan {
        key: PortKey {
            service: ObjectName::new("ns", format!("svc-{number}")),
            port: "".into(),
            protocol,
            family: Family::V4,
        },
        frontends: free.map(|(key, kind)| Frontend { key, kind }).collect(),
        local: cluster.iter().copied().filter(|backend| backend.local).collect(),
        has_any: !cluster.is_empty(),
        cluster,
        internal: policy(features.policies.0),
        external: policy(features.policies.1),
        affinity: features.sticky.then_some(Duration::from_secs(60)),
        scheduler: None,
        source_ranges: if features.ranges { vec!["192.0.2.0/24".parse().unwrap()] } else { Vec::new() },
        serving: Vec::new(),
    })
}

type Plans = BTreeMap<PortKey, Arc<PortPlan>>;

/// The plans of some ports; the first who wants a frontend gets it.
fn plans(ports: &BTreeMap<u8, Features>) -> Plans {
    let mut taken = BTreeSet::new();
    let plans = ports.iter().map(|(number, features)| plan(*number, *features, &mut taken));
    plans.map(|plan| (plan.key.clone(), plan)).collect()
}

/// What the kernel would have.
#[derive(Debug, Default, Clone, PartialEq)]
struct Kernel(BTreeMap<Key, Datum>);

impl Kernel {
    /// Refuses what the real one refuses.
    fn commit(&mut self, changes: &Changes) {
        for (key, before, after) in changes.iter() {
            assert_eq!(self.0.remove(&key), before, "{key:?}");
            if let Some(datum) = after {
                self.0.insert(key, datum);
            }
        }
    }

    /// What packets see of it: numbers and places are of no concern to them.
    fn meaning(&self) -> BTreeMap<String, String> {
        let list = |list: u32| -> BTreeSet<String> {
            let of = |(key, datum): (&Key, &Datum)| match (key, datum) {
                (Key::Backend(_, other, _), Datum::Endpoint(backend)) if *other == list => Some(format!("{backend:?}")),
                (Key::Tagged(_, tag, other), datum) if *other == list => Some(format!("{tag} {datum:?}")),
                (Key::Size(other), datum) if *other == list => Some(format!("{datum:?}")),
                (Key::NoEndpoints(other), _) if *other == list => Some("nobody".to_owned()),
                _ => None,
            };
            self.0.iter().filter_map(of).collect()
        };
        let meaning = |(key, datum): (&Key, &Datum)| match (key, datum) {
            (Key::Frontend(frontend), Datum::Number(number)) => {
                let id = number & !Entrance::MASK;
                let leads = format!("{} {:?} {:?}", number & Entrance::MASK, list(id), list(id | LOCAL_LIST));
                Some((format!("{frontend:?}"), leads))
            }
            (Key::Backend(..) | Key::Tag(..) | Key::Tagged(..) | Key::Size(_) | Key::NoEndpoints(_), _) => None,
            (key, datum) => Some((format!("{key:?}"), format!("{datum:?}"))),
        };
        self.0.iter().filter_map(meaning).collect()
    }
}

fn everything(state: &State) -> Kernel {
    Kernel(state.ports_from(0).flat_map(|(_, port)| state.entries(port)).collect())
}

proptest! {
    #[test]
    fn any_way_leads_to_the_same(
        steps in proptest::collection::vec(
            (proptest::collection::btree_map(0u8..8, features(), 0..8), any::<bool>()),
            1..6,
        ),
        proxy_cluster_ips: bool,
    ) {
        let (mut state, mut kernel) = (State::new(proxy_cluster_ips), Kernel::default());
        let mut before = Plans::new();
        for (ports, refused) in &steps {
            let after = plans(ports);
            let mut draft = Draft::default();
            // The order does not matter, even where a frontend goes from one port to another.
            for (key, plan) in after.iter().filter(|(key, plan)| before.get(key) != Some(plan)) {
                state.set(key, Some(Arc::clone(plan)), &mut draft);
            }
            for key in before.keys().filter(|key| !after.contains_key(key)) {
                state.set(key, None, &mut draft);
            }
            if *refused {
                state.undo(draft);
            } else {
                kernel.commit(&draft.changes);
                before = after;
            }
            prop_assert_eq!(&everything(&state), &kernel);
        }
        let mut fresh = State::new(proxy_cluster_ips);
        let mut draft = Draft::default();
        for (key, plan) in &before {
            fresh.set(key, Some(Arc::clone(plan)), &mut draft);
        }
        let mut anew = Kernel::default();
        anew.commit(&draft.changes);
        prop_assert_eq!(kernel.0.len(), anew.0.len());
        prop_assert_eq!(kernel.meaning(), anew.meaning());
    }
}

#[test]
fn one_backend_more_or_less_is_a_few_elements() {
    let mut state = State::new(true);
    let with = |backends| {
        let features = Features {
            backends,
            local: 0,
            policies: (false, false),
            sticky: false,
            address: 0,
            node_port: 0,
            ranges: false,
        };
        plan(1, features, &mut BTreeSet::new())
    };
    let key = with(0).key.clone();
    state.set(&key, Some(with(0b1_1111)), &mut Draft::default());
    for (backends, changes) in [(0b1_1110, 5), (0b1_1111, 3), (0b0_1111, 5)] {
        let mut draft = Draft::default();
        state.set(&key, Some(with(backends)), &mut draft);
        // The list's size is replaced; of backends, one comes or goes and another moves.
        assert_eq!(draft.changes.len(), changes, "{backends:b}");
    }
}
