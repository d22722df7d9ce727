//! etcd is away, stands still, has no leader, refuses a part of the calls, or has forgotten its history.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use weft::cluster::last_known::{FILE, LastKnown, now};
use weft::cluster::lease_value::LeaseValue;
use weft::cluster::{Lease, NetConf, SubnetKey};

use crate::etcd::{Etcd, LIMIT, Wire};
use crate::gate::Gate;
use crate::world::{
    OWN, PREFIX, World, address, delete, flannel, in_a_namespace, leases, outage, put, put_peer, reached, until,
};

/// Of the agent's arguments: these tests are about the overlay.
const NO_PROXY: &[&str] = &["--proxy-mode", "none"];

#[test]
fn d47_nothing_is_removed_while_etcd_is_away_or_stands_still() {
    in_a_namespace(async || {
        let mut etcd = Etcd::start().await;
        let client = etcd.client().await;
        put_peer(&client, 1).await;
        put_peer(&client, 2).await;
        let mut world = World::start(&etcd.options.endpoints[0], NO_PROXY);
        world.ready().await;
        world.reaches(&[("10.244.1.0/24", &address(1)), ("10.244.2.0/24", &address(2))]).await;
        let key = world.key();

        etcd.stop();
        world.says("/readyz", "[!] store").await;
        world.nothing_changes_for(outage(600, 2)).await;
        assert!(world.get("/readyz").await.starts_with("HTTP/1.1 200"), "a ready node stays in service");
        etcd.resume().await;
        delete(&client, "subnets/10.244.1.0-24").await;
        put_peer(&client, 3).await;
        world.reaches(&[("10.244.2.0/24", &address(2)), ("10.244.3.0/24", &address(3))]).await;

        // The same of one that answers nobody and lets go of no connection.
        etcd.freeze();
        world.nothing_changes_for(outage(600, 2)).await;
        etcd.thaw();
        delete(&client, "subnets/10.244.2.0-24").await;
        put_peer(&client, 4).await;
        world.reaches(&[("10.244.3.0/24", &address(3)), ("10.244.4.0/24", &address(4))]).await;
        world.says("/readyz", "[+] store").await;
        assert_eq!(world.key(), key);
        assert!(leases(&client).await[&key].contains(OWN));
    });
}

#[test]
fn d59_nothing_is_removed_while_etcd_has_no_leader() {
    in_a_namespace(async || {
        let mut members = Etcd::start_members(3).await;
        let endpoints: Vec<String> = members.iter().map(|etcd| etcd.options.endpoints[0].clone()).collect();
        let client = members[0].client().await;
        put_peer(&client, 1).await;
        let mut world = World::start(&endpoints.join(","), NO_PROXY);
        world.ready().await;
        world.reaches(&[("10.244.1.0/24", &address(1))]).await;
        let key = world.key();

        let began = Instant::now();
        members[1].stop();
        members[2].stop();
        world.says("/readyz", "[!] store").await;
        world.nothing_changes_for(outage(60, 3).saturating_sub(began.elapsed()).max(Duration::from_secs(2))).await;
        assert!(world.get("/readyz").await.starts_with("HTTP/1.1 200"), "a ready node stays in service");
        members[1].spawn();
        members[2].spawn();
        members[0].answers().await;
        put_peer(&client, 2).await;
        delete(&client, "subnets/10.244.1.0-24").await;
        world.reaches(&[("10.244.2.0/24", &address(2))]).await;
        world.says("/readyz", "[+] store").await;
        assert_eq!(world.key(), key);
        assert!(leases(&client).await[&key].contains(OWN));
    });
}

/// flannel asks for the time to live of each lease at each event, and takes a lease of which it is not told for gone.
#[test]
fn d58b_failing_lease_look_ups_remove_no_peer() {
    in_a_namespace(async || {
        let etcd = Etcd::start().await;
        let client = etcd.client().await;
        put_peer(&client, 1).await;
        let gate = Gate::before(&etcd).await;
        let every_call = Some("/etcdserverpb.Lease/");
        gate.refuse(every_call);
        let mut world = World::start(&gate.url, NO_PROXY);
        world.says("/readyz", "cannot get an etcd lease: refused by the test").await;
        gate.refuse(None);
        world.ready().await;
        world.reaches(&[("10.244.1.0/24", &address(1))]).await;
        let key = world.key();

        gate.refuse(every_call);
        world.nothing_changes_for(outage(30, 2)).await;
        // What happens meanwhile is taken in all the same.
        put_peer(&client, 2).await;
        world.reaches(&[("10.244.1.0/24", &address(1)), ("10.244.2.0/24", &address(2))]).await;
        delete(&client, "subnets/10.244.1.0-24").await;
        world.reaches(&[("10.244.2.0/24", &address(2))]).await;
        assert!(leases(&client).await.contains_key(&key));
        let seen = gate.seen();
        assert!(seen.contains("/etcdserverpb.Lease/LeaseKeepAlive"), "{seen:?}");
        assert!(!seen.contains("/etcdserverpb.Lease/LeaseTimeToLive"), "nothing rests on it: {seen:?}");
    });
}

#[test]
fn d58_what_happened_before_a_compaction_is_applied_and_costs_little() {
    in_a_namespace(async || {
        let etcd = Etcd::start().await;
        let mut client = etcd.client().await;
        for n in 1..=3 {
            put_peer(&client, n).await;
        }
        let wire = Wire::to(&etcd).await;
        let mut world = World::start(&wire.url, NO_PROXY);
        world.ready().await;
        world.reaches(&[1, 2, 3].map(|n| (SUBNETS[n], ADDRESSES[n]))).await;
        let (key, gateway) = (world.key(), world.gateway());

        wire.cut();
        world.says("/readyz", "[!] store").await;
        delete(&client, "subnets/10.244.1.0-24").await;
        // Both of its attributes change.
        put(&client, "subnets/10.244.2.0-24", &flannel("198.18.1.22", 22)).await;
        put_peer(&client, 4).await;
        let before = client.get("x", None).await.unwrap().header().unwrap().revision();
        client.compact(before, None).await.unwrap();
        let used = world.processor();
        world.nothing_changes_for(Duration::from_secs(1)).await;
        wire.mend();
        world.reaches(&[(SUBNETS[2], "198.18.1.22"), (SUBNETS[3], ADDRESSES[3]), (SUBNETS[4], ADDRESSES[4])]).await;

        // A history that is always gone already is no reason to hurry.
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            put(&client, "subnets/10.244.4.0-24", &flannel(ADDRESSES[4], 4)).await;
            let now = client.get("x", None).await.unwrap().header().unwrap().revision();
            client.compact(now, None).await.unwrap();
            sleep(Duration::from_millis(200)).await;
        }
        let used = world.processor() - used;
        assert!(used < Duration::from_millis(500), "{used:?} of processor time");
        assert!(world.is_alive());
        assert_eq!((world.key(), world.gateway()), (key.clone(), gateway));
        assert_eq!(world.logged(&["lost the subnet"]) + world.logged(&["claimed again"]), 0, "{}", world.log());
        assert!(leases(&client).await[&key].contains(OWN));
    });
}

const SUBNETS: [&str; 5] = ["", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24", "10.244.4.0/24"];
const ADDRESSES: [&str; 5] = ["", "198.18.1.1", "198.18.1.2", "198.18.1.3", "198.18.1.4"];

/// After a reboot, while etcd is away: with a user there is no client before etcd has taken the user.
#[test]
fn d47_a_node_that_boots_without_etcd_reaches_its_last_known_peers_also_with_a_user() {
    in_a_namespace(async || {
        let mut etcd = Etcd::start().await;
        etcd.ask_for_users(&[("weft", "secret", true)]).await;
        let client = etcd.client().await;
        put_peer(&client, 2).await;
        etcd.stop();

        let login = ["--etcd-username", "weft", "--etcd-password", "secret"];
        let mut world = World::new(&etcd.options.endpoints[0], &[NO_PROXY, &login].concat());
        last_known().write(&world.path("state").join(FILE)).unwrap();
        world.start_agent();
        world.reaches(&[("10.244.1.0/24", &address(1))]).await;
        let ready = world.says("/readyz", "HTTP/1.1 200").await;
        assert!(ready.contains("going by what was last known") && ready.contains("Connection refused"), "{ready}");
        assert_eq!(world.gateway().as_deref(), Some("10.244.9.1/24"));
        world.nothing_changes_for(Duration::from_secs(1)).await;

        // etcd's first word counts: one peer is gone, another has come, and the subnet is claimed again.
        etcd.resume().await;
        world.reaches(&[("10.244.2.0/24", &address(2))]).await;
        let key = async || leases(&client).await.get("10.244.9.0-24").is_some_and(|value| value.contains(OWN));
        let deadline = Instant::now() + LIMIT;
        while !key().await {
            assert!(Instant::now() < deadline, "{:?}", leases(&client).await);
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(world.gateway().as_deref(), Some("10.244.9.1/24"));
        world.says("/readyz", "[+] store: connected").await;
    });
}

/// What node n0 knew a minute ago: it ran `10.244.9.0/24`, and there was one other node.
fn last_known() -> LastKnown {
    let lease = |key: &str, value: &str| {
        let (key, value) = (key.parse::<SubnetKey>().unwrap(), LeaseValue::parse(value.as_bytes()).unwrap());
        let (public_ips, backend) = (value.public_ips, value.backend);
        (key, Lease { key, public_ips, backend, node: None, create_revision: 1 })
    };
    let own = flannel(OWN, 9);
    LastKnown {
        node: "n0".parse().unwrap(),
        at: now() - 60,
        key: "10.244.9.0-24".parse().unwrap(),
        published: LeaseValue::parse(own.as_bytes()).unwrap(),
        config: NetConf::parse(br#"{"Network": "10.244.0.0/16"}"#).unwrap().0,
        leases: [lease("10.244.9.0-24", &own), lease("10.244.1.0-24", &flannel(&address(1), 1))].into(),
    }
}

/// The same with certificates that are not there yet: a file on a disk that is mounted later.
#[test]
fn d47_last_known_peers_are_reached_while_a_certificate_is_missing() {
    in_a_namespace(async || {
        let tls = ["--etcd-cafile", "/nonexistent/ca.crt"];
        let mut world = World::new("https://127.0.0.1:1", &[NO_PROXY, &tls].concat());
        last_known().write(&world.path("state").join(FILE)).unwrap();
        world.start_agent();
        world.reaches(&[("10.244.1.0/24", &address(1))]).await;
        let ready = world.says("/readyz", "HTTP/1.1 200").await;
        assert!(ready.contains("etcd-cafile /nonexistent/ca.crt"), "{ready}");
    });
}

#[test]
fn d55_a_wiped_store_gets_the_lease_of_a_running_node_back() {
    in_a_namespace(async || {
        let mut etcd = Etcd::start().await;
        let client = etcd.client().await;
        put_peer(&client, 1).await;
        let world = World::start(&etcd.options.endpoints[0], NO_PROXY);
        world.ready().await;
        world.reaches(&[("10.244.1.0/24", &address(1))]).await;
        let key = world.key();
        let said = leases(&client).await[&key].clone();
        etcd.wipe().await;
        let deadline = Instant::now() + LIMIT;
        while leases(&client).await.get(&key) != Some(&said) {
            assert!(Instant::now() < deadline, "{:?}", leases(&client).await);
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(world.key(), key);
        // It is the store's answer that it tells of.
        until(&1, || world.logged(&["WARN", &key, "claimed again"]))
            .await
            .unwrap_or_else(|_| panic!("{}", world.log()));
        // A store that says of nobody else that he is there has been read: that peer is gone.
        until(&true, || reached().is_empty()).await.unwrap();
        put_peer(&client, 2).await;
        world.reaches(&[("10.244.2.0/24", &address(2))]).await;
        let config = etcd.client().await.get(format!("{PREFIX}/config"), None).await.unwrap();
        assert_eq!(config.kvs().len(), 1, "the network configuration is there again");
    });
}

#[test]
fn d62_the_agent_says_what_is_wrong_with_its_login() {
    in_a_namespace(async || {
        let mut etcd = Etcd::start().await;
        etcd.ask_for_users(&[("weft", "secret", true)]).await;
        let login = ["--etcd-username", "weft", "--etcd-password", "wrong"];
        let mut world = World::start(&etcd.options.endpoints[0], &login);
        let said = world.says("/readyz", "check etcd-username weft and etcd-password").await;
        assert!(said.starts_with("HTTP/1.1 503") && said.contains("authentication failed"), "{said}");
        assert!(world.is_alive());
        // The password is changed to what the agent has: it goes on by itself.
        etcd.client().await.user_change_password("weft", "wrong").await.unwrap();
        world.ready().await;
    });
}
