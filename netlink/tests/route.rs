//! rtnetlink against the running kernel: what was written is what is read back.
//!
//! Each test has network namespaces of its own, without a name, gone with the test's thread. Needs root.
#![expect(clippy::disallowed_methods, reason = "iproute2 is a witness")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use weft_netlink::netns::{NetNs, NetNsGuard};
use weft_netlink::{
    Address, Bridge, BridgePort, Errno, FdbEntry, LinkChange, LinkKind, LinkProbe, MacAddr, Neighbour, NextHop, Route,
    RouteFilter, RouteKind, RouteScope, RouteSocket, Verb, Veth, VethPeer, Vxlan, delete_link,
};

const PROTOCOL: u8 = 119;

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

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn veth<'a>(name: &str, peer: &str) -> Veth<'a> {
    Veth {
        name: name.to_owned(),
        mac: None,
        mtu: None,
        index: None,
        up: false,
        master: None,
        peer: VethPeer { name: peer.to_owned(), mac: None, mtu: None, netns: None },
    }
}

#[test]
fn a_veth_whose_peer_is_born_elsewhere() {
    let (host, _home) = fresh();
    let mut in_host = RouteSocket::open().unwrap();
    in_host.one(Bridge { name: "br0".into(), mac: None, mtu: None, up: true }.create()).unwrap();
    let bridge = LinkProbe::open().unwrap().index("br0").unwrap().unwrap();

    let (_pod, _inside) = fresh();
    let mut in_pod = RouteSocket::open().unwrap();
    let (mac, peer_mac) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    let pair = Veth {
        mac: Some(mac),
        mtu: Some(1450),
        index: Some(7),
        up: true,
        peer: VethPeer { name: "veth0".into(), mac: Some(peer_mac), mtu: Some(1450), netns: Some(host.as_fd()) },
        ..veth("eth0", "veth0")
    };
    in_pod.one(pair.create()).unwrap();
    in_host
        .all(vec![
            LinkChange::new("veth0").master(bridge).up().alias("a pod").request(),
            BridgePort { link: "veth0".into(), hairpin: Some(true), isolated: Some(true) }.set(),
        ])
        .unwrap();

    let eth0 = in_pod.link("eth0").unwrap().unwrap();
    assert_eq!((eth0.index, eth0.mac, eth0.mtu, eth0.up, &eth0.kind), (7, Some(mac), 1450, true, &LinkKind::Veth));
    let veth0 = in_host.links().unwrap().into_iter().find(|link| link.name == "veth0").unwrap();
    assert_eq!((veth0.mac, veth0.mtu, veth0.master), (Some(peer_mac), 1450, Some(bridge)));
    assert_eq!((veth0.peer_index, veth0.alias.as_deref()), (Some(7), Some("a pod")));
    assert_eq!((veth0.hairpin, veth0.isolated), (Some(true), Some(true)));
    // iproute2 as the witness: one queue each way, on a machine that has more than one CPU.
    let shown = std::process::Command::new("ip").args(["-d", "link", "show", "eth0"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("numtxqueues 1 ") && shown.contains("numrxqueues 1 "), "{shown}");

    in_host.one(delete_link(veth0.index)).unwrap();
    assert!(in_pod.link("eth0").unwrap().is_none(), "deleting one end deletes the other");
}

#[test]
fn a_probe_sees_what_a_link_does() {
    let (_netns, _home) = fresh();
    let mut socket = RouteSocket::open().unwrap();
    let probe = LinkProbe::open().unwrap();
    assert_eq!(probe.index("veth0").unwrap(), None);
    assert!(probe.flags("veth0").unwrap().is_none());
    socket.one(Veth { up: true, ..veth("veth0", "veth1") }.create()).unwrap();
    assert!(probe.flags("veth0").unwrap().unwrap().up);
    assert!(!probe.flags("veth1").unwrap().unwrap().up);
    socket.one(LinkChange::new("veth1").up().request()).unwrap();
    // The kernel's link watch tells of the carrier a little later.
    let limit = Instant::now() + Duration::from_secs(5);
    while !probe.flags("veth0").unwrap().unwrap().running {
        assert!(Instant::now() < limit, "veth0 has a carrier and is not running");
    }
    let error = probe.index("a-name-of-16-byte").unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EINVAL));
}

#[test]
fn a_vxlan_device_with_every_attribute() {
    for local in ["192.0.2.1", "2001:db8::1"].map(ip) {
        let (_netns, _home) = fresh();
        let mut socket = RouteSocket::open().unwrap();
        socket.all(vec![veth("eth0", "peer0").create(), LinkChange::new("eth0").up().request()]).unwrap();
        let underlay = socket.link("eth0").unwrap().unwrap().index;
        let wanted = Vxlan {
            name: "flannel.1".into(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 9])),
            mtu: Some(1430),
            vni: 1,
            port: 8472,
            underlay: Some(underlay),
            local: Some(local),
            learning: false,
            gbp: true,
            up: true,
        };
        socket.one(wanted.create()).unwrap();
        let link = socket.link("flannel.1").unwrap().unwrap();
        assert_eq!(
            link.kind,
            LinkKind::Vxlan {
                vni: 1,
                port: 8472,
                underlay: Some(underlay),
                local: Some(local),
                learning: false,
                gbp: true
            }
        );
        assert_eq!((link.mac, link.mtu, link.up), (wanted.mac, 1430, true));

        // What the overlay does to it later.
        let mac = MacAddr([2, 0, 0, 0, 0, 10]);
        socket.one(LinkChange::new(link.index).mtu(1400).mac(mac).request()).unwrap();
        let link = socket.link(link.index).unwrap().unwrap();
        assert_eq!((link.mac, link.mtu), (Some(mac), 1400));

        // Another underlay and address, under a device that stays what it is, with its entries.
        let entry = FdbEntry { link: link.index, mac: MacAddr([2, 0, 0, 0, 0, 7]), dst: local };
        socket.all(vec![entry.request(Verb::Create), veth("eth1", "peer1").create()]).unwrap();
        let other = socket.link("eth1").unwrap().unwrap().index;
        let address = if local.is_ipv4() { ip("192.0.2.77") } else { ip("2001:db8::77") };
        let moved = Vxlan { underlay: Some(other), local: Some(address), learning: true, ..wanted };
        socket.one(moved.change(link.index)).unwrap();
        let after = socket.link(link.index).unwrap().unwrap();
        let LinkKind::Vxlan { vni, underlay, local: source, learning, gbp, .. } = after.kind else { panic!() };
        assert_eq!((vni, underlay, source, learning, gbp), (1, Some(other), Some(address), true, true));
        assert_eq!(socket.fdb(link.index).unwrap(), [entry]);
    }
}

#[test]
fn peers_of_both_families() {
    let (_netns, _home) = fresh();
    let mut socket = RouteSocket::open().unwrap();
    for (name, vni, local, subnet, own) in [
        ("flannel.1", 1, "192.0.2.1", "10.244.2.0/24", "10.244.1.0/32"),
        ("flannel-v6.1", 2, "2001:db8::1", "fd00:10:244:2::/64", "fd00:10:244:1::/128"),
    ] {
        let device = Vxlan {
            name: name.into(),
            mac: None,
            mtu: None,
            vni,
            port: 8472,
            underlay: None,
            local: Some(ip(local)),
            learning: false,
            gbp: false,
            up: true,
        };
        socket.one(device.create()).unwrap();
        let link = socket.link(name).unwrap().unwrap().index;
        let subnet = net(subnet);
        let mac = MacAddr([2, 0, 0, 0, 1, 1]);
        let neighbour = Neighbour { link, ip: subnet.network(), mac };
        let fdb = FdbEntry { link, mac, dst: if subnet.is_ipv4() { ip("192.0.2.2") } else { ip("2001:db8::2") } };
        let route = Route {
            next_hop: NextHop { link: Some(link), gateway: Some(subnet.network()), onlink: true },
            ..Route::new(subnet, PROTOCOL)
        };
        socket
            .all(vec![
                Address::new(link, net(own)).request(Verb::Create),
                neighbour.request(Verb::Replace),
                fdb.request(Verb::Replace),
                route.request(Verb::Replace),
            ])
            .unwrap();

        assert_eq!(socket.neighbours(link).unwrap(), [neighbour]);
        assert_eq!(socket.fdb(link).unwrap(), [fdb]);
        let filter = RouteFilter { link: Some(link), protocol: Some(PROTOCOL), ..RouteFilter::default() };
        let mut found = socket.routes(filter).unwrap();
        found.iter_mut().for_each(|route| route.priority = None); // IPv6 reports its default of 1024
        assert_eq!(found, std::slice::from_ref(&route));
        let address = socket.addresses(Some(link)).unwrap();
        let address = address.iter().find(|address| address.network == net(own)).unwrap();
        assert!(!address.tentative && address.permanent);

        // Once more is no error; deleted, they are gone; deleted again, the kernel says which was absent.
        socket.all(vec![neighbour.request(Verb::Replace), fdb.request(Verb::Replace)]).unwrap();
        socket
            .all(vec![route.request(Verb::Delete), fdb.request(Verb::Delete), neighbour.request(Verb::Delete)])
            .unwrap();
        assert!(socket.neighbours(link).unwrap().is_empty());
        assert!(socket.fdb(link).unwrap().is_empty());
        assert!(socket.routes(filter).unwrap().is_empty());
        for request in [route.request(Verb::Delete), fdb.request(Verb::Delete), neighbour.request(Verb::Delete)] {
            let error = socket.one(request).unwrap_err();
            assert!(error.is_absent(), "{error}");
        }
    }
}

#[test]
fn a_digest_is_another_after_each_change_and_the_same_without() {
    let (_netns, _home) = fresh();
    let mut socket = RouteSocket::open().unwrap();
    socket.one(Bridge { name: "br0".into(), mac: None, mtu: None, up: true }.create()).unwrap();
    let elsewhere = socket.link("br0").unwrap().unwrap().index;
    for (name, vni, local, remotes, subnet, own) in [
        ("flannel.1", 1, "192.0.2.1", ["192.0.2.2", "192.0.2.3"], "10.244.2.0/24", "10.244.1.0/32"),
        ("flannel-v6.1", 2, "2001:db8::1", ["2001:db8::2", "2001:db8::3"], "fd00:10:244:2::/64", "fd00:10:244:1::/128"),
    ] {
        let device = Vxlan {
            name: name.into(),
            mac: None,
            mtu: None,
            vni,
            port: 8472,
            underlay: None,
            local: Some(ip(local)),
            learning: false,
            gbp: false,
            up: true,
        };
        socket.one(device.create()).unwrap();
        let link = socket.link(name).unwrap().unwrap().index;
        socket.one(Address::new(link, net(own)).request(Verb::Create)).unwrap();
        let subnet = net(subnet);
        let macs = [MacAddr([2, 0, 0, 0, 1, 1]), MacAddr([2, 0, 0, 0, 1, 2])];
        let neighbour = |mac| Neighbour { link, ip: subnet.network(), mac }.request(Verb::Replace);
        let fdb = |remote: &str| FdbEntry { link, mac: macs[0], dst: ip(remote) };
        let next_hop = NextHop { link: Some(link), gateway: Some(subnet.network()), onlink: true };
        let route = |protocol| Route { next_hop, ..Route::new(subnet, protocol) };
        let changes = [
            neighbour(macs[0]),
            neighbour(macs[1]),
            fdb(remotes[0]).request(Verb::Replace),
            fdb(remotes[1]).request(Verb::Replace),
            route(PROTOCOL).request(Verb::Create),
            route(PROTOCOL).request(Verb::Delete),
            route(PROTOCOL + 1).request(Verb::Create),
            fdb(remotes[1]).request(Verb::Delete),
        ];
        let mut seen = vec![socket.digest(&[link]).unwrap()];
        for change in changes {
            socket.one(change).unwrap();
            let digest = socket.digest(&[link]).unwrap();
            assert_eq!(socket.digest(&[link]).unwrap(), digest);
            seen.push(digest);
        }
        assert_eq!(seen[4], seen[6], "a route that came and went leaves nothing");
        let distinct: std::collections::BTreeSet<u64> = seen.iter().copied().collect();
        assert_eq!(distinct.len(), seen.len() - 1, "{seen:?}");
        // What is behind another link is no concern of these.
        let before = socket.digest(&[link]).unwrap();
        socket.one(Neighbour { link: elsewhere, ip: ip("192.0.2.9"), mac: macs[0] }.request(Verb::Replace)).unwrap();
        assert_eq!(socket.digest(&[link]).unwrap(), before);
        assert_ne!(socket.digest(&[elsewhere]).unwrap(), socket.digest(&[]).unwrap());
    }
}

#[test]
fn routes_of_every_kind() {
    let (_netns, _home) = fresh();
    let mut socket = RouteSocket::open().unwrap();
    socket.one(LinkChange::new("lo").up().request()).unwrap();
    socket
        .all(vec![Veth { up: true, ..veth("eth0", "peer0") }.create(), LinkChange::new("peer0").up().request()])
        .unwrap();
    let eth0 = socket.link("eth0").unwrap().unwrap().index;
    socket.one(Address::new(eth0, net("192.0.2.1/24")).request(Verb::Create)).unwrap();
    let lo = 1;
    let base = |dst: &str| Route::new(net(dst), PROTOCOL);
    let routes = [
        Route { kind: RouteKind::Blackhole, ..base("10.1.0.0/16") },
        Route { kind: RouteKind::Unreachable, ..base("10.2.0.0/16") },
        Route {
            kind: RouteKind::Local,
            scope: RouteScope::Host,
            table: Route::LOCAL,
            src: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
            next_hop: NextHop { link: Some(lo), ..NextHop::default() },
            ..base("10.96.0.0/12")
        },
        Route {
            next_hop: NextHop { link: Some(eth0), gateway: Some(ip("192.0.2.9")), onlink: false },
            table: 1000,
            priority: Some(5),
            mtu: Some(1300),
            advmss: Some(1200),
            ..base("0.0.0.0/0")
        },
        Route {
            next_hop: NextHop { link: Some(eth0), ..NextHop::default() },
            scope: RouteScope::Link,
            ..base("10.3.0.0/16")
        },
        Route {
            next_hop: NextHop { link: Some(eth0), gateway: Some(ip("192.0.2.8")), onlink: false },
            further: vec![NextHop { link: Some(eth0), gateway: Some(ip("192.0.2.9")), onlink: false }],
            ..base("10.4.0.0/16")
        },
    ];
    socket.all(routes.iter().map(|route| route.request(Verb::Create)).collect()).unwrap();
    let mut found = socket.routes(RouteFilter { protocol: Some(PROTOCOL), ..RouteFilter::default() }).unwrap();
    let mut wanted = routes.to_vec();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);

    assert_eq!(socket.route_to(ip("10.3.0.1")).unwrap().next_hop.link, Some(eth0));
    let error = socket.route_to(ip("203.0.113.1")).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENETUNREACH));
}

#[test]
fn default_routes_are_found_among_others() {
    let (_netns, _home) = fresh();
    let mut socket = RouteSocket::open().unwrap();
    socket.one(Bridge { name: "br0".into(), mac: None, mtu: None, up: true }.create()).unwrap();
    let link = socket.link("br0").unwrap().unwrap().index;
    assert_eq!(socket.default_routes().unwrap(), []);
    let route = |to: &str, metric| Route {
        next_hop: NextHop { link: Some(link), gateway: None, onlink: false },
        priority: Some(metric),
        ..Route::new(net(to), PROTOCOL)
    };
    let wanted = [route("0.0.0.0/0", 100), route("0.0.0.0/0", 200), route("::/0", 300)];
    let others = [route("0.0.0.0/1", 100), route("10.0.0.0/8", 100), route("2001:db8::/32", 100)];
    socket.all(wanted.iter().chain(&others).map(|route| route.request(Verb::Create)).collect()).unwrap();
    socket.one(Route { table: 7, ..route("0.0.0.0/0", 400) }.request(Verb::Create)).unwrap();
    let found = socket.default_routes().unwrap();
    let of = |routes: &[Route]| routes.iter().map(|route| (route.dst, route.priority)).collect::<Vec<_>>();
    assert_eq!(of(&found), of(&wanted));
    assert!(found.iter().all(|route| route.next_hop.link == Some(link)), "{found:?}");
}

#[test]
fn a_refusal_names_its_request_and_spares_the_others() {
    let (_netns, _home) = fresh();
    let mut socket = RouteSocket::open().unwrap();
    socket.all(vec![Veth { up: true, ..veth("eth0", "peer0") }.create()]).unwrap();
    let eth0 = socket.link("eth0").unwrap().unwrap().index;
    let good = |third: u8| Route {
        next_hop: NextHop { link: Some(eth0), ..NextHop::default() },
        scope: RouteScope::Link,
        ..Route::new(net(&format!("10.0.{third}.0/24")), PROTOCOL)
    };
    let bad = Route {
        next_hop: NextHop { link: Some(eth0), gateway: Some(ip("203.0.113.1")), onlink: false },
        ..Route::new(net("10.1.0.0/16"), PROTOCOL)
    };
    // The pair's carrier is needed for the routes to be alive.
    socket.one(LinkChange::new("peer0").up().request()).unwrap();
    let verdicts = socket
        .run(vec![good(1).request(Verb::Create), bad.request(Verb::Create), good(2).request(Verb::Create)])
        .unwrap();
    assert_eq!(verdicts[0], Ok(()));
    assert_eq!(verdicts[2], Ok(()));
    let refusal = verdicts[1].clone().unwrap_err();
    assert_eq!(
        refusal.to_string(),
        format!(
            "create route 10.1.0.0/16 via 203.0.113.1 on link {eth0}: Network is unreachable (ENETUNREACH): \
                 Nexthop has invalid gateway"
        )
    );
}

#[test]
fn batches_larger_than_the_receive_buffer() {
    let (_netns, _home) = fresh();
    let mut socket = RouteSocket::open().unwrap();
    let routes: Vec<Route> = (0..3000u32)
        .map(|n| {
            let dst = IpNetwork::new(Ipv4Addr::from(0x0a00_0000 + (n << 8)).into(), 24).unwrap();
            Route { kind: RouteKind::Blackhole, ..Route::new(dst, PROTOCOL) }
        })
        .collect();
    let verdicts = socket.run(routes.iter().map(|route| route.request(Verb::Create)).collect()).unwrap();
    assert_eq!(verdicts.iter().filter(|verdict| verdict.is_ok()).count(), 3000);
    assert_eq!(socket.routes(RouteFilter { protocol: Some(PROTOCOL), ..RouteFilter::default() }).unwrap().len(), 3000);
    // All exist now: 3000 refusals, each with its text, arrive as well.
    let verdicts = socket.run(routes.iter().map(|route| route.request(Verb::Create)).collect()).unwrap();
    for (verdict, route) in verdicts.iter().zip(&routes) {
        let refusal = verdict.clone().unwrap_err();
        assert_eq!(refusal.errno, Errno::EEXIST);
        assert!(refusal.operation.contains(&route.dst.to_string()), "{refusal}");
    }
}

#[test]
fn a_dump_during_changes_is_whole() {
    let (netns, _home) = fresh();
    let mut socket = RouteSocket::open().unwrap();
    let blackhole = |n: u32| Route {
        kind: RouteKind::Blackhole,
        ..Route::new(IpNetwork::new(Ipv4Addr::from(0x0a00_0000 + (n << 8)).into(), 24).unwrap(), PROTOCOL)
    };
    socket.all((0..2000).map(|n| blackhole(n).request(Verb::Create)).collect()).unwrap();
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            netns.enter().unwrap();
            let mut socket = RouteSocket::open().unwrap();
            for _ in 0..200 {
                socket.one(blackhole(60_000).request(Verb::Create)).unwrap();
                socket.one(blackhole(60_000).request(Verb::Delete)).unwrap();
            }
        });
        let mut dumps = 0;
        while !churn.is_finished() || dumps == 0 {
            let found = socket.routes(RouteFilter { protocol: Some(PROTOCOL), ..RouteFilter::default() }).unwrap();
            assert!((2000..=2001).contains(&found.len()), "{} routes", found.len());
            dumps += 1;
        }
    });
}

#[test]
fn what_is_not_a_namespace_is_refused_without_waiting() {
    let folder = std::env::temp_dir().join(format!("weft-netns-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("file"), "").unwrap();
    nix::unistd::mkfifo(&folder.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (name, words) in
        [("file", "not a network namespace"), ("fifo", "not a network namespace"), ("absent", "No such file")]
    {
        let error = NetNs::open(folder.join(name)).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(name), "{error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_named_namespace_comes_and_goes() {
    let name = format!("weft-test-{}", std::process::id());
    let made = weft_netlink::netns::create(&name).unwrap();
    assert_eq!(made.id().unwrap(), NetNs::named(&name).unwrap().id().unwrap());
    assert_ne!(made.id().unwrap(), NetNs::current().unwrap().id().unwrap());
    assert!(weft_netlink::netns::names().unwrap().contains(&name));
    assert!(weft_netlink::netns::create(&name).unwrap_err().is_present());
    let links = made.run(|| RouteSocket::open().unwrap().links().unwrap().len()).unwrap();
    assert_eq!(links, 1, "a fresh namespace has its loopback and nothing else");
    weft_netlink::netns::delete(&name).unwrap();
    weft_netlink::netns::delete(&name).unwrap();
    assert!(!weft_netlink::netns::names().unwrap().contains(&name));
}
