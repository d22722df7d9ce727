//! ADD: addresses that are asked for or fixed, MTU, DNS.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::cni::{Conf, Host, addresses, for_each_version};
use weft_tests::probe;

#[test]
fn t041_t073_addresses_may_be_asked_for_in_three_ways_at_once() {
    for_each_version(|host, conf| {
        let conf = conf.clone().with_subnets(&["10.88.0.0/24", "10.89.0.0/24", "fd00:88::/64"]);
        let pod = host.pod();
        let all = conf
            .clone()
            .with("args", json!({"cni": {"ips": ["10.89.0.77"]}}))
            .with_runtime("ips", json!(["fd00:88::77/64"]));
        let call = host.call("ADD", &all, &pod, "eth0").with("CNI_ARGS", "IP=10.88.0.77/24");
        let wanted = ["10.88.0.77/24", "10.89.0.77/24", "fd00:88::77/64"];
        assert_eq!(host.make(&call).result().addresses(), wanted);
        assert_eq!(pod.addresses("eth0"), wanted);
        host.del(&conf, &pod).done();

        // One of each set only: the nearer one does not push the farther one out, it is one too many.
        let twice = conf.clone().with("args", json!({"cni": {"ips": ["10.88.0.78"]}}));
        let call = host.call("ADD", &twice, &pod, "eth0").with("CNI_ARGS", "IP=10.88.0.79");
        host.make(&call).refused(7, &["failed to allocate all requested IPs"]);
        for bad in ["10.88.0", "10.88.0.5/33", "pod"] {
            host.add(&conf.clone().with_runtime("ips", json!([bad])), &pod).refused(7, &["runtimeConfig.ips", bad]);
        }
        host.assert_nothing_left();
    });
}

#[test]
fn t068_ranges_of_the_runtime_go_before_those_of_the_configuration() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        let conf =
            conf.clone().with_runtime("ipRanges", json!([[{"subnet": "10.87.0.0/24", "rangeStart": "10.87.0.50"}]]));
        assert_eq!(host.add(&conf, &pod).result().addresses(), ["10.87.0.50/24", "10.88.0.2/24"]);
        host.del(&conf, &pod).done();
        host.assert_nothing_left();
    });
}

fn fixed(conf: &Conf, addresses: &Value) -> Conf {
    conf.clone().with("ipam", json!({"type": "static", "addresses": addresses}))
}

#[test]
fn t072_fixed_addresses_are_given_and_kept() {
    for_each_version(|host, conf| {
        let own = json!([{"address": "10.88.0.9/24", "gateway": "10.88.0.254"}, {"address": "fd00:88::9/64"}]);
        let static_conf = fixed(conf, &own);
        let pod = host.pod();
        let result = host.add(&static_conf, &pod).result();
        assert_eq!(result.addresses(), ["10.88.0.9/24", "fd00:88::9/64"]);
        assert_eq!(pod.addresses("eth0"), result.addresses());
        assert_eq!(result.0["ips"][0]["gateway"], "10.88.0.254");
        assert_eq!(addresses(&host.netns, "cni0"), ["10.88.0.254/24", "fd00:88::1/64"]);
        for gateway in ["10.88.0.254", "fd00:88::1"] {
            assert!(probe::ping(&pod.netns, gateway.parse().unwrap(), Duration::from_millis(900)).unwrap().is_some());
        }
        if conf.is_at_least("0.4.0") {
            host.check(&static_conf, &pod, &result.0).done();
        }
        // Nobody else gets one of them, be it fixed for him or out of a range of the same network.
        host.add(&static_conf, &host.pod()).refused(11, &["10.88.0.9", "in use"]);
        let range = json!([[{"subnet": "10.88.0.0/24", "gateway": "10.88.0.254", "rangeStart": "10.88.0.9"}]]);
        let ranged = conf.clone().with_ipam("ranges", range);
        let next = host.pod();
        assert_eq!(host.add(&ranged, &next).result().addresses(), ["10.88.0.10/24"]);
        host.add(&fixed(conf, &json!([{"address": "10.88.0.10/24"}])), &host.pod()).refused(11, &["10.88.0.10"]);
        host.assert_attachments(2);
        host.del(&static_conf, &pod).done();
        host.del(&static_conf, &next).done();
        host.assert_nothing_left();

        // A container that is dead holds nothing.
        let dead = host.pod();
        let _ = host.add(&static_conf, &dead).result();
        dead.netns.delete().unwrap();
        let heir = host.pod();
        assert_eq!(host.add(&static_conf, &heir).result().addresses(), result.addresses());
        host.assert_attachments(1);
    });
}

#[test]
fn t072_what_is_asked_for_takes_the_place_of_fixed_addresses() {
    for_each_version(|host, conf| {
        let conf = fixed(conf, &json!([{"address": "10.88.0.9/24"}])).with("isDefaultGateway", false);
        let args = conf.clone().with("args", json!({"cni": {"ips": ["10.87.0.8/24"]}}));
        let runtime = args.clone().with_runtime("ips", json!(["10.86.0.7/24", "fd00:86::7/64"]));
        for (conf, environment, wanted) in [
            (&conf, "10.85.0.6/24", &["10.88.0.9/24", "10.85.0.6/24"][..]),
            (&args, "10.85.0.6/24", &["10.87.0.8/24"]),
            (&runtime, "10.85.0.6/24", &["10.86.0.7/24", "fd00:86::7/64"]),
        ] {
            let pod = host.pod();
            let call = host.call("ADD", conf, &pod, "eth0").with("CNI_ARGS", format!("IP={environment}"));
            assert_eq!(host.make(&call).result().addresses(), wanted);
            assert_eq!(pod.addresses("eth0"), wanted);
            host.del(conf, &pod).done();
        }
        let pod = host.pod();
        host.add(&conf.clone().with_runtime("ips", json!(["10.86.0.7"])), &pod).refused(7, &["10.86.0.7", "prefix"]);
        host.add(&fixed(&conf, &json!([])), &pod).refused(7, &["ipam.addresses"]);
        host.add(&fixed(&conf, &json!([{"address": "10.88.0.9"}])), &pod).refused(7, &["10.88.0.9"]);
        host.assert_nothing_left();
    });
}

fn mtu(link: Option<Value>) -> u64 {
    link.unwrap()["mtu"].as_u64().unwrap()
}

#[test]
fn t015_the_mtu_is_the_configurations_or_the_nodes_or_the_kernels() {
    for_each_version(|host, conf| {
        for (wanted, file, expected) in [
            (Some(1300), None, 1300),
            (Some(0), Some(1450), 1450),
            (None, Some(1450), 1450),
            (Some(1300), Some(1450), 1300),
            (None, None, 1500),
        ] {
            let _ = fs::remove_file(host.subnet_file());
            if let Some(mtu) = file {
                let text = format!(
                    "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU={mtu}\nFLANNEL_IPMASQ=true\n"
                );
                fs::write(host.subnet_file(), text).unwrap();
            }
            let conf = wanted.map_or(conf.clone(), |mtu: u32| conf.clone().with("mtu", mtu));
            let pod = host.pod();
            let result = host.add(&conf, &pod).result();
            assert_eq!((mtu(pod.link("eth0")), mtu(host.link(result.host_end()))), (expected, expected));
            host.del(&conf, &pod).done();
        }
        // The kernel takes IPv6 off a link with less than it needs.
        let _ = fs::remove_file(host.subnet_file());
        let pod = host.pod();
        let result = host.add(&conf.clone().with("mtu", 600), &pod).result();
        let port = host.link(result.host_end()).unwrap();
        assert_eq!((&port["mtu"], &port["linkinfo"]["info_slave_data"]["hairpin"]), (&json!(600), &json!(true)));
        assert!(probe::ping(&host.netns, result.ip(), Duration::from_secs(2)).unwrap().is_some());
        host.del(conf, &pod).done();
        let v6 = conf.clone().with_subnets(&["fd00:88::/64"]);
        host.add(&v6.clone().with("mtu", 1279), &pod).refused(7, &["mtu", "1279", "1280"]);
        assert_eq!(host.add(&v6.with("mtu", 1280), &pod).result().addresses(), ["fd00:88::2/64"]);
        assert_eq!(mtu(pod.link("eth0")), 1280);
    });
}

#[test]
fn t040_the_resolvers_settings_are_reported() {
    for_each_version(|host, conf| {
        let file = host.scratch.join("resolv.conf");
        fs::write(
            &file,
            "# kube\nnameserver 10.96.0.10\nnameserver fd00::a\nsearch a.svc b.svc\noptions ndots:5 edns0\n",
        )
        .unwrap();
        let read = conf.clone().with_ipam("resolvConf", file.to_str().unwrap());
        let own = json!({"nameservers": ["192.0.2.53"], "domain": "example.org"});
        let pod = host.pod();
        let wanted = json!({"nameservers": ["10.96.0.10", "fd00::a"], "search": ["a.svc", "b.svc"], "options": ["ndots:5", "edns0"]});
        for (conf, wanted) in [(&read, &wanted), (&read.clone().with("dns", own.clone()), &own)] {
            assert_eq!(host.add(conf, &pod).result().0["dns"], *wanted);
            host.del(conf, &pod).done();
        }
        let missing = conf.clone().with_ipam("resolvConf", "/nowhere/resolv.conf");
        host.add(&missing, &pod).refused(7, &["ipam.resolvConf", "/nowhere/resolv.conf"]);
        host.assert_nothing_left();
    });
}

#[test]
fn t039_more_routes_than_a_record_can_hold_are_refused() {
    let host = Host::new();
    let (conf, pod) = (host.conf("1.0.0"), host.pod());
    let routes: Vec<Value> = (0..5000).map(|n| json!({"dst": format!("172.{}.{}.0/24", n / 256, n % 256)})).collect();
    host.add(&conf.with_ipam("routes", routes), &pod).refused(7, &["record"]);
    host.assert_nothing_left();
}

#[test]
fn t039_routes_of_ipv6_are_applied_to_the_letter() {
    for_each_version(|host, conf| {
        let routes = json!([
            {"dst": "fd00:20::/48", "gw": "fd00:88::1", "mtu": 1300, "advmss": 1220, "priority": 77},
            {"dst": "fd00:21::/48", "table": 100},
            {"dst": "fd00:23::/48", "gw": "fd00:88::fd"},
            {"dst": "fd00:23::/48", "gw": "fd00:88::fe"},
        ]);
        let conf = conf.clone().with_subnets(&["fd00:88::/64"]).with_ipam("routes", routes);
        let pod = host.pod();
        let result = host.add(&conf, &pod).result();
        let applied = pod.routes("-6");
        let find = |dst: &str| applied.iter().find(|route| route["dst"] == dst).unwrap_or_else(|| panic!("no {dst}"));
        let full = find("fd00:20::/48");
        assert_eq!((&full["gateway"], &full["metric"]), (&json!("fd00:88::1"), &json!(77)));
        assert_eq!((&full["metrics"][0]["mtu"], &full["metrics"][0]["advmss"]), (&json!(1300), &json!(1220)));
        assert_eq!(
            (&find("fd00:21::/48")["table"], &find("fd00:21::/48")["gateway"]),
            (&json!("100"), &json!("fd00:88::1"))
        );
        assert_eq!(find("fd00:23::/48")["nexthops"].as_array().unwrap().len(), 2);
        if conf.is_at_least("0.4.0") {
            host.check(&conf, &pod, &result.0).done();
            pod.netns.tool("ip", &["-6", "route", "del", "fd00:21::/48", "table", "100"]).unwrap();
            assert!(host.check(&conf, &pod, &result.0).refusal().text.contains("fd00:21::/48"));
        }
    });
}

#[test]
fn t040_a_machine_without_ipv6_by_default_gives_it_to_pods_that_need_it() {
    let host = Host::new();
    host.netns.sysctl("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    let conf = host.conf("1.0.0").with_subnets(&["10.88.0.0/24", "fd00:88::/64"]);
    let pod = host.pod();
    for switch in ["all", "default"] {
        pod.netns.sysctl(&format!("net/ipv6/conf/{switch}/disable_ipv6"), "1").unwrap();
    }
    let result = host.add(&conf, &pod).result();
    assert_eq!(pod.addresses("eth0"), result.addresses());
    assert!(probe::ping(&pod.netns, "fd00:88::1".parse().unwrap(), Duration::from_millis(900)).unwrap().is_some());
}
