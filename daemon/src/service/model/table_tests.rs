//! The table against its own definition: after any changes it holds what a fresh one would.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::plan::PlanOptions;
use super::table::{Changes, NoLocal, ServiceTable, Trigger};
use super::testing::{
    changed, entrances, named_service, node, node_in, ready, service, shown, slice, slice_with, terminating,
};
use super::types::{PortKey, PortPlan};
use crate::cluster::Family;
use crate::cluster::services::{Changed, ObjectName, ServiceStore};

const L1: &str = "10.180.0.1";
const R1: &str = "10.181.0.1";

fn table() -> ServiceTable {
    ServiceTable::new(node(), PlanOptions::default())
}

fn gone(name: &str) -> Changed {
    Changed { name: ObjectName::new("default", name), service: None, slices: Vec::new() }
}

/// The ports that have changed, with their frontends.
fn told(changes: &Changes) -> Vec<(String, Vec<String>)> {
    changes.changed.iter().map(|plan| (plan.key.service.name.to_string(), entrances(&plan.frontends))).collect()
}

/// A Service of its own cluster IP that claims 192.0.2.7:80.
fn claiming(name: &str, last: u8, created: &str) -> Changed {
    let members = json!({"clusterIP": format!("172.30.0.{last}"), "externalIPs": ["192.0.2.7"], "created": created});
    changed(named_service(name, members), &[])
}

#[test]
fn only_what_has_changed_is_told() {
    let mut table = table();
    let web = || changed(service(json!({})), &[slice("web-1", &[ready(L1, "n1")])]);
    let other = || changed(named_service("other", json!({"clusterIP": "172.30.0.42"})), &[]);
    assert_eq!(table.update(vec![web(), other()]).changed.len(), 2);
    assert_eq!((table.len(), table.plans().len()), (2, 2));
    let again = table.update(vec![web(), other()]);
    assert!(again.changed.is_empty() && again.removed.is_empty() && again.triggers.is_empty());
    assert_eq!((again.service_changes, again.endpoint_changes), (0, 0));
    let before = Arc::clone(&table.plans()[1]);
    let one = table.update(vec![changed(service(json!({})), &[slice("web-1", &[ready(R1, "n2")])])]);
    assert_eq!((one.changed.len(), one.endpoint_changes), (1, 1));
    assert_eq!(shown(&one.changed[0].cluster), ["R:10.181.0.1:80"]);
    assert!(!Arc::ptr_eq(&before, table.plan(&before.key).unwrap()));
    let none = table.update(vec![gone("web"), gone("other"), gone("never was")]);
    assert_eq!(none.removed.iter().map(|key| &*key.service.name).collect::<Vec<_>>(), ["other", "web"]);
    assert!(table.is_empty());
}

#[test]
fn t11_a_service_made_anew_with_another_address() {
    let mut table = table();
    table.update(vec![changed(service(json!({"created": "2026-01-01T00:00:00Z"})), &[])]);
    let anew = service(json!({"created": "2026-01-02T00:00:00Z", "clusterIP": "172.30.0.50"}));
    let changes = table.update(vec![gone("web"), changed(anew, &[])]);
    assert_eq!(told(&changes), [("web".to_owned(), vec!["172.30.0.50:80/TCP".to_owned()])]);
    assert!(changes.removed.is_empty());
}

#[test]
fn t13_one_of_two_ports_goes() {
    let mut table = table();
    table.update(vec![changed(service(json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]})), &[])]);
    let changes = table.update(vec![changed(service(json!({"ports": [{"name": "a", "port": 80}]})), &[])]);
    assert_eq!(changes.removed.iter().map(|key| &*key.port).collect::<Vec<_>>(), ["b"]);
    assert!(changes.changed.is_empty());
    assert_eq!(entrances(&table.plans()[0].frontends), ["172.30.0.41:80/TCP"]);
}

#[test]
fn t09_t10_a_service_that_is_not_ours_any_more_is_gone() {
    let mut table = table();
    table.update(vec![changed(service(json!({"ports": [{"port": 80, "nodePort": 30001}]})), &[])]);
    let slices = vec![slice("web-1", &[ready(L1, "n1")])];
    let changes = table.update(vec![Changed { slices: slices.clone(), ..gone("web") }]);
    assert_eq!((changes.removed.len(), table.plans().len()), (1, 0));
    let back = table.update(vec![changed(service(json!({})), &slices)]);
    assert_eq!(shown(&back.changed[0].cluster), ["L:10.180.0.1:80"]);
}

#[test]
fn t19_endpoints_before_their_service_and_after() {
    let store = ServiceStore::default();
    store.replace(Vec::new(), Vec::new());
    let mut table = table();
    let slice = Arc::unwrap_or_clone(slice("web-1", &[ready(L1, "n1")]));
    store.set_slice(&slice.name.clone(), Some(slice));
    assert!(table.update(store.take().0).changed.is_empty());
    store.set_service(&ObjectName::new("default", "web"), Some(service(json!({}))));
    assert_eq!(shown(&table.update(store.take().0).changed[0].cluster), ["L:10.180.0.1:80"]);
    store.set_slice(&ObjectName::new("default", "web-1"), None);
    assert!(!table.update(store.take().0).changed[0].has_any);
    let later = Arc::unwrap_or_clone(super::testing::slice("web-2", &[ready(R1, "n2")]));
    store.set_slice(&later.name.clone(), Some(later));
    assert_eq!(shown(&table.update(store.take().0).changed[0].cluster), ["R:10.181.0.1:80"]);
}

#[test]
fn t54_the_node_comes_to_another_zone() {
    let endpoint = |address, zone| super::testing::hinted(ready(address, "n2"), "forZones", &[zone]);
    let slices = [slice("web-1", &[endpoint(L1, "a"), endpoint(R1, "b")])];
    let mut table = table();
    table.update(vec![
        changed(service(json!({})), &slices),
        changed(named_service("x", json!({"clusterIP": "172.30.0.9"})), &[]),
    ]);
    assert!(table.replan_all(node()).changed.is_empty());
    let changes = table.replan_all(node_in("b"));
    assert_eq!(changes.changed.len(), 1);
    assert_eq!(shown(&changes.changed[0].cluster), ["R:10.181.0.1:80"]);
    assert_eq!((changes.service_changes, changes.endpoint_changes), (0, 0));
}

#[test]
fn t69_ip_mode_becomes_proxy() {
    let mut table = table();
    let with = |mode: &str| changed(service(json!({"ingress": [{"ip": "1.2.3.4", "ipMode": mode}]})), &[]);
    table.update(vec![with("VIP")]);
    let changes = table.update(vec![with("Proxy")]);
    assert_eq!(told(&changes), [("web".to_owned(), vec!["172.30.0.41:80/TCP".to_owned()])]);
}

#[test]
fn t77_the_older_service_has_the_address_and_the_other_gets_it_when_it_goes() {
    let (old, young) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    let mut table = table();
    let first = table.update(vec![claiming("young", 1, young)]);
    assert_eq!(told(&first)[0].1, ["172.30.0.1:80/TCP", "192.0.2.7:80/TCP"]);
    let changes = table.update(vec![claiming("old", 2, old)]);
    assert_eq!(
        told(&changes),
        [
            ("old".to_owned(), vec!["172.30.0.2:80/TCP".to_owned(), "192.0.2.7:80/TCP".to_owned()]),
            ("young".to_owned(), vec!["172.30.0.1:80/TCP".to_owned()])
        ]
    );
    let lines: Vec<String> = changes.conflicts.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "192.0.2.7:80/TCP of default/young (TCP, IPv4) is not served: default/old (TCP, IPv4) claims it, too, and comes first"
        ]
    );
    let again = table.update(vec![changed(
        named_service("young", json!({"clusterIP": "172.30.0.1", "externalIPs": ["192.0.2.7"], "created": young})),
        &[slice_with("young-1", json!({"service": "young", "endpoints": [ready(L1, "n1")]}))],
    )]);
    assert!(again.conflicts.is_empty(), "it is told once");
    assert_eq!(told(&again)[0].1, ["172.30.0.1:80/TCP"]);
    let freed = table.update(vec![gone("old")]);
    assert_eq!(
        told(&freed),
        [("young".to_owned(), vec!["172.30.0.1:80/TCP".to_owned(), "192.0.2.7:80/TCP".to_owned()])]
    );
    assert_eq!(shown(&freed.changed[0].cluster), ["L:10.180.0.1:80"]);
    // And back: it is news again.
    assert_eq!(table.update(vec![claiming("old", 2, old)]).conflicts.len(), 1);
}

#[test]
fn t77_of_two_of_one_age_the_name_decides_whatever_comes_first() {
    for order in [["a", "b"], ["b", "a"]] {
        let mut table = table();
        for name in order {
            table.update(vec![claiming(name, name.as_bytes()[0], "2026-01-01T00:00:00Z")]);
        }
        let holders: Vec<_> = table.plans().iter().map(|plan| plan.frontends.len()).collect();
        assert_eq!(holders, [2, 1]);
    }
}

#[test]
fn a_cluster_ip_cannot_be_taken_by_claiming_it_earlier() {
    let mut table = table();
    let thief = json!({"clusterIP": "172.30.0.9", "externalIPs": ["172.30.0.41"], "created": "2020-01-01T00:00:00Z"});
    table.update(vec![changed(named_service("thief", thief), &[])]);
    let changes = table.update(vec![changed(service(json!({"created": "2026-01-01T00:00:00Z"})), &[])]);
    assert_eq!(changes.conflicts[0].winner.service.name, "web".into());
    assert_eq!(entrances(&table.plans()[0].frontends), ["172.30.0.9:80/TCP"]);
}

#[test]
fn t79_health_ports_are_told_when_they_change() {
    let mut table = table();
    let with = |port: u16, endpoints: &[Value]| {
        let members = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": port});
        table_change(members, endpoints)
    };
    let opened = table.update(vec![with(31000, &[])]).health;
    assert_eq!(opened[0].1.as_ref().map(|health| (health.port, health.local_endpoints.v4)), Some((31000, Some(0))));
    assert!(table.update(vec![with(31000, &[terminating(L1, "n1")])]).health.is_empty());
    let counted = table.update(vec![with(31000, &[ready(L1, "n1")])]).health;
    assert_eq!(counted[0].1.as_ref().map(|health| health.local_endpoints.v4), Some(Some(1)));
    assert_eq!(table.update(vec![with(31001, &[ready(L1, "n1")])]).health.len(), 1);
    let name = ObjectName::new("default", "web");
    assert_eq!(table.update(vec![gone("web")]).health, [(name, None)]);
}

fn table_change(members: Value, endpoints: &[Value]) -> Changed {
    changed(service(members), &[slice("web-1", endpoints)])
}

#[test]
fn t31_what_lacks_local_endpoints_is_counted() {
    let mut table = table();
    table.update(vec![table_change(json!({"internalTrafficPolicy": "Local"}), &[ready(R1, "n2")])]);
    assert_eq!(table.no_local().v4, Some(NoLocal { internal: 1, external: 0 }));
    assert_eq!(table.no_local().v6, Some(NoLocal::default()));
    table.update(vec![table_change(json!({"internalTrafficPolicy": "Local"}), &[ready(L1, "n1")])]);
    assert_eq!(table.no_local().v4, Some(NoLocal::default()));
}

#[test]
fn triggers_are_told_once_for_each_change_of_a_slice() {
    let at = |second: u64, address: &str| {
        let time = format!("1970-01-01T00:00:{second:02}Z");
        let annotations = json!({"endpoints.kubernetes.io/last-change-trigger-time": time});
        slice_with("web-1", json!({"annotations": annotations, "endpoints": [ready(address, "n1")]}))
    };
    let trigger = |second| Trigger { family: Family::V4, at: SystemTime::UNIX_EPOCH + Duration::from_secs(second) };
    let mut table = table();
    let mut update = |slices: &[_]| table.update(vec![changed(service(json!({})), slices)]);
    assert_eq!(update(&[at(1, L1)]).triggers, [trigger(1)]);
    assert_eq!(update(&[at(1, R1)]).triggers, []);
    assert_eq!(update(&[at(2, R1)]).triggers, [trigger(2)]);
    let removed = update(&[]);
    assert_eq!((removed.triggers.len(), removed.endpoint_changes), (0, 1));
}

#[test]
fn what_the_cluster_needs_to_come_up_is_first() {
    let mut table = table();
    let at = |namespace: &str, name: &str, last: u8| {
        let mut service = named_service(name, json!({"clusterIP": format!("172.30.0.{last}")}));
        service.name = ObjectName::new(namespace, name);
        changed(service, &[])
    };
    let all = vec![
        at("a", "a", 1),
        at("kube-system", "kube-dns", 2),
        at("kube-system", "a", 3),
        at("default", "kubernetes", 4),
    ];
    let names = |plans: &[Arc<PortPlan>]| plans.iter().map(|plan| plan.key.service.to_string()).collect::<Vec<_>>();
    let expected = ["default/kubernetes", "kube-system/kube-dns", "a/a", "kube-system/a"];
    assert_eq!(names(&table.update(all).changed), expected);
    assert_eq!(names(&table.plans()), expected);
}

/// A Service of few names, addresses and ports, so that all collide.
fn change() -> impl Strategy<Value = Changed> {
    let text = |all: &'static [&'static str]| prop::sample::select(all);
    let claims = (text(&["1", "2", "3"]), prop::collection::vec(text(&["192.0.2.7", "192.0.2.8", "172.30.0.1"]), 0..3));
    let shape = (text(&["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]), 0u16..3, 1usize..3, any::<bool>());
    let endpoints = prop::collection::vec((text(&[L1, R1]), text(&["n1", "n2"]), any::<bool>()), 0..3);
    (text(&["a", "b", "c"]), claims, shape, endpoints, 0u8..5).prop_map(
        |(name, (last, external), (created, node_port, ports, is_local), endpoints, gone_if_zero)| {
            if gone_if_zero == 0 {
                return gone(name);
            }
            let port = |n: usize| {
                let node_port = if node_port == 0 { 0 } else { 30_000 + usize::from(node_port) + n };
                json!({"name": format!("p{n}"), "port": 80 + n, "nodePort": node_port})
            };
            let members = json!({"clusterIP": format!("172.30.0.{last}"), "externalIPs": external, "created": created,
                "ports": (0..ports).map(port).collect::<Vec<_>>(),
                "externalTrafficPolicy": if is_local { "Local" } else { "Cluster" }});
            let listed: Vec<Value> = endpoints
                .iter()
                .map(
                    |(address, node, is_ready)| {
                        if *is_ready { ready(address, node) } else { terminating(address, node) }
                    },
                )
                .collect();
            let ports = json!([{"name": "p0", "port": 8080}, {"name": "p1", "port": 8081}]);
            let slices =
                [slice_with(&format!("{name}-1"), json!({"ports": ports, "endpoints": listed, "service": name}))];
            changed(named_service(name, members), &slices)
        },
    )
}

fn by_key(plans: Vec<Arc<PortPlan>>) -> BTreeMap<PortKey, Arc<PortPlan>> {
    plans.into_iter().map(|plan| (plan.key.clone(), plan)).collect()
}

proptest! {
    #[test]
    fn any_changes_end_in_what_a_fresh_table_holds(batches in prop::collection::vec(prop::collection::vec(change(), 1..4), 1..8)) {
        let mut table = table();
        let mut last: HashMap<ObjectName, Changed> = HashMap::new();
        // What somebody holds who only follows the changes.
        let mut followed = BTreeMap::new();
        for (n, batch) in batches.into_iter().enumerate() {
            last.extend(batch.iter().map(|change| (change.name.clone(), change.clone())));
            let changes = if n == 3 { table.replan_all(node_in("a")) } else { Changes::default() };
            let changes = [changes, table.update(batch)];
            for change in changes {
                for key in &change.removed {
                    prop_assert!(followed.remove(key).is_some());
                }
                for plan in change.changed {
                    let is_new = followed.get(&plan.key) != Some(&plan);
                    prop_assert!(is_new, "told of no change");
                    followed.insert(plan.key.clone(), plan);
                }
            }
            let mut fresh = ServiceTable::new(table.node().clone(), PlanOptions::default());
            fresh.update(last.values().cloned().collect());
            let held = by_key(table.plans());
            prop_assert_eq!(&held, &by_key(fresh.plans()));
            prop_assert_eq!(&held, &followed);
            let mut frontends: Vec<_> = held.values().flat_map(|plan| &plan.frontends).map(|frontend| frontend.key).collect();
            let all = frontends.len();
            frontends.sort_unstable();
            frontends.dedup();
            prop_assert_eq!(frontends.len(), all, "each frontend has one owner");
        }
        let names: Vec<_> = last.keys().map(|name| gone(&name.name)).collect();
        table.update(names);
        prop_assert!(table.is_empty() && table.plans().is_empty());
    }
}
