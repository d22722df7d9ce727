//! Addresses: who gets which, and when one is free again.
//!
//! Not here: 78 (import of another plugin's store), which comes with the change-over from flannel.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::cni::{Conf, Host, Pod, VERSIONS, for_each_version};
use weft_tests::{skip, wait};

/// Adds a fresh pod and returns it with its first address.
fn next(host: &Host, conf: &Conf) -> (Pod, String) {
    let pod = host.pod();
    let address = host.add(conf, &pod).result().ip().to_string();
    (pod, address)
}

#[test]
fn t065_addresses_go_round_and_skip_what_is_not_for_pods() {
    for_each_version(|host, conf| {
        let conf = conf.clone().with_subnets(&["10.1.0.0/29"]);
        // .0 network, .1 gateway, .7 broadcast.
        for last in [2, 3, 4, 5, 6, 2, 3] {
            let (pod, address) = next(host, &conf);
            assert_eq!(address, format!("10.1.0.{last}"));
            host.del(&conf, &pod).done();
        }
    });
}

#[test]
fn t065_the_ends_of_a_range_belong_to_it() {
    for_each_version(|host, conf| {
        let range =
            json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.11", "gateway": "10.1.0.10"});
        let conf = conf.clone().with_ipam("ranges", json!([[range]]));
        let pods = [next(host, &conf), next(host, &conf)];
        assert_eq!(pods.each_ref().map(|(_, address)| address.as_str()), ["10.1.0.9", "10.1.0.11"]);
        host.add(&conf, &host.pod()).refused(11, &["no IP addresses available in range set"]);
    });
}

#[test]
fn t066_an_empty_pool_is_said_at_once_and_leaves_nothing() {
    for_each_version(|host, conf| {
        let conf = conf.clone().with_subnets(&["10.1.0.0/29"]);
        let pods: Vec<(Pod, String)> = (0..5).map(|_| next(host, &conf)).collect();
        let pod = host.pod();
        let outcome = host.add(&conf, &pod);
        outcome.refused(11, &["no IP addresses available in range set"]);
        assert!(outcome.took() < Duration::from_millis(100), "{outcome:?}");
        assert!(pod.link("eth0").is_none());
        host.assert_attachments(pods.len());
    });
}

#[test]
fn t067_one_del_makes_room_for_one_add() {
    for_each_version(|host, conf| {
        let conf = conf.clone().with_subnets(&["10.1.0.0/29"]);
        let pods: Vec<(Pod, String)> = (0..5).map(|_| next(host, &conf)).collect();
        host.del(&conf, &pods[2].0).done();
        let (_pod, address) = next(host, &conf);
        assert_eq!(address, pods[2].1);
        host.add(&conf, &host.pod()).refused(11, &[]);
    });
}

#[test]
fn t069_a_set_of_two_subnets_spills_over() {
    for_each_version(|host, conf| {
        let set = json!([[{"subnet": "10.1.0.0/30"}, {"subnet": "10.2.0.0/30"}]]);
        let conf = conf.clone().with_ipam("ranges", set);
        let pods = [next(host, &conf), next(host, &conf)];
        assert_eq!(pods.each_ref().map(|(_, address)| address.as_str()), ["10.1.0.2", "10.2.0.2"]);
        host.add(&conf, &host.pod()).refused(11, &["no IP addresses available in range set"]);
    });
}

#[test]
fn t070_two_sets_give_two_addresses_where_the_version_can_say_so() {
    for_each_version(|host, conf| {
        let conf = conf.clone().with_subnets(&["10.1.0.0/24", "10.2.0.0/24"]);
        let pod = host.pod();
        assert_eq!(host.add(&conf, &pod).result().addresses(), ["10.1.0.2/24", "10.2.0.2/24"]);
        assert_eq!(pod.addresses("eth0"), ["10.1.0.2/24", "10.2.0.2/24"]);
        let old = conf.with("cniVersion", "0.2.0");
        let _ = host.add(&old, &host.pod()).refusal();
        host.assert_attachments(1);
    });
}

#[test]
fn t071_ranges_that_cannot_be_are_refused_before_anything_happens() {
    let bad = [
        ("overlapping sets", json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.128/25"}]])),
        ("overlap within a set", json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "10.1.0.0/25"}]])),
        ("two families in a set", json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00:1::/64"}]])),
        ("host bits", json!([[{"subnet": "10.1.0.1/24"}]])),
        ("a /31", json!([[{"subnet": "10.1.0.0/31"}]])),
        ("a /127", json!([[{"subnet": "fd00:1::/127"}]])),
        ("start after end", json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}]])),
        ("start outside", json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.9"}]])),
        ("end outside", json!([[{"subnet": "10.1.0.0/24", "rangeEnd": "10.2.0.9"}]])),
        ("no subnet", json!([[{"rangeStart": "10.1.0.2"}]])),
        ("no address", json!([[{"subnet": "10.1.0/24"}]])),
    ];
    for_each_version(|host, conf| {
        let pod = host.pod();
        for (what, ranges) in &bad {
            let outcome = host.add(&conf.clone().with_ipam("ranges", ranges.clone()), &pod);
            assert_eq!(outcome.refusal().code, 7, "{what}: {outcome:?}");
        }
        host.assert_untouched();
    });
}

#[test]
fn t073_requests_for_addresses_that_cannot_be_given_are_refused() {
    for_each_version(|host, conf| {
        let (_holder, taken) = next(host, conf);
        let pod = host.pod();
        let ask = |ip: &str| {
            let by_args = host.make(&host.call("ADD", conf, &pod, "eth0").with("CNI_ARGS", format!("IP={ip}")));
            let by_conf = host.add(&conf.clone().with("args", json!({"cni": {"ips": [ip]}})), &pod);
            let by_runtime = host.add(&conf.clone().with_runtime("ips", json!([format!("{ip}/24")])), &pod);
            [by_args, by_conf, by_runtime]
        };
        for outcome in ask(&taken) {
            assert!(outcome.refusal().text.contains(&taken), "{outcome:?}");
        }
        for outcome in ask("10.88.0.1") {
            assert!(outcome.refusal().text.contains("10.88.0.1"), "{outcome:?}");
        }
        for outcome in ask("10.99.0.5") {
            let refusal = outcome.refusal();
            assert!(refusal.text.contains("failed to allocate all requested IPs"), "{refusal:?}");
        }
        host.assert_attachments(1);
        assert_eq!(next(host, conf).1, "10.88.0.3");
    });
}

#[test]
fn t074_an_address_that_the_same_attachment_already_holds_is_adopted() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        let ask = || host.call("ADD", conf, &pod, "eth0").with("CNI_ARGS", "IP=10.88.0.9");
        let result = host.make(&ask()).result();
        // The veth is gone as after a crash, the record is still there.
        host.netns.tool("ip", &["link", "delete", result.host_end()]).unwrap();
        assert_eq!(host.make(&ask()).result().addresses(), ["10.88.0.9/24"]);
        host.assert_attachments(1);
    });
}

#[test]
fn t074_a_killed_add_is_taken_up_by_the_next_one() {
    if weft_tests::tool::call("strace", &["-V"]).is_err() {
        skip!("strace is not installed");
    }
    for_each_version(|host, conf| {
        let pod = host.pod();
        let killed = ["strace", "-f", "-o", "/dev/null", "-e", "inject=setns:signal=SIGKILL"];
        let ask = || host.call("ADD", conf, &pod, "eth0").with("CNI_ARGS", "IP=10.88.0.9");
        assert!(!host.make(&ask().under(&killed)).succeeded());
        assert_eq!(host.make(&ask()).result().addresses(), ["10.88.0.9/24"]);
        host.assert_attachments(1);
        host.del(conf, &pod).done();
        host.assert_nothing_left();
    });
}

#[test]
fn t075_a_wide_v6_range_costs_nothing_and_skips_its_first_two_addresses() {
    for_each_version(|host, conf| {
        let conf = conf.clone().with_subnets(&["fd00:1::/64"]);
        let pod = host.pod();
        let outcome = host.add(&conf, &pod);
        assert_eq!(outcome.result().addresses(), ["fd00:1::2/64"]);
        assert!(outcome.took() < Duration::from_secs(1), "{outcome:?}");

        let end = json!([[{"subnet": "fd00:2::/64", "rangeStart": "fd00:2::ffff:ffff:ffff:fffe"}]]);
        let conf = conf.with("name", "other").with_ipam("ranges", end);
        let pods = [next(host, &conf), next(host, &conf)];
        assert_eq!(
            pods.each_ref().map(|(_, address)| address.as_str()),
            ["fd00:2::ffff:ffff:ffff:fffe", "fd00:2::ffff:ffff:ffff:ffff"]
        );
        host.add(&conf, &host.pod()).refused(11, &["no IP addresses available in range set"]);
    });
}

#[test]
fn t077_a_changed_range_serves_new_pods_and_still_frees_old_ones() {
    for_each_version(|host, conf| {
        let before = conf.clone().with_subnets(&["10.1.0.0/24"]);
        let (old, old_address) = next(host, &before);
        assert_eq!(old_address, "10.1.0.2");
        // The new range overlaps the old one; with force, as the bridge has an address of the old one.
        let after = conf.clone().with_subnets(&["10.1.0.0/29"]).with("forceAddress", true);
        let new: Vec<(Pod, String)> = (0..4).map(|_| next(host, &after)).collect();
        let mut addresses: Vec<&str> = new.iter().map(|(_, address)| address.as_str()).collect();
        addresses.sort_unstable();
        assert_eq!(addresses, ["10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
        host.add(&after, &host.pod()).refused(11, &[]);
        host.del(&after, &old).done();
        assert_eq!(next(host, &after).1, "10.1.0.2");
    });
}

#[test]
fn t079_a_record_without_veth_is_reclaimed_when_the_pool_is_empty() {
    for_each_version(|host, conf| {
        let conf = conf.clone().with_subnets(&["10.1.0.0/30"]);
        let leaked = host.pod();
        let result = host.add(&conf, &leaked).result();
        host.add(&conf, &host.pod()).refused(11, &[]);
        host.netns.tool("ip", &["link", "delete", result.host_end()]).unwrap();
        let (_pod, address) = next(host, &conf);
        assert_eq!(address, "10.1.0.2");
        host.assert_attachments(1);
    });
}

#[test]
fn t079_garbage_collection_reclaims_what_the_runtime_does_not_name() {
    let host = Host::new();
    let conf = host.conf("1.1.0");
    let (kept, gone, leaked) = (host.pod(), host.pod(), host.pod());
    let addresses: Vec<Vec<String>> =
        [&kept, &gone, &leaked].map(|pod| host.add(&conf, pod).result().addresses()).into();
    let other = host.pod();
    let veth = host.add(&conf, &other).result();
    host.netns.tool("ip", &["link", "delete", veth.host_end()]).unwrap();
    host.gc(&conf, &[&kept, &leaked]).done();
    host.assert_attachments(2);
    assert_eq!(kept.addresses("eth0"), addresses[0]);
    assert!(wait::until(Duration::from_secs(5), "the link to go", || gone.link("eth0").is_none()).is_ok());

    // No list is not an empty list.
    host.make(&host.bare_call("GC", &conf)).refused(7, &["cni.dev/valid-attachments"]);
    host.assert_attachments(2);
    host.make(&host.bare_call("GC", &conf.clone().with("cni.dev/valid-attachments", Value::Null))).done();
    host.assert_nothing_left();
}

#[test]
fn t079_an_attachment_in_the_making_is_not_reclaimed() {
    if weft_tests::tool::call("strace", &["-V"]).is_err() {
        skip!("strace is not installed");
    }
    for version in VERSIONS {
        let host = Host::new();
        let conf = host.conf(version).with_subnets(&["10.1.0.0/30"]);
        let (slow, quick) = (host.pod(), host.pod());
        // Three seconds between the reservation and the wiring.
        let held = ["strace", "-f", "-o", "/dev/null", "-e", "inject=setns:delay_enter=3000000"];
        std::thread::scope(|scope| {
            let making = scope.spawn(|| host.make(&host.call("ADD", &conf, &slow, "eth0").under(&held)));
            wait::until(Duration::from_secs(3), "the reservation", || !host.records().is_empty()).unwrap();
            host.add(&conf, &quick).refused(11, &[]);
            if conf.is_at_least("1.1.0") {
                // A runtime must not do this while an ADD runs; no live pod may lose its address even so.
                let _ = host.gc(&conf, &[]);
            }
            assert_eq!(making.join().unwrap().result().addresses(), ["10.1.0.2/30"]);
        });
        assert_eq!(slow.addresses("eth0"), ["10.1.0.2/30"]);
        host.add(&conf, &quick).refused(11, &[]);
    }
}
