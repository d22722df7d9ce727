//! Which subnet a node runs: the one that it ran, another where that is taken, and none where there is none.

use std::time::Duration;

use etcd_client::PutOptions;
use tokio::time::{Instant, sleep};

use crate::etcd::{Etcd, LIMIT, Wire};
use crate::world::{OWN, PREFIX, World, address, delete, flannel, in_a_namespace, leases, put, until};

const ARGS: &[&str] = &["--proxy-mode", "none"];

#[test]
fn d55_the_subnet_in_the_subnet_file_is_taken_again_from_a_wiped_etcd_unless_it_is_taken() {
    in_a_namespace(async || {
        let mut etcd = Etcd::start().await;
        let mut world = World::start(&etcd.options.endpoints[0], ARGS);
        world.ready().await;
        let key = world.key();
        world.terminate().await;
        etcd.wipe().await;
        world.start_agent();
        world.ready().await;
        let client = etcd.client().await;
        assert_eq!(leases(&client).await.keys().collect::<Vec<_>>(), [&key]);

        world.terminate().await;
        etcd.wipe().await;
        let theirs = flannel(&address(7), 7);
        put(&client, &format!("subnets/{key}"), &theirs).await;
        world.start_agent();
        let gateway = world.gateway();
        until(&true, || world.gateway() != gateway).await.expect("the subnet file has the other node's subnet");
        world.ready().await;
        let stored = leases(&client).await;
        assert_eq!(stored[&key], theirs);
        assert!(stored.len() == 2 && stored[&world.key()].contains(OWN), "{stored:?}");
    });
}

#[test]
fn d57_an_agent_that_has_lost_its_subnet_says_so_and_runs_another() {
    in_a_namespace(async || {
        let etcd = Etcd::start().await;
        let mut client = etcd.client().await;
        let wire = Wire::to(&etcd).await;
        let mut world = World::start(&wire.url, ARGS);
        world.ready().await;
        let key = world.key();
        wire.cut();
        world.says("/readyz", "[!] store").await;
        // As when its time is over: lease and record hang on it.
        let lease = client.get(format!("{PREFIX}/subnets/{key}"), None).await.unwrap().kvs()[0].lease();
        client.lease_revoke(lease).await.unwrap();
        let granted = client.lease_grant(86_400, None).await.unwrap().id();
        let theirs = flannel(&address(7), 7);
        let options = PutOptions::new().with_lease(granted);
        let put = client.put(format!("{PREFIX}/subnets/{key}"), theirs.as_str(), Some(options)).await.unwrap();
        let written = put.header().unwrap().revision();
        world.nothing_changes_for(Duration::from_millis(500)).await;
        wire.mend();
        until(&true, || world.key() != key).await.unwrap();
        world.ready().await;
        assert_eq!(world.logged(&["ERROR", "lost the subnet that this node runs", &key]), 1, "{}", world.log());
        let taken = client.get(format!("{PREFIX}/subnets/{key}"), None).await.unwrap();
        assert_eq!(taken.kvs()[0].mod_revision(), written, "it was written to");
        let stored = leases(&client).await;
        let announced: Vec<&String> =
            stored.iter().filter(|(_, said)| said.contains(OWN)).map(|(key, _)| key).collect();
        assert_eq!(announced, [&world.key()]);
        // And the other node is a peer like any.
        let subnet = key.replace('-', "/");
        world.reaches(&[(&subnet, &address(7))]).await;
        assert!(world.is_alive());
    });
}

#[test]
fn d61_an_agent_without_a_subnet_says_why_and_gets_the_first_that_is_free() {
    in_a_namespace(async || {
        let etcd = Etcd::start().await;
        let client = etcd.client().await;
        // Room for three.
        put(&client, "config", r#"{"Network": "10.244.0.0/22", "Backend": {"Type": "vxlan"}}"#).await;
        for n in 1..=3 {
            put(&client, &format!("subnets/10.244.{n}.0-24"), &flannel(&address(n), n)).await;
        }
        let mut world = World::start(&etcd.options.endpoints[0], ARGS);
        let said = world.says("/readyz", "out of subnets: 3 of 3 are taken").await;
        assert!(said.starts_with("HTTP/1.1 503"), "{said}");
        assert!(!world.path("subnet.env").exists() && world.is_alive());
        delete(&client, "subnets/10.244.2.0-24").await;
        world.ready().await;
        assert_eq!(world.key(), "10.244.2.0-24");
        let deadline = Instant::now() + LIMIT;
        while !leases(&client).await["10.244.2.0-24"].contains("VtepMAC") {
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(50)).await;
        }
    });
}
