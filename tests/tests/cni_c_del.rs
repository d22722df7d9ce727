//! DEL: whatever has happened before, it succeeds, and afterwards nothing is left.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs;
use std::time::Duration;

use serde_json::json;
use weft_tests::cni::{Conf, Host, for_each_version};
use weft_tests::netns::OwnedNetns;
use weft_tests::{probe, process, skip, tool, wait};

#[test]
fn t049_f69_deleting_what_was_never_added_succeeds_in_silence() {
    for_each_version(|host, conf| {
        host.del(conf, &host.pod()).done();
        host.assert_untouched();
    });
}

#[test]
fn t050_f69_deleting_twice_succeeds_twice() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        let _ = host.add(conf, &pod).result();
        host.del(conf, &pod).done();
        host.del(conf, &pod).done();
        assert!(pod.link("eth0").is_none());
        host.assert_nothing_left();
    });
}

#[test]
fn t050_a_container_may_have_a_longer_name_than_a_file() {
    let host = Host::new();
    // Flannel's notes are files of containers' names.
    let notes = host.scratch.join("notes");
    fs::create_dir(&notes).unwrap();
    let (conf, pod) = (host.conf("1.0.0").with("dataDir", notes.to_str().unwrap()), host.pod());
    let named = |verb| host.call(verb, &conf, &pod, "eth0").with("CNI_CONTAINERID", "c".repeat(300));
    let _ = host.make(&named("ADD")).result();
    for _ in 0..2 {
        host.make(&named("DEL")).done();
    }
    host.assert_nothing_left();
}

#[test]
fn t051_f69_without_a_namespace_everything_is_released() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        let first = host.add(conf, &pod).result().addresses();
        host.make(&host.call("DEL", conf, &pod, "eth0").with("CNI_NETNS", "")).done();
        host.assert_nothing_left();
        let gone = wait::until(Duration::from_secs(5), "eth0 to go", || pod.link("eth0").is_none());
        assert!(gone.is_ok(), "{gone:?}");
        // Free again: asked for by name.
        let next = host.pod();
        let call = host.call("ADD", conf, &next, "eth0");
        let ip = first[0].split('/').next().unwrap();
        assert_eq!(host.make(&call.with("CNI_ARGS", format!("IP={ip}"))).result().addresses(), first);
    });
}

#[test]
fn t053_a_path_that_is_a_plain_file_since_the_reboot_is_no_hindrance() {
    for_each_version(|host, conf| {
        let (pod, stale) = (host.pod(), host.scratch.join("stale"));
        fs::write(&stale, "").unwrap();
        let _ = host.add(conf, &pod).result();
        pod.netns.delete().unwrap();
        host.make(&host.call("DEL", conf, &pod, "eth0").with("CNI_NETNS", &stale)).done();
        host.assert_nothing_left();
    });
}

#[test]
fn t054_the_interface_of_another_container_behind_the_same_path_survives() {
    for_each_version(|host, conf| {
        let (gone, alive) = (host.pod(), host.pod());
        let _ = host.add(conf, &gone).result();
        let kept = host.add(conf, &alive).result();
        host.make(&host.call("DEL", conf, &gone, "eth0").with("CNI_NETNS", alive.netns.path())).done();
        host.assert_attachments(1);
        assert_eq!(alive.addresses("eth0"), kept.addresses());
        assert!(probe::ping(&host.netns, kept.ip(), Duration::from_secs(2)).unwrap().is_some());
    });
}

#[test]
fn t055_a_previous_result_of_any_quality_is_no_hindrance() {
    for_each_version(|host, conf| {
        let corrupt = [
            json!(null),
            json!({}),
            json!("nonsense"),
            json!({"cniVersion": "0.2.0", "ip4": {"ip": "192.0.2.5/24"}}),
            json!({"cniVersion": conf.version(), "interfaces": [{"name": "cali123"}], "ips": [{"address": "192.0.2.5/24"}]}),
        ];
        for previous in corrupt {
            let pod = host.pod();
            let _ = host.add(conf, &pod).result();
            host.del(&conf.clone().with("prevResult", previous), &pod).done();
            host.assert_nothing_left();
        }
    });
}

#[test]
fn t057_a_changed_configuration_releases_what_the_old_one_made() {
    for_each_version(|host, conf| {
        let changes: [fn(Conf) -> Conf; 3] = [
            |conf| conf.with_subnets(&["10.77.0.0/24"]),
            |conf| conf.with("bridge", "other0"),
            |conf| conf.with_subnets(&["fd00:77::/64"]).with("bridge", "other0").with("mtu", 1300),
        ];
        for change in changes {
            let pod = host.pod();
            let _ = host.add(conf, &pod).result();
            host.del(&change(conf.clone()), &pod).done();
            assert!(host.link("other0").is_none());
            host.assert_nothing_left();
        }
    });
}

#[test]
fn t058_an_address_is_free_only_when_its_veth_is_gone() {
    for_each_version(|host, conf| {
        // One address in the pool: each ADD gets that which the DEL before it has freed.
        let conf = conf.clone().with_subnets(&["10.1.0.0/30"]);
        let pods = [host.pod(), host.pod()];
        let mut before = None;
        for pod in pods.iter().cycle().take(40) {
            let result = host.add(&conf, pod).result();
            assert_eq!(result.addresses(), ["10.1.0.2/30"]);
            assert_eq!(host.veths(), [result.host_end()], "the veth of the pod before is still there");
            if let Some(before) = before.replace(pod) {
                assert!(before.addresses("eth0").is_empty());
            }
            host.del(&conf, pod).done();
        }
        host.assert_nothing_left();
    });
}

#[test]
fn t059_del_is_quick_among_a_thousand_veths() {
    let host = Host::new();
    let conf = host.conf("1.0.0");
    let batch: String = (0..500).map(|n| format!("link add a{n} type veth peer name b{n}\n")).collect();
    let file = host.scratch.join("batch");
    fs::write(&file, batch).unwrap();
    host.netns.tool("ip", &["-batch", file.to_str().unwrap()]).unwrap();
    assert_eq!(host.veths().len(), 1000);
    let pod = host.pod();
    let mut times: Vec<Duration> = (0..31)
        .map(|_| {
            let _ = host.add(&conf, &pod).result();
            let outcome = host.del(&conf, &pod);
            outcome.done();
            outcome.took()
        })
        .collect();
    times.sort_unstable();
    // Waiting for the kernel to destroy the pair would be 20 ms; bench/ measures the promise itself.
    assert!(times[times.len() / 2] < Duration::from_millis(10), "{times:?}");
}

#[test]
fn t061_a_namespace_that_a_leaked_process_pins_loses_its_interface() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        let _ = host.add(conf, &pod).result();
        let mut sleeper = tool::command("sleep");
        let pinned = process::spawn(&pod.netns, sleeper.arg("600"), &host.scratch.join("sleep.log")).unwrap();
        let inside = format!("--net=/proc/{}/ns/net", pinned.pid);
        let listed = || tool::call("nsenter", &[&inside, "ip", "-br", "link"]).unwrap();
        assert!(listed().contains("eth0"));
        let path = pod.netns.path();
        tool::call("umount", &[path.to_str().unwrap()]).unwrap();
        fs::remove_file(&path).unwrap();
        host.del(conf, &pod).done();
        let gone = wait::until(Duration::from_secs(5), "eth0 to go", || !listed().contains("eth0"));
        pinned.kill();
        gone.unwrap();
        host.assert_nothing_left();
    });
}

#[test]
fn t062_del_beside_an_add_that_is_being_killed_ends_clean() {
    if tool::call("strace", &["-V"]).is_err() {
        skip!("strace is not installed");
    }
    for_each_version(|host, conf| {
        for nth in 1..=10 {
            let pod = host.pod();
            let inject = format!("inject=linkat,setns,sendto,sendmsg,pwrite64:signal=SIGKILL:when={nth}");
            let killed = ["strace", "-f", "-o", "/dev/null", "-e", &inject];
            std::thread::scope(|scope| {
                let adding = scope.spawn(|| host.make(&host.call("ADD", conf, &pod, "eth0").under(&killed)));
                // Beside it: this one may come too early, and may say that it has to be asked again.
                let _ = host.del(conf, &pod);
                let _ = adding.join().unwrap();
            });
            host.del(conf, &pod).done();
            host.assert_nothing_left();
            let gone = wait::until(Duration::from_secs(5), "eth0 to go", || pod.link("eth0").is_none());
            assert!(gone.is_ok(), "killed at the {nth}. call: {:?}", pod.link("eth0"));
        }
    });
}

#[test]
fn t063_options_that_add_would_refuse_do_not_stop_del() {
    for_each_version(|host, conf| {
        for (key, value) in [
            ("macspoofchk", json!(true)),
            ("vlan", json!(5)),
            ("externalSetMarkChain", json!("X")),
            ("ipam", json!({"type": "dhcp"})),
            ("mtu", json!(67)),
        ] {
            let pod = host.pod();
            let _ = host.add(conf, &pod).result();
            host.del(&conf.clone().with(key, value), &pod).done();
            host.assert_nothing_left();
        }
    });
}

#[test]
fn a_namespace_that_dies_first_takes_the_veth_and_del_frees_the_address() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        let _ = host.add(conf, &pod).result();
        pod.netns.delete().unwrap();
        host.del(conf, &pod).done();
        host.assert_nothing_left();
        // The name of the namespace may be reused by somebody else in between.
        let other = OwnedNetns::new(pod.netns.name());
        host.del(conf, &pod).done();
        assert!(other.exists());
    });
}
