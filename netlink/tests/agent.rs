//! The agent's connection and its subscription against the running kernel. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use weft_netlink::agent::{Connection, Event, Monitor};
use weft_netlink::netns::{NetNs, NetNsGuard};
use weft_netlink::{
    Address, Errno, Error, FdbEntry, LinkChange, LinkKind, MacAddr, Neighbour, NextHop, Route, RouteFilter, RouteKind,
    RouteSocket, Verb, Vxlan, delete_link,
};

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

/// Runs on this thread alone, so that everything opens its sockets in the thread's namespace.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), work).await.expect("within 30 s") })
}

fn vxlan() -> Vxlan {
    Vxlan {
        name: "flannel.1".into(),
        mac: None,
        mtu: None,
        vni: 1,
        port: 8472,
        underlay: None,
        local: Some("192.0.2.1".parse().unwrap()),
        learning: false,
        gbp: false,
        up: true,
    }
}

fn blackhole(n: u32) -> Route {
    let dst = IpNetwork::new(std::net::Ipv4Addr::from(0x0a00_0000 + (n << 8)).into(), 24).unwrap();
    Route { kind: RouteKind::Blackhole, ..Route::new(dst, 119) }
}

#[test]
fn what_is_written_is_what_is_read() {
    let (_netns, _home) = fresh();
    block_on(async {
        let kernel = Connection::open().unwrap();
        kernel.one(vxlan().create()).await.unwrap();
        let device = kernel.link("flannel.1").await.unwrap().unwrap();
        assert!(matches!(device.kind, LinkKind::Vxlan { vni: 1, port: 8472, .. }), "{device:?}");
        assert_eq!(kernel.link("absent").await.unwrap(), None);
        assert_eq!(kernel.links().await.unwrap().len(), 2);

        let link = device.index;
        // Without any address in the namespace there is no local table, and every gateway is invalid.
        kernel.one(Address::new(link, "10.244.1.0/32".parse().unwrap()).request(Verb::Create)).await.unwrap();
        let gateway: IpAddr = "10.244.2.0".parse().unwrap();
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let neighbour = Neighbour { link, ip: gateway, mac };
        let fdb = FdbEntry { link, mac, dst: "192.0.2.2".parse().unwrap() };
        let route = Route {
            next_hop: NextHop { link: Some(link), gateway: Some(gateway), onlink: true },
            ..Route::new("10.244.2.0/24".parse().unwrap(), 119)
        };
        let verdicts = kernel
            .run(vec![neighbour.request(Verb::Replace), fdb.request(Verb::Replace), route.request(Verb::Replace)])
            .await;
        verdicts.into_iter().collect::<Result<Vec<()>, Error>>().unwrap();
        assert_eq!(kernel.neighbours(link).await.unwrap(), [neighbour]);
        assert_eq!(kernel.fdb(link).await.unwrap(), [fdb]);
        let filter = RouteFilter { link: Some(link), protocol: Some(119), ..RouteFilter::default() };
        assert_eq!(kernel.routes(filter).await.unwrap(), [route]);
        assert!(kernel.addresses(Some(1)).await.unwrap().is_empty());
        let own = kernel.addresses(Some(link)).await.unwrap();
        assert!(own.iter().any(|address| address.network.to_string() == "10.244.1.0/32"), "{own:?}");
    });
}

#[test]
fn thousands_of_requests_each_with_its_verdict() {
    let (_netns, _home) = fresh();
    block_on(async {
        let kernel = Connection::open().unwrap();
        // Every third is there already.
        let present: Vec<_> = (0..3000).step_by(3).map(|n| blackhole(n).request(Verb::Create)).collect();
        assert!(kernel.run(present).await.iter().all(Result::is_ok));
        let all = (0..3000).map(|n| blackhole(n).request(Verb::Create)).collect();
        for (n, verdict) in (0..).zip(kernel.run(all).await) {
            match verdict {
                Ok(()) => assert_ne!(n % 3, 0),
                Err(error) => {
                    assert_eq!(n % 3, 0);
                    assert_eq!(error.errno(), Some(Errno::EEXIST));
                    assert!(error.to_string().contains(&blackhole(n).dst.to_string()), "{error}");
                }
            }
        }
        let filter = RouteFilter { protocol: Some(119), ..RouteFilter::default() };
        assert_eq!(kernel.routes(filter).await.unwrap().len(), 3000);
    });
}

#[test]
fn a_refusal_has_the_kernels_words() {
    let (_netns, _home) = fresh();
    block_on(async {
        let kernel = Connection::open().unwrap();
        kernel.one(vxlan().create()).await.unwrap();
        let link = kernel.link("flannel.1").await.unwrap().unwrap().index;
        let bad = Route {
            next_hop: NextHop { link: Some(link), gateway: Some("203.0.113.1".parse().unwrap()), onlink: false },
            ..Route::new("10.1.0.0/16".parse().unwrap(), 119)
        };
        let error = kernel.one(bad.request(Verb::Create)).await.unwrap_err().to_string();
        assert!(error.contains("Nexthop has invalid gateway"), "{error}");
    });
}

#[test]
fn events_tell_who_was_touched() {
    let (_netns, _home) = fresh();
    block_on(async {
        let mut monitor = Monitor::open().unwrap();
        let mut other = RouteSocket::open().unwrap();
        other.one(vxlan().create()).unwrap();
        let link = other.link("flannel.1").unwrap().unwrap().index;
        wait_for(&mut monitor, &Event::Link { index: link }).await;

        let neighbour = Neighbour { link, ip: "10.244.2.0".parse().unwrap(), mac: MacAddr([2, 0, 0, 0, 0, 1]) };
        other.one(neighbour.request(Verb::Replace)).unwrap();
        let ip = Some(neighbour.ip);
        wait_for(&mut monitor, &Event::Neighbour { link, ip, now: Some(neighbour) }).await;
        let fdb = FdbEntry { link, mac: neighbour.mac, dst: "192.0.2.2".parse().unwrap() };
        other.one(fdb.request(Verb::Replace)).unwrap();
        wait_for(&mut monitor, &Event::Fdb { link, entry: Some(fdb), is_there: true }).await;
        let address = Address::new(link, "10.244.1.0/32".parse().unwrap());
        other.one(address.request(Verb::Create)).unwrap();
        wait_for(&mut monitor, &Event::Address { link }).await;
        let route = Route {
            next_hop: NextHop { link: Some(link), gateway: Some(neighbour.ip), onlink: true },
            ..Route::new("10.244.2.0/24".parse().unwrap(), 119)
        };
        other.one(route.request(Verb::Create)).unwrap();
        let told = |is_there| Event::Route { link, route: Some(Box::new(route.clone())), is_there };
        wait_for(&mut monitor, &told(true)).await;
        for request in [route.request(Verb::Delete), fdb.request(Verb::Delete), neighbour.request(Verb::Delete)] {
            other.one(request).unwrap();
        }
        wait_for(&mut monitor, &told(false)).await;
        wait_for(&mut monitor, &Event::Fdb { link, entry: Some(fdb), is_there: false }).await;
        wait_for(&mut monitor, &Event::Neighbour { link, ip, now: None }).await;
        other.one(LinkChange::new(link).down().request()).unwrap();
        wait_for(&mut monitor, &Event::Link { index: link }).await;
        other.one(delete_link(link)).unwrap();
        wait_for(&mut monitor, &Event::Link { index: link }).await;
    });
}

#[test]
fn a_slow_reader_learns_that_it_lost_events() {
    let (_netns, _home) = fresh();
    block_on(async {
        let mut monitor = Monitor::open().unwrap();
        let mut other = RouteSocket::open().unwrap();
        // Far more than the queue and the socket hold, while nobody reads.
        for _ in 0..10 {
            other.all((0..3000).map(|n| blackhole(n).request(Verb::Create)).collect()).unwrap();
            other.all((0..3000).map(|n| blackhole(n).request(Verb::Delete)).collect()).unwrap();
        }
        wait_for(&mut monitor, &Event::Overrun).await;
    });
}

async fn wait_for(monitor: &mut Monitor, wanted: &Event) {
    while monitor.next().await.expect("the subscription goes on") != *wanted {}
}
