//! Many calls at once: each pod gets an address of its own, and nobody waits for ever.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::cni::injury::{can_injure, injured};
use weft_tests::cni::{Conf, Host, Pod, addresses};
use weft_tests::{probe, skip, tool, wait};

/// Runs `work` for every one of `all` in a thread of its own, all at once.
fn at_once<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let running: Vec<_> = all.iter().map(|one| scope.spawn(|| work(one))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn pods(host: &Host, count: usize) -> Vec<Pod> {
    (0..count).map(|_| host.pod()).collect()
}

fn one_address(host: &Host, conf: &Conf, pod: &Pod) -> String {
    let result = host.add(conf, pod).result();
    assert_eq!(pod.addresses("eth0"), result.addresses());
    result.addresses().remove(0)
}

fn all_different(given: &[String]) {
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len(), "{given:?}");
}

#[test]
fn t081_f73_hundreds_at_once_on_a_virgin_host() {
    for (count, version) in [(100, "1.0.0"), (250, "0.4.0")] {
        let host = Host::new();
        let (conf, pods) = (host.conf(version), pods(&host, count));
        let given = at_once(&pods, |pod| one_address(&host, &conf, pod));
        all_different(&given);
        assert_eq!(given.len(), count);
        assert_eq!(addresses(&host.netns, "cni0"), ["10.88.0.1/24"]);
        let bridges = host.netns.objects("ip", &["link", "show", "type", "bridge"]).unwrap();
        assert_eq!(bridges.len(), 1);
        for ip in [&given[0], &given[count - 1]] {
            let ip = ip.split('/').next().unwrap().parse().unwrap();
            assert!(probe::ping(&host.netns, ip, Duration::from_secs(2)).unwrap().is_some());
        }
        at_once(&pods, |pod| host.del(&conf, pod).done());
        host.assert_nothing_left();
    }
}

#[test]
fn f73_more_pods_than_addresses_get_all_of_them_and_no_more() {
    let host = Host::new();
    let (conf, pods) = (host.conf("1.0.0").with_subnets(&["10.88.0.0/27"]), pods(&host, 40));
    let given: Vec<String> = at_once(&pods, |pod| {
        let outcome = host.add(&conf, pod);
        if outcome.succeeded() {
            return outcome.result().addresses();
        }
        outcome.refused(11, &["no IP addresses available in range set"]);
        assert!(pod.link("eth0").is_none());
        Vec::new()
    })
    .concat();
    all_different(&given);
    assert_eq!(given.len(), 29, "{given:?}");
    assert!(!given.iter().any(|ip| ["10.88.0.0/27", "10.88.0.1/27", "10.88.0.31/27"].contains(&ip.as_str())));
    host.assert_attachments(29);
}

#[test]
fn t082_adds_and_dels_mixed_never_share_an_address() {
    let host = Host::new();
    let (conf, pods) = (host.conf("1.0.0").with_subnets(&["10.88.0.0/28"]), pods(&host, 10));
    // Whoever has an address, from the end of its ADD to the beginning of its DEL.
    let holders = Mutex::new(BTreeSet::new());
    at_once(&pods, |pod| {
        for _ in 0..12 {
            let result = host.add(&conf, pod).result();
            let ip = result.ip();
            assert!(holders.lock().unwrap().insert(ip), "{ip} is somebody else's");
            assert_eq!(pod.addresses("eth0"), result.addresses());
            assert!(holders.lock().unwrap().remove(&ip));
            // One that had waited for a lock in vain would have said so.
            host.del(&conf, pod).done();
        }
    });
    host.assert_nothing_left();
}

#[test]
fn t083_two_networks_at_once_on_one_bridge_and_on_two() {
    for bridges in [["cni0", "cni0"], ["cni0", "cni1"]] {
        let host = Host::new();
        let range = |first: u8, last: u8, subnet: u8| {
            json!([[{"subnet": format!("10.88.{subnet}.0/24"), "rangeStart": format!("10.88.{subnet}.{first}"),
                "rangeEnd": format!("10.88.{subnet}.{last}")}]])
        };
        // One bridge has one gateway: there the two share a subnet, and each has its part.
        let other = if bridges[0] == bridges[1] { 0 } else { 1 };
        let confs = [
            host.conf("1.0.0").with("bridge", bridges[0]).with_ipam("ranges", range(2, 100, 0)),
            host.conf("1.0.0")
                .with("name", "other")
                .with("bridge", bridges[1])
                .with_ipam("ranges", range(101, 200, other)),
        ];
        let pods: Vec<(Pod, &Conf)> = confs.iter().cycle().take(40).map(|conf| (host.pod(), conf)).collect();
        let given = at_once(&pods, |(pod, conf)| one_address(&host, conf, pod));
        all_different(&given);
        host.assert_attachments(40);
        assert_eq!(addresses(&host.netns, bridges[0]), ["10.88.0.1/24"]);
        assert_eq!(addresses(&host.netns, bridges[1]), [format!("10.88.{other}.1/24")]);
        at_once(&pods, |(pod, conf)| host.del(conf, pod).done());
        host.assert_nothing_left();
    }
}

#[test]
fn t085_gc_beside_adds_takes_no_live_pods_address() {
    let host = Host::new();
    let conf = host.conf("1.1.0");
    let (pods, over) = (pods(&host, 40), AtomicBool::new(false));
    // A runtime that knows what it is about to add, and what it has added.
    let known: Vec<&Pod> = pods.iter().collect();
    let stale = host.pod();
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) {
                let _ = host.add(&conf, &stale).result();
                host.gc(&conf, &known).done();
                rounds += 1;
            }
            rounds
        });
        let given = at_once(&pods, |pod| one_address(&host, &conf, pod));
        over.store(true, Ordering::Relaxed);
        assert!(collecting.join().unwrap() > 0);
        all_different(&given);
        for (pod, ip) in pods.iter().zip(&given) {
            assert_eq!(pod.addresses("eth0"), [ip.as_str()]);
        }
    });
    host.assert_attachments(40);
}

#[test]
fn t085_an_add_that_ends_while_gc_is_on_its_way_is_not_collected() {
    if !can_injure() {
        skip!("strace is not installed, or may not trace");
    }
    let host = Host::new();
    let conf = host.conf("1.1.0");
    let pod = host.pod();
    std::thread::scope(|scope| {
        let adding = scope
            .spawn(|| host.make(&injured(host.call("ADD", &conf, &pod, "eth0"), "inject=setns:delay_enter=1000000")));
        wait::until(Duration::from_secs(5), "the reservation", || !host.records().is_empty()).unwrap();
        // It begins while the pod is being made, and looks at the records when the pod is there.
        let nothing = host.bare_call("GC", &conf.clone().with("cni.dev/valid-attachments", Value::Null));
        let gc = host.make(&injured(nothing, "inject=getdents64:delay_enter=3000000:when=1"));
        let added = adding.join().unwrap();
        gc.done();
        assert_eq!(pod.addresses("eth0"), added.result().addresses());
    });
    host.assert_attachments(1);
}

#[test]
fn t097_a_binary_that_is_replaced_under_parallel_adds() {
    let host = Host::new();
    let (conf, pods) = (host.conf("1.0.0"), pods(&host, 100));
    let (bin, fresh) = (host.scratch.join("weft-cni"), host.scratch.join(".weft-cni.tmp"));
    fs::copy(host.plugin(), &bin).unwrap();
    let over = AtomicBool::new(false);
    // As the installer does it: written beside, then renamed. By another process, as this one's children would inherit the
    // open file and make it busy.
    let replace = || {
        tool::call("cp", &[host.plugin().to_str().unwrap(), fresh.to_str().unwrap()]).unwrap();
        fs::rename(&fresh, &bin).unwrap();
    };
    std::thread::scope(|scope| {
        let replacing = scope.spawn(|| {
            let mut times = 0;
            while !over.load(Ordering::Relaxed) {
                replace();
                times += 1;
            }
            times
        });
        let given = at_once(&pods, |pod| {
            host.make(&host.call("ADD", &conf, pod, "eth0").by(&bin)).result().addresses().remove(0)
        });
        over.store(true, Ordering::Relaxed);
        assert!(replacing.join().unwrap() > 0);
        all_different(&given);
    });
    host.assert_attachments(100);
    at_once(&pods, |pod| host.make(&host.call("DEL", &conf, pod, "eth0").by(&bin)).done());
    host.assert_nothing_left();
}
