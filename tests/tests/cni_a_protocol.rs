//! The plugin's protocol, from the outside: environment, stdin, stdout, exit code.
//!
//! One machine of its own for each case, the binary called as a runtime would call it.
//!
//! Not here: the parts of 11 and 14 about port mappings, which stand in `cni_h_ports.rs`, and about bandwidth, in
//! `cni_i_bandwidth.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::cni::{Call, Conf, Host, Outcome, Pod, VERSIONS, for_each_version};
use weft_tests::tool;

/// All versions that the plugin knows (cni.md 1.6).
const ALL_VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[test]
fn t001_without_a_command_it_introduces_itself_and_reads_nothing() {
    let host = Host::new();
    let outcome = host.make(&host.bare_call("", &host.conf("1.0.0")).with_open_stdin());
    assert!(outcome.succeeded(), "{outcome:?}");
    assert_eq!(outcome.output.stdout, "");
    assert!(outcome.output.stderr.contains("1.1.0"), "{outcome:?}");
    host.assert_untouched();
}

#[test]
fn t002_an_unknown_command_is_named() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        for command in ["add", "FOO"] {
            host.make(&host.call(command, conf, &pod, "eth0")).refused(4, &[command]);
        }
        host.assert_untouched();
    });
}

#[test]
fn t003_all_missing_variables_are_named_at_once() {
    for_each_version(|host, conf| {
        let call = host.bare_call("ADD", conf).with("CNI_CONTAINERID", "c1");
        host.make(&call).refused(4, &["CNI_NETNS", "CNI_IFNAME"]);
        host.assert_untouched();
    });
}

#[test]
fn t005_interface_names_that_the_kernel_refuses_are_refused_first() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        for name in ["sixteen-letters0", ".", "..", "a/b", "a:b", "a b"] {
            host.make(&host.call("ADD", conf, &pod, name)).refused(4, &[]);
        }
        let call = host.call("ADD", conf, &pod, "").with("CNI_IFNAME", OsStr::from_bytes(b"eth\xff"));
        host.make(&call).refused(4, &[]);
        host.assert_untouched();
    });
}

#[test]
fn t006_what_is_not_a_configuration_is_a_decoding_error_in_bounded_memory() {
    let host = Host::new();
    let (conf, pod) = (host.conf("1.0.0"), host.pod());
    let mut endless = br#"{"name":""#.to_vec();
    endless.resize(64 << 20, b'a');
    let binary: Vec<u8> = (0..=255).cycle().take(4096).collect();
    for bytes in [b"".to_vec(), b"{".to_vec(), b"[]".to_vec(), b"null".to_vec(), endless, binary] {
        // 48 MiB of address space hold the binary and its stack, but not the largest of these inputs.
        let call = host.call("ADD", &conf, &pod, "eth0").with_stdin(bytes).under(&["prlimit", "--as=50331648"]);
        let outcome = host.make(&call);
        outcome.refused(6, &[]);
        assert!(outcome.took() < Duration::from_secs(1), "{outcome:?}");
    }
    host.assert_untouched();
}

#[test]
fn t007_version_needs_no_end_of_stdin_and_add_survives_a_torn_one() {
    let host = Host::new();
    let (conf, pod) = (host.conf("1.0.0"), host.pod());
    let outcome = host.make(&host.bare_call("VERSION", &conf).with_open_stdin());
    assert!(outcome.result().0["supportedVersions"].is_array());
    let whole = conf.bytes();
    let torn = whole[..whole.len() / 2].to_vec();
    let refusal = host.make(&host.call("ADD", &conf, &pod, "eth0").with_stdin(torn)).refusal();
    assert!([5, 6].contains(&refusal.code), "{refusal:?}");
    host.assert_untouched();
}

#[test]
fn t009_the_empty_version_is_the_first_and_unknown_ones_are_refused() {
    let host = Host::new();
    for conf in [host.conf(""), host.conf("").without("cniVersion")] {
        let pod = host.pod();
        let result = host.add(&conf, &pod).result();
        assert_eq!(result.0["cniVersion"], "0.1.0");
        assert!(result.0["ip4"]["ip"].is_string(), "{result:?}");
        host.del(&conf, &pod).done();
    }
    let pod = host.pod();
    for version in ["1.2.0", "1", "abc"] {
        host.add(&host.conf(version), &pod).refused(1, &[version, "0.4.0", "1.1.0"]);
    }
    host.assert_nothing_left();
}

#[test]
fn t010_verbs_are_refused_in_versions_that_do_not_have_them() {
    let host = Host::new();
    let pod = host.pod();
    let previous = json!({"cniVersion": "0.3.1", "ips": []});
    host.check(&host.conf("0.3.1"), &pod, &previous).refused(1, &["CHECK"]);
    host.gc(&host.conf("1.0.0"), &[]).refused(1, &["GC"]);
    host.status(&host.conf("1.0.0")).refused(1, &["STATUS"]);
    host.assert_untouched();
}

#[test]
fn t011_keys_of_the_runtime_configuration_mean_the_same_in_any_case() {
    for version in VERSIONS {
        let mut results = Vec::new();
        for (ips, mac) in [("ips", "mac"), ("Ips", "Mac"), ("IPs", "MAC")] {
            let (host, address) = (Host::new(), "0a:00:00:00:00:07");
            let pod = host.pod();
            let conf = host.conf(version).with_runtime(ips, json!(["10.88.0.77/24"])).with_runtime(mac, address);
            let result = host.add(&conf, &pod).result();
            assert_eq!(pod.link("eth0").unwrap()["address"], address);
            results.push(result.addresses());
            host.del(&conf, &pod).done();
        }
        assert_eq!(results, vec![vec!["10.88.0.77/24".to_owned()]; 3]);
    }
}

#[test]
fn t011_empty_capabilities_as_runtimes_send_them_are_no_request() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        let conf = conf.clone().with_runtime("portMappings", Value::Null).with_runtime("Dns", json!({"Servers": null}));
        assert_eq!(host.add(&conf, &pod).result().addresses(), ["10.88.0.2/24"]);
    });
}

#[test]
fn t013_arguments_unknown_to_us_need_ignore_unknown_and_order_means_nothing() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        let with = |args: &str| host.make(&host.call("ADD", conf, &pod, "eth0").with("CNI_ARGS", args));
        for bad in ["FOO=1", "A=B=C", "IgnoreUnknown=1;A=B=C", "FOO"] {
            let _ = with(bad).refusal();
        }
        host.assert_untouched();
        for good in ["FOO=1;IgnoreUnknown=1", "IgnoreUnknown=true;FOO=1"] {
            assert_eq!(with(good).result().addresses().len(), 1);
            host.del(conf, &pod).done();
        }
    });
    let host = Host::new();
    let (conf, pod) = (host.conf("1.0.0"), host.pod());
    for order in permutations(&["IgnoreUnknown=1", "K8S_POD_NAME=a", "IP=10.88.0.9", "MAC=0a:00:00:00:00:09"]) {
        let call = host.call("ADD", &conf, &pod, "eth0").with("CNI_ARGS", order.join(";"));
        assert_eq!(host.make(&call).result().addresses(), ["10.88.0.9/24"], "{order:?}");
        assert_eq!(pod.link("eth0").unwrap()["address"], "0a:00:00:00:00:09", "{order:?}");
        host.del(&conf, &pod).done();
    }
}

fn permutations<'a>(words: &[&'a str]) -> Vec<Vec<&'a str>> {
    if words.is_empty() {
        return vec![Vec::new()];
    }
    let with_first = |index: usize| {
        let rest: Vec<&str> = words.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, w)| *w).collect();
        permutations(&rest).into_iter().map(move |tail| [&[words[index]], tail.as_slice()].concat())
    };
    (0..words.len()).flat_map(with_first).collect()
}

#[test]
fn t014_unknown_keys_are_ignored_and_unsupported_ones_refused_by_name_and_value() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        for (key, value, shown) in [
            ("macspoofchk", json!(true), "true"),
            ("vlan", json!(5), "5"),
            ("externalSetMarkChain", json!("KUBE-MARK"), "KUBE-MARK"),
        ] {
            host.add(&conf.clone().with(key, value), &pod).refused(2, &[key, shown]);
        }
        host.assert_untouched();
        let odd =
            conf.clone().with("someFutureKey", json!({"a": [1, null]})).with("macspoofchk", false).with("vlan", 0);
        assert_eq!(host.add(&odd, &pod).result().addresses().len(), 1);
    });
}

#[test]
fn t015_settings_that_exclude_each_other_or_cannot_be_are_refused() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        let both = conf.clone().with("hairpinMode", true).with("promiscMode", true);
        host.add(&both, &pod).refused(7, &["hairpinMode", "promiscMode"]);
        for mtu in [67, 70000] {
            let refusal = host.add(&conf.clone().with("mtu", mtu), &pod).refusal();
            assert!(refusal.text.contains("mtu") || refusal.text.contains("MTU"), "{refusal:?}");
        }
        host.assert_untouched();
    });
}

#[test]
fn t017_the_hosts_own_namespace_is_refused_before_any_change() {
    for_each_version(|host, conf| {
        let own = |verb| host.call(verb, conf, &host.pod(), "eth0").with("CNI_NETNS", host.netns.path());
        host.make(&own("ADD")).refused(8, &[]);
        host.assert_untouched();
        let overridden = own("ADD").with("CNI_NETNS_OVERRIDE", "1");
        assert_eq!(host.make(&overridden).result().addresses().len(), 1);
    });
}

#[test]
fn t018_what_is_no_namespace_is_refused_at_once() {
    for_each_version(|host, conf| {
        let file = |name: &str| host.scratch.join(name);
        fs::write(file("plain"), "").unwrap();
        fs::create_dir(file("folder")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", file("dangling")).unwrap();
        tool::call("mkfifo", &[file("fifo").to_str().unwrap()]).unwrap();
        for name in ["plain", "folder", "dangling", "fifo", "missing"] {
            let call = host.call("ADD", conf, &host.pod(), "eth0").with("CNI_NETNS", file(name));
            let outcome = host.make(&call);
            let _ = outcome.refusal();
            assert!(outcome.took() < Duration::from_secs(2), "{outcome:?}");
        }
        host.assert_nothing_left();
    });
}

#[test]
fn t019_a_result_that_nobody_can_read_is_rolled_back() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        assert_ne!(exit_into_broken_pipe(host, conf, &pod, &[]), Some(0));
        assert!(pod.link("eth0").is_none());
        host.assert_nothing_left();

        let full = host.call("ADD", conf, &pod, "eth0").under(&["sh", "-c", "exec \"$0\" > /dev/full"]);
        assert!(!host.make(&full).succeeded());
        assert!(pod.link("eth0").is_none());
        host.assert_nothing_left();
    });
}

/// ADD whose stdout is a pipe that nobody reads; started by the given words.
fn exit_into_broken_pipe(host: &Host, conf: &Conf, pod: &Pod, wrapper: &[&str]) -> Option<i32> {
    let input = host.scratch.join("stdin");
    fs::write(&input, conf.bytes()).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let call = host.call("ADD", conf, pod, "eth0");
    let mut command = if wrapper.is_empty() { call } else { call.under(wrapper) }.command();
    command.stdin(File::open(input).unwrap()).stdout(writer).stderr(Stdio::null());
    host.netns.run(|| command.status()).unwrap().unwrap().code()
}

#[test]
fn t021_version_lists_exactly_what_the_other_verbs_accept() {
    let host = Host::new();
    let answer = host.make(&host.bare_call("VERSION", &host.conf("1.1.0"))).result().0;
    let listed: Vec<&str> = answer["supportedVersions"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(listed, ALL_VERSIONS);
    let pod = host.pod();
    let others = ["0.0.9", "0.2.1", "0.3.2", "0.5.0", "1.0.1", "1.1.1", "1.2.0", "2.0.0", "v1.0.0", "1.0", "01.0.0"];
    for version in ALL_VERSIONS.into_iter().chain(others) {
        let outcome = host.del(&host.conf(version), &pod);
        if listed.contains(&version) {
            outcome.done();
        } else {
            outcome.refused(1, &[version]);
        }
    }
}

#[test]
fn t022_every_refusal_is_an_error_object_and_none_of_del_says_not_found() {
    let host = Host::new();
    let (conf, pod) = (host.conf("1.1.0"), host.pod());
    let verbs = ["ADD", "DEL", "CHECK", "GC", "STATUS", "NONSENSE"];
    let spoilt: [fn(Call) -> Call; 6] = [
        |call| call.with_stdin(b"{".to_vec()),
        |call| call.with_stdin(br#"{"cniVersion":"1.1.0"}"#.to_vec()),
        |call| call.with_stdin(br#"{"cniVersion":"9.9.9","name":"net"}"#.to_vec()),
        |call| call.with_stdin(br#"{"cniVersion":"1.1.0","name":"../net"}"#.to_vec()),
        |call| call.with_stdin(br#"{"cniVersion":"1.1.0","name":"net","ipam":7}"#.to_vec()),
        |call| call.with("CNI_CONTAINERID", "/bad id"),
    ];
    for verb in verbs {
        for spoil in spoilt {
            let outcome: Outcome = host.make(&spoil(host.call(verb, &conf, &pod, "eth0")));
            if !outcome.succeeded() {
                let refusal = outcome.refusal();
                assert!(verb != "DEL" || !refusal.text.contains("not found"), "{refusal:?}");
            }
        }
    }
    host.assert_untouched();
}

#[test]
fn t023_inherited_signal_settings_change_nothing() {
    for_each_version(|host, conf| {
        for wrapper in [
            ["env", "--ignore-signal=PIPE", "--ignore-signal=CHLD", "--ignore-signal=TERM"],
            ["env", "--block-signal=PIPE", "--block-signal=CHLD", "--block-signal=TERM"],
        ] {
            let pod = host.pod();
            let outcome = host.make(&host.call("ADD", conf, &pod, "eth0").under(&wrapper));
            assert_eq!(outcome.result().addresses().len(), 1);
            host.make(&host.call("DEL", conf, &pod, "eth0").under(&wrapper)).done();
            assert_ne!(exit_into_broken_pipe(host, conf, &pod, &wrapper), Some(0), "{wrapper:?}");
            host.assert_nothing_left();
        }
    });
}

#[test]
fn loopback_under_its_own_name_answers_version_too() {
    let host = Host::new();
    let name = host.scratch.join("loopback");
    std::os::unix::fs::symlink(host.plugin(), &name).unwrap();
    let answer = host.make(&host.bare_call("VERSION", &host.conf("1.1.0")).by(Path::new(&name))).result();
    assert!(answer.0["supportedVersions"].is_array());
}
