//! Entries in the store that cannot be right.

use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep};

use crate::etcd::{Etcd, LIMIT};
use crate::world::{OWN, PREFIX, World, address, flannel, in_a_namespace, leases, put, put_peer};

/// What is ignored, and why, as `/status` tells it.
async fn rejected(world: &World, count: usize) -> Vec<(String, String)> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let status = world.status().await;
        let list = status["rejected"].as_array().cloned().unwrap_or_default();
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
        if list.len() == count {
            return list.iter().map(|entry| (text(entry, "lease"), text(entry, "reason"))).collect();
        }
        assert!(Instant::now() < deadline, "{list:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn d51_d58a_keys_and_values_that_are_none_are_told_of_and_remove_no_peer() {
    in_a_namespace(async || {
        let etcd = Etcd::start().await;
        let client = etcd.client().await;
        put_peer(&client, 1).await;
        put_peer(&client, 2).await;
        let mut world = World::start(&etcd.options.endpoints[0], &["--proxy-mode", "none"]);
        world.ready().await;
        let peers = [("10.244.1.0/24", "198.18.1.1"), ("10.244.2.0/24", "198.18.1.2")];
        world.reaches(&peers).await;
        let own = leases(&client).await[&world.key()].clone();
        let published = world.status().await["overlay"][0]["mac"].as_str().unwrap().to_owned();
        assert_eq!(
            own,
            format!(
                r#"{{"PublicIP":"{OWN}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{published}"}}}}"#
            ),
            "byte for byte as flannel writes it"
        );

        // Those of flannel's own tests.
        let keys = [
            "10",
            "10.12.13.0",
            "10.12.13-24",
            "10.12.13.300-24",
            "10.12.13.0-24hi",
            "&2001::-56",
            "10.12.13.0-24&:12:13:-56",
            "10.12.13.0-24&20011::-56",
            "10.12.13.0-24&2001-56",
            "10.12.13.0-24&2001::",
            "10.12.13.0-24&2001::-56hi",
        ];
        for (n, key) in (20..).zip(keys) {
            put(&client, &format!("subnets/{key}"), &flannel(&address(n), n)).await;
        }
        put(&client, "subnets/garbage", "x").await;
        put(&client, "subnets/10.244.9.0-24", "notjson").await;
        let bytes = [format!("{PREFIX}/subnets/").as_bytes(), &[0xff, 0xfe]].concat();
        client.clone().put(bytes, [0xff], None).await.unwrap();
        let told = rejected(&world, keys.len() + 3).await;
        for key in keys.iter().chain(&["garbage"]) {
            let reason = told.iter().find(|(lease, _)| lease == key).map(|(_, reason)| reason.as_str());
            assert!(reason.is_some_and(|reason| reason.contains("not a subnet key")), "{key}: {told:?}");
            assert_eq!(world.logged(&["WARN", "ignored a lease", &format!("key=\"{key}\"")]), 1, "{}", world.log());
        }
        let notjson = told.iter().find(|(lease, _)| lease == "10.244.9.0-24").unwrap();
        assert!(notjson.1.contains("not a JSON object"), "{told:?}");
        world.reaches(&peers).await;

        // And it goes on: what is right comes in beside it.
        put_peer(&client, 3).await;
        world.reaches(&[peers[0], peers[1], ("10.244.3.0/24", "198.18.1.3")]).await;
        assert!(world.is_alive());
        assert_eq!(leases(&client).await[&world.key()], own);
    });
}

#[test]
fn d50_a_peer_whose_data_is_garbage_is_refused_by_itself() {
    in_a_namespace(async || {
        let etcd = Etcd::start().await;
        let client = etcd.client().await;
        put_peer(&client, 1).await;
        let mut world = World::start(&etcd.options.endpoints[0], &["--proxy-mode", "none"]);
        world.ready().await;
        let good = [("10.244.1.0/24", "198.18.1.1")];
        world.reaches(&good).await;
        let cases = [
            ("10.244.21.0-24", flannel(&address(21), 21).replace("c6:d2", "xx:yy"), "VtepMAC"),
            ("10.244.22.0-24", flannel(&address(22), 22).replace("c6:d2", "01:00"), "unicast MAC"),
            ("10.244.23.0-24", flannel(&address(23), 23).replace('}', ""), "not a JSON object"),
            ("10.244.24.0-24", flannel("0.0.0.0", 24), "absent or unspecified"),
            ("10.244.25.0-24", flannel("127.0.0.1", 25), "PublicIP is"),
            ("10.244.1.128-25", flannel(&address(26), 26), "overlaps 10.244.1.0-24, which was leased first"),
            ("10.99.0.0-24", flannel(&address(27), 27), "outside the cluster network"),
            ("10.244.28.0-24", flannel(&address(28), 28).replace(r#""VNI":1"#, r#""VNI":7"#), "its VNI is 7"),
            ("10.244.29.0-24", flannel(&address(29), 1), "its VTEP MAC"),
        ];
        for (key, value, _) in &cases {
            put(&client, &format!("subnets/{key}"), value).await;
        }
        let told = rejected(&world, cases.len()).await;
        for (key, _, words) in &cases {
            let reason = told.iter().find(|(lease, _)| lease == key).map(|(_, reason)| reason.as_str());
            assert!(reason.is_some_and(|reason| reason.contains(words)), "{key} {words}: {told:?}");
        }
        world.reaches(&good).await;
        put_peer(&client, 3).await;
        world.reaches(&[good[0], ("10.244.3.0/24", "198.18.1.3")]).await;
        assert!(world.is_alive());
    });
}

#[test]
fn d22_a_node_with_the_same_public_address_is_named_once() {
    in_a_namespace(async || {
        let etcd = Etcd::start().await;
        let client = etcd.client().await;
        put_peer(&client, 1).await;
        let world = World::start(&etcd.options.endpoints[0], &["--proxy-mode", "none"]);
        world.ready().await;
        world.reaches(&[("10.244.1.0/24", "198.18.1.1")]).await;
        assert!(world.get("/metrics").await.contains("weft_public_ip_conflicts 0"));
        let record = |ip: &str| format!(r#"{{"subnet":"10.244.7.0-24","publicIP":"{ip}","publicIPv6":null}}"#);
        put(&client, "weft/nodes/n7", &record(OWN)).await;
        put(&client, "subnets/10.244.7.0-24", &flannel(OWN, 7)).await;
        world.says("/metrics", "weft_public_ip_conflicts 1").await;
        let words = ["WARN", "node n7 with lease 10.244.7.0-24 publishes 198.18.0.0, the public address of this node"];
        assert_eq!(world.logged(&words), 1, "{}", world.log());
        let status = world.status().await;
        assert!(status["shared"][0].as_str().unwrap().contains(words[1]), "{status}");

        // Other changes do not say it again; when it is mended, that is said, and the node is reached.
        put_peer(&client, 2).await;
        let others = [("10.244.1.0/24", "198.18.1.1"), ("10.244.2.0/24", "198.18.1.2")];
        world.reaches(&others).await;
        assert_eq!(world.logged(&words), 1);
        put(&client, "weft/nodes/n7", &record(&address(7))).await;
        put(&client, "subnets/10.244.7.0-24", &flannel(&address(7), 7)).await;
        world.reaches(&[others[0], others[1], ("10.244.7.0/24", "198.18.1.7")]).await;
        assert!(world.get("/metrics").await.contains("weft_public_ip_conflicts 0"));
        assert_eq!(world.logged(&["no longer publishes 198.18.0.0"]), 1, "{}", world.log());
    });
}
