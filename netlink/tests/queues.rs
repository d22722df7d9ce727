//! Queues and redirections against the running kernel: what was written is what is read back.
//!
//! Each test has network namespaces of its own, without a name, gone with the test's thread. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use weft_netlink::netns::{NetNs, NetNsGuard};
use weft_netlink::{Ifb, LinkChange, LinkKind, LinkProbe, Redirect, RouteSocket, TokenBucket, delete_link};

/// A fresh network namespace with two ifb devices, entered by the calling thread until the guard goes.
fn two_devices() -> (NetNsGuard, RouteSocket, [u32; 2]) {
    let netns = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
        NetNs::current().unwrap()
    });
    let guard = netns.join().unwrap().guard().unwrap();
    let mut socket = RouteSocket::open().unwrap();
    let probe = LinkProbe::open().unwrap();
    let indexes = ["one", "two"].map(|name| {
        socket.one(Ifb { name: name.into(), mtu: Some(1400) }.create()).unwrap();
        probe.index(name).unwrap().unwrap()
    });
    (guard, socket, indexes)
}

#[test]
fn a_token_bucket_of_any_size_is_read_back() {
    let (_home, mut socket, [mut link, other]) = two_devices();
    let shown = socket.link(link).unwrap().unwrap();
    assert_eq!((shown.kind, shown.mtu, shown.up), (LinkKind::Other("ifb".into()), 1400, false));
    let sizes = [
        (1_250_000, 100_000, 131_250),
        (1, 1, 1),
        (125, u32::MAX, 2_000_000),
        (12_500_000, 1 << 29, 1 << 20),
        (u64::from(u32::MAX), 5000, 5000),
        (u64::from(u32::MAX) + 1, 1 << 29, u32::MAX),
        (125_000_000_000_000, u32::MAX, u32::MAX),
    ];
    for (rate, burst, limit) in sizes {
        let bucket = TokenBucket { rate, burst, limit };
        assert!(!socket.has_token_bucket(link, &bucket).unwrap(), "{bucket:?}");
        socket.one(bucket.create(link)).unwrap();
        assert!(socket.has_token_bucket(link, &bucket).unwrap(), "{bucket:?}");
        for else_ in [
            TokenBucket { rate: rate + 1, ..bucket },
            TokenBucket { limit: limit ^ 1, ..bucket },
            TokenBucket { burst: burst / 3, ..bucket },
        ] {
            // Of a burst that takes no time the kernel does not know how large it was.
            let tells = else_.rate != rate || else_.limit != limit || u64::from(burst) * 1_000_000 / rate > 10;
            assert!(!tells || !socket.has_token_bucket(link, &else_).unwrap(), "{bucket:?} is not {else_:?}");
        }
        assert!(!socket.has_token_bucket(other, &bucket).unwrap());
        socket.one(delete_link(link)).unwrap();
        assert!(socket.has_token_bucket(link, &bucket).is_err());
        socket.one(Ifb { name: "one".into(), mtu: None }.create()).unwrap();
        link = socket.link("one").unwrap().unwrap().index;
    }
}

#[test]
fn a_redirection_is_read_back() {
    let (_home, mut socket, [link, to]) = two_devices();
    let redirect = Redirect { link, to };
    assert!(!socket.has_redirect(&redirect).unwrap());
    let [hook, filter] = redirect.create();
    socket.one(hook).unwrap();
    assert!(!socket.has_redirect(&redirect).unwrap());
    socket.all(vec![filter, LinkChange::new(to).up().request()]).unwrap();
    assert!(socket.has_redirect(&redirect).unwrap());
    assert!(!socket.has_redirect(&Redirect { link, to: link }).unwrap());
    assert!(!socket.has_redirect(&Redirect { link: to, to }).unwrap());
    socket.one(delete_link(to)).unwrap();
    assert!(!socket.has_redirect(&redirect).unwrap());
}
