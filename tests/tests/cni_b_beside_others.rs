//! ADD beside others: racers, neighbours in the same namespace, and the kernel's limits.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs;
use std::time::Duration;

use serde_json::json;
use weft_tests::cni::{Conf, Host, VERSIONS, for_each_version};
use weft_tests::netns::Netns;
use weft_tests::probe;

/// Where a MAC came from, `/sys/class/net/<link>/addr_assign_type`: 1 is the kernel's dice, 3 is somebody's choice.
/// udev's `MACAddressPolicy=persistent` replaces the former and leaves the latter, so this is what decides the race.
fn chosen(netns: &Netns, link: &str) -> bool {
    let file = format!("/sys/class/net/{link}/addr_assign_type");
    weft_tests::tool::call("ip", &["netns", "exec", netns.name(), "cat", &file]).unwrap().trim() == "3"
}

#[test]
fn t042_a_racer_that_replaces_random_macs_finds_none() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        let result = host.add(conf, &pod).result();
        for (netns, link, place) in
            [(&host.netns, "cni0", 0), (&host.netns, result.host_end(), 1), (&pod.netns, "eth0", 2)]
        {
            assert!(chosen(netns, link), "udev would replace the MAC of {link}");
            let links = netns.objects("ip", &["link", "show", link]).unwrap();
            assert_eq!(links[0]["address"], result.interface(place)["mac"]);
        }
    });
}

#[test]
fn t045_a_full_bridge_is_named_and_nothing_is_left() {
    let host = Host::new();
    let conf = host.conf("1.0.0");
    let kept = host.pod();
    let _ = host.add(&conf, &kept).result();
    // 1023 ports is what a bridge takes; one is in use.
    let batch: String = (0..511)
        .map(|n| {
            format!("link add a{n} type veth peer name b{n}\nlink set a{n} master cni0\nlink set b{n} master cni0\n")
        })
        .collect();
    let file = host.scratch.join("batch");
    fs::write(&file, batch).unwrap();
    host.netns.tool("ip", &["-batch", file.to_str().unwrap()]).unwrap();
    let veths = host.veths().len();
    assert_eq!(veths, 1023);
    for version in VERSIONS {
        let pod = host.pod();
        let refusal = host.add(&host.conf(version), &pod).refusal();
        assert!(refusal.text.contains("1023") && refusal.text.contains("port"), "{refusal:?}");
        assert!(pod.link("eth0").is_none());
    }
    assert_eq!(host.records().len(), 1);
    let gone = weft_tests::wait::until(Duration::from_secs(5), "only the old veths", || host.veths().len() == veths);
    gone.unwrap();
}

#[test]
fn t046_interface_numbers_that_are_taken_are_no_hindrance() {
    for_each_version(|host, conf| {
        let pod = host.pod();
        for name in ["tunl0", "sit0"] {
            pod.netns.tool("ip", &["link", "add", name, "type", "bridge"]).unwrap();
        }
        assert_eq!(pod.link("tunl0").unwrap()["ifindex"], 2);
        let result = host.add(conf, &pod).result();
        assert!(probe::ping(&host.netns, result.ip(), Duration::from_secs(2)).unwrap().is_some());
        host.del(conf, &pod).done();
        assert!(pod.link("tunl0").is_some() && pod.link("eth0").is_none());
        host.assert_nothing_left();
    });
}

#[test]
fn t047_loopback_and_eth0_come_up_beside_each_other() {
    let host = Host::new();
    let loopback = host.scratch.join("loopback");
    std::os::unix::fs::symlink(host.plugin(), &loopback).unwrap();
    for version in VERSIONS {
        let conf = host.conf(version);
        let lo_conf = Conf::raw(json!({"cniVersion": version, "name": "cni-loopback", "type": "loopback"}));
        for _ in 0..125 {
            let pod = host.pod();
            let up = std::thread::scope(|scope| {
                let lo = scope.spawn(|| host.make(&host.call("ADD", &lo_conf, &pod, "lo").by(&loopback)).result());
                let eth0 = host.add(&conf, &pod).result();
                (lo.join().unwrap(), eth0)
            });
            assert_eq!(up.0.addresses().first().map(String::as_str), Some("127.0.0.1/8"));
            assert_eq!(pod.addresses("eth0"), up.1.addresses());
            assert!(pod.link("lo").unwrap()["flags"].as_array().unwrap().contains(&json!("UP")));
            host.make(&host.call("DEL", &lo_conf, &pod, "lo").by(&loopback)).done();
            host.del(&conf, &pod).done();
        }
    }
    host.assert_nothing_left();
}
