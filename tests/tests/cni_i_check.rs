//! CHECK, STATUS, and that nothing grows.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use weft_tests::cni::{Conf, Host, for_each_version};
use weft_tests::wait;

/// Runs a case for each version that has CHECK.
fn for_each_check(case: impl Fn(&Host, &Conf)) {
    for_each_version(|host, conf| {
        if conf.is_at_least("0.4.0") {
            case(host, conf);
        }
    });
}

fn dual(conf: &Conf) -> Conf {
    conf.clone().with_subnets(&["10.88.0.0/24", "fd00:88::/64"])
}

#[test]
fn t117_check_right_after_add_is_content_and_quick() {
    for_each_check(|host, conf| {
        let routes =
            json!([{"dst": "10.20.0.0/16", "mtu": 1300, "priority": 7}, {"dst": "10.22.0.0/16", "scope": 253}]);
        let conf = dual(conf).with_ipam("routes", routes);
        let mut times = Vec::new();
        for _ in 0..15 {
            let pod = host.pod();
            let result = host.add(&conf, &pod).result();
            let outcome = host.check(&conf, &pod, &result.0);
            outcome.done();
            times.push(outcome.took());
            host.del(&conf, &pod).done();
        }
        times.sort_unstable();
        // The promise of a millisecond is measured in bench/; a CHECK that waits for something takes longer than this.
        assert!(times[times.len() / 2] < Duration::from_millis(20), "{times:?}");
    });
}

#[test]
fn t118_f75_check_sees_each_sabotage() {
    // Where it is done (pod or host), the words for ip, VETH for the host's end, and what the refusal names.
    let sabotages = [
        ("pod", "addr del ADDRESS dev eth0", "address"),
        ("pod", "addr del fd00:88::2/64 dev eth0", "address"),
        ("pod", "route del default", "route"),
        ("pod", "-6 route del default", "route"),
        ("pod", "link set eth0 down", "eth0"),
        ("pod", "link set eth0 address 0a:00:00:00:00:01", "eth0"),
        ("pod", "link set eth0 name eth9", "eth0"),
        ("host", "link set VETH down", "VETH"),
        ("host", "link set VETH nomaster", "VETH"),
        ("host", "link del VETH", "VETH"),
        ("host", "link set cni0 down", "cni0"),
        ("host", "link del cni0", "cni0"),
    ];
    for_each_check(|host, conf| {
        let conf = dual(conf);
        for (place, words, named) in sabotages {
            // A pool of its own for each: the addresses are known.
            let conf = conf.clone().with("name", format!("n{}", sabotages.iter().position(|s| s.1 == words).unwrap()));
            let pod = host.pod();
            let result = host.add(&conf, &pod).result();
            host.check(&conf, &pod, &result.0).done();
            let fill = |text: &str| text.replace("VETH", result.host_end()).replace("ADDRESS", &result.addresses()[0]);
            let netns = if place == "pod" { &pod.netns } else { &host.netns };
            netns.tool("ip", &fill(words).split(' ').collect::<Vec<_>>()).unwrap();
            let refusal = host.check(&conf, &pod, &result.0).refusal();
            assert!(refusal.text.contains(&fill(named)), "{words}: {refusal:?}");
            host.del(&conf, &pod).done();
        }
        host.assert_nothing_left();
    });
}

#[test]
fn t118_check_sees_a_record_that_is_gone_damaged_or_anothers() {
    for_each_check(|host, conf| {
        let (pod, other) = (host.pod(), host.pod());
        let result = host.add(conf, &pod).result();
        let record = host.records().pop().unwrap();
        let kept = fs::read(&record).unwrap();
        let _ = host.add(conf, &other).result();
        let others = host.records().into_iter().find(|path| *path != record).unwrap();

        fs::remove_file(&record).unwrap();
        assert!(host.check(conf, &pod, &result.0).refusal().text.contains(&pod.id));
        fs::write(&record, "nonsense").unwrap();
        assert!(host.check(conf, &pod, &result.0).refusal().text.contains("record"));
        // Its address is another's now.
        fs::copy(&others, &record).unwrap();
        assert!(host.check(conf, &pod, &result.0).refusal().text.contains(&result.addresses()[0]));
        fs::write(&record, kept).unwrap();
        host.check(conf, &pod, &result.0).done();
    });
}

#[test]
fn t118_what_others_have_added_is_nobodys_business() {
    for_each_check(|host, conf| {
        let conf = dual(conf);
        let pod = host.pod();
        let result = host.add(&conf, &pod).result();
        for words in [
            "addr add 192.0.2.7/24 dev eth0",
            "addr add fd00:99::7/64 dev eth0 nodad",
            "route add 10.99.0.0/16 via 10.88.0.1",
            "route add default via 10.88.0.1 metric 500",
            "link add net9 type bridge",
        ] {
            pod.netns.tool("ip", &words.split(' ').collect::<Vec<_>>()).unwrap();
        }
        host.netns.tool("ip", &["addr", "add", "192.0.2.1/24", "dev", "cni0"]).unwrap();
        host.check(&conf, &pod, &result.0).done();
        // A plugin behind us may have given eth0 another address, and says so.
        pod.netns.tool("ip", &["link", "set", "eth0", "address", "0a:00:00:00:00:01"]).unwrap();
        let mut told = result.0.clone();
        told["interfaces"][2]["mac"] = json!("0A:00:00:00:00:01");
        host.check(&conf, &pod, &told).done();
    });
}

#[test]
fn t119_check_needs_the_previous_result() {
    for_each_check(|host, conf| {
        let pod = host.pod();
        let _ = host.add(conf, &pod).result();
        host.make(&host.call("CHECK", conf, &pod, "eth0")).refused(7, &["prevResult"]);
        host.check(conf, &pod, &Value::Null).refused(7, &["prevResult"]);
        host.check(conf, &pod, &json!("nonsense")).refused(7, &["prevResult"]);
    });
}

#[test]
fn t124_status_waits_for_no_lock_and_does_not_report_an_empty_pool() {
    let host = Host::new();
    let conf = host.conf("1.1.0").with_subnets(&["10.1.0.0/30"]);
    host.status(&conf).done();
    let pod = host.pod();
    let _ = host.add(&conf, &pod).result();
    host.add(&conf, &host.pod()).refused(11, &[]);
    // Evicting the node's healthy pods would give nobody an address.
    host.status(&conf).done();

    // Somebody sits on the store, and on a record.
    let lock = |path: &Path| Flock::lock(File::open(path).unwrap(), FlockArg::LockExclusive).unwrap();
    let (_store, _record) = (lock(&host.state_dir().join("net/lock")), lock(&host.records()[0]));
    let outcome = host.status(&conf);
    outcome.done();
    assert!(outcome.took() < Duration::from_millis(500), "{outcome:?}");
}

#[test]
fn t124_f65_status_says_what_add_would_stumble_over() {
    let host = Host::new();
    let conf = host.conf("1.1.0");
    let nowhere = conf.clone().without("ipam");
    host.status(&nowhere).refused(50, &[host.subnet_file().to_str().unwrap()]);
    host.add(&nowhere, &host.pod()).refused(11, &[host.subnet_file().to_str().unwrap()]);
    fs::write(
        host.subnet_file(),
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
    )
    .unwrap();
    host.status(&nowhere).done();
    host.status(&conf.with_ipam("type", "dhcp")).refused(7, &["ipam.type", "dhcp"]);
    host.assert_untouched();
}

/// Files below a folder, with their lengths.
fn files(folder: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        if meta.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), meta.len()));
        }
    }
    found.sort();
    found
}

#[test]
fn t123_adding_and_deleting_without_end_leaves_nothing_that_grows() {
    let host = Host::new();
    let conf = host.conf("1.1.0");
    let pods = [host.pod(), host.pod(), host.pod()];
    let rounds = |count: usize| {
        for pod in pods.iter().cycle().take(count) {
            let _ = host.add(&conf, pod).result();
            host.del(&conf, pod).done();
        }
        host.assert_nothing_left();
        files(&host.state_dir())
    };
    // Longer than the freed addresses that are remembered.
    let (before, links) = (rounds(80), host.links().len());
    assert_eq!(rounds(600), before);
    assert_eq!(host.links().len(), links);
    // The children that wait for the kernel end by themselves, and leave no zombie behind.
    let plugin = host.plugin().to_owned();
    let children = || {
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let inside = entries.filter(|entry| {
            fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == plugin)
                && fs::read_link(entry.path().join("ns/net")).ok()
                    == host.netns.run(|| fs::read_link("/proc/thread-self/ns/net").unwrap()).ok()
        });
        inside.count()
    };
    wait::until(Duration::from_secs(5), "the plugin's children to end", || children() == 0).unwrap();
}
