//! The tables of the running kernel, with nft as whoever interferes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Net, Plan, address, fresh, mixture, nft, node_options, sh, variant};
use proptest::prelude::*;
use weft::cluster::services::{Protocol, TrafficPolicy};
use weft::cluster::{Family, PerFamily};
use weft::filter::plan::{FilterConfig, plan as plan_filter};
use weft::filter::table::FilterTable;
use weft::reconcile::Reconciler;
use weft::service::model::{FrontendKey, FrontendKind, PortKey, PortPlan};
use weft::service::nft::{Applied, NftServices, NodePortAddresses, Options};

fn started(plans: &[Arc<PortPlan>], options: Options) -> (NftServices, Applied) {
    let mut services = NftServices::open().unwrap();
    let mut applied = services.start(plans.iter().cloned(), options).unwrap();
    applied += services.finish().unwrap();
    assert_eq!(applied.failed, 0, "{:?}", services.failures().collect::<Vec<_>>());
    (services, applied)
}

fn audited(services: &mut NftServices) -> Applied {
    let mut applied = services.audit().unwrap();
    applied += services.finish().unwrap();
    applied
}

/// The table without what only says in which order things came to be.
fn listed() -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut names = nft("list sets inet");
    names.push_str(&nft("list maps inet"));
    names.push_str(&nft("list chains inet"));
    for line in names.lines().map(str::trim) {
        let Some((kind, name)) = line.trim_end_matches(" {").split_once(' ') else { continue };
        if matches!(kind, "set" | "map" | "chain") && name.starts_with("svc-") {
            let text = nft(&format!("list {kind} inet weft {name}"));
            let (head, elements) = text.split_once("elements = {").unwrap_or((&text, ""));
            lines.push(head.to_owned());
            let elements = elements.split_once('}').map_or("", |(elements, _)| elements);
            lines.extend(elements.split(',').map(|element| format!("{name}: {}", element.trim())));
        }
    }
    lines.sort_unstable();
    lines
}

/// A new process finds nothing to do.
fn assert_settled(plans: &[Arc<PortPlan>], options: Options) {
    assert_eq!(started(plans, options).1, Applied::default());
}

#[test]
fn a_second_start_writes_nothing() {
    let _netns = fresh();
    let plans = mixture(40);
    let (mut services, first) = started(&plans, node_options());
    assert!(first.elements > 400, "{first:?}");
    assert_eq!(audited(&mut services), Applied::default());
    let ruleset = nft("list ruleset");
    for text in
        ["172.30.0.2 . sctp . 30002 :", "dnat ip to", "dnat ip6 to", "goto svc-lb6-2-local", "flags dynamic,timeout"]
    {
        assert!(ruleset.contains(text), "{text}: {ruleset}");
    }
    assert_settled(&plans, node_options());
    assert_eq!(nft("list ruleset"), ruleset);
    assert_eq!(audited(&mut services), Applied::default(), "nobody has changed anything");
}

#[test]
fn one_endpoint_is_one_small_transaction() {
    let _netns = fresh();
    let plan = |pods: &[u32], sticky: bool| {
        let plan = Plan::tcp("web", 1)
            .node_port(30_001)
            .policies(TrafficPolicy::Cluster, TrafficPolicy::Local)
            .backends(pods.iter().map(|pod| (address(Family::V4, Net::Pod, *pod), 8080, *pod < 256)));
        if sticky { plan.affinity(600).done() } else { plan.done() }
    };
    for sticky in [false, true] {
        // Lists of four and of two are known already, as in a cluster that has run for a while.
        let other = Plan::tcp("other", 2).backends([
            (address(Family::V4, Net::Pod, 400), 80, false),
            (address(Family::V4, Net::Pod, 401), 80, false),
        ]);
        let (mut services, _) = started(&[plan(&[1, 2, 300, 301, 302], sticky), other.done()], node_options());
        for pods in [&[1, 2, 300, 301][..], &[1, 2, 300, 301, 302], &[1, 3, 300, 301, 302], &[1, 3, 300, 301, 303]] {
            // The first time a size comes up, its chain is made.
            services.sync(&[plan(pods, sticky)], &[]).unwrap();
        }
        for pods in [&[1, 2, 300, 301][..], &[1, 2, 300, 301, 302], &[1, 3, 300, 301, 302], &[1, 3, 300, 301, 303]] {
            let applied = services.sync(&[plan(pods, sticky)], &[]).unwrap();
            assert!(!services.is_busy());
            assert_eq!((applied.transactions, applied.chains, applied.failed), (1, 0, 0), "{applied:?}");
            assert!(applied.messages <= 10, "sticky {sticky}: {applied:?}");
        }
        assert_eq!(services.sync(&[plan(&[1, 3, 300, 301, 303], sticky)], &[]).unwrap(), Applied::default());
        assert_eq!(audited(&mut services), Applied::default());
    }
}

#[test]
fn t21_a_restart_adopts_what_is_there_and_takes_out_what_is_gone() {
    let _netns = fresh();
    let plans = mixture(30);
    drop(started(&plans, node_options()));
    let before = nft("list map inet weft svc-frontends4");
    // Ports in another order, some gone, some new, one with another backend.
    let mut later: Vec<_> =
        mixture(36).into_iter().rev().filter(|plan| !plan.key.service.name.ends_with('3')).collect();
    let more = variant(34, Family::V4, 34).backends([(address(Family::V4, Net::Pod, 999), 1, false)]).done();
    later.retain(|plan| plan.key != more.key);
    later.push(more);
    let (mut services, applied) = started(&later, node_options());
    assert!(applied.elements > 20, "{applied:?}");
    let after = nft("list map inet weft svc-frontends4");
    let number = |text: &str| {
        let at = text.find("172.30.0.2 . sctp . 30002 : ").unwrap();
        text[at..at + 60].split([',', '}']).next().unwrap().trim().to_owned()
    };
    assert_eq!(number(&before), number(&after), "a port keeps its number");
    assert_settled(&later, node_options());
    let gone: Vec<PortKey> = later.iter().map(|plan| plan.key.clone()).collect();
    let mut applied = services.sync(&[], &gone).unwrap();
    applied += services.finish().unwrap();
    assert!(applied.elements > 100);
    for map in ["svc-frontends4", "svc-nodeports", "svc-backends6", "svc-tags", "svc-sizes"] {
        assert!(!nft(&format!("list map inet weft {map}")).contains("elements"), "{map}");
    }
    assert!(!nft("list set inet weft svc-cluster-ips4").contains("elements"));
}

#[test]
fn t99_whatever_is_damaged_comes_back() {
    let (_netns, _home) = fresh();
    let plans = mixture(20);
    sh("nft add table inet foreign");
    let (mut services, _) = started(&plans, node_options());
    let right = listed();
    let first = |set: &str| {
        let text = nft(&format!("list {} inet weft {set}", if set.contains("ips") { "set" } else { "map" }));
        let (_, rest) = text.split_once("elements = { ").unwrap();
        rest.split([',', '}']).next().unwrap().split(" : ").next().unwrap().trim().to_owned()
    };
    let element = |set: &str| format!("nft delete element inet weft {set} '{{ {} }}'", first(set));
    let handle = nft("-a list chain inet weft svc-services");
    let handle =
        handle.lines().find(|line| line.contains("svc-entrances")).unwrap().rsplit(' ').next().unwrap().to_owned();
    for damage in [
        element("svc-frontends4"),
        element("svc-backends6"),
        element("svc-backends4")
            + "; nft add element inet weft svc-backends4 '{ "
            + &first("svc-backends4")
            + " : 1.2.3.4 . 5 }'",
        element("svc-tags"),
        element("svc-sizes"),
        element("svc-cluster-ips6"),
        "nft delete element inet weft svc-entrances '{ 0 }'".to_owned(),
        "nft add element inet weft svc-cluster-ips4 '{ 1.2.3.4 }'".to_owned(),
        "nft add element inet weft svc-frontends4 '{ 1.2.3.4 . icmp . 7 : 1 . 2 }'".to_owned(),
        "nft add element inet weft svc-service-cidrs4 '{ 1.2.3.4-1.2.3.6 }'".to_owned(),
        "nft flush map inet weft svc-backends4".to_owned(),
        "nft flush set inet weft svc-service-cidrs6".to_owned(),
        format!("nft delete rule inet weft svc-services handle {handle}"),
        "nft insert rule inet weft svc-lb4-1 drop".to_owned(),
        "nft flush chain inet weft svc-filter-forward".to_owned(),
        "nft delete chain inet weft svc-postrouting".to_owned(),
        "nft add chain inet weft svc-stray '{ }'".to_owned(),
        "nft add set inet weft svc-stray '{ type ipv4_addr; }'".to_owned(),
        // A whole set, with whatever uses it, and another in its place.
        "nft flush chain inet weft svc-firewall; nft delete set inet weft svc-restricted4; \
         nft add set inet weft svc-restricted4 '{ type ipv4_addr; }'"
            .to_owned(),
        "nft flush table inet weft".to_owned(),
        "nft delete table inet weft".to_owned(),
        "nft flush ruleset".to_owned(),
        "nft add table inet weft '{ flags dormant ; }'".to_owned(),
    ] {
        sh(&damage);
        let applied = audited(&mut services);
        assert!(applied.transactions > 0 && applied.failed == 0, "{damage}: {applied:?}");
        assert_eq!(listed(), right, "after {damage}");
        assert!(!nft("list table inet weft").contains("dormant"), "after {damage}");
        assert_eq!(audited(&mut services), Applied::default(), "after {damage}");
    }
    assert_settled(&plans, node_options());
}

/// A comparison asks for the backends of the lists that there are, and never sees others, until they are in its way.
#[test]
fn backends_of_no_list_give_way_to_what_is_to_be_in_their_place() {
    let (_netns, _home) = fresh();
    let plans = mixture(12);
    let (mut services, _) = started(&plans, node_options());
    let before = nft("list map inet weft svc-backends4");
    services.sync(&[], &plans.iter().map(|plan| plan.key.clone()).collect::<Vec<_>>()).unwrap();
    services.finish().unwrap();
    let (_, rest) = before.split_once("elements = { ").unwrap();
    let keys = rest.split_once('}').unwrap().0.split(',').map(|element| element.split(" : ").next().unwrap().trim());
    let strays: Vec<String> = keys.map(|key| format!("{key} : 1.2.3.4 . 5")).collect();
    sh(&format!("nft add element inet weft svc-backends4 '{{ {} }}'", strays.join(", ")));
    assert_eq!(audited(&mut services), Applied::default());
    // A new start counts from the beginning again.
    let (services, applied) = started(&plans, node_options());
    assert_eq!((applied.failed, services.failures().count()), (0, 0));
    assert!(!nft("list map inet weft svc-backends4").contains("1.2.3.4"));
    assert_settled(&plans, node_options());
}

#[test]
fn t102_a_change_finds_its_way_when_the_table_is_gone() {
    let (_netns, _home) = fresh();
    let plans = mixture(12);
    let (mut services, _) = started(&plans[1..], node_options());
    sh("nft delete table inet weft");
    services.sync(&plans[..1], &[]).unwrap();
    let applied = services.finish().unwrap();
    assert_eq!((applied.failed, services.failures().count()), (0, 0));
    assert_settled(&plans, node_options());
}

#[test]
fn what_the_kernel_refuses_of_one_port_keeps_nobody_else_waiting() {
    let (_netns, _home) = fresh();
    let plans = mixture(25);
    // No plan should hold it: an address of the other family, which the kernel has no room for.
    let bad = Plan::tcp("bad", 700).backends([(address(Family::V6, Net::Pod, 1), 80, false)]).done();
    let mut with_bad = plans.clone();
    with_bad.insert(20, Arc::clone(&bad));
    for at_start in [true, false] {
        sh("nft flush ruleset");
        let mut services = NftServices::open().unwrap();
        let mut applied = if at_start {
            services.start(with_bad.clone(), node_options()).unwrap()
        } else {
            let mut applied = services.start(plans[..5].to_vec(), node_options()).unwrap();
            applied += services.finish().unwrap();
            applied += services.sync(&with_bad[5..], &[]).unwrap();
            applied
        };
        applied += services.finish().unwrap();
        assert_eq!(applied.failed, 1, "{applied:?}");
        let failures: Vec<_> = services.failures().map(|(key, error)| (key.clone(), error.to_owned())).collect();
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].0, bad.key);
        assert!(failures[0].1.contains("svc-backends4"), "{failures:?}");
        assert_settled(&plans, node_options());

        let applied = audited(&mut services);
        assert_eq!((applied.failed, services.failures().count()), (1, 1), "it is tried again, and told again");
        let good = Plan::tcp("bad", 700).backends([(address(Family::V4, Net::Pod, 300), 80, false)]).done();
        services.sync(std::slice::from_ref(&good), &[]).unwrap();
        services.finish().unwrap();
        assert_eq!(services.failures().count(), 0);
        assert_settled(&plans.iter().cloned().chain([good]).collect::<Vec<_>>(), node_options());
    }
}

#[test]
fn ipvs_mode_guards_service_addresses_and_leaves_cluster_ips_to_ipvs() {
    let (_netns, _home) = fresh();
    let options = Options { proxy_cluster_ips: false, ..node_options() };
    let mut plans = mixture(20);
    let nobody_here = Plan::tcp("local", 500)
        .backends([(address(Family::V4, Net::Pod, 300), 80, false)])
        .policies(TrafficPolicy::Local, TrafficPolicy::Cluster);
    plans.push(nobody_here.done());
    let (mut services, _) = started(&plans, options.clone());
    let ruleset = nft("list ruleset");
    assert!(ruleset.contains("ip daddr @svc-service-cidrs4 goto svc-guard"), "{ruleset}");
    assert!(nft("list set inet weft svc-blocked4").contains("172.30.1.244 . tcp . 80"));
    assert!(nft("list set inet weft svc-cluster-ips4").contains("172.30.1.244"));
    assert!(!nft("list map inet weft svc-frontends4").contains("172.30."));

    let door =
        |port| FrontendKey::Address { address: address(Family::V4, Net::Service, 1), protocol: Protocol::Tcp, port };
    let applied = services.doors(&[door(80), door(81)], &[]).unwrap();
    assert_eq!((applied.transactions, applied.elements), (1, 2));
    assert_eq!(services.doors(&[door(80)], &[door(82)]).unwrap(), Applied::default());
    let (mut services, applied) = started(&plans, options.clone());
    assert_eq!(applied, Applied::default());
    assert_eq!(services.open_doors().iter().copied().collect::<Vec<_>>(), [door(80), door(81)]);
    services.doors(&[], &[door(80)]).unwrap();
    sh("nft flush set inet weft svc-virtual4");
    assert_eq!(audited(&mut services).elements, 1, "the door that is left");

    // To nftables mode and back.
    services.set_options(node_options()).unwrap();
    services.finish().unwrap();
    services.doors(&[], &[door(81)]).unwrap();
    assert_settled(&plans, node_options());
    assert!(nft("list map inet weft svc-frontends4").contains("172.30."));
    services.set_options(options.clone()).unwrap();
    services.finish().unwrap();
    assert_settled(&plans, options);
}

#[test]
fn options_change_rules_and_nothing_else() {
    let (_netns, _home) = fresh();
    let plans = mixture(10);
    let (mut services, _) = started(&plans, node_options());
    let changed = Options {
        node_port_addresses: PerFamily { v4: Some(NodePortAddresses::All), v6: None },
        service_cidrs: Vec::new(),
        masquerade_all: true,
        masquerade_mark: 0x8000,
        drop_invalid: false,
        families: PerFamily { v4: Some(()), v6: None },
        ..node_options()
    };
    let mut applied = services.set_options(changed.clone()).unwrap();
    applied += services.finish().unwrap();
    assert!(applied.elements <= 4, "{applied:?}");
    let ruleset = nft("list ruleset");
    assert!(ruleset.contains("0x00008000") && !ruleset.contains("0x00004000"), "{ruleset}");
    assert!(ruleset.contains("fib daddr type local") && !ruleset.contains("ct state invalid"), "{ruleset}");
    assert_settled(&plans, changed.clone());
    assert_eq!(services.set_options(changed).unwrap(), Applied::default());
    services.remove_all().unwrap();
    assert_eq!(nft("list ruleset").trim(), "table inet weft {\n}");
}

#[test]
fn ranges_that_overlap_their_predecessors_take_their_place() {
    let (_netns, _home) = fresh();
    let balanced = |ranges: &[&str]| {
        let at = address(Family::V4, Net::Service, 7);
        let plan = Plan::tcp("balanced", 1).at(FrontendKind::LoadBalancer, at, 80).ranges(ranges);
        vec![plan.backends([(address(Family::V4, Net::Pod, 1), 80, true)]).done()]
    };
    let with = |cidr: &str, node_ports: &str| Options {
        service_cidrs: vec![cidr.parse().unwrap()],
        node_port_addresses: PerFamily {
            v4: Some(NodePortAddresses::Networks(vec![node_ports.parse().unwrap()])),
            v6: None,
        },
        ..node_options()
    };
    let narrow = (balanced(&["10.5.0.0/16"]), with("172.30.0.0/17", "192.168.0.2/32"));
    let wide = (balanced(&["10.0.0.0/8"]), with("172.30.0.0/16", "192.168.0.0/16"));
    for (first, second) in [(&wide, &narrow), (&narrow, &wide)] {
        sh("nft flush ruleset");
        started(&first.0, first.1.clone());
        // A new process finds the old ranges.
        let (mut services, _) = started(&second.0, second.1.clone());
        assert_settled(&second.0, second.1.clone());
        // The same while it runs.
        services.set_options(first.1.clone()).unwrap();
        services.finish().unwrap();
        services.sync(&first.0, &[]).unwrap();
        services.finish().unwrap();
        assert_settled(&first.0, first.1.clone());
    }
}

#[test]
fn the_agents_other_chains_live_beside() {
    let (_netns, _home) = fresh();
    let plans = mixture(5);
    let (mut services, _) = started(&plans, node_options());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut filter = Reconciler::new(FilterTable::open().unwrap());
        let config = FilterConfig {
            cluster: vec!["10.180.0.0/16".parse().unwrap()],
            subnets: vec!["10.180.0.0/24".parse().unwrap()],
            masquerade: true,
            no_masquerade: Vec::new(),
            random_ports: true,
            forward: true,
        };
        let desired = filter.table_mut().plan(plan_filter(&config));
        let pass = filter.pass(&desired, Instant::now()).await.unwrap();
        assert_eq!((pass.updated, pass.deleted, pass.failed.len()), (2, 0, 0), "{pass:?}");
        assert_eq!(audited(&mut services), Applied::default());
        assert_eq!(filter.pass(&desired, Instant::now()).await.unwrap().writes(), 0);
    });
}

#[test]
fn chains_that_nobody_needs_go_when_there_are_many() {
    let (_netns, _home) = fresh();
    let sized = |size: u32| {
        let pods = (0..size).map(|pod| (address(Family::V4, Net::Pod, pod), 80, false));
        Plan::tcp("grows", 1).backends(pods).done()
    };
    let (mut services, _) = started(&[sized(1)], node_options());
    for size in 2..=70 {
        services.sync(&[sized(size)], &[]).unwrap();
    }
    let chains = || nft("list chains inet").matches("chain svc-lb4-").count();
    assert_eq!(chains(), 70);
    for _ in 0..3 {
        audited(&mut services);
    }
    assert_eq!(chains(), 1);
    services.sync(&[sized(3)], &[]).unwrap();
    assert_settled(&[sized(3)], node_options());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn any_way_leads_to_what_a_new_start_leaves_alone(
        steps in proptest::collection::vec(proptest::collection::btree_map(1u32..12, 0u32..60, 0..10), 1..6),
    ) {
        let _netns = fresh();
        let (mut services, _) = started(&[], node_options());
        let mut before: BTreeMap<PortKey, Arc<PortPlan>> = BTreeMap::new();
        for step in steps {
            let plans = step.iter().flat_map(|(number, features)| {
                Family::ALL.map(|family| variant(*number, family, *features).done())
            });
            let after: BTreeMap<_, _> = plans.map(|plan| (plan.key.clone(), plan)).collect();
            let changed: Vec<_> =
                after.iter().filter(|(key, plan)| before.get(key) != Some(plan)).map(|(_, plan)| Arc::clone(plan)).collect();
            let removed: Vec<_> = before.keys().filter(|key| !after.contains_key(key)).cloned().collect();
            services.sync(&changed, &removed).unwrap();
            prop_assert!(!services.is_busy());
            prop_assert_eq!(services.failures().count(), 0);
            before = after;
        }
        prop_assert_eq!(audited(&mut services), Applied::default());
        let plans: Vec<_> = before.into_values().collect();
        prop_assert_eq!(started(&plans, node_options()).1, Applied::default());
    }
}

/// Far from the promises, which the benchmark measures: it is there to notice what grows with the square.
#[test]
fn ten_thousand_services_are_no_trouble() {
    let _netns = fresh();
    let plans: Vec<_> = (0..10_000)
        .map(|number| {
            let pods = (0..4).map(|place| (address(Family::V4, Net::Pod, (number * 4 + place) % 60_000), 8080, false));
            Plan::tcp(&format!("svc-{number}"), number).backends(pods)
        })
        .collect();
    let all: Vec<_> = plans.iter().cloned().map(Plan::done).collect();
    let start = Instant::now();
    let (mut services, applied) = started(&all, node_options());
    let cold = start.elapsed();
    assert!(applied.elements > 70_000, "{applied:?}");
    let start = Instant::now();
    for plan in plans.into_iter().take(100) {
        let applied =
            services.sync(&[plan.backends([(address(Family::V4, Net::Pod, 1), 80, true)]).done()], &[]).unwrap();
        assert_eq!(applied.transactions, 1);
    }
    let changes = start.elapsed();
    println!("cold {cold:?}, 100 changes {changes:?}");
    assert!(cold < Duration::from_secs(60) && changes < Duration::from_secs(20), "{cold:?}, {changes:?}");
}
