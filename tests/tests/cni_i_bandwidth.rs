//! Limits of a pod's traffic: what the kernel is told, what gets through, and that nothing of it is left.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_tests::cni::{Conf, Host, Pod, VERSIONS, for_each_version};
use weft_tests::netns::Netns;
use weft_tests::{probe, skip, tool, wait};

/// Ten million bytes a second, a hundred thousand at once.
const RATE: u64 = 80_000_000;
const BURST: u64 = 800_000;

fn limits(ingress: bool, egress: bool) -> Value {
    let mut all = json!({});
    for (way, on) in [("ingress", ingress), ("egress", egress)] {
        if on {
            all[format!("{way}Rate")] = RATE.into();
            all[format!("{way}Burst")] = BURST.into();
        }
    }
    all
}

fn limited(conf: &Conf, ingress: bool, egress: bool) -> Conf {
    conf.clone().with_runtime("bandwidth", limits(ingress, egress))
}

fn tc(netns: &Netns, words: &str) -> Vec<Value> {
    netns.objects("tc", &words.split(' ').collect::<Vec<_>>()).unwrap()
}

/// The devices that limit what comes out of pods.
fn devices(host: &Host) -> Vec<String> {
    let ifbs = host.netns.objects("ip", &["link", "show", "type", "ifb"]).unwrap();
    ifbs.iter().filter_map(|link| link["ifname"].as_str()).map(str::to_owned).collect()
}

fn root(host: &Host, link: &str) -> Value {
    let all = tc(&host.netns, &format!("qdisc show dev {link}"));
    all.into_iter().find(|qdisc| qdisc["root"] == true).unwrap_or_default()
}

fn assert_bucket(qdisc: &Value, rate_bits: u64, burst_bits: u64) {
    assert_eq!(qdisc["kind"], "tbf", "{qdisc}");
    let options = &qdisc["options"];
    assert_eq!(options["rate"], rate_bits / 8, "{qdisc}");
    let burst = options["burst"].as_u64().unwrap();
    assert!(burst.abs_diff(burst_bits / 8) <= 2, "{qdisc}");
    // 25 ms, in microseconds; tc reckons it from the length of the queue.
    let latency = options["lat"].as_u64().unwrap();
    assert!(latency.abs_diff(25_000) <= 250, "{qdisc}");
}

fn assert_no_device_left(host: &Host) {
    host.assert_nothing_left();
    let gone = wait::until(Duration::from_secs(5), "the device to go", || devices(host).is_empty());
    assert!(gone.is_ok(), "{:?}", devices(host));
}

/// How long a stream of `bytes` takes.
fn stream(from: &Netns, to: &Netns, address: IpAddr, bytes: u64) -> Duration {
    let begun = Instant::now();
    assert_eq!(probe::tcp_transfer(from, to, address, bytes).unwrap().bytes, bytes);
    begun.elapsed()
}

/// That a stream is as quick as the limit and not quicker.
fn assert_limited(from: &Netns, to: &Netns, address: IpAddr) {
    let bytes = 4_000_000;
    let least = Duration::from_secs_f64((bytes as f64 - BURST as f64 / 8.0) / (RATE as f64 / 8.0) * 0.99);
    let took = stream(from, to, address, bytes);
    assert!(took >= least && took < least * 2, "{bytes} bytes took {took:?}, the limit allows {least:?}");
}

/// That a stream is much quicker than the limit of the other way would allow.
fn assert_unlimited(from: &Netns, to: &Netns, address: IpAddr) {
    let took = stream(from, to, address, 20_000_000);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn t116_both_ways_are_limited_and_only_the_pods() {
    let host = Host::new();
    let conf = host.conf("1.0.0");
    let (pod, free) = (host.pod(), host.pod());
    let result = host.add(&limited(&conf, true, true), &pod).result();
    let other = host.add(&conf, &free).result();
    let gateway: IpAddr = "10.88.0.1".parse().unwrap();
    assert_limited(&host.netns, &pod.netns, result.ip());
    assert_limited(&pod.netns, &host.netns, gateway);
    assert_limited(&pod.netns, &free.netns, other.ip());
    assert_unlimited(&host.netns, &free.netns, other.ip());
    assert_unlimited(&free.netns, &host.netns, gateway);
    host.del(&conf, &pod).done();
    host.del(&conf, &free).done();
    assert_no_device_left(&host);
}

#[test]
fn t116_each_way_is_limited_by_itself() {
    let host = Host::new();
    let gateway: IpAddr = "10.88.0.1".parse().unwrap();
    for (version, ingress) in [("0.4.0", true), ("1.1.0", false)] {
        let conf = limited(&host.conf(version), ingress, !ingress);
        let pod = host.pod();
        let result = host.add(&conf, &pod).result();
        assert_eq!(devices(&host).len(), usize::from(!ingress));
        if ingress {
            assert_limited(&host.netns, &pod.netns, result.ip());
            assert_unlimited(&pod.netns, &host.netns, gateway);
        } else {
            assert_limited(&pod.netns, &host.netns, gateway);
            assert_unlimited(&host.netns, &pod.netns, result.ip());
        }
        host.del(&conf, &pod).done();
        assert_no_device_left(&host);
    }
}

#[test]
fn t011_t116_the_kernel_is_told_what_was_asked_in_whatever_spelling() {
    for_each_version(|host, conf| {
        let go = json!({"IngressRate": RATE, "IngressBurst": BURST, "EgressRate": RATE * 2, "EgressBurst": BURST * 2});
        let pascal = conf.clone().with_runtime("Bandwidth", go.clone());
        let camel = conf.clone().with_runtime(
            "bandwidth",
            json!({"ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE * 2, "egressBurst": BURST * 2}),
        );
        // What stands in the configuration itself goes before.
        let own = limited(conf, true, true)
            .with("ingressRate", RATE)
            .with("ingressBurst", BURST)
            .with("egressRate", RATE * 2)
            .with("egressBurst", BURST * 2);
        for conf in [pascal, camel, own] {
            let pod = host.pod();
            let result = host.add(&conf, &pod).result();
            let device = devices(host).pop().unwrap();
            assert_bucket(&root(host, result.host_end()), RATE, BURST);
            assert_bucket(&root(host, &device), RATE * 2, BURST * 2);

            // The device is told behind the others, and the addresses are still eth0's.
            let interfaces = result.0["interfaces"].as_array().unwrap();
            assert_eq!(interfaces.len(), 4);
            assert_eq!(interfaces[3]["name"], device.as_str());
            assert_eq!(interfaces[3]["mac"], host.link(&device).unwrap()["address"]);
            assert!(interfaces[3].get("sandbox").is_none());
            assert_eq!((&interfaces[2]["name"], &result.0["ips"][0]["interface"]), (&json!("eth0"), &json!(2)));
            if conf.is_at_least("0.4.0") {
                host.check(&conf, &pod, &result.0).done();
            }
            host.del(&conf, &pod).done();
            assert_no_device_left(host);
        }
    });
}

#[test]
fn t116_no_limit_is_no_queue() {
    for_each_version(|host, conf| {
        let zero = json!({"ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0});
        for limits in [json!(null), json!({}), zero] {
            let pod = host.pod();
            let result = host.add(&conf.clone().with_runtime("bandwidth", limits), &pod).result();
            assert_eq!(result.0["interfaces"].as_array().unwrap().len(), 3);
            assert_ne!(root(host, result.host_end())["kind"], "tbf");
            assert!(devices(host).is_empty());
            host.del(conf, &pod).done();
        }
        assert_no_device_left(host);
    });
}

#[test]
fn t116_the_bursts_that_runtimes_send_and_large_rates_are_taken() {
    for_each_version(|host, conf| {
        for (rate, burst) in [
            (1_000_u64, u64::from(u32::MAX)),
            (10_000_000, u64::from(u32::MAX)),
            (10_000_000, u64::from(u32::MAX) * 8 - 1),
            (1_000_000_000_000_000, u64::from(u32::MAX)),
        ] {
            let limits = json!({"ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst});
            let conf = conf.clone().with_runtime("bandwidth", limits);
            let pod = host.pod();
            let result = host.add(&conf, &pod).result();
            for link in [result.host_end(), &devices(host)[0]] {
                let qdisc = root(host, link);
                assert_eq!((&qdisc["kind"], &qdisc["options"]["rate"]), (&json!("tbf"), &json!(rate / 8)), "{qdisc}");
            }
            assert!(probe::ping(&host.netns, result.ip(), Duration::from_secs(2)).unwrap().is_some());
            if conf.is_at_least("0.4.0") {
                host.check(&conf, &pod, &result.0).done();
            }
            host.del(&conf, &pod).done();
        }
        assert_no_device_left(host);
    });
}

#[test]
fn t116_a_limit_that_cannot_be_is_refused_by_key_and_value() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        for (limits, key, value) in [
            (json!({"ingressRate": 1000}), "ingressBurst", "0"),
            (json!({"egressBurst": 1000}), "egressRate", "0"),
            (json!({"egressRate": -1, "egressBurst": 1000}), "egressRate", "-1"),
            (json!({"ingressRate": 1000, "ingressBurst": 1_u64 << 35}), "ingressBurst", "34359738368"),
        ] {
            host.add(&conf.clone().with_runtime("bandwidth", limits), &pod).refused(7, &[key, value]);
        }
        host.assert_untouched();
    });
}

/// A way in which a pod goes.
type Way = fn(&Host, &Conf, &Pod);

#[test]
fn t051_t121_the_device_goes_however_the_pod_goes() {
    for_each_version(|host, conf| {
        let conf = limited(conf, true, true);
        let ways: [(&str, Way); 5] = [
            ("without a namespace", |host, conf, pod| {
                host.make(&host.call("DEL", conf, pod, "eth0").with("CNI_NETNS", "")).done();
            }),
            ("with the namespace gone", |host, conf, pod| {
                pod.netns.delete().unwrap();
                wait::until(Duration::from_secs(5), "the veth to go", || host.veths().is_empty()).unwrap();
                assert_eq!(devices(host).len(), 1);
                host.del(conf, pod).done();
            }),
            ("without a word of limits", |host, conf, pod| {
                host.del(&conf.clone().without("runtimeConfig"), pod).done();
            }),
            ("without a record", |host, conf, pod| {
                std::fs::remove_file(&host.records()[0]).unwrap();
                host.del(conf, pod).done();
            }),
            ("with a damaged record", |host, conf, pod| {
                std::fs::write(&host.records()[0], "nonsense").unwrap();
                host.del(conf, pod).done();
            }),
        ];
        for (way, go) in ways {
            let pod = host.pod();
            let _ = host.add(&conf, &pod).result();
            assert_eq!(devices(host).len(), 1, "{way}");
            go(host, &conf, &pod);
            assert_no_device_left(host);
        }
    });
}

#[test]
fn t031_two_limited_interfaces_of_one_container_have_a_device_each() {
    for_each_version(|host, conf| {
        let conf = limited(conf, true, true);
        let pod = host.pod();
        let _ = host.add(&conf, &pod).result();
        let second = conf.clone().with("isDefaultGateway", false);
        let net1 = host.make(&host.call("ADD", &second, &pod, "net1")).result();
        assert_eq!(devices(host).len(), 2);
        host.del(&conf, &pod).done();
        assert_eq!(devices(host), [net1.interface(3)["name"].as_str().unwrap()]);
        host.make(&host.call("DEL", &second, &pod, "net1")).done();
        assert_no_device_left(host);
    });
}

#[test]
fn t118_check_sees_each_part_of_a_limit() {
    for_each_version(|host, conf| {
        if !conf.is_at_least("0.4.0") {
            return;
        }
        let conf = limited(conf, true, true);
        // VETH and DEVICE stand for the names; what is done again puts it right or ends the case.
        for sabotage in [
            "tc qdisc del dev VETH root",
            "tc qdisc change dev VETH root tbf rate 9mbit burst 100kb latency 25ms",
            "tc qdisc change dev VETH root tbf rate 80mbit burst 50kb limit 350000",
            "tc qdisc del dev VETH ingress",
            "tc filter del dev VETH ingress",
            "tc qdisc del dev DEVICE root",
            "tc qdisc replace dev DEVICE root handle 2: pfifo",
            "ip link set DEVICE down",
            "ip link del DEVICE",
        ] {
            let pod = host.pod();
            let result = host.add(&conf, &pod).result();
            host.check(&conf, &pod, &result.0).done();
            let device = devices(host).pop().unwrap();
            let words = sabotage.replace("VETH", result.host_end()).replace("DEVICE", &device);
            let words: Vec<&str> = words.split(' ').collect();
            host.netns.tool(words[0], &words[1..]).unwrap();
            let refusal = host.check(&conf, &pod, &result.0).refusal();
            assert!(refusal.text.contains("limit") || refusal.text.contains("redirect"), "{sabotage}: {refusal:?}");
            host.del(&conf, &pod).done();
            assert_no_device_left(host);
        }
    });
}

#[test]
fn t121_garbage_collection_takes_devices_with_and_without_a_record() {
    let host = Host::new();
    let conf = limited(&host.conf("1.1.0"), false, true);
    let (kept, stale, lost) = (host.pod(), host.pod(), host.pod());
    let alive = host.add(&conf, &kept).result();
    let _ = host.add(&conf, &stale).result();
    let before = host.records();
    let gone = host.add(&conf, &lost).result();
    // A record that is lost, and a veth that went with its namespace.
    let record = host.records().into_iter().find(|record| !before.contains(record)).unwrap();
    std::fs::remove_file(record).unwrap();
    host.netns.tool("ip", &["link", "del", gone.host_end()]).unwrap();
    assert_eq!(devices(&host).len(), 3);
    host.gc(&conf, &[&kept]).done();
    host.assert_attachments(1);
    assert_eq!(devices(&host), [alive.interface(3)["name"].as_str().unwrap()]);
    host.check(&conf, &kept, &alive.0).done();
}

#[test]
fn t090_t091_a_killed_add_leaves_no_device() {
    if tool::call("strace", &["-V"]).is_err() {
        skip!("strace is not installed");
    }
    let host = Host::new();
    let mut killed = 0;
    for syscall in ["linkat", "setns", "sendto", "sendmsg", "ioctl", "pwrite64", "write"] {
        for nth in 1..40 {
            let conf = limited(&host.conf(VERSIONS[nth % 4]), true, true).with_subnets(&["10.1.0.0/30"]);
            let pod = host.pod();
            let inject = format!("inject={syscall}:signal=SIGKILL:when={nth}");
            let call = host.call("ADD", &conf, &pod, "eth0");
            let outcome = host.make(&call.under(&["strace", "-f", "-o", "/dev/null", "-e", &inject]));
            match nth % 3 {
                1 if !outcome.succeeded() => {
                    // The runtime forgets it; the next pod needs its address.
                    pod.netns.delete().unwrap();
                    let next = host.pod();
                    let _ = host.add(&conf, &next).result();
                    assert_eq!(devices(&host).len(), 1, "killed at the {nth}. {syscall}");
                    host.del(&conf, &next).done();
                }
                2 if !outcome.succeeded() => {
                    let _ = host.add(&conf, &pod).result();
                    host.del(&conf, &pod).done();
                }
                _ => host.del(&conf, &pod).done(),
            }
            assert_no_device_left(&host);
            if outcome.succeeded() {
                break;
            }
            killed += 1;
        }
    }
    assert!(killed >= 20, "{killed}");
}

#[test]
fn t089_a_killed_del_is_finished_by_the_next() {
    if tool::call("strace", &["-V"]).is_err() {
        skip!("strace is not installed");
    }
    let host = Host::new();
    let mut killed = 0;
    for syscall in ["sendto", "clone,fork,vfork", "unlink,unlinkat", "pwrite64", "ioctl"] {
        for nth in 1..20 {
            let conf = limited(&host.conf(VERSIONS[nth % 4]), true, true);
            let pod = host.pod();
            let _ = host.add(&conf, &pod).result();
            let inject = format!("inject={syscall}:signal=SIGKILL:when={nth}");
            let call = host.call("DEL", &conf, &pod, "eth0");
            let outcome = host.make(&call.under(&["strace", "-f", "-o", "/dev/null", "-e", &inject]));
            if nth % 2 == 0 {
                // The runtime lists it no more.
                let other = host.conf("1.1.0");
                host.gc(&other, &[]).done();
            }
            host.del(&conf, &pod).done();
            assert_no_device_left(&host);
            if outcome.succeeded() {
                break;
            }
            killed += 1;
        }
    }
    assert!(killed >= 5, "{killed}");
}
