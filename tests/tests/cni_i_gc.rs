//! GC: what the runtime does not name goes, everything else stays.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_tests::cni::{Added, Conf, Host, Pod};
use weft_tests::{probe, wait};

fn names(pods: &[&Pod]) -> Value {
    pods.iter().map(|pod| json!({"containerID": pod.id, "ifname": "eth0"})).collect()
}

fn gc(host: &Host, conf: &Conf, key: &str, list: impl Into<Value>) {
    host.make(&host.bare_call("GC", &conf.clone().with(key, list))).done();
}

fn add(host: &Host, conf: &Conf) -> (Pod, Added) {
    let pod = host.pod();
    let result = host.add(conf, &pod).result();
    (pod, result)
}

#[test]
fn t121_the_unnamed_goes_and_the_named_is_not_touched() {
    let host = Host::new();
    let conf = host.conf("1.1.0");
    let (kept, kept_result) = add(&host, &conf);
    let (stale, stale_result) = add(&host, &conf);
    let (dead, _) = add(&host, &conf);
    dead.netns.delete().unwrap();
    // Another network's attachments are not in question.
    let other_conf = conf.clone().with("name", "other").with_subnets(&["10.89.0.0/24"]);
    let (other, other_result) = add(&host, &other_conf);
    // Neither is another interface of a container that is named with one.
    let second = host.make(&host.call("ADD", &conf.clone().with("isDefaultGateway", false), &kept, "net1")).result();
    let before: Value = host.link(kept_result.host_end()).unwrap();

    let list = json!([{"containerID": kept.id, "ifname": "eth0"}, {"containerID": "unknown", "ifname": "eth0"}]);
    gc(&host, &conf, "cni.dev/valid-attachments", list);
    host.assert_attachments(2);
    assert!(host.link(stale_result.host_end()).is_none() && host.link(second.host_end()).is_none());
    let gone = wait::until(Duration::from_secs(5), "eth0 to go", || stale.link("eth0").is_none());
    assert!(gone.is_ok() && kept.link("net1").is_none());
    let after = host.link(kept_result.host_end()).unwrap();
    assert_eq!((&before["ifindex"], &before["master"]), (&after["ifindex"], &after["master"]));
    host.check(&conf, &kept, &kept_result.0).done();
    host.check(&other_conf, &other, &other_result.0).done();
    assert!(probe::ping(&host.netns, kept_result.ip(), Duration::from_secs(2)).unwrap().is_some());
    // What was freed can be given, and the freed pod be added again.
    let asked = stale_result.ip().to_string();
    let call = host.call("ADD", &conf, &stale, "eth0").with("CNI_ARGS", format!("IP={asked}"));
    assert_eq!(host.make(&call).result().ip(), stale_result.ip());
}

#[test]
fn t121_no_list_is_not_an_empty_list_and_the_older_key_is_known() {
    let host = Host::new();
    let conf = host.conf("1.1.0");
    let (kept, result) = add(&host, &conf);
    let _second = add(&host, &conf);
    host.make(&host.bare_call("GC", &conf)).refused(7, &["cni.dev/valid-attachments"]);
    for bad in [json!("all"), json!([{"ifname": "eth0"}]), json!([7])] {
        let call = host.bare_call("GC", &conf.clone().with("cni.dev/valid-attachments", bad));
        host.make(&call).refused(7, &["cni.dev/valid-attachments"]);
    }
    host.assert_attachments(2);
    gc(&host, &conf, "cni.dev/attachments", names(&[&kept]));
    host.assert_attachments(1);
    host.check(&conf, &kept, &result.0).done();
    gc(&host, &conf, "cni.dev/valid-attachments", Value::Null);
    host.assert_nothing_left();
    let _third = add(&host, &conf);
    gc(&host, &conf, "cni.dev/valid-attachments", json!([]));
    host.assert_nothing_left();
}

/// Nearly all of it is the kernel's work, which takes one second or two on two processors, and grows with the square of the
/// ports; so what is asserted is what the plugin adds.
#[test]
fn t122_a_thousand_stale_attachments_go_as_fast_as_the_kernel_lets_links_go() {
    let host = Host::new();
    let conf = host.conf("1.1.0").with_subnets(&["10.88.0.0/20"]).with("isDefaultGateway", false);
    // Ten interfaces each: a thousand namespaces would take longer than all the rest.
    let pods: Vec<Pod> = (0..100).map(|_| host.pod()).collect();
    let (kept, result) = add(&host, &conf);
    let list = conf.clone().with("cni.dev/valid-attachments", names(&[&kept]));
    let attach = || {
        std::thread::scope(|scope| {
            for half in pods.chunks(50) {
                let (host, conf) = (&host, &conf);
                scope.spawn(move || {
                    for (pod, number) in half.iter().flat_map(|pod| (0..10).map(move |number| (pod, number))) {
                        let _ = host.make(&host.call("ADD", conf, pod, &format!("net{number}"))).result();
                    }
                });
            }
        });
        host.assert_attachments(1001);
    };
    let collect = || {
        let outcome = host.make(&host.bare_call("GC", &list));
        outcome.done();
        host.assert_attachments(1);
        host.check(&conf, &kept, &result.0).done();
        outcome.took()
    };
    let kernel_alone = || {
        let stale: Vec<String> = host.veths().into_iter().filter(|name| name != result.host_end()).collect();
        let batch: String = stale.iter().map(|name| format!("link set {name} group 99\n")).collect();
        let file = host.scratch.join("batch");
        std::fs::write(&file, batch + "link del group 99\n").unwrap();
        let begin = Instant::now();
        host.netns.tool("ip", &["-batch", file.to_str().unwrap()]).unwrap();
        begin.elapsed()
    };
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        attach();
        ours.push(collect());
        attach();
        floor.push(kernel_alone());
        collect();
    }
    let least = |times: &[Duration]| times.iter().min().copied().unwrap_or_default();
    assert!(least(&ours) < least(&floor) * 2, "GC {ours:?}, the kernel alone {floor:?}");
}
