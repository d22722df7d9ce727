//! The agent's tables against the running kernel, with iproute2 and nft as those who interfere. Needs root.
#![expect(clippy::disallowed_methods, reason = "ip and nft play the other party")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Instant;

use weft::cluster::family::PerFamily;
use weft::cluster::model::Lease;
use weft::filter::plan::{FilterConfig, plan as plan_filter};
use weft::filter::table::FilterTable;
use weft::overlay::backend::{Device, End, LocalEnd, Vxlan, VxlanData};
use weft::overlay::peers::{Bounds, Local, PeerPlan, plan};
use weft::overlay::table::PeerTable;
use weft::reconcile::Reconciler;
use weft_netlink::agent::Connection;
use weft_netlink::netns::{NetNs, NetNsGuard};
use weft_netlink::{MacAddr, RouteSocket};

/// A fresh network namespace, entered by the calling thread until the guard goes.
fn fresh() -> (NetNs, NetNsGuard) {
    let netns = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
        NetNs::current().unwrap()
    });
    let netns = netns.join().unwrap();
    let guard = netns.guard().unwrap();
    (netns, guard)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Runs a command line in the thread's namespace, and returns what it prints.
fn sh(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn config() -> FilterConfig {
    FilterConfig {
        cluster: vec!["10.244.0.0/16".parse().unwrap(), "fd00:10:244::/56".parse().unwrap()],
        subnets: vec!["10.244.1.0/24".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()],
        masquerade: true,
    }
}

#[test]
fn the_rules_come_back_whatever_is_done_to_them_and_others_are_left_alone() {
    let (_netns, _home) = fresh();
    sh("nft add table inet foreign");
    sh("nft add chain inet foreign forward { type filter hook forward priority 0 ; policy drop ; }");
    let foreign = sh("nft list table inet foreign");
    block_on(async {
        let mut filter = Reconciler::new(FilterTable::open().unwrap());
        let desired = filter.table_mut().plan(plan_filter(&config()));
        let pass = filter.pass(&desired, Instant::now()).await.unwrap();
        assert_eq!((pass.updated, pass.failed.len()), (2, 0), "{pass:?}");
        // A chain that was made anew is listed last.
        let list = || ["forward", "postrouting"].map(|chain| sh(&format!("nft list chain inet weft {chain}"))).concat();
        let listed = list();
        assert!(
            listed.contains("ip6 saddr fd00:10:244::/56 ip6 daddr != ff00::/8 masquerade fully-random"),
            "{listed}"
        );
        assert_eq!(filter.pass(&desired, Instant::now()).await.unwrap().writes(), 0);

        let handle = |text: &str, rule: &str| {
            let line = text.lines().find(|line| line.contains(rule)).unwrap().to_owned();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        let with_handles = sh("nft -a list chain inet weft postrouting");
        let leave = handle(&with_handles, "a pod leaves");
        let comment = with_handles.lines().find(|line| line.contains("a pod leaves")).unwrap();
        let comment = comment.split('"').nth(1).unwrap();
        let same_comment = format!(
            "replace rule inet weft postrouting handle {leave} ip saddr 10.244.0.0/16 ip daddr 192.0.2.0/24 masquerade comment \"{comment}\"\n"
        );
        let script = std::env::temp_dir().join(format!("weft-kernel-test-{}.nft", std::process::id()));
        std::fs::write(&script, same_comment).unwrap();
        for damage in [
            format!("nft delete rule inet weft postrouting handle {leave}"),
            "nft insert rule inet weft forward drop".to_owned(),
            "nft flush chain inet weft postrouting".to_owned(),
            "nft delete chain inet weft forward".to_owned(),
            "nft delete table inet weft".to_owned(),
            "nft add chain inet weft stray".to_owned(),
            "nft add table inet weft { flags dormant ; }".to_owned(),
        ] {
            sh(&damage);
            let pass = filter.pass(&desired, Instant::now()).await.unwrap();
            assert!(pass.writes() > 0 && pass.failed.is_empty(), "{damage}: {pass:?}");
            assert_eq!(list(), listed, "after {damage}");
            assert!(!sh("nft list table inet weft").contains("dormant"), "after {damage}");
            assert!(!sh("nft list chains inet").contains("stray"), "after {damage}");
            assert_eq!(filter.pass(&desired, Instant::now()).await.unwrap().writes(), 0, "after {damage}");
        }
        // A rule with other content under the comment of ours.
        let leave = handle(&sh("nft -a list chain inet weft postrouting"), "a pod leaves");
        let text = std::fs::read_to_string(&script).unwrap();
        let (start, rest) = text.split_once("handle ").unwrap();
        std::fs::write(&script, format!("{start}handle {leave} {}", rest.split_once(' ').unwrap().1)).unwrap();
        sh(&format!("nft -f {}", script.display()));
        std::fs::remove_file(&script).unwrap();
        assert_ne!(list(), listed);
        let pass = filter.pass(&desired, Instant::now()).await.unwrap();
        assert_eq!(pass.repaired, 1, "{pass:?}");
        assert_eq!(list(), listed);

        // A new agent finds its rules and writes nothing.
        let mut successor = Reconciler::new(FilterTable::open().unwrap());
        let desired = successor.table_mut().plan(plan_filter(&config()));
        assert_eq!(successor.pass(&desired, Instant::now()).await.unwrap().writes(), 0);
    });
    assert_eq!(sh("nft list table inet foreign"), foreign);
}

fn peer(number: u8) -> Lease {
    Lease {
        key: format!("10.244.{number}.0-24").parse().unwrap(),
        public_ips: PerFamily { v4: Some(format!("192.0.2.{number}").parse().unwrap()), v6: None },
        backend: PerFamily {
            v4: Some(VxlanData { vni: Some(1), vtep_mac: MacAddr([2, 0, 0, 0, 0, number]) }),
            v6: None,
        }
        .into(),
        node: None,
        create_revision: i64::from(number),
    }
}

fn bounds() -> Bounds {
    Bounds { cluster: vec!["10.244.0.0/16".parse().unwrap()] }
}

/// A namespace with a VXLAN device; its index and the peers' reconciler.
fn overlay() -> (u32, PerFamily<LocalEnd>) {
    sh("ip link add flannel.1 type vxlan id 1 dstport 8472 local 192.0.2.1 nolearning");
    sh("ip link set flannel.1 up");
    sh("ip addr add 10.244.1.0/32 dev flannel.1");
    let link = RouteSocket::open().unwrap().link("flannel.1").unwrap().unwrap().index;
    let (address, public_ip) = ("10.244.1.0".parse().unwrap(), "192.0.2.1".parse().unwrap());
    // How the device is to be is of no matter here.
    let end = End { device: Device::None, address, public_ip, mtu: 1450 };
    (link, PerFamily { v4: Some(LocalEnd { end, link }), v6: None })
}

fn plan_peers(ends: &PerFamily<LocalEnd>, bounds: &Bounds, peers: &[&Lease]) -> PeerPlan {
    plan(Local { backend: &Vxlan::default(), ends, direct: &BTreeMap::new() }, bounds, peers)
}

#[test]
fn d43_foreign_routes_are_left_alone_and_flannels_are_taken_over() {
    let (_netns, _home) = fresh();
    let (link, local) = overlay();
    // flannel's: its own protocol number (none), on-link through the subnet's first address, of a peer that is gone.
    sh("ip route add 10.244.7.0/24 via 10.244.7.0 dev flannel.1 onlink");
    sh("ip neigh add 10.244.7.0 lladdr 02:00:00:00:00:07 dev flannel.1 nud permanent");
    sh("bridge fdb add 02:00:00:00:00:07 dev flannel.1 dst 192.0.2.7");
    // An administrator's, one of them in the place of a peer's.
    sh("ip route add 10.244.50.0/24 dev flannel.1 proto static scope link");
    sh("ip route add blackhole 10.244.3.0/24 proto static");
    let (two, three) = (peer(2), peer(3));
    block_on(async {
        let mut peers = Reconciler::new(PeerTable::new(Connection::open().unwrap()));
        peers.table_mut().set_devices(vec![link]);
        let plan = plan_peers(&local, &bounds(), &[&two, &three]);
        let pass = peers.pass(&plan.objects, Instant::now()).await.unwrap();
        assert_eq!(pass.deleted, 3, "what flannel left of the peer that is gone: {pass:?}");
        assert_eq!(pass.failed.len(), 1, "{pass:?}");
        assert!(pass.failed[0].0.to_string().contains("route 10.244.3.0/24"), "{pass:?}");
        let routes = sh("ip route");
        assert!(routes.contains("10.244.2.0/24 via 10.244.2.0 dev flannel.1 proto 119 onlink"), "{routes}");
        assert!(routes.contains("10.244.50.0/24 dev flannel.1 proto static"), "{routes}");
        assert!(routes.contains("blackhole 10.244.3.0/24 proto static"), "{routes}");
        assert!(!routes.contains("10.244.7.0"), "{routes}");

        // The way is free: at its time the route is tried again.
        sh("ip route del blackhole 10.244.3.0/24");
        let pass = peers.pass(&plan.objects, pass.retry_at.unwrap()).await.unwrap();
        assert_eq!((pass.updated, pass.failed.len()), (1, 0), "{pass:?}");

        let pass = peers.pass(&BTreeMap::new(), Instant::now()).await.unwrap();
        assert_eq!((pass.deleted, pass.failed.len()), (6, 0), "{pass:?}");
        let left = sh("ip route");
        assert!(left.contains("10.244.50.0/24 dev flannel.1 proto static") && !left.contains("proto 119"), "{left}");
        assert_eq!(sh("ip neigh show dev flannel.1"), "");
    });
}

#[test]
fn a_peer_that_moves_leaves_nothing_behind() {
    let (_netns, _home) = fresh();
    let (link, local) = overlay();
    block_on(async {
        let mut peers = Reconciler::new(PeerTable::new(Connection::open().unwrap()));
        peers.table_mut().set_devices(vec![link]);
        let before = peer(2);
        peers.pass(&plan_peers(&local, &bounds(), &[&before]).objects, Instant::now()).await.unwrap();
        // Another address, then another MAC, then both: each is one FDB entry afterwards.
        for (mac, ip) in [(2, 77), (3, 77), (4, 78)] {
            let moved = Lease {
                public_ips: PerFamily { v4: Some(format!("192.0.2.{ip}").parse().unwrap()), v6: None },
                backend: PerFamily {
                    v4: Some(VxlanData { vni: Some(1), vtep_mac: MacAddr([2, 0, 0, 0, 0, mac]) }),
                    v6: None,
                }
                .into(),
                ..peer(2)
            };
            let plan = plan_peers(&local, &bounds(), &[&moved]).objects;
            let pass = peers.pass(&plan, Instant::now()).await.unwrap();
            assert!(pass.failed.is_empty(), "{pass:?}");
            let fdb = sh("bridge fdb show dev flannel.1");
            let expected = format!("02:00:00:00:00:0{mac} dst 192.0.2.{ip} self permanent");
            assert_eq!(fdb.trim(), expected);
            let neighbours = sh("ip neigh show dev flannel.1");
            assert_eq!(neighbours.trim(), format!("10.244.2.0 lladdr 02:00:00:00:00:0{mac} PERMANENT"));
            assert_eq!(peers.pass(&plan, Instant::now()).await.unwrap().writes(), 0);
        }
    });
}
