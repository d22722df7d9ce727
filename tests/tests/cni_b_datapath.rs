//! ADD: what it puts into the kernel, and what gets through.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::cni::{Added, Conf, Pod, addresses, for_each_version};
use weft_tests::netns::{Netns, OwnedNetns};
use weft_tests::probe;
use weft_tests::scratch::unique_name;

const PATIENCE: Duration = Duration::from_secs(2);

fn ip(netns: &Netns, words: &str) -> String {
    netns.tool("ip", &words.split(' ').collect::<Vec<_>>()).unwrap()
}

fn reaches(from: &Netns, to: IpAddr) -> bool {
    probe::ping(from, to, PATIENCE).unwrap().is_some()
}

/// What somebody has set; not what follows from carrier, counters and timers.
fn settings(link: &Value) -> Value {
    let keys = ["ifindex", "ifname", "address", "mtu", "group", "promiscuity", "ifalias", "inet6_addr_gen_mode"];
    let mut kept: Value = keys.iter().map(|key| ((*key).to_owned(), link[*key].clone())).collect();
    let carrier = [json!("LOWER_UP"), json!("NO-CARRIER")];
    kept["flags"] = link["flags"].as_array().unwrap().iter().filter(|flag| !carrier.contains(flag)).cloned().collect();
    let data = &link["linkinfo"]["info_data"];
    kept["info"] = ["vlan_filtering", "stp_state", "forward_delay", "mcast_snooping", "nf_call_iptables"]
        .iter()
        .map(|key| ((*key).to_owned(), data[*key].clone()))
        .collect();
    kept
}

#[test]
fn t025_the_result_is_what_the_kernel_has() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        let result = host.add(conf, &pod).result();
        let bridge = host.link("cni0").unwrap();
        let outer = host.link(result.host_end()).unwrap();
        let inner = pod.link("eth0").unwrap();
        for (place, link, name) in [(0, &bridge, "cni0"), (1, &outer, result.host_end()), (2, &inner, "eth0")] {
            assert_eq!(result.interface(place)["name"], name);
            assert_eq!(result.interface(place)["mac"], link["address"]);
            let mtu = result.interface(place).get("mtu");
            assert!(mtu.is_none_or(|mtu| conf.is_at_least("1.1.0") && *mtu == link["mtu"]), "{mtu:?}");
        }
        assert_eq!(result.interface(2)["sandbox"], pod.netns.path().to_str().unwrap());
        assert!((0..2).all(|place| result.interface(place).get("sandbox").is_none_or(|sandbox| sandbox == "")));
        assert_eq!(result.0["interfaces"].as_array().unwrap().len(), 3);
        assert_eq!(result.0["cniVersion"], conf.version());
        assert_eq!(outer["link_index"], inner["ifindex"]);
        assert_eq!(outer["master"], "cni0");

        assert_eq!(pod.addresses("eth0"), result.addresses());
        assert_eq!(addresses(&host.netns, "cni0"), ["10.88.0.1/24"]);
        assert_eq!(result.0["ips"][0]["interface"], 2);
        assert_eq!(result.0["ips"][0]["gateway"], "10.88.0.1");
        assert_eq!(result.0["ips"][0].get("version").is_some(), !conf.is_at_least("1.0.0"));
        assert_eq!(result.0["routes"], json!([{"dst": "0.0.0.0/0", "gw": "10.88.0.1"}]));
        let default: Vec<Value> = pod.routes("-4").into_iter().filter(|route| route["dst"] == "default").collect();
        assert_eq!(default.len(), 1);
        assert_eq!(default[0]["gateway"], "10.88.0.1");
        assert!(reaches(&host.netns, result.ip()) && reaches(&pod.netns, "10.88.0.1".parse().unwrap()));
    });
}

#[test]
fn t026_a_bridge_that_is_right_is_used_and_left_as_it_is() {
    for_each_version(|host, conf| {
        ip(&host.netns, "link add cni0 address 02:00:00:00:00:99 type bridge mcast_snooping 0 forward_delay 200");
        ip(&host.netns, "addr add 10.88.0.1/24 dev cni0");
        ip(&host.netns, "link set cni0 up mtu 1400");
        let before = settings(&host.link("cni0").unwrap());
        for pod in [host.pod(), host.pod(), host.pod()] {
            let result = host.add(&conf.clone().with("mtu", 1400), &pod).result();
            assert!(reaches(&host.netns, result.ip()));
            assert_eq!(settings(&host.link("cni0").unwrap()), before);
        }
        assert_eq!(addresses(&host.netns, "cni0"), ["10.88.0.1/24"]);
    });
}

#[test]
fn t027_a_device_of_that_name_that_is_no_bridge_is_left_alone() {
    for_each_version(|host, conf| {
        for make in [
            "link add cni0 type veth peer name other",
            "link add cni0 type vxlan id 7 dstport 4789",
            "link add cni0 type macvlan mode bridge",
        ] {
            let parent = if make.contains("macvlan") {
                ip(&host.netns, "link add parent type veth peer name other");
                make.replace("cni0 type", "cni0 link parent type")
            } else {
                make.to_owned()
            };
            ip(&host.netns, &parent);
            let before = host.links();
            let refusal = host.add(conf, &host.pod()).refusal();
            assert!(refusal.text.contains("already exists but is not a bridge"), "{refusal:?}");
            let names = |links: &[Value]| links.iter().map(settings).collect::<Vec<_>>();
            assert_eq!(names(&host.links()), names(&before));
            ip(&host.netns, "link delete cni0");
            let _ = host.netns.tool("ip", &["link", "delete", "other"]);
        }
        assert_eq!(host.records().len(), 0);
    });
}

#[test]
fn t029_a_bridge_that_is_down_or_gone_is_put_right() {
    for_each_version(|host, conf| {
        let pods: Vec<(Pod, Added)> = (0..3)
            .map(|_| {
                let pod = host.pod();
                let result = host.add(conf, &pod).result();
                (pod, result)
            })
            .collect();
        ip(&host.netns, "link set cni0 down");
        let pod = host.pod();
        let result = host.add(conf, &pod).result();
        assert!(reaches(&host.netns, result.ip()));
        assert!(reaches(&host.netns, pods[0].1.ip()));

        ip(&host.netns, "link delete cni0");
        let late = host.pod();
        let result = host.add(conf, &late).result();
        assert!(reaches(&host.netns, result.ip()));
        assert_eq!(addresses(&host.netns, "cni0"), ["10.88.0.1/24"]);
        if conf.is_at_least("0.4.0") {
            for (pod, result) in &pods {
                let _ = host.check(conf, pod, &result.0).refusal();
            }
            host.check(conf, &late, &result.0).done();
        }
    });
}

#[test]
fn t030_an_interface_that_is_there_already_is_not_touched() {
    for_each_version(|host, conf| {
        for make in [
            "link add eth0 type veth peer name other",
            "link add eth0 type bridge",
            "link add eth0 type vxlan id 7 dstport 4789",
        ] {
            let pod = host.pod();
            ip(&pod.netns, make);
            ip(&pod.netns, "addr add 192.0.2.7/24 dev eth0");
            let before = settings(&pod.link("eth0").unwrap());
            let refusal = host.add(conf, &pod).refusal();
            assert!(refusal.text.contains("already exists"), "{refusal:?}");
            assert_eq!(settings(&pod.link("eth0").unwrap()), before);
            assert_eq!(pod.addresses("eth0"), ["192.0.2.7/24"]);
            host.assert_nothing_left();
        }

        // The same container again, and another container that the runtime puts into the same namespace.
        let (pod, mut other) = (host.pod(), host.pod());
        let result = host.add(conf, &pod).result();
        assert!(host.add(conf, &pod).refusal().text.contains("already"));
        let own = std::mem::replace(&mut other.netns, OwnedNetns::bare(unique_name()));
        let call = host.call("ADD", conf, &other, "eth0").with("CNI_NETNS", pod.netns.path());
        assert!(host.make(&call).refusal().text.contains("already exists"));
        drop(own);
        host.assert_attachments(1);
        assert_eq!(pod.addresses("eth0"), result.addresses());
        assert!(reaches(&host.netns, result.ip()));
        host.del(conf, &pod).done();
        host.assert_nothing_left();
    });
}

#[test]
fn t031_f77_two_interfaces_of_one_container_live_and_die_apart() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        let first = host.add(conf, &pod).result();
        let second = host.make(&host.call("ADD", &conf.clone().with("isDefaultGateway", false), &pod, "net1")).result();
        assert_ne!(first.ip(), second.ip());
        assert_ne!(first.host_end(), second.host_end());
        host.assert_attachments(2);
        host.del(conf, &pod).done();
        assert!(pod.link("eth0").is_none());
        assert_eq!(pod.addresses("net1"), second.addresses());
        host.assert_attachments(1);
        host.make(&host.call("DEL", conf, &pod, "net1")).done();
        host.assert_nothing_left();
    });
}

#[test]
fn t033_hairpin_lets_a_frame_return_through_the_port_that_it_came_from() {
    for_each_version(|host, conf| {
        for hairpin in [true, false] {
            let pod = host.pod();
            let result = host.add(&conf.clone().with("hairpinMode", hairpin), &pod).result();
            assert_eq!(host.link(result.host_end()).unwrap()["linkinfo"]["info_slave_data"]["hairpin"], hairpin);

            // A second station on the pod's wire, in VEPA mode: its frames to eth0 go out to the bridge and have to be
            // sent back, exactly as those of a pod that calls itself through a Service.
            let station = OwnedNetns::new(unique_name());
            ip(&pod.netns, "link add station link eth0 type macvlan mode vepa");
            ip(&pod.netns, &format!("link set station netns {}", station.name()));
            ip(&station, "addr add 10.88.0.200/24 dev station");
            ip(&station, "link set station up");
            assert_eq!(probe::ping(&station, result.ip(), Duration::from_millis(700)).unwrap().is_some(), hairpin);
            assert!(reaches(&station, "10.88.0.1".parse().unwrap()));
            drop(station);
            host.del(conf, &pod).done();
        }
    });
}

#[test]
fn t034_promiscuous_mode_is_set_once() {
    for_each_version(|host, conf| {
        let conf = conf.clone().with("hairpinMode", false).with("promiscMode", true);
        let mut seen = Vec::new();
        let pods: Vec<Pod> = (0..3).map(|_| host.pod()).collect();
        for pod in &pods {
            let _ = host.add(&conf, pod).result();
            let bridge = host.link("cni0").unwrap();
            assert!(bridge["flags"].as_array().unwrap().contains(&json!("PROMISC")));
            seen.push(bridge["promiscuity"].clone());
        }
        assert_eq!(seen[0], 1);
        assert!(seen.iter().all(|count| *count == seen[0]), "{seen:?}");
    });
}

#[test]
fn t035_isolated_pods_reach_the_gateway_but_not_each_other() {
    for_each_version(|host, conf| {
        let isolated = conf.clone().with("portIsolation", true);
        let (one, two, open) = (host.pod(), host.pod(), host.pod());
        let (first, second) = (host.add(&isolated, &one).result(), host.add(&isolated, &two).result());
        let third = host.add(conf, &open).result();
        let brief = Duration::from_millis(300);
        assert!(probe::ping(&one.netns, second.ip(), brief).unwrap().is_none());
        assert!(probe::ping(&two.netns, first.ip(), brief).unwrap().is_none());
        for pod in [&one, &two] {
            assert!(reaches(&pod.netns, "10.88.0.1".parse().unwrap()));
            assert!(reaches(&pod.netns, third.ip()));
        }
    });
}

#[test]
fn t037_both_families_in_the_order_of_the_ranges_and_usable_at_once() {
    for_each_version(|host, conf| {
        for subnets in [["10.88.0.0/24", "fd00:88::/64"], ["fd00:88::/64", "10.88.0.0/24"]] {
            let conf = conf.clone().with_subnets(&subnets);
            let (one, two) = (host.pod(), host.pod());
            let result = host.add(&conf, &one).result();
            // At once: the first v6 pod of a machine used to wait two seconds for its gateway.
            let gateway = probe::ping(&one.netns, "fd00:88::1".parse().unwrap(), Duration::from_millis(500));
            assert!(gateway.unwrap().is_some());
            let other = host.add(&conf, &two).result();
            let families: Vec<bool> = result.addresses().iter().map(|address| address.contains(':')).collect();
            assert_eq!(families, subnets.map(|subnet| subnet.contains(':')));
            for address in other.addresses() {
                let target: IpAddr = address.split('/').next().unwrap().parse().unwrap();
                assert!(reaches(&one.netns, target) && reaches(&host.netns, target), "{target}");
            }
            let defaults = |family| one.routes(family).iter().filter(|route| route["dst"] == "default").count();
            assert_eq!((defaults("-4"), defaults("-6")), (1, 1));
            host.del(&conf, &one).done();
            host.del(&conf, &two).done();
        }
        host.assert_nothing_left();
    });
}

#[test]
fn t038_with_duplicate_address_detection_a_duplicate_is_refused() {
    for_each_version(|host, conf| {
        let conf = conf.clone().with_subnets(&["fd00:88::/64"]).with("enabledad", true);
        let ask = |conf: &Conf, pod: &Pod| host.call("ADD", conf, pod, "eth0").with("CNI_ARGS", "IP=fd00:88::50");
        let (first, second) = (host.pod(), host.pod());
        assert_eq!(host.make(&ask(&conf, &first)).result().addresses(), ["fd00:88::50/64"]);
        // Another network knows nothing of the first one's addresses, but is on the same bridge.
        let other = conf.clone().with("name", "other");
        let refusal = host.make(&ask(&other, &second)).refusal();
        assert!(refusal.text.contains("duplicate address"), "{refusal:?}");
        assert!(second.link("eth0").is_none());
        host.assert_attachments(1);
    });
}

#[test]
fn t039_routes_are_applied_to_the_letter() {
    for_each_version(|host, conf| {
        let routes = json!([
            {"dst": "10.20.0.0/16", "gw": "10.88.0.1", "mtu": 1300, "advmss": 1200, "priority": 77},
            {"dst": "10.21.0.0/16", "gw": "10.88.0.1", "table": 100},
            {"dst": "10.22.0.0/16", "scope": 253},
            {"dst": "10.23.0.0/16", "gw": "10.88.0.253"},
            {"dst": "10.23.0.0/16", "gw": "10.88.0.254"},
        ]);
        let pod = host.pod();
        let result = host.add(&conf.clone().with_ipam("routes", routes), &pod).result();
        let applied = pod.routes("-4");
        let find = |dst: &str| applied.iter().find(|route| route["dst"] == dst).unwrap_or_else(|| panic!("no {dst}"));
        let full = find("10.20.0.0/16");
        assert_eq!((&full["gateway"], &full["metric"]), (&json!("10.88.0.1"), &json!(77)));
        assert_eq!(full["metrics"][0]["mtu"], 1300);
        assert_eq!(full["metrics"][0]["advmss"], 1200);
        assert_eq!(find("10.21.0.0/16")["table"], "100");
        assert_eq!(find("10.22.0.0/16")["scope"], "link");
        let hops = find("10.23.0.0/16")["nexthops"].as_array().unwrap().clone();
        let hops: Vec<&Value> = hops.iter().map(|hop| &hop["gateway"]).collect();
        assert_eq!(hops, ["10.88.0.253", "10.88.0.254"]);
        let told: Vec<&Value> = result.0["routes"].as_array().unwrap().iter().collect();
        assert!(told.iter().any(|route| route["dst"] == "10.20.0.0/16"));
        let detailed = told.iter().any(|route| route["mtu"] == 1300);
        assert_eq!(detailed, conf.is_at_least("1.1.0"));
    });
}

#[test]
fn t039_a_gateway_that_cannot_be_reached_undoes_everything() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        let routes = json!([{"dst": "10.20.0.0/16", "gw": "192.0.2.1"}]);
        let refusal = host.add(&conf.clone().with_ipam("routes", routes), &pod).refusal();
        assert!(refusal.text.contains("192.0.2.1") || refusal.text.contains("10.20.0.0/16"), "{refusal:?}");
        assert!(pod.link("eth0").is_none());
        host.assert_nothing_left();
    });
}

#[test]
fn t041_the_nearest_wish_for_a_mac_wins() {
    for_each_version(|host, conf| {
        let [far, near, nearest] = ["0a:00:00:00:00:01", "0a:00:00:00:00:02", "0a:00:00:00:00:03"];
        let with_args = conf.clone().with("args", json!({"cni": {"mac": near}}));
        let with_runtime = with_args.clone().with_runtime("mac", nearest);
        for (conf, wanted) in [(conf, far), (&with_args, near), (&with_runtime, nearest)] {
            let pod = host.pod();
            let call = host.call("ADD", conf, &pod, "eth0").with("CNI_ARGS", format!("IgnoreUnknown=1;MAC={far}"));
            let result = host.make(&call).result();
            assert_eq!(result.interface(2)["mac"], wanted);
            assert_eq!(pod.link("eth0").unwrap()["address"], wanted);
            host.del(conf, &pod).done();
        }
    });
}
