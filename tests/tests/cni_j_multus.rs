//! A pod with several networks, as Multus asks for them: the default one for `eth0`, others beside it (cni.md, case 126).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use serde_json::json;
use weft_tests::cni::{Conf, Host, Pod};
use weft_tests::probe;

/// A further network: its own bridge and range, and no default route.
fn further(host: &Host, version: &str, number: u8) -> Conf {
    let subnet = format!("10.9{number}.0.0/24");
    host.conf(version)
        .with("name", format!("net{number}"))
        .with("bridge", format!("br{number}"))
        .with("isDefaultGateway", false)
        .with("isGateway", true)
        .with("capabilities", json!({"mac": true, "ips": true}))
        .with_subnets(&[&subnet])
}

fn default_routes(pod: &Pod) -> Vec<String> {
    let routes = pod.netns.objects("ip", &["route", "show", "default"]).unwrap();
    routes.iter().map(|route| format!("{} {}", route["dev"], route["gateway"])).collect()
}

#[test]
fn t126_a_default_network_and_two_others() {
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        let host = Host::new();
        let default = host.conf(version);
        let others = [further(&host, version, 1), further(&host, version, 2)];
        let (pod, neighbour) = (host.pod(), host.pod());
        let _ = host.add(&default, &neighbour).result();
        let first = host.add(&default, &pod).result();
        let routes = default_routes(&pod);
        assert_eq!(routes, [r#""eth0" "10.88.0.1""#]);
        let mut ips = vec![first.ip()];
        for (conf, interface) in others.iter().zip(["net1", "net2"]) {
            // What a pod's annotation asks for.
            let wish = conf.clone().with_runtime("mac", format!("0a:00:00:00:00:0{}", ips.len()));
            let added = host.make(&host.call("ADD", &wish, &pod, interface)).result();
            assert_eq!(added.interface(2)["mac"], format!("0a:00:00:00:00:0{}", ips.len()));
            ips.push(added.ip());
        }
        assert_eq!(ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.88.0.3", "10.91.0.2", "10.92.0.2"]);
        let answers = |ip| probe::ping(&host.netns, ip, Duration::from_secs(2)).unwrap().is_some();
        assert!(ips.iter().all(|ip| answers(*ip)), "{ips:?}");
        assert_eq!(default_routes(&pod), routes, "only the default network leads out");
        // In the other order; each goes alone.
        host.make(&host.call("DEL", &others[1], &pod, "net2")).done();
        assert!(pod.link("net2").is_none() && answers(ips[0]) && answers(ips[1]));
        host.make(&host.call("DEL", &others[0], &pod, "net1")).done();
        assert!(pod.link("net1").is_none() && answers(ips[0]));
        host.del(&default, &pod).done();
        host.assert_attachments(1);
        host.del(&default, &neighbour).done();
        host.assert_nothing_left();
    }
}
